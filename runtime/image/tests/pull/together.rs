//! Pulls that are cancelled, and several at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use image::{ImageError, PullEvent, PullOptions, RegistryError, Store};

use crate::{bed::*, common::*, line::*, made::*};

/// Soon enough for somebody who waits, however busy the machine; far less than any time-out.
const SOON: Duration = Duration::from_secs(20);

fn is_cancelled(error: &ImageError) -> bool {
    matches!(error, ImageError::Pull { source, .. } if matches!(**source, RegistryError::Cancelled))
}

fn wait_for(what: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < limit, "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Cancels a pull as soon as `when` is true; it ends soon, with the error that says so.
fn cancelled(store: &Store, text: &str, when: impl Fn() -> bool) {
    let options = PullOptions::default();
    let canceller = options.canceller();
    thread::scope(|scope| {
        let pull = scope.spawn(|| store.pull(&name(text), &options));
        wait_for(when);
        let started = Instant::now();
        canceller.cancel();
        let error = pull.join().expect("no panic").expect_err("cancelled");
        assert!(is_cancelled(&error), "{error}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    });
    // And it stays so.
    let error = store.pull(&name(text), &options).expect_err("cancelled");
    assert!(is_cancelled(&error), "{error}");
}

#[test]
fn a_cancelled_pull_ends_soon_and_what_came_stays() {
    let bed = Bed::new("cancel");
    let _registry = bed.registry();
    let made = large(2, 2_000_000);
    made.push(REGISTRY, "app", "v1");
    let (first, second) = (made.blob(0), made.blob(1));
    let line = Line::to(REGISTRY, move |seen| match seen.path() {
        // One is here, of the other nothing more comes.
        path if path.ends_with(&second.to_string()) && seen.offset() == 0 => Fault::Stall(800_000),
        _ => Fault::None,
    });
    let store = bed.store();
    let size = |blob: &image::Digest| {
        let path = bed.path("store/blobs").join(blob.hex());
        std::fs::metadata(path).map_or(0, |data| data.len())
    };
    let text = line.name("app:v1");
    let whole = made.blobs[0].len() as u64;
    cancelled(&store, &text, || {
        size(&second) == 800_000 && size(&first) == whole
    });
    bed.is_clean(0, 2);
    line.forget();
    pull(&store, &text).expect("an image");
    assert!(line.offsets(&first).is_empty());
    assert_eq!(line.offsets(&second), [800_000]);
    bed.is_clean(2, 0);
}

#[test]
fn a_pull_can_be_cancelled_while_it_waits_for_an_answer_or_for_time_to_pass() {
    let bed = Bed::new("cancel-wait");
    let _registry = bed.registry();
    let made = saying(Form::Oci, "x");
    made.push(REGISTRY, "app", "v1");
    let store = bed.store();
    for fault in [(|| Fault::Stall(0)) as fn() -> Fault, || {
        Fault::Answer(429, vec![("retry-after", "200".into())], vec![])
    }] {
        for part in [
            "/manifests/".to_owned(),
            made.id().to_string(),
            made.blob(0).to_string(),
        ] {
            let stalled = part.clone();
            let line = Line::to(REGISTRY, move |seen| match seen.path().contains(&stalled) {
                true => fault(),
                false => Fault::None,
            });
            cancelled(&store, &line.name("app:v1"), || {
                line.seen().iter().any(|seen| seen.path().contains(&part))
            });
        }
    }
    // Before it begins.
    let options = PullOptions::default();
    options.canceller().cancel();
    let text = format!("{REGISTRY}/app:v1");
    let error = store.pull(&name(&text), &options).expect_err("cancelled");
    assert!(is_cancelled(&error));
    pull(&store, &text).expect("an image");
}

/// Who waits for somebody else's pull of the same image can leave, and the other one goes on.
#[test]
fn of_two_pulls_of_one_image_each_can_be_cancelled() {
    let bed = Bed::new("cancel-one");
    let _registry = bed.registry();
    let made = saying(Form::Oci, "x");
    made.push(REGISTRY, "app", "v1");
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let line = Line::to(REGISTRY, move |seen| {
        while seen.is_blob() && !gate.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Fault::None
    });
    let store = bed.store();
    let text = line.name("app:v1");
    let options = PullOptions::default();
    thread::scope(|scope| {
        let first = scope.spawn(|| pull(&store, &text));
        wait_for(|| !line.seen().is_empty());
        let second = scope.spawn(|| store.pull(&name(&text), &options));
        thread::sleep(Duration::from_millis(100));
        assert!(!second.is_finished());
        options.canceller().cancel();
        let error = second.join().expect("no panic").expect_err("cancelled");
        assert!(is_cancelled(&error) && !first.is_finished());
        open.store(true, Ordering::SeqCst);
        first.join().expect("no panic").expect("an image");
    });
    bed.is_clean(1, 0);
}

#[test]
fn many_pulls_of_one_image_are_one_download() {
    let bed = Bed::new("many");
    let _registry = bed.registry();
    let made = large(4, 500_000);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    // By tag and by digest: two references, the same blobs.
    let names = [
        line.name("app:v1"),
        line.name(&format!("app@{}", made.digest())),
    ];
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..8)
            .map(|at| {
                let (store, text) = (&store, &names[at % 2]);
                scope.spawn(move || pull(store, text).expect("an image").id)
            })
            .collect();
        for pull in pulls {
            assert_eq!(pull.join().expect("no panic"), made.id());
        }
    });
    for layer in 0..4 {
        assert_eq!(line.offsets(&made.blob(layer)), [0], "layer {layer}");
    }
    bed.is_clean(4, 0);
}

/// Images that share layers, while layers that nobody needs are collected all the time.
#[test]
fn images_that_share_layers_come_side_by_side_while_layers_are_collected() {
    let bed = Bed::new("share");
    let _registry = bed.registry();
    let base: Vec<_> = (0..3)
        .map(|at| tar_of(&[(&format!("base{at}"), &noise(at, 200_000))]))
        .collect();
    let all: Vec<_> = (0..6u64)
        .map(|at| {
            let own = tar_of(&[("own", &noise(100 + at, 100_000)[..])]);
            let layers: Vec<_> = base.iter().cloned().chain([own]).collect();
            let made = Made::new(Form::Oci, &layers, plain);
            made.push(REGISTRY, "app", &format!("v{at}"));
            made
        })
        .collect();
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::SeqCst) {
                store.gc().expect("a collection");
                rounds += 1;
                thread::sleep(Duration::from_millis(1));
            }
            rounds
        });
        let pulls: Vec<_> = (0..6)
            .map(|at| {
                let (store, made, text) = (&store, &all[at], line.name(&format!("app:v{at}")));
                let bed = &bed;
                scope.spawn(move || {
                    let image = pull(store, &text).expect("an image");
                    assert_eq!(image.id, made.id());
                    let script = "cat base0 base1 base2 own | wc -c";
                    let mount = snapshot(store, &image, &format!("s{at}"))
                        .overlay_options()
                        .expect("an overlay");
                    let point = bed.path(&format!("m{at}"));
                    let script = format!("cd {}; {script}", point.display());
                    assert_eq!(mounted(&mount, &point, &script).trim(), "700000");
                })
            })
            .collect();
        for pull in pulls {
            pull.join().expect("no panic");
        }
        over.store(true, Ordering::SeqCst);
        assert!(collector.join().expect("no panic") > 1);
    });
    for layer in 0..3 {
        assert_eq!(line.offsets(&all[0].blob(layer)), [0], "layer {layer}");
    }
    bed.is_clean(9, 0);
}

