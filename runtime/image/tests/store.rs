//! What a store keeps, finds again, and survives.

mod common;

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use common::*;
use image::{ArchiveError, Collected, Digest, ImageError, Store, StoreError};
use serde_json::json;
use tar::EntryType::Regular;

fn two_layers() -> [Vec<u8>; 2] {
    [tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])]
}

/// Everything below the store's root but its lock, with inode numbers and times of change.
fn state(place: &Place) -> String {
    let root = place.join("store");
    sh(&format!(
        "cd {}; find . -printf '%p %i %C@ %s\\n' | grep -v '^./tmp ' | sort",
        root.display()
    ))
}

#[test]
fn both_forms_of_docker_save_give_the_same_image() {
    let place = Place::new("forms");
    let layers = two_layers();
    let config = config(&layers);
    let store = place.store();
    let old = write(
        &place.join("old.tar"),
        &docker_old(&["web:old"], &layers, &config),
    );
    let image = store.resolve(&docker(&old)).expect("the old form");
    assert_eq!(image.id, Digest::of(config.to_string()));
    assert_eq!(image.entrypoint(), ["/entry"]);
    assert_eq!(image.cmd(), ["-g", "daemon off;"]);
    assert_eq!(image.command(), ["/entry", "-g", "daemon off;"]);
    assert_eq!(image.env(), ["PATH=/usr/bin:/bin", "MODE=test"]);
    assert_eq!(image.user(), Some("www-data:www-data"));
    assert_eq!(image.working_dir(), Some("/srv"));
    assert_eq!(image.stop_signal(), Some("SIGQUIT"));
    assert_eq!(image.exposed_ports(), ["53/udp", "80/tcp"]);
    assert_eq!(image.volumes(), ["/data"]);
    assert_eq!(image.labels(), [("a", "1"), ("b", "2")]);
    let check = image.health_check().expect("understood").expect("a check");
    assert_eq!(check.test, ["NONE"]);
    assert_eq!(image.shell().expect("understood"), ["/bin/sh", "-c"]);

    for (name, compress) in [
        ("plain", plain as fn(&[u8]) -> _),
        ("gzip", gzip),
        ("zstd", zstd),
    ] {
        let files = layout("v1", &layers, &config, compress);
        let path = write(&place.join(&format!("{name}.tar")), &archive(&files));
        let saved = store.resolve(&docker(&path)).expect(name);
        assert_eq!(
            (saved.id, &saved.rootfs),
            (image.id, &image.rootfs),
            "{name}"
        );
        let text = format!("oci-archive:{}:v1", path.display());
        assert_eq!(store.resolve(&reference(&text)).expect(name).id, image.id);
        let whole = write(&place.join("whole.tar.gz"), &compress(&archive(&files)));
        assert_eq!(
            store.resolve(&docker(&whole)).expect("compressed").id,
            image.id
        );
    }
    assert_eq!(
        fs::read_dir(place.join("store/l")).expect("layers").count(),
        2
    );
    let names = ["docker.io/library/web:new", "docker.io/library/web:old"];
    let known = &store.images().expect("images")[0];
    assert_eq!(
        known
            .names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        names
    );
    // Three manifests, by compression, all known.
    assert_eq!(known.manifests.len(), 3);
    let by_digest = reference(&format!("web@{}", known.manifests[0]));
    assert_eq!(store.resolve(&by_digest).expect("by digest").id, image.id);
    assert_eq!(
        store
            .resolve(&reference(&image.id.to_string()))
            .expect("by id"),
        *known
    );
}

#[test]
fn loading_again_changes_nothing_and_reads_no_layer() {
    let place = Place::new("again");
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let first = store.resolve(&docker(&path)).expect("an image");
    let before = state(&place);
    assert_eq!(store.resolve(&docker(&path)).expect("again"), first);
    assert_eq!(state(&place), before);
    // Once the file has been left alone for a while it is remembered, and then not even opened
    // as an archive: same size and times, no content.
    std::thread::sleep(Duration::from_secs(4));
    store.resolve(&docker(&path)).expect("remembered");
    assert!(
        read(&place.join("store/archives.json"))
            .windows(5)
            .any(|w| w == b"x.tar")
    );
    let before = state(&place);
    assert_eq!(store.resolve(&docker(&path)).expect("again"), first);
    assert_eq!(state(&place), before);
    drop(store);
    let store = place.store();
    assert_eq!(
        store.resolve(&docker(&path)).expect("after a restart"),
        first
    );

    // Another archive at the same path is noticed, also one of the same size.
    let mut other = config(&layers);
    other["config"]["User"] = json!("www-date:www-date");
    let size = fs::metadata(&path).expect("the file").size();
    let path = write(&path, &docker_old(&["web"], &layers, &other));
    assert_eq!(fs::metadata(&path).expect("the file").size(), size);
    let second = store.resolve(&docker(&path)).expect("another image");
    assert_ne!(second.id, first.id);
    // The name went with it.
    assert_eq!(
        store.resolve(&reference("web")).expect("by name").id,
        second.id
    );
}

