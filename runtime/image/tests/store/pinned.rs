//! Images that stay because somebody is about to use them.

use std::thread;

use super::*;
use crate::taking::while_images_are_taken;

#[test]
fn a_pinned_image_is_in_use() {
    let place = Place::new("pinned");
    let (store, image, path) = with_image(&place);
    let all = Duration::ZERO;
    for text in [
        "web".to_owned(),
        image.id.to_string(),
        format!("docker-archive:{}", path.display()),
    ] {
        let (found, pin) = store.resolve_for("t1", &reference(&text)).expect(&text);
        assert_eq!(found, image);
        // Twice, and for somebody else.
        let second = store.resolve_for("t1", &reference("web")).expect("again");
        let other = store.resolve_for("t2", &reference("web")).expect("again");
        assert_eq!(store.find("web").expect("here").snapshots, ["t1", "t2"]);
        drop(second);
        let usage = store.usage().expect("usage");
        assert_eq!((usage.images_in_use, usage.reclaimable_bytes), (1, 0));
        assert!(store.prune(true, all).expect("pruned").0.is_empty());
        for name in ["web".to_owned(), image.id.to_string()] {
            let error = store.remove(&name, false).expect_err("in use").to_string();
            assert!(error.ends_with("in use by the tasks t1, t2"), "{error}");
        }
        drop((pin, other));
        assert_eq!(store.find("web").expect("here").snapshots, [""; 0]);
        let usage = store.usage().expect("usage");
        assert!(usage.images_in_use == 0 && usage.reclaimable_bytes > 0);
    }
    assert_eq!(store.prune(true, all).expect("pruned").0, [image.id]);
    let error = store
        .resolve_for("t1", &reference("web"))
        .expect_err("gone");
    assert!(matches!(error, ImageError::NotFound(_)), "{error}");

    // What is no image of the store can be used like one.
    let folder = place.join("folder");
    fs::create_dir(&folder).expect("a folder");
    let text = format!("dir:{}", folder.display());
    let (image, _pin) = store.resolve_for("t1", &reference(&text)).expect("one");
    store.snapshot(&image, "t1").expect("a snapshot");
}

#[test]
fn by_force_a_pinned_image_goes_and_its_layers_stay() {
    let place = Place::new("pin-force");
    let (store, image, _) = with_image(&place);
    let (found, pin) = store.resolve_for("t1", &reference("web")).expect("here");
    let removed = store.remove("web", true).expect("by force");
    assert_eq!(removed.image, Some(image.id));
    assert_eq!(removed.collected, Collected::default());
    let snapshot = store.snapshot(&found, "t1").expect("from its layers");
    drop(pin);
    assert_eq!(store.gc().expect("a collection"), Collected::default());
    let mount = snapshot.overlay_options().expect("an overlay");
    assert!(mount.lower.iter().all(|layer| layer.exists()));
    store.remove_snapshot("t1").expect("removed");
    assert_eq!(store.gc().expect("a collection").layers, 2);
}

/// Two archives with one layer in common, loaded, pinned and used by several at once.
#[test]
fn nobody_takes_an_image_between_loading_and_using_it() {
    for force in [false, true] {
        let place = Place::new(&format!("pin-load-{force}"));
        let store = place.store();
        let base = tar_of(&[("base", b"1")]);
        let archives = ["one", "two"].map(|name| {
            let layers = [base.clone(), tar_of(&[(name, b"2")])];
            let archive = docker_old(&[name], &layers, &config(&layers));
            write(&place.join(&format!("{name}.tar")), &archive)
        });
        let names = ["one", "two"].map(str::to_owned);
        let taken = while_images_are_taken(&store, &names, force, |turns| {
            thread::scope(|scope| {
                for worker in 0..3 {
                    let (store, archives) = (&store, &archives);
                    scope.spawn(move || {
                        for round in 0..2 {
                            let key = format!("t{worker}-{round}");
                            let archive = docker(&archives[(worker + round) % 2]);
                            let (image, pin) = store.resolve_for(&key, &archive).expect(&key);
                            turns.pass();
                            assert!(force || store.find(&image.id.to_string()).is_ok());
                            let snapshot = store.snapshot(&image, &key).expect(&key);
                            drop(pin);
                            turns.pass();
                            let mount = snapshot.overlay_options().expect("an overlay");
                            assert_eq!(mount.lower.len(), 2);
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
        let layers = fs::read_dir(place.join("store/l")).expect("layers");
        assert_eq!(layers.count(), 0);
    }
}
