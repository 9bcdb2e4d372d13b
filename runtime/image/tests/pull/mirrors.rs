//! Other places that have what a registry has, and where registries send us.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{Credentials, HostConfig, Mirror, Registries};

use crate::{bed::*, common::*, line::*, made::*};

const MIRROR: &str = "127.0.0.1:5003";

fn registries() -> Registries {
    let mut registries = Registries::default();
    let mirror = Mirror {
        endpoints: vec![format!("http://{MIRROR}/")],
    };
    registries.mirrors.insert(LINE.into(), mirror);
    registries
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let bed = Bed::new("mirror");
    let _registry = bed.registry();
    let made = saying(Form::Oci, "both");
    made.push(REGISTRY, "team/app", "v1");
    let line = Line::to(REGISTRY, |_| Fault::None);
    let text = line.name("team/app:v1");
    let again = || {
        line.forget();
        bed.forget();
        bed.store_with(registries())
    };

    // It has all.
    let mirror = Line::at(MIRROR, REGISTRY, |_| Fault::None);
    pull(&again(), &text).expect("from the mirror");
    assert_eq!(line.seen().len(), 0);
    let asked = mirror.seen();
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .iter()
            .all(|seen| seen.path().ends_with(&format!("?ns={LINE}")))
    );
    drop(mirror);

    // Nobody is there; it has nothing; it has not all; it is ill; it wants to know who we are.
    let mirror = |judge: fn(&Seen) -> Fault| Line::at(MIRROR, REGISTRY, judge);
    pull(&again(), &text).expect("from the registry");
    assert_eq!(line.seen().len(), 3);
    for (judge, there, here) in [
        (
            (|_| Fault::Answer(404, vec![], vec![])) as fn(&Seen) -> Fault,
            3,
            3,
        ),
        (
            |seen| {
                if seen.is_blob() {
                    Fault::Answer(404, vec![], vec![])
                } else {
                    Fault::None
                }
            },
            3,
            2,
        ),
        (|_| Fault::Answer(500, vec![], vec![]), 3, 3),
        (
            |_| {
                Fault::Answer(
                    401,
                    vec![("www-authenticate", "Basic realm=x".into())],
                    vec![],
                )
            },
            3,
            3,
        ),
        (|_| Fault::Hangup, 3, 3),
    ] {
        let mirror = mirror(judge);
        let image = pull(&again(), &text).expect("from the registry");
        assert_eq!(image.id, made.id());
        assert_eq!((mirror.seen().len(), line.seen().len()), (there, here));
    }
    // What it has is not what was asked for.
    let digest = line.name(&format!("team/app@{}", made.digest()));
    let bad = mirror(|_| Fault::Body(|_| b"something else".to_vec()));
    pull(&again(), &digest).expect("from the registry");
    drop(bad);
    bed.is_clean(1, 0);
}

/// A mirror with a bad copy of a layer must not keep the image from us.
#[test]
fn a_damaged_mirror_is_left() {
    let bed = Bed::new("damaged-mirror");
    let _registry = bed.registry();
    let made = large(2, 300_000);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |_| Fault::None);
    for judge in [
        // Another byte; too short, and always; too long.
        (|seen| {
            if seen.is_blob() {
                Fault::Body(flipped)
            } else {
                Fault::None
            }
        }) as fn(&Seen) -> _,
        |seen| {
            if seen.is_blob() {
                Fault::Cut(100_000usize.saturating_sub(seen.offset() as usize))
            } else {
                Fault::None
            }
        },
        |seen| {
            if seen.is_blob() {
                Fault::Body(longer)
            } else {
                Fault::None
            }
        },
    ] {
        // Its documents are verified at once; so only layers count here.
        let config = made.id().to_string();
        let mirror = Line::at(MIRROR, REGISTRY, move |seen| {
            match seen.path().contains(&config) {
                true => Fault::None,
                false => judge(seen),
            }
        });
        bed.forget();
        let store = bed.store_with(registries());
        let image = pull(&store, &line.name("app:v1")).expect("from the registry");
        assert_eq!(image.id, made.id());
        assert!(mirror.seen().len() >= 3);
        bed.is_clean(2, 0);
    }
}

/// What is too large for us is that wherever it comes from.
#[test]
fn a_mirror_is_not_to_blame_for_our_limits() {
    let bed = Bed::new("limited-mirror");
    let _registry = bed.registry();
    // Small until it is decompressed.
    let made = Made::new(Form::Oci, &[tar_of(&[("zeros", &[0; 300_000])])], gzip);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |_| Fault::None);
    let mirror = Line::at(MIRROR, REGISTRY, |_| Fault::None);
    let mut options = image::Options {
        registries: registries(),
        ..image::Options::default()
    };
    options.limits.bytes = 100_000;
    let store = open_store(bed.path("store"), options);
    let error = pull(&store, &line.name("app:v1")).expect_err("too large");
    let image::ImageError::Layer { source, .. } = error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("limit"), "{source}");
    assert_eq!(mirror.offsets(&made.blob(0)), [0]);
    assert_eq!(line.offsets(&made.blob(0)), [0u64; 0]);
}

fn flipped(mut body: Vec<u8>) -> Vec<u8> {
    let middle = body.len() / 2;
    body[middle] ^= 1;
    body
}

fn longer(mut body: Vec<u8>) -> Vec<u8> {
    body.extend([0; 1000]);
    body
}

