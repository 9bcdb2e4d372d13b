//! Snapshots and their volumes.

use super::*;

#[test]
fn volumes_are_made_anew_and_go_with_their_snapshot() {
    let place = Place::new("volumes");
    let (store, image, _) = with_image(&place);
    let error = store.new_volumes("task-1", &[0]).expect_err("no snapshot");
    assert!(matches!(error, ImageError::NoSnapshot(_)), "{error}");

    let snapshot = store.snapshot(&image, "task-1").expect("a snapshot");
    let before = store.usage().expect("usage").snapshot_bytes;
    let dirs = store.new_volumes("task-1", &[0, 2]).expect("volumes");
    assert_eq!(dirs, snapshot.volumes());
    write(&dirs.directory(0).join("half"), &[b'x'; 1 << 16]);
    assert!(store.usage().expect("usage").snapshot_bytes > before);
    // Deeper than a path can be.
    let mut deep = nix::fcntl::open(
        &dirs.directory(2),
        nix::fcntl::OFlag::O_DIRECTORY,
        nix::sys::stat::Mode::empty(),
    )
    .expect("open");
    for _ in 0..1000 {
        nix::sys::stat::mkdirat(&deep, "deep", nix::sys::stat::Mode::S_IRWXU).expect("mkdir");
        deep = nix::fcntl::openat(
            &deep,
            "deep",
            nix::fcntl::OFlag::O_DIRECTORY,
            nix::sys::stat::Mode::empty(),
        )
        .expect("open");
    }
    store.new_volumes("task-1", &[0, 2]).expect("again");
    for number in [0, 2] {
        let mut entries = fs::read_dir(dirs.directory(number)).expect("there");
        assert!(entries.next().is_none(), "{number} is not empty");
    }
    assert!(!dirs.directory(1).exists());
    drop(store);

    let store = place.store();
    assert!(dirs.directory(2).exists(), "they outlive the process");
    assert!(store.remove_snapshot("task-1").expect("removed"));
    assert!(!dirs.directory(0).exists());
}

#[test]
fn snapshots_are_kept_found_again_and_removed() {
    let place = Place::new("snapshots");
    let (store, image, path) = with_image(&place);
    let snapshot = store.snapshot(&image, "task-1").expect("a snapshot");
    assert_eq!(store.snapshot(&image, "task-1").expect("again"), snapshot);
    let mount = snapshot.overlay_options().expect("an overlay");
    write(&mount.upper.join("kept"), b"x");
    let json = serde_json::to_string(&mount).expect("JSON");
    assert_eq!(
        serde_json::from_str::<image::OverlayMount>(&json).expect("JSON"),
        mount
    );

    let alone = [tar_of(&[("z", b"")])];
    let other = write(
        &place.join("y.tar"),
        &docker_old(&["y"], &alone, &config(&alone)),
    );
    let other = store.resolve(&docker(&other)).expect("another image");
    let error = store
        .snapshot(&other, "task-1")
        .expect_err("the key is taken");
    assert!(
        matches!(error, ImageError::SnapshotExists { .. }),
        "{error}"
    );
    for key in ["", "..", "a/b", "a:b"] {
        let error = store.snapshot(&image, key).expect_err("no key");
        assert!(matches!(error, ImageError::SnapshotKey(_)), "{error}");
    }
    drop(store);

    let store = place.store();
    assert_eq!(store.snapshots(), std::slice::from_ref(&snapshot));
    assert!(mount.upper.join("kept").exists());
    // What a snapshot uses stays, also without the image.
    assert!(store.remove_image(&image.id).expect("removed"));
    assert!(!store.remove_image(&image.id).expect("removed before"));
    assert_eq!(store.gc().expect("a collection"), Collected::default());
    assert!(mount.lower.iter().all(|layer| layer.exists()));
    assert!(matches!(
        store.resolve(&reference("web")),
        Err(ImageError::NotFound(_))
    ));
    assert_eq!(
        store.snapshot(&image, "task-1").expect("still there"),
        snapshot
    );

    assert!(store.remove_snapshot("task-1").expect("removed"));
    assert!(!store.remove_snapshot("task-1").expect("removed before"));
    assert_eq!(store.gc().expect("a collection").layers, 2);
    assert!(mount.lower.iter().all(|layer| !layer.exists()));
    let error = store
        .snapshot(&image, "task-2")
        .expect_err("the layers are gone");
    assert!(matches!(error, ImageError::Gone(_)), "{error}");
    // And everything comes back from the archive.
    let image = store.resolve(&docker(&path)).expect("an image");
    store.snapshot(&image, "task-2").expect("a snapshot");
}

#[test]
fn very_deep_directories_are_removed() {
    let place = Place::new("deep");
    let layers = [tar_of(&[("a", b"")])];
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["x"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
    let mount = store
        .snapshot(&image, "s")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    // Deeper than any path can name, and than there are file descriptors.
    let program = "
import os, sys
os.chdir(sys.argv[1])
for n in range(5000):
    os.mkdir('d' * 20); os.chdir('d' * 20)
    if n % 100 == 0: open('file', 'w').close(); os.chmod('.', 0)
";
    python(program, &[&mount.upper.to_string_lossy()]);
    assert!(store.remove_snapshot("s").expect("removed"));
    assert_eq!(
        fs::read_dir(place.join("store/tmp")).expect("tmp").count(),
        0
    );
}

/// The files of layers are removed while others use the store.
#[test]
fn a_collection_keeps_nobody_waiting() {
    let place = Place::new("collect");
    let names: Vec<_> = (0..20_000).map(|n| format!("d{}/f{n}", n % 100)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let layers = [tar_of(&files)];
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
    store.remove_image(&image.id).expect("removed");
    let tmp = place.join("store/tmp");
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| store.gc());
        let mut seen = false;
        while !collecting.is_finished() {
            let removed = fs::read_dir(&tmp).expect("tmp").count() > 0;
            assert_eq!(store.images().expect("images"), []);
            seen |= removed && !collecting.is_finished();
        }
        assert!(seen, "the store could be used while the files were removed");
        let collected = collecting.join().expect("no panic").expect("collected");
        assert_eq!(collected.layers, 1);
    });
    assert_eq!(fs::read_dir(&tmp).expect("tmp").count(), 0);
}
