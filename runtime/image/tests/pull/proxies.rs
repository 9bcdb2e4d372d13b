//! Proxies that variables of the environment name, and what goes by without them.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{Mirror, Registries, TlsConfig};
use nix::sched::{CloneFlags, unshare};

use crate::{bed::*, child, common::*, line::*, made::*, tls, tunnel::Proxy};

/// Where the proxy is. It may be on the machine itself; what it leads to may not.
const PROXY: &str = "127.0.0.1:3128";
/// Where the registry is: a name would have to be known to the proxy alone.
const FAR: &str = "10.77.0.1:5000";

/// `far.test` is at this URL.
fn mirror(url: &str) -> Registries {
    let mut registries = Registries::default();
    let mirror = Mirror {
        endpoints: vec![url.into()],
    };
    registries.mirrors.insert("far.test".into(), mirror);
    registries
}

/// What the proxy wants to see of [`me`], and a URL that says it.
fn credentials() -> (Option<String>, String) {
    let basic = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
    let url = format!("http://me:{}@{PROXY}", PASSWORD.replace(':', "%3A"));
    (Some(basic), url)
}

/// What a pull of `far.test/app:v1` comes to; nothing of it stays.
fn attempt(
    bed: &Bed,
    registries: &Registries,
    variables: &[(&str, &str)],
) -> Result<String, String> {
    attempt_at(bed, "far.test", registries, variables)
}