#[test]
fn a_mirror_never_sees_the_credentials_of_the_task() {
    let bed = Bed::new("mirror-secret");
    let _registry = bed.registry();
    saying(Form::Oci, "mine").push(REGISTRY, "app", "v1");
    let wants = |_: &Seen| {
        Fault::Answer(
            401,
            vec![("www-authenticate", "Basic realm=\"me\"".into())],
            vec![],
        )
    };
    let mirror = Line::at(MIRROR, REGISTRY, wants);
    // The registry wants them.
    let expected = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
    let line = Line::to(REGISTRY, move |seen| match seen.head.get("authorization") {
        Some(shown) if shown == expected => Fault::None,
        _ => wants(seen),
    });
    let text = line.name("app:v1");
    let store = bed.store_with(registries());
    store
        .pull(&name(&text), &with(me()))
        .expect("from the registry");
    let secrets = |line: &Line| {
        line.seen()
            .iter()
            .filter(|seen| seen.head.get("authorization").is_some())
            .count()
    };
    assert!(secrets(&line) > 0 && mirror.seen().len() >= 3);
    assert_eq!(secrets(&mirror), 0);

    // Its own it gets.
    let mut registries = registries();
    let own = Credentials {
        username: "mirror".into(),
        ..me()
    };
    let host = HostConfig {
        auth: Some(own),
        ..HostConfig::default()
    };
    registries.configs.insert(MIRROR.into(), host);
    drop(store);
    bed.forget();
    mirror.forget();
    let store = bed.store_with(registries);
    store
        .pull(&name(&text), &with(me()))
        .expect("from the registry");
    let expected = format!("Basic {}", STANDARD.encode(format!("mirror:{PASSWORD}")));
    let shown: Vec<_> = mirror
        .seen()
        .iter()
        .filter_map(|seen| seen.head.get("authorization").map(str::to_owned))
        .collect();
    assert!(
        !shown.is_empty() && shown.iter().all(|s| *s == expected),
        "{shown:?}"
    );
}

/// Registries keep blobs on other hosts, which have no business with who we are.
#[test]
fn a_redirect_to_another_host_takes_no_credentials_along() {
    let bed = Bed::new("redirect");
    let _registry = bed.registry();
    let made = saying(Form::Oci, "mine");
    made.push(REGISTRY, "app", "v1");
    let storage = Line::at("10.77.0.1:9000", REGISTRY, |_| Fault::None);
    let expected = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
    let line = Line::to(REGISTRY, move |seen| {
        if seen.head.get("authorization") != Some(&expected) {
            let wants = "Basic realm=\"me\"".to_owned();
            return Fault::Answer(401, vec![("www-authenticate", wants)], vec![]);
        }
        match seen.is_blob() {
            true => {
                let to = format!("http://10.77.0.1:9000{}", seen.path());
                Fault::Answer(307, vec![("location", to)], vec![])
            }
            false => Fault::None,
        }
    });
    let text = line.name("app:v1");
    let store = bed.store();
    let image = store.pull(&name(&text), &with(me())).expect("an image");
    assert_eq!(image.id, made.id());
    let moved = storage.seen();
    assert_eq!(moved.len(), 2);
    assert!(
        moved
            .iter()
            .all(|seen| seen.head.get("authorization").is_none())
    );
    bed.is_clean(1, 0);

    // Nor when it asks for them, nor to where it says that tokens are.
    drop(storage);
    for challenge in [
        "Basic realm=\"me\"",
        "Bearer realm=\"http://10.77.0.1:9001/token\"",
    ] {
        let tokens = Line::at("10.77.0.1:9001", REGISTRY, |_| {
            Fault::Answer(200, vec![], br#"{"token": "x"}"#.to_vec())
        });
        let storage = Line::at("10.77.0.1:9000", REGISTRY, move |_| {
            Fault::Answer(401, vec![("www-authenticate", challenge.into())], vec![])
        });
        bed.forget();
        let store = bed.store();
        let error = failure(store.pull(&name(&text), &with(me())), &text);
        assert!(error.contains("access denied"), "{error}");
        for seen in storage.seen().iter().chain(&tokens.seen()) {
            assert!(seen.head.get("authorization").is_none(), "{seen:?}");
        }
        assert_eq!(tokens.seen().len(), 0);
    }
}

/// Another port of the same host is somebody else; the same server at another path is not.
#[test]
fn a_redirect_to_another_port_does_not_learn_who_we_are() {
    let bed = Bed::new("redirect-port");
    let _registry = bed.registry();
    let made = saying(Form::Oci, "mine");
    made.push(REGISTRY, "app", "v1");
    let expected = format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")));
    let other = Line::at("127.0.0.1:9000", REGISTRY, |_| Fault::None);
    for (to, elsewhere) in [("127.0.0.1:9000", 2), (LINE, 0)] {
        other.forget();
        let expected = expected.clone();
        let line = Line::to(REGISTRY, move |seen| {
            if seen.head.get("authorization") != Some(&expected) {
                let wants = "Basic realm=\"me\"".to_owned();
                return Fault::Answer(401, vec![("www-authenticate", wants)], vec![]);
            }
            match seen.is_blob() && !seen.path().ends_with("?moved") {
                true => {
                    let to = format!("http://{to}{}?moved", seen.path());
                    Fault::Answer(307, vec![("location", to)], vec![])
                }
                false => Fault::None,
            }
        });
        let store = bed.store();
        let image = store.pull(&name(&line.name("app:v1")), &with(me()));
        assert_eq!(image.expect("an image").id, made.id());
        let seen = other.seen();
        assert_eq!(seen.len(), elsewhere);
        let told = |seen: &Seen| seen.head.get("authorization").is_some();
        assert!(!seen.iter().any(told), "{seen:?}");
        drop(store);
        bed.forget();
    }
}
