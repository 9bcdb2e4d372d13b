//! Lines and servers that fail while a blob is on its way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use image::Digest;

use crate::{bed::*, line::*, made::*};

/// Judges only requests for one blob, which are counted from 0.
fn of_blob(
    blob: Digest,
    judge: impl Fn(usize, &Seen) -> Fault + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Fault + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |seen| match seen.path().ends_with(&format!("/blobs/{blob}")) {
        true => judge(count.fetch_add(1, Ordering::SeqCst), seen),
        false => Fault::None,
    }
}

/// A registry with an image of one layer of `size` bytes that cannot be compressed.
fn noisy(bed: &Bed, size: usize) -> (Registry, Made) {
    let registry = bed.registry();
    let made = large(1, size);
    made.push(REGISTRY, "app", "v1");
    (registry, made)
}

const SIZE: usize = 2_000_000;

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let bed = Bed::new("cut");
    let (_registry, made) = noisy(&bed, SIZE);
    let cuts = of_blob(made.blob(0), |count, _| match count {
        0 => Fault::Cut(700_000),
        1 => Fault::Hangup,
        2 => Fault::Cut(1),
        3 => Fault::Cut(300_000),
        _ => Fault::None,
    });
    let line = Line::to(REGISTRY, cuts);
    let store = bed.store();
    let image = pull(&store, &line.name("app:v1")).expect("an image");
    assert_eq!(image.id, made.id());
    let asked = line.offsets(&made.blob(0));
    assert_eq!(
        asked,
        [0, 700_000, 700_000, 700_001, 1_000_001],
        "no byte comes twice"
    );
    bed.is_clean(1, 0);
}

#[test]
fn a_server_that_cannot_begin_in_the_middle_begins_again() {
    let bed = Bed::new("no-range");
    let (_registry, made) = noisy(&bed, SIZE);
    for fault in [
        (|| Fault::Whole) as fn() -> Fault,
        || Fault::Header("content-range", "bytes 5-9/10".into()),
        || Fault::Header("content-range", "nonsense".into()),
    ] {
        let judge = of_blob(made.blob(0), move |count, seen| {
            match (count, seen.offset()) {
                (0, _) => Fault::Cut(900_000),
                (_, 0) => Fault::None,
                _ => fault(),
            }
        });
        let line = Line::to(REGISTRY, judge);
        let store = bed.store();
        let image = pull(&store, &line.name("app:v1")).expect("an image");
        assert_eq!(image.id, made.id());
        assert_eq!(line.offsets(&made.blob(0))[..2], [0, 900_000]);
        bed.is_clean(1, 0);
        drop(store);
        bed.forget();
    }
}

/// What the registry has is not what the manifest promises. Nothing of it stays, and when it is
/// repaired the next pull works.
#[test]
fn a_wrong_blob_is_an_error_and_leaves_nothing() {
    let bed = Bed::new("wrong");
    let (_registry, made) = noisy(&bed, SIZE);
    let config = made.id();
    let store = bed.store();
    for (change, says) in [
        (
            (|mut body: Vec<u8>| {
                body[1_000_000] ^= 1;
                body
            }) as fn(Vec<u8>) -> Vec<u8>,
            "digest",
        ),
        (|body| [body, vec![0; 10]].concat(), "longer"),
        (
            |body| body[..body.len().saturating_sub(1000)].to_vec(),
            "it ended after",
        ),
    ] {
        {
            let line = Line::to(
                REGISTRY,
                of_blob(made.blob(0), move |_, _| Fault::Body(change)),
            );
            let text = line.name("app:v1");
            let error = failure(pull(&store, &text), &text);
            assert!(error.contains(says), "{error}");
            assert_eq!(store.images().expect("images"), []);
        }
        let line = Line::to(REGISTRY, |_| Fault::None);
        pull(&store, &line.name("app:v1")).expect("an image");
        bed.is_clean(1, 0);
        assert!(store.remove_image(&config).expect("removed"));
        store.gc().expect("collected");
    }
    // A flipped byte is found at the end only; what came is no good then, and goes.
    let flip = |mut body: Vec<u8>| {
        body[0] ^= 1;
        body
    };
    let line = Line::to(
        REGISTRY,
        of_blob(made.blob(0), move |_, _| Fault::Body(flip)),
    );
    let text = line.name("app:v1");
    failure(pull(&store, &text), &text);
    bed.is_clean(0, 0);
}

