//! Archives that are damaged or none, and a file system that cannot hold a layer.

use super::*;

#[test]
fn truncated_layers_and_archives() {
    let attack = Attack::new("truncated");
    let good = tar_of(&[("file", &[7; 5000])]);
    for length in [100, 512, 600, 5000] {
        let error = attack.layers(&[good[..length].to_vec()]);
        assert!(
            matches!(error, LayerError::Tar(TarError::Truncated { .. })),
            "{length}: {error}"
        );
    }
    let layers = [good];
    let whole = docker_old(&["x"], &layers, &config(&layers));
    for length in (0..whole.len() - 1024).step_by(700) {
        attack.archive(&whole[..length]);
    }
    for compress in [gzip, zstd] {
        let mut files = layout("v", &layers, &config(&layers), compress);
        let blob = compress(&layers[0]);
        let at = files
            .iter()
            .position(|(_, data)| *data == blob)
            .expect("the layer");
        files[at].1.truncate(blob.len() / 2);
        attack.archive(&archive(&files));
    }
}

#[test]
fn content_that_is_not_what_its_digest_says() {
    let attack = Attack::new("digest");
    let layers = [tar_of(&[("file", b"content")])];
    let config = config(&layers);
    // Old form: only the diff id protects a layer.
    let mut saved = docker_old(&["x"], &layers, &config);
    let at = saved
        .windows(7)
        .position(|w| w == b"content")
        .expect("the content");
    saved[at] ^= 1;
    let error = attack.archive(&saved);
    let layer = match &error {
        ImageError::Layer { source, .. } => source,
        other => panic!("{other}"),
    };
    assert!(
        matches!(
            **layer,
            LayerError::Digest {
                what: "digest of the decompressed layer",
                ..
            }
        ),
        "{error}"
    );
    // A configuration that does not match its name.
    let mut saved = docker_old(&["x"], &layers, &config);
    let at = saved
        .windows(9)
        .position(|w| w == b"MODE=test")
        .expect("the configuration");
    saved[at] ^= 1;
    let error = attack.archive(&saved);
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Digest { .. })),
        "{error}"
    );

    // OCI: every blob, changed in place, shortened, and lengthened.
    let root = attack.place.join("oci");
    let files = layout("v", &layers, &config, gzip);
    let oci = reference(&format!("oci:{}", root.display()));
    for at in (0..files.len()).filter(|at| files[*at].0.starts_with("blobs/")) {
        for change in 0..3 {
            let mut files = files.clone();
            let data = &mut files[at].1;
            match change {
                0 => *data.last_mut().expect("data") ^= 1,
                1 => drop(data.pop()),
                _ => data.push(b'\n'),
            }
            write_layout(&root, &files);
            let error = refused(&attack.store, &attack.place.join("store"), &oci);
            let expected = matches!(error, ImageError::Layer { .. } | ImageError::Archive(_));
            assert!(expected, "{error}");
        }
    }
    write_layout(&root, &files);
    attack.store.resolve(&oci).expect("the unchanged layout");
}