#[test]
fn many_threads_may_ask_at_once() {
    let place = Place::new("threads");
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let work = |n: usize| {
            let (store, path) = (&store, &path);
            move || {
                let image = store.resolve(&docker(path)).expect("an image");
                store.gc().expect("a collection");
                store
                    .snapshot(&image, &format!("s{}", n % 5))
                    .expect("a snapshot");
                image.id
            }
        };
        let threads: Vec<_> = (0..20).map(|n| scope.spawn(work(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(store.snapshots().len(), 5);
    assert_eq!(
        fs::read_dir(place.join("store/l")).expect("layers").count(),
        2
    );
}

#[test]
fn unknown_names_say_what_to_do() {
    let place = Place::new("unknown");
    let store = place.store();
    for text in [
        "nginx",
        &Digest::of("x").to_string(),
        &format!("a/b@{}", Digest::of("x")),
    ] {
        let error = store
            .resolve(&reference(text))
            .expect_err("nothing is loaded");
        assert!(matches!(error, ImageError::NotFound(_)), "{error}");
        assert!(error.to_string().contains("load it first"), "{error}");
    }
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let place = Place::new("several");
    let layers = two_layers();
    let (first, mut second) = (config(&layers), config(&layers));
    second["author"] = json!("b");
    let (first, second) = (first.to_string(), second.to_string());
    let list = json!([
        {"Config": "1.json", "RepoTags": ["a:1", "a:2"], "Layers": ["x/layer.tar", "y/layer.tar"]},
        {"Config": "2.json", "RepoTags": ["b:1"], "Layers": ["x/layer.tar", "y/layer.tar"]},
    ]);
    let files = [
        ("1.json".to_owned(), first.clone().into_bytes()),
        ("2.json".to_owned(), second.clone().into_bytes()),
        ("x/layer.tar".to_owned(), layers[0].clone()),
        ("z/layer.tar".to_owned(), layers[1].clone()),
        ("manifest.json".to_owned(), list.to_string().into_bytes()),
    ];
    let path = write(&place.join("x.tar"), &archive(&files));
    // A layer that several images share is a link to its first place.
    sh(&format!(
        "cd {}; mkdir -p m/y; ln -s ../z/layer.tar m/y/layer.tar; tar -C m -rf x.tar y",
        place.join("").display()
    ));
    let store = place.store();
    let error = refused(&store, &place.join("store"), &docker(&path));
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Choice { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("docker.io/library/a:2"),
        "{error}"
    );
    let at = |name: &str| reference(&format!("docker-archive:{}:{name}", path.display()));
    assert!(store.resolve(&at("c")).is_err());
    assert_eq!(store.resolve(&at("a:2")).expect("a").id, Digest::of(first));
    assert_eq!(store.resolve(&at("b:1")).expect("b").id, Digest::of(second));
}

#[test]
fn a_nested_index_leads_to_the_image_for_this_machine() {
    let place = Place::new("index");
    let layers = two_layers();
    let good = config(&layers);
    let mut files = layout("v1", &layers, &good, gzip);
    let at = files
        .iter()
        .position(|(name, _)| name == "index.json")
        .expect("the index");
    let index: serde_json::Value = serde_json::from_slice(&files[at].1).expect("JSON");
    let with = |architecture: &str, os: &str, digest: Option<Digest>| {
        let mut descriptor = index["manifests"][0].clone();
        descriptor["platform"] = json!({"architecture": architecture, "os": os});
        if let Some(digest) = digest {
            descriptor["digest"] = json!(digest.to_string());
        }
        descriptor
    };
    let host = good["architecture"].as_str().expect("an architecture");
    let nested = |manifests: Vec<serde_json::Value>| {
        let kind = "application/vnd.oci.image.index.v1+json";
        let inner = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        let inner = inner.to_string().into_bytes();
        let digest = Digest::of(&inner);
        let outer = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": kind, "digest": digest.to_string(), "size": inner.len(),
            "annotations": {"org.opencontainers.image.ref.name": "registry.test/team/app:v1"}
        }]});
        [
            (format!("blobs/sha256/{}", digest.hex()), inner),
            ("index.json".to_owned(), outer.to_string().into_bytes()),
        ]
    };
    files.remove(at);
    let root = place.join("oci");
    write_layout(&root, &files);
    let gone = Some(Digest::of("not there"));
    write_layout(
        &root,
        &nested(vec![
            with("unknown", "unknown", gone),
            with("s390x", "linux", gone),
            with(host, "linux", None),
            with(host, "windows", gone),
        ]),
    );
    let store = place.store();
    let oci = reference(&format!("oci:{}", root.display()));
    let image = store.resolve(&oci).expect("an image");
    assert_eq!(image.id, Digest::of(good.to_string()));
    assert_eq!(image.names[0].to_string(), "registry.test/team/app:v1");
    assert_eq!(image.manifests.len(), 2);
    // A reference pinned to the index finds it, as swarm managers write them.
    let pinned = format!("registry.test/team/app:v1@{}", image.manifests[0]);
    assert_eq!(
        store.resolve(&reference(&pinned)).expect("pinned").id,
        image.id
    );

    write_layout(
        &root,
        &nested(vec![
            with("s390x", "linux", gone),
            with("mips", "linux", gone),
        ]),
    );
    let error = store.resolve(&oci).expect_err("not for this machine");
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Platform { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("linux/s390x, linux/mips"),
        "{error}"
    );
    let other = reference(&format!("oci:{}:v2", root.display()));
    let error = store.resolve(&other).expect_err("no such tag");
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Choice { .. })),
        "{error}"
    );
}

#[test]
fn volumes_are_made_anew_and_go_with_their_snapshot() {
    let place = Place::new("volumes");
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
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
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
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
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
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
            .args(["--exact", "killed_at_any_instant_the_store_is_consistent"])
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