#[test]
fn documents_that_are_not_what_was_asked_for_are_refused() {
    let bed = Bed::new("documents");
    let (_registry, made) = noisy(&bed, 1000);
    let store = bed.store();
    let spoil = |part: String| {
        Line::to(REGISTRY, move |seen| match seen.path().contains(&part) {
            // Valid JSON still.
            true => Fault::Body(|body| [body, b"\n".to_vec()].concat()),
            false => Fault::None,
        })
    };
    {
        let line = spoil("/manifests/".into());
        // By digest, and by tag: the registry's own word for it is a digest too.
        for text in [
            line.name(&format!("app@{}", made.digest())),
            line.name("app:v1"),
        ] {
            let error = failure(pull(&store, &text), &text);
            assert!(
                error.contains("/manifests/") && error.contains("expected"),
                "{error}"
            );
        }
    }
    {
        let line = spoil(made.id().to_string());
        let text = line.name("app:v1");
        let error = failure(pull(&store, &text), &text);
        assert!(
            error.contains(&made.id().to_string()) && error.contains("expected"),
            "{error}"
        );
    }
    bed.is_clean(0, 0);

    // Sizes that the manifest has wrong.
    for (part, size, says) in [
        ("/config/size", 10, "what refers to it says 10"),
        (
            "/layers/0/size",
            65_u64 << 30,
            "at most 68719476736 are allowed",
        ),
        ("/layers/0/size", 1_000_000, "bytes"),
        ("/layers/0/size", 10, "longer"),
        ("/layers/0/size", 0, "digest"),
    ] {
        let mut wrong = made.clone();
        *wrong.manifest.pointer_mut(part).expect(part) = size.into();
        wrong.push(REGISTRY, "app", "wrong");
        let text = format!("{REGISTRY}/app:wrong");
        let error = failure(pull(&store, &text), &text);
        assert!(error.contains(says), "{error}");
        assert_eq!(store.images().expect("images"), []);
    }
    // The right one is not hurt by what came of the wrong ones.
    pull(&store, &format!("{REGISTRY}/app:v1")).expect("an image");
    bed.is_clean(1, 0);
}

/// Endless documents.
#[test]
fn a_document_has_a_limit() {
    let bed = Bed::new("endless");
    let _registry = bed.registry();
    let line = Line::to(REGISTRY, |_| {
        Fault::Answer(200, vec![], vec![b' '; 17 << 20])
    });
    let text = line.name("app:v1");
    let error = failure(pull(&bed.store(), &text), &text);
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn a_slow_server_is_waited_for() {
    let bed = Bed::new("slow");
    let (_registry, made) = noisy(&bed, 60_000);
    let slow = |_: usize, _: &Seen| Fault::Slow(3000, Duration::from_millis(50));
    let line = Line::to(REGISTRY, of_blob(made.blob(0), slow));
    let store = bed.store();
    pull(&store, &line.name("app:v1")).expect("an image");
    assert_eq!(line.offsets(&made.blob(0)), [0]);
}

#[test]
fn a_registry_that_dies_and_comes_back_is_gone_on_with() {
    let bed = Bed::new("killed-registry");
    // More than the sockets between us hold: those go on when the registry is dead.
    let (mut registry, made) = noisy(&bed, 12 * SIZE);
    let slow = |_: usize, _: &Seen| Fault::Slow(300_000, Duration::from_millis(25));
    let line = Line::to(REGISTRY, of_blob(made.blob(0), slow));
    let store = bed.store();
    thread::scope(|scope| {
        let pull = scope.spawn(|| pull(&store, &line.name("app:v1")));
        while line.offsets(&made.blob(0)).is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(200));
        registry.stop();
        thread::sleep(Duration::from_millis(300));
        registry.start();
        pull.join().expect("no panic").expect("an image");
    });
    let asked = line.offsets(&made.blob(0));
    assert!(
        asked.len() > 1 && asked.last().is_some_and(|offset| *offset > 0),
        "it was cut off and gone on with: {asked:?}"
    );
    bed.is_clean(1, 0);
}

