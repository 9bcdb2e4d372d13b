//! Whom we trust, and where we speak without TLS.

use std::time::Duration;

use image::{HostConfig, Registries, TlsConfig};

use crate::{bed::*, common::*, line::*, made::*};

/// Makes authorities and certificates in `tls/`: `ca`, `server` for our addresses and `far.test`, `client`.
pub fn certificates(bed: &Bed) {
    sh(&format!(
        "mkdir {0}; cd {0}; exec 2>&1
         key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
         for ca in ca other; do
           openssl req -x509 $key -keyout $ca.key -out $ca.pem -days 30 -subj /CN=$ca
         done
         echo 'subjectAltName=IP:127.0.0.1,IP:{ELSEWHERE},DNS:far.test' > server.ext
         echo 'extendedKeyUsage=clientAuth' > client.ext
         for of in server client; do
           openssl req $key -keyout $of.key -out $of.csr -subj /CN=$of
           openssl x509 -req -in $of.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \\
             -extfile $of.ext -out $of.pem
         done",
        bed.path("tls").display()
    ));
}

/// A registry with TLS and the image `app:v1`.
pub fn registry(bed: &Bed, address: &str, more: &str) -> Registry {
    certificates(bed);
    let mut registry = bed.registry_at(address, "");
    saying(Form::Oci, "mine").push(address, "app", "v1");
    registry.stop();
    bed.registry_at(address, &section(bed, more))
}

fn section(bed: &Bed, more: &str) -> String {
    let path = |name: &str| bed.path("tls").join(name).display().to_string();
    let (certificate, key) = (path("server.pem"), path("server.key"));
    format!("  tls:\n    certificate: '{certificate}'\n    key: '{key}'\n{more}")
}

pub fn registries(address: &str, tls: TlsConfig) -> Registries {
    let mut registries = Registries::default();
    let host = HostConfig {
        tls,
        ..HostConfig::default()
    };
    registries.configs.insert(address.into(), host);
    registries
}

pub fn ca(bed: &Bed) -> TlsConfig {
    TlsConfig {
        ca_file: Some(bed.path("tls").join("ca.pem")),
        ..TlsConfig::default()
    }
}

/// What a pull with this configuration comes to; nothing of it stays.
fn attempt(bed: &Bed, text: &str, tls: TlsConfig) -> Result<(), String> {
    let address = text.split('/').next().unwrap_or_default();
    let store = bed.store_with(registries(address, tls));
    let outcome = match pull(&store, text) {
        Ok(_) => Ok(()),
        Err(error) => Err(failure(Err(error), text)),
    };
    drop(store);
    bed.forget();
    outcome
}

#[test]
fn only_known_authorities_are_trusted() {
    let bed = Bed::new("ca");
    for address in [REGISTRY, "10.77.0.1:5000"] {
        let _ = std::fs::remove_dir_all(bed.path("tls"));
        let registry = registry(&bed, address, "");
        let text = registry.name("app:v1");
        let error = attempt(&bed, &text, TlsConfig::default()).expect_err("unknown");
        // The kind of error that is not tried again.
        assert!(
            error.contains("certificate") && error.contains("authorities"),
            "{error}"
        );
        let other = TlsConfig {
            ca_file: Some(bed.path("tls").join("other.pem")),
            ..TlsConfig::default()
        };
        attempt(&bed, &text, other).expect_err("of another authority");
        attempt(&bed, &text, ca(&bed)).expect("of the own authority");
        let blind = TlsConfig {
            insecure_skip_verify: true,
            ..TlsConfig::default()
        };
        attempt(&bed, &text, blind).expect("whoever it is");
        for bad in ["none.pem", "ca.key"] {
            let tls = TlsConfig {
                ca_file: Some(bed.path("tls").join(bad)),
                ..TlsConfig::default()
            };
            let error = attempt(&bed, &text, tls).expect_err("no authority");
            assert!(error.contains(bad), "{error}");
        }
    }
}

#[test]
fn we_show_our_certificate_where_it_is_wanted() {
    let bed = Bed::new("client");
    let authority = bed.path("tls").join("ca.pem").display().to_string();
    let more = format!("    clientcas: ['{authority}']\n");
    let registry = registry(&bed, "10.77.0.1:5000", &more);
    let text = registry.name("app:v1");
    attempt(&bed, &text, ca(&bed)).expect_err("nobody");
    let path = |name: &str| Some(bed.path("tls").join(name));
    let known = TlsConfig {
        cert_file: path("client.pem"),
        key_file: path("client.key"),
        ..ca(&bed)
    };
    attempt(&bed, &text, known.clone()).expect("we are known");
    let half = TlsConfig {
        key_file: None,
        ..known
    };
    let error = attempt(&bed, &text, half).expect_err("half of it");
    assert!(error.contains("key_file"), "{error}");
}

#[test]
fn without_tls_only_on_the_machine_itself_or_when_configured() {
    let bed = Bed::new("plain");
    let registry = bed.registry_at("10.77.0.1:5000", "");
    saying(Form::Oci, "plain").push("10.77.0.1:5000", "app", "v1");
    let text = registry.name("app:v1");
    let line = Line::at("10.77.0.1:5001", &registry.address, |_| Fault::None);
    let error = attempt(&bed, &text, TlsConfig::default()).expect_err("no TLS there");
    assert!(error.contains("does not speak TLS"), "{error}");
    attempt(&bed, &line.name("app:v1"), TlsConfig::default()).expect_err("no TLS there");
    assert_eq!(line.seen().len(), 0, "nothing was asked in the open");
    let insecure = TlsConfig {
        insecure_skip_verify: true,
        ..TlsConfig::default()
    };
    attempt(&bed, &text, insecure).expect("configured");
}

#[test]
fn registries_may_have_ipv6_addresses() {
    let bed = Bed::new("ipv6");
    let registry = bed.registry_at("[::1]:5000", "");
    let made = saying(Form::Oci, "six");
    made.push("[::1]:5000", "app", "v1");
    let store = bed.store();
    let image = pull(&store, &registry.name("app:v1")).expect("an image");
    assert_eq!(image.id, made.id());
    let found = store.resolve(&reference("[::1]:5000/app:v1"));
    assert_eq!(found.expect("by name").id, made.id());
}

/// A registry with TLS on the machine itself that is down for a moment: the answer to that is not
/// to go on without TLS.
#[test]
fn a_registry_that_comes_back_is_still_spoken_to_with_tls() {
    let bed = Bed::new("back");
    let mut registry = registry(&bed, REGISTRY, "");
    registry.stop();
    let text = registry.name("app:v1");
    let tls = ca(&bed);
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| attempt(&bed, &text, tls));
        std::thread::sleep(Duration::from_millis(400));
        registry.start();
        pull.join().expect("no panic").expect("an image");
    });
}