fn attempt_at(
    bed: &Bed,
    registry: &str,
    registries: &Registries,
    variables: &[(&str, &str)],
) -> Result<String, String> {
    let name = format!("{registry}/app:v1");
    let outcome = child::pull(bed, &name, registries, variables).outcome();
    bed.forget();
    if let Err(error) = &outcome {
        for secret in [PASSWORD, "pass%3Aword", "me:"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
    outcome
}

#[test]
fn https_goes_through_a_tunnel_of_a_proxy_that_knows_us() {
    let bed = Bed::new("proxy-https");
    let _registry = tls::registry(&bed, FAR, "");
    let (wanted, url) = credentials();
    let proxy = Proxy::wanting(PROXY, FAR, wanted);
    let known = tls::registries("far.test", tls::ca(&bed));
    let id = attempt(&bed, &known, &[("HTTPS_PROXY", &url)]).expect("through the proxy");
    assert_eq!(id, saying(Form::Oci, "mine").id().to_string());
    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|what| what == "CONNECT far.test:443"),
        "{asked:?}"
    );

    // The variable of plain HTTP is another one, and nobody else knows the name.
    proxy.forget();
    attempt(
        &bed,
        &known,
        &[("HTTP_PROXY", &url), (child::CANCEL, "500")],
    )
    .expect_err("no such host");
    assert_eq!(proxy.asked().len(), 0);

    for wrong in [
        format!("http://me:other{}@{PROXY}", PASSWORD.replace(':', "%3A")),
        format!("http://{PROXY}"),
    ] {
        proxy.forget();
        let error = attempt(&bed, &known, &[("https_proxy", &wrong)]).expect_err("unknown");
        for part in ["far.test", PROXY, "407", "https_proxy takes its user"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(proxy.asked().len(), 1, "another attempt changes nothing");
    }
}

/// Most proxies make tunnels to port 443 alone.
#[test]
fn plain_http_is_asked_for_by_its_whole_url() {
    let bed = Bed::new("proxy-http");
    let _registry = bed.registry_at(FAR, "");
    let made = saying(Form::Oci, "far");
    made.push(FAR, "app", "v1");
    let line = Line::at("10.77.0.1:5001", FAR, |_| Fault::None);
    let (wanted, url) = credentials();
    // What the server sees, and what stays between us and the proxy.
    let proxy = Proxy::wanting(PROXY, &line.address, wanted);
    let registries = mirror("http://far.test:5000");
    let id = attempt(&bed, &registries, &[("HTTP_PROXY", &url)]).expect("through the proxy");
    assert_eq!(id, made.id().to_string());
    let asked = proxy.asked();
    let whole = "GET http://far.test:5000/v2/app/";
    assert!(
        asked.len() >= 3 && asked.iter().all(|what| what.starts_with(whole)),
        "{asked:?}"
    );
    assert_eq!(line.seen().len(), asked.len());
    for seen in line.seen() {
        assert_eq!(seen.head.get("host"), Some("far.test:5000"));
    }

    let insecure = tls::registries(
        FAR,
        TlsConfig {
            insecure_skip_verify: true,
            ..TlsConfig::default()
        },
    );
    let error = attempt_at(&bed, FAR, &insecure, &[("HTTP_PROXY", PROXY)]);
    let error = error.expect_err("unknown");
    for part in [FAR, PROXY, "407", "HTTP_PROXY takes its user"] {
        assert!(error.contains(part), "{error}");
    }

    // One that makes no tunnels does not tell whether TLS is spoken there.
    let proxy = Proxy::without_tunnels("127.0.0.1:3130", FAR);
    let variables = [("ALL_PROXY", "127.0.0.1:3130")];
    let id = attempt_at(&bed, FAR, &insecure, &variables).expect("without TLS");
    assert_eq!(id, made.id().to_string());
    assert_eq!(proxy.asked()[0], "CONNECT 10.77.0.1:5000");
    let error = attempt_at(&bed, FAR, &Registries::default(), &variables);
    let error = error.expect_err("not without TLS");
    for part in [FAR, "127.0.0.1:3130", "status 403", "NO_PROXY"] {
        assert!(error.contains(part), "{error}");
    }

    // One connection serves one request after the other.
    let proxy = Proxy::at("127.0.0.1:3129", FAR);
    let variables = [("http_proxy", "127.0.0.1:3129")];
    let id = attempt(&bed, &registries, &variables).expect("through the proxy");
    assert_eq!(id, made.id().to_string());
    let (connections, asked) = (proxy.connections(), proxy.asked().len());
    assert!(connections < asked, "{connections} for {asked}");
}

#[test]
fn what_is_excepted_or_near_is_reached_directly() {
    let bed = Bed::new("proxy-except");
    let _registry = bed.registry_at(FAR, "");
    let _near = bed.registry();
    let made = saying(Form::Oci, "far");
    made.push(FAR, "app", "v1");
    made.push(REGISTRY, "app", "v1");
    let proxy = Proxy::at(PROXY, FAR);
    // Names that can be reached without the proxy, for this test's thread and its programs.
    let hosts = bed.path("hosts");
    fs::write(
        &hosts,
        format!("127.0.0.1 localhost\n{ELSEWHERE} near.test r.near.test\n"),
    )
    .expect("a file");
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    sh(&format!(
        "mount --make-rprivate /; mount --bind {} /etc/hosts",
        hosts.display()
    ));
    for (url, except, directly) in [
        ("http://10.77.0.1:5000", "", false),
        ("http://10.77.0.1:5000", "192.0.2.1 , 10.77.0.0/16", true),
        ("http://10.77.0.1:5000", "10.78.0.0/16", false),
        ("http://r.near.test:5000", "near.test", true),
        ("http://r.near.test:5000", ".near.test:5000", true),
        ("http://r.near.test:5000", ".near.test:443", false),
        ("http://near.test:5000", ".near.test", false),
        ("http://near.test:5000", "*", true),
        ("http://127.0.0.1:5000", "", true),
        ("http://localhost:5000", "", true),
    ] {
        proxy.forget();
        let variables = [("ALL_PROXY", "http://127.0.0.1:3128"), ("NO_PROXY", except)];
        let id = attempt(&bed, &mirror(url), &variables).expect(url);
        assert_eq!(id, made.id().to_string());
        let asked = proxy.asked();
        assert_eq!(asked.is_empty(), directly, "{url} {except}: {asked:?}");
    }
}

/// The URL of each request counts, and not that of the first.
#[test]
fn a_redirect_is_followed_by_its_own_way() {
    let bed = Bed::new("proxy-redirect");
    let _registry = bed.registry_at(FAR, "");
    let made = saying(Form::Oci, "far");
    made.push(FAR, "app", "v1");
    let sending = |address: &str, to: &'static str| {
        Line::at(address, FAR, move |seen| match seen.is_blob() {
            true => {
                let to = format!("{to}{}?moved", seen.path());
                Fault::Answer(307, vec![("location", to)], vec![])
            }
            false => Fault::None,
        })
    };
    let moved = |proxy: &Proxy| {
        let asked = proxy.asked();
        let moved = asked.iter().filter(|what| what.ends_with("?moved"));
        (moved.count(), asked.len())
    };

    // From behind the proxy to a host that is excepted.
    let far = sending("10.77.0.1:5001", "http://10.77.0.1:9000");
    let storage = Line::at("10.77.0.1:9000", FAR, |_| Fault::None);
    let proxy = Proxy::at(PROXY, &far.address);
    let variables = [
        ("HTTP_PROXY", "http://127.0.0.1:3128"),
        ("NO_PROXY", "10.77.0.1:9000"),
    ];
    let id = attempt(&bed, &mirror("http://far.test"), &variables);
    assert_eq!(id.expect("an image"), made.id().to_string());
    assert_eq!(moved(&proxy), (0, far.seen().len()));
    assert_eq!(storage.seen().len(), 2);

    // From a host that is excepted to behind the proxy.
    let near = sending("10.77.0.1:5002", "http://far.test");
    let proxy = Proxy::at("127.0.0.1:3129", FAR);
    let variables = [
        ("HTTP_PROXY", "http://127.0.0.1:3129"),
        ("NO_PROXY", "10.77.0.1"),
    ];
    let id = attempt(&bed, &mirror("http://10.77.0.1:5002"), &variables);
    assert_eq!(id.expect("an image"), made.id().to_string());
    assert_eq!(moved(&proxy), (2, 2));
    assert!(near.seen().len() >= 3);
}

#[test]
fn a_variable_that_names_no_proxy_is_an_error() {
    let bed = Bed::new("proxy-bad");
    let text = "socks5://me:secret@127.0.0.1:1080";
    let error = attempt(&bed, &Registries::default(), &[("HTTPS_PROXY", text)]);
    let error = error.expect_err("no proxy");
    for part in ["far.test", "HTTPS_PROXY", "http://USER:PASSWORD@PROXY:PORT"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("secret"), "{error}");
}