/// What is left of a download may be anything after a loss of power.
#[test]
fn a_damaged_beginning_is_replaced() {
    let bed = Bed::new("damaged");
    let (_registry, made) = noisy(&bed, SIZE);
    let line = Line::to(REGISTRY, |_| Fault::None);
    let size = made.blobs[0].len();
    let good = &made.blobs[0];
    for left in [
        noise(7, 1000),
        noise(7, size),
        noise(7, size + 1000),
        vec![0; size / 2],
        [&good[..1000], &noise(7, 1000)[..]].concat(),
        Vec::new(),
    ] {
        let store = bed.store();
        std::fs::write(bed.path("store/blobs").join(made.blob(0).hex()), &left).expect("a file");
        line.forget();
        let image = pull(&store, &line.name("app:v1")).expect("an image");
        assert_eq!(image.id, made.id());
        bed.is_clean(1, 0);
        drop(store);
        bed.forget();
    }
    // A complete one is not asked for.
    let store = bed.store();
    std::fs::write(bed.path("store/blobs").join(made.blob(0).hex()), good).expect("a file");
    line.forget();
    pull(&store, &line.name("app:v1")).expect("an image");
    assert!(line.offsets(&made.blob(0)).is_empty());
    bed.is_clean(1, 0);
}

#[test]
fn a_registry_that_wants_us_to_wait_is_waited_for() {
    let bed = Bed::new("wait");
    let (_registry, made) = noisy(&bed, 1000);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = asked.clone();
    let judge = of_blob(made.blob(0), move |count, _| {
        times.lock().expect("no panic").push(Instant::now());
        match count {
            0 => Fault::Answer(429, vec![("retry-after", "2".into())], vec![]),
            1 => Fault::Answer(503, vec![], vec![]),
            2 => Fault::Answer(429, vec![("retry-after", "1".into())], vec![]),
            _ => Fault::None,
        }
    });
    let line = Line::to(REGISTRY, judge);
    pull(&bed.store(), &line.name("app:v1")).expect("an image");
    let asked = asked.lock().expect("no panic");
    assert_eq!(asked.len(), 4);
    assert!(asked[1] - asked[0] >= Duration::from_secs(2));
    assert!(asked[3] - asked[2] >= Duration::from_secs(1));
}

#[test]
fn a_registry_that_is_ill_is_asked_some_times_and_then_no_more() {
    let bed = Bed::new("ill");
    let (_registry, made) = noisy(&bed, 1000);
    let line = Line::to(REGISTRY, |_| {
        let text = br#"{"errors": [{"code": "UNAVAILABLE", "message": "the disks burn"}]}"#;
        Fault::Answer(503, vec![], text.to_vec())
    });
    let text = line.name("app:v1");
    let error = failure(pull(&bed.store(), &text), &text);
    assert!(error.contains("status 503: the disks burn"), "{error}");
    assert!(
        error.contains("http://127.0.0.1:5001/v2/app/manifests/v1"),
        "{error}"
    );
    assert_eq!(line.seen().len(), 6);
    drop(line);
    // The same of a blob; the manifest came.
    let ill = of_blob(made.blob(0), |_, _| Fault::Answer(500, vec![], vec![]));
    let line = Line::to(REGISTRY, ill);
    let store = bed.store();
    let error = failure(pull(&store, &text), &text);
    assert!(
        error.contains("status 500") && error.contains(&made.blob(0).to_string()),
        "{error}"
    );
    assert_eq!(line.offsets(&made.blob(0)).len(), 6);
    assert_eq!(store.images().expect("images"), []);
}

/// A manifest that one reader takes for an index and another does not (CVE-2021-41190), and one whose
/// index is wrong about it.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let bed = Bed::new("two-ways");
    let (_registry, made) = noisy(&bed, 1000);
    let store = bed.store();
    let serve = |kind: &str, text: serde_json::Value| {
        let kind = kind.to_owned();
        let line = Line::to(REGISTRY, move |seen| match seen.path().ends_with("/v1") {
            true => {
                let headers = vec![("content-type", kind.clone())];
                Fault::Answer(200, headers, text.to_string().into_bytes())
            }
            false => Fault::None,
        });
        let text = line.name("app:v1");
        failure(pull(&store, &text), &text)
    };
    let child = made.descriptor(std::env::consts::ARCH, None);
    let mut both = made.manifest.clone();
    both["manifests"] = serde_json::json!([child]);
    let error = serve(Form::Oci.manifest(), both);
    assert!(error.contains("both an index and a manifest"), "{error}");
    let error = serve(Form::Oci.index(), made.manifest.clone());
    assert!(error.contains("its content is another"), "{error}");
    let mut child = made.descriptor("amd64", None);
    child["platform"]["architecture"] = image::Platform::host().architecture.to_string().into();
    for (field, value, says) in [
        (
            "mediaType",
            Form::Oci.index().into(),
            "its content is another",
        ),
        ("size", 7.into(), "what refers to it says 7"),
    ] {
        let mut wrong = child.clone();
        wrong[field] = value;
        let error = serve(Form::Oci.index(), index(Form::Oci, &[wrong]));
        assert!(error.contains(says), "{error}");
    }
    bed.is_clean(0, 0);
}

