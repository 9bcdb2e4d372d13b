//! One owner at a time, and what it leaves when it dies.

use super::*;

#[test]
fn a_store_belongs_to_one_at_a_time() {
    let place = Place::new("lock");
    let store = place.store();
    let error = Store::open(place.join("store")).expect_err("in use");
    assert!(
        matches!(error, ImageError::Store(StoreError::Locked { .. })),
        "{error}"
    );
    drop(store);
    place.store();
    write(&place.join("store/layout"), b"fairlead-images 99\n");
    let error = Store::open(place.join("store")).expect_err("another layout");
    assert!(
        matches!(error, ImageError::Store(StoreError::Layout { .. })),
        "{error}"
    );
}

#[test]
fn leftovers_of_a_crash_are_removed_and_the_rest_is_kept() {
    let place = Place::new("crash");
    let (store, image, path) = with_image(&place);
    store.snapshot(&image, "s").expect("a snapshot");
    drop(store);
    let root = place.join("store");
    let before = state(&place);
    let layer = "{\"chain_id\"";
    sh(&format!(
        "cd {}
         mkdir -p tmp/7/0/deep/er tmp/8 l/2/etc l/17 layers/$(printf %064d 7).replaced/1
         echo x > layers/$(printf %064d 8).recipe; chmod 000 tmp/7/0/deep
         echo x > tmp/7/0/deep/er/file; printf '%s' '{layer}' > tmp/9; mknod tmp/8/w c 0 0",
        root.display()
    ));
    let store = place.store();
    assert_eq!(fs::read_dir(root.join("tmp")).expect("tmp").count(), 0);
    let names = |text: &str| {
        text.lines()
            .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&state(&place)), names(&before));
    assert_eq!(store.resolve(&reference("web")).expect("kept"), image);
    assert_eq!(store.snapshots().len(), 1);
    drop(store);

    // An image without one of its layers is dropped, and can be loaded again.
    sh(&format!(
        "cd {}; rm -r snapshots/s; rm $(ls layers/*.json | head -n 1)",
        root.display()
    ));
    let store = place.store();
    assert!(store.images().expect("images").is_empty());
    assert_eq!(fs::read_dir(root.join("l")).expect("layers").count(), 1);
    assert_eq!(
        store.resolve(&docker(&path)).expect("loaded again").id,
        image.id
    );
    drop(store);

    // A record that tasks may depend on is not guessed at.
    sh(&format!(
        "cd {}/layers; for f in *.json; do echo '{{' > $f; done",
        root.display()
    ));
    let error = Store::open(&root).expect_err("damaged");
    assert!(
        matches!(error, ImageError::Store(StoreError::Damaged { .. })),
        "{error}"
    );
}

#[test]
fn killed_at_any_instant_the_store_is_consistent() {
    const ROLE: &str = "FAIRLEAD_IMAGE_TEST_VICTIM";
    if let Ok(root) = std::env::var(ROLE) {
        let store = Store::open(format!("{root}/store")).expect("a store");
        let archive = docker(format!("{root}/x.tar").as_ref());
        loop {
            let image = store.resolve(&archive).expect("an image");
            store.snapshot(&image, "s").expect("a snapshot");
            store.remove_snapshot("s").expect("removed");
            store.remove_image(&image.id).expect("removed");
            store.gc().expect("a collection");
        }
    }
    let place = Place::new("kill");
    let mut layers = Vec::new();
    for layer in 0..4 {
        let names: Vec<_> = (0..40).map(|n| format!("d{layer}/f{n}")).collect();
        let files = names
            .iter()
            .map(|name| (name.as_str(), Regular, "", &b"x"[..]));
        layers.push(common::layer(&files.collect::<Vec<_>>()));
    }
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let program = std::env::current_exe().expect("this test");
    for round in 0..25 {
        let mut child = std::process::Command::new(&program)
            .args([
                "--exact",
                "crash::killed_at_any_instant_the_store_is_consistent",
            ])
            .env(ROLE, place.join("").to_string_lossy().trim_end_matches('/'))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the victim");
        std::thread::sleep(Duration::from_millis(40 + 13 * round));
        assert!(
            child.try_wait().expect("the victim").is_none(),
            "it must be killed, not fail"
        );
        child.kill().expect("killed");
        child.wait().expect("the victim");

        let store = place.store();
        assert_eq!(
            fs::read_dir(place.join("store/tmp")).expect("tmp").count(),
            0
        );
        for image in store.images().expect("images") {
            let mount = store
                .snapshot(&image, "check")
                .expect("a snapshot")
                .overlay_options()
                .expect("an overlay");
            for (number, layer) in mount.lower.iter().rev().enumerate() {
                let count = fs::read_dir(layer.join(format!("d{number}")))
                    .expect("files")
                    .count();
                assert_eq!(count, 40, "an incomplete layer became visible");
            }
            store.remove_snapshot("check").expect("removed");
            store
                .save(&[image.id.to_string()], std::io::sink())
                .expect("what is visible can be saved");
        }
        store.resolve(&docker(&path)).expect("an image");
    }
}
