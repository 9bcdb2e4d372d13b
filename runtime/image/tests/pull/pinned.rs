//! Images that stay from their pull until somebody uses them.

use std::{
    thread,
    time::{Duration, Instant},
};

use image::{PullOptions, RegistryError};

use crate::{bed::*, common::*, line::*, made::*, taking::while_images_are_taken};

/// Two images with one layer in common, pulled and used by several at once.
#[test]
fn nobody_takes_an_image_between_its_pull_and_its_use() {
    let bed = Bed::new("pin");
    let registry = bed.registry();
    let base = tar_of(&[("base", &noise(1, 100_000))]);
    let names = [1, 2].map(|at| {
        let own = tar_of(&[("own", &noise(10 + at, 50_000)[..])]);
        let made = Made::new(Form::Oci, &[base.clone(), own], plain);
        made.push(REGISTRY, "app", &format!("v{at}"));
        registry.name(&format!("app:v{at}"))
    });
    for force in [false, true] {
        let store = bed.store();
        let taken = while_images_are_taken(&store, &names, force, |turns| {
            thread::scope(|scope| {
                for worker in 0..4 {
                    let (store, names) = (&store, &names);
                    scope.spawn(move || {
                        for round in 0..3 {
                            let key = format!("t{worker}-{round}");
                            let wanted = name(&names[(worker + round) % 2]);
                            let pulled = store.pull_for(&key, &wanted, &PullOptions::default());
                            let (image, pin) = pulled.expect(&key);
                            turns.pass();
                            assert!(force || store.find(&image.id.to_string()).is_ok());
                            let snapshot = store.snapshot(&image, &key).expect(&key);
                            drop(pin);
                            turns.pass();
                            let mount = snapshot.overlay_options().expect("an overlay");
                            assert!(mount.lower.iter().all(|layer| layer.exists()));
                            store.remove_snapshot(&key).expect("removed");
                        }
                    });
                }
            });
            turns.pass();
        });
        assert!(taken > 0, "they take what nobody uses");
        assert_eq!(store.images().expect("images"), []);
        drop(store);
        bed.is_clean(0, 0);
    }
}

#[test]
fn a_cancelled_pull_pins_nothing() {
    let bed = Bed::new("pin-cancel");
    let registry = bed.registry();
    let made = large(1, 300_000);
    made.push(REGISTRY, "app", "v1");
    let line = Line::to(REGISTRY, |seen| match seen.is_blob() {
        true => Fault::Stall(100_000),
        false => Fault::None,
    });
    let store = bed.store();
    let options = PullOptions::default();
    let text = line.name("app:v1");
    thread::scope(|scope| {
        let pull = scope.spawn(|| store.pull_for("t1", &name(&text), &options));
        let limit = Instant::now() + Duration::from_secs(60);
        // By now it has pinned what is to come.
        while line.offsets(&made.blob(0)).is_empty() {
            assert!(Instant::now() < limit, "the layer is not asked for");
            thread::sleep(Duration::from_millis(5));
        }
        options.canceller().cancel();
        let error = pull.join().expect("no panic").expect_err("cancelled");
        let image::ImageError::Pull { source, .. } = &error else {
            panic!("{error}");
        };
        assert!(matches!(**source, RegistryError::Cancelled), "{error}");
    });

    // The same image, which is now nobody's.
    let text = registry.name("app:v1");
    assert_eq!(pull(&store, &text).expect("an image").id, made.id());
    assert_eq!(store.find(&text).expect("here").snapshots, [""; 0]);
    let removed = store.remove(&text, false).expect("nobody uses it");
    assert_eq!(removed.image, Some(made.id()));
    assert_eq!(removed.collected.layers, 1);
}