/// An image is here, and its tag has moved.
#[test]
fn what_is_here_will_do_only_where_the_registry_does_not_answer() {
    let bed = Bed::new("or-here");
    let (_registry, old) = noisy(&bed, SIZE);
    let store = bed.store();
    let mut options = image::PullOptions::default();
    options.or_here = true;
    {
        let line = Line::to(REGISTRY, |_| Fault::None);
        store
            .pull(&name(&line.name("app:v1")), &options)
            .expect("an image");
    }
    let new = saying(Form::Oci, "new");
    new.push(REGISTRY, "app", "v1");

    // It does not answer, or is ill: it is asked once.
    for ill in [
        (|| Fault::Hangup) as fn() -> Fault,
        || Fault::Answer(503, vec![], vec![]),
        || Fault::Answer(429, vec![], vec![]),
    ] {
        let line = Line::to(REGISTRY, move |_| ill());
        let image = store.pull(&name(&line.name("app:v1")), &options);
        assert_eq!(image.expect("what is here").id, old.id());
        assert_eq!(line.seen().len(), 1);
        // Nothing is here of another name.
        let text = line.name("app:v2");
        failure(store.pull(&name(&text), &options), &text);
    }
    // It says no.
    for status in [401, 403, 404] {
        let line = Line::to(REGISTRY, move |_| Fault::Answer(status, vec![], vec![]));
        let text = line.name("app:v1");
        failure(store.pull(&name(&text), &options), &text);
    }
    // It has answered, and what follows is tried as often as ever; if that is in vain, what is here is not
    // what the name means.
    let gone = of_blob(new.blob(0), |_, _| Fault::Answer(404, vec![], vec![]));
    {
        let line = Line::to(REGISTRY, gone);
        let text = line.name("app:v1");
        failure(store.pull(&name(&text), &options), &text);
    }
    let counts = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (blob, config) = (new.blob(0).to_string(), new.id().to_string());
    let line = Line::to(REGISTRY, move |seen| {
        let count = match seen.path() {
            path if path.ends_with(&blob) => &counts.0,
            path if path.ends_with(&config) => &counts.1,
            _ => return Fault::None,
        };
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Fault::Hangup,
            1 => Fault::Answer(502, vec![], vec![]),
            _ => Fault::None,
        }
    });
    let image = store.pull(&name(&line.name("app:v1")), &options);
    assert_eq!(image.expect("the new one").id, new.id());
}

/// What comes of a large blob is no archive: the rest is not waited for.
#[test]
fn nobody_waits_for_the_rest_of_what_is_no_good() {
    let bed = Bed::new("no-good");
    let _registry = bed.registry();
    let mut made = saying(Form::Oci, "x");
    let rubbish = vec![b'x'; 80 << 20];
    let kind = "application/vnd.oci.image.layer.v1.tar";
    made.manifest["layers"][0] = descriptor(kind, &rubbish);
    made.blobs[0] = rubbish;
    made.push(REGISTRY, "app", "v1");
    let slow = |_: usize, _: &Seen| Fault::Slow(500_000, Duration::from_millis(200));
    let line = Line::to(REGISTRY, of_blob(made.blob(0), slow));
    let text = line.name("app:v1");
    let begun = Instant::now();
    let error = failure_of_layer(pull(&bed.store(), &text));
    assert!(error.contains("tar"), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "33 s for all of it"
    );
    bed.is_clean(0, 0);
}

fn failure_of_layer(outcome: Result<image::Image, image::ImageError>) -> String {
    match outcome.expect_err("the pull must fail") {
        image::ImageError::Layer { source, .. } => source.to_string(),
        other => panic!("{other}"),
    }
}