#[test]
fn what_is_told_of_a_pull_is_true() {
    let bed = Bed::new("events");
    let _registry = bed.registry();
    let made = large(3, 300_000);
    made.push(REGISTRY, "app", "v1");
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let mut options = PullOptions::default();
    options.progress = Arc::new(move |event: PullEvent| log.lock().expect("no panic").push(event));
    let store = bed.store();
    let name = name(&format!("{REGISTRY}/app:v1"));
    store.pull(&name, &options).expect("an image");
    let first = std::mem::take(&mut *events.lock().expect("no panic"));
    assert_eq!(
        first[0],
        PullEvent::Manifest {
            name: name.clone(),
            digest: made.digest()
        }
    );
    for (layer, stored) in made.blobs[..3].iter().enumerate() {
        let (blob, size) = (made.blob(layer), stored.len() as u64);
        let at = |event: &PullEvent| first.iter().position(|e| e == event).expect("an event");
        let wanted = at(&PullEvent::Layer {
            blob,
            size,
            here: false,
        });
        let whole = at(&PullEvent::Downloading {
            blob,
            bytes: size,
            of: size,
        });
        let unpacked = at(&PullEvent::Unpacked { blob });
        assert!(wanted < whole && wanted < unpacked);
        let bytes: Vec<_> = first
            .iter()
            .filter_map(|event| match event {
                PullEvent::Downloading {
                    blob: of, bytes, ..
                } if *of == blob => Some(*bytes),
                _ => None,
            })
            .collect();
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
    store.pull(&name, &options).expect("again");
    let again = events.lock().expect("no panic");
    assert_eq!(
        *again,
        [PullEvent::Manifest {
            name,
            digest: made.digest()
        }]
    );
}

#[test]
fn a_download_that_nobody_goes_on_with_is_collected_after_a_day() {
    let bed = Bed::new("abandoned");
    let _registry = bed.registry();
    let made = large(1, 300_000);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |seen| match seen.is_blob() {
        true => Fault::Stall(100_000),
        false => Fault::None,
    });
    let store = bed.store();
    let path = bed.path("store/blobs").join(made.blob(0).hex());
    let has_come = || std::fs::metadata(&path).is_ok_and(|data| data.len() == 100_000);
    let age = || sh(&format!("touch -d '-25 hours' '{}'", path.display()));
    cancelled(&store, &line.name("app:v1"), has_come);
    store.gc().expect("a collection");
    bed.is_clean(0, 1);
    // While somebody works on it, it may be as old as it likes.
    let options = PullOptions::default();
    thread::scope(|scope| {
        let pull = scope.spawn(|| store.pull(&name(&line.name("app:v1")), &options));
        wait_for(|| line.offsets(&made.blob(0)).len() == 2);
        age();
        store.gc().expect("a collection");
        assert!(path.exists());
        options.canceller().cancel();
        pull.join().expect("no panic").expect_err("cancelled");
    });
    age();
    store.gc().expect("a collection");
    bed.is_clean(0, 0);
}

/// All is downloaded, and unpacking takes its time.
#[test]
fn a_pull_that_only_unpacks_can_be_cancelled() {
    let bed = Bed::new("cancel-unpack");
    let _registry = bed.registry();
    let names: Vec<_> = (0..6000).map(|at| format!("f{at}")).collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), &b"x"[..]))
        .collect();
    let made = Made::new(Form::Oci, &[tar_of(&files)], gzip);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    let path = bed.path("store/blobs").join(made.blob(0).hex());
    let whole = made.blobs[0].len() as u64;
    let text = line.name("app:v1");
    cancelled(&store, &text, || {
        std::fs::metadata(&path).is_ok_and(|data| data.len() == whole)
    });
    bed.is_clean(0, 1);
    line.forget();
    pull(&store, &text).expect("an image");
    assert!(line.offsets(&made.blob(0)).is_empty());
    bed.is_clean(1, 0);
}