#[test]
fn archives_that_are_none() {
    let attack = Attack::new("none");
    let tar = |error: &ImageError| matches!(error, ImageError::Archive(ArchiveError::Tar { .. }));
    let missing =
        |error: &ImageError| matches!(error, ImageError::Archive(ArchiveError::Missing { .. }));
    let json = |error: &ImageError| matches!(error, ImageError::Archive(ArchiveError::Json { .. }));
    let member =
        |error: &ImageError| matches!(error, ImageError::Archive(ArchiveError::Member { .. }));
    let check = |data: &[u8], expected: &dyn Fn(&ImageError) -> bool| {
        let error = attack.archive(data);
        assert!(expected(&error), "{error:?}");
    };
    check(b"", &missing);
    check(&[b'x'; 2048], &tar);
    check(&tar_of(&[("other", b"")]), &missing);
    check(&tar_of(&[("manifest.json", b"{")]), &json);
    check(
        &tar_of(&[("manifest.json", b"[{\"Config\": \"gone\"}]")]),
        &missing,
    );
    check(&tar_of(&[("../manifest.json", b"[]")]), &member);
    check(&tar_of(&[("/manifest.json", b"[]")]), &member);
    check(
        &tar_of(&[("manifest.json", b"[]"), ("./manifest.json", b"[]")]),
        &member,
    );
    check(
        &layer(&[("manifest.json", Symlink, "/etc/passwd", b"")]),
        &member,
    );
    check(&layer(&[("manifest.json", Symlink, "../x", b"")]), &member);
    check(
        &layer(&[("manifest.json", Symlink, "manifest.json", b"")]),
        &missing,
    );
    check(&layer(&[("manifest.json", Fifo, "", b"")]), &member);

    let layers = [tar_of(&[("f", b"")])];
    let good = config(&layers);
    for (field, value) in [
        ("rootfs", json!({"type": "layers", "diff_ids": []})),
        (
            "rootfs",
            json!({"type": "layers", "diff_ids": ["sha256:zz"]}),
        ),
        ("rootfs", json!(null)),
        ("config", json!([])),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        check(&docker_old(&["x"], &layers, &bad), &json);
    }
    let mut windows = good;
    windows["os"] = json!("windows");
    let error = attack.archive(&docker_old(&["x"], &layers, &windows));
    assert!(matches!(error, ImageError::Platform { .. }), "{error}");

    // What is no ordinary file must not be waited for.
    let fifo = attack.place.join("fifo");
    sh(&format!("mkfifo {}", fifo.display()));
    for path in [fifo, attack.place.join("missing"), attack.outside.clone()] {
        let error = attack
            .store
            .resolve(&docker(&path))
            .expect_err("no archive");
        assert!(
            matches!(error, ImageError::Archive(ArchiveError::Read { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_file_system_without_attributes_is_named() {
    let attack = Attack::new("ramfs");
    let layers = [layer(&[("d/.wh..wh..opq", Regular, "", b"")])];
    let saved = write(
        &attack.place.join("x.tar"),
        &docker_old(&["x"], &layers, &config(&layers)),
    );
    let root = attack.place.join("ramfs");
    fs::create_dir(&root).expect("a directory");
    // The thread gets a mount namespace of its own, and takes its mount along when it ends.
    let error = std::thread::scope(|scope| {
        let work = || {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
            mount(Some("x"), &root, Some("ramfs"), MsFlags::empty(), none).expect("ramfs");
            // Without being told, it would copy.
            let options = Options {
                snapshotter: Some(image::Snapshotter::Overlayfs),
                ..Options::default()
            };
            let store = Store::open_with(root.join("store"), options).expect("a store");
            refused(&store, &root.join("store"), &docker(&saved)).to_string()
        };
        scope.spawn(work).join().expect("the thread")
    });
    assert!(error.contains("d/.wh..wh..opq"), "{error}");
    assert!(error.contains("trusted.overlay.opaque"), "{error}");
    assert!(error.contains("put the store on"), "{error}");
}

/// A manifest that another reader could take for an index (CVE-2021-41190), in a layout.
#[test]
fn a_document_that_is_two_things() {
    let place = Place::new("two-things");
    let store = place.store();
    let layers = [tar_of(&[("a", b"1")])];
    let config = config(&layers);
    let files = layout("v1", &layers, &config, plain);
    let index: serde_json::Value =
        serde_json::from_slice(&files.iter().find(|f| f.0 == "index.json").expect("it").1)
            .expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let blob = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    let found = files.iter().find(|f| f.0 == blob).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&found.1).expect("JSON");
    for (name, add, kind, says) in [
        ("both", true, None, "both an index and a manifest"),
        (
            "called",
            false,
            Some("application/vnd.oci.image.index.v1+json"),
            "its content is another",
        ),
    ] {
        let (mut manifest, mut index, mut files) = (manifest.clone(), index.clone(), files.clone());
        if add {
            manifest["manifests"] = serde_json::json!([]);
        }
        let text = manifest.to_string().into_bytes();
        let digest = image::Digest::of(&text);
        index["manifests"][0]["digest"] = digest.to_string().into();
        index["manifests"][0]["size"] = text.len().into();
        if let Some(kind) = kind {
            index["manifests"][0]["mediaType"] = kind.into();
        }
        files.retain(|file| file.0 != "index.json" && file.0 != blob);
        files.push((format!("blobs/sha256/{}", digest.hex()), text));
        files.push(("index.json".into(), index.to_string().into_bytes()));
        let path = write(&place.join(name), &archive(&files));
        let reference = reference(&format!("oci-archive:{}:v1", path.display()));
        let error = refused(&store, &place.join("store"), &reference).to_string();
        assert!(error.contains(says), "{error}");
    }
}
