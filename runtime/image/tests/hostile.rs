//! Archives that mean harm, or are damaged: each ends in an error that says why, leaves nothing in
//! the store, and touches nothing outside.

mod common;

use std::{fs, path::PathBuf};

use common::*;
use image::{ArchiveError, ImageError, LayerError, Limits, Options, Store, TarError};
use serde_json::json;
use tar::EntryType::{self, Char, Directory, Fifo, Link, Regular, Symlink};

/// A store, and a place outside it that must stay as it is.
struct Attack {
    place: Place,
    outside: PathBuf,
    store: Store,
}

impl Attack {
    fn new(test: &str) -> Self {
        Self::with(test, Limits::default())
    }

    fn with(test: &str, limits: Limits) -> Self {
        let place = Place::new(test);
        let outside = place.join("outside");
        fs::create_dir(&outside).expect("a directory");
        write(&outside.join("file"), b"untouched");
        let options = Options {
            limits,
            ..Options::default()
        };
        let store = Store::open_with(place.join("store"), options).expect("a store");
        Self {
            place,
            outside,
            store,
        }
    }

    /// The error that an archive with these bytes ends in.
    fn archive(&self, data: &[u8]) -> ImageError {
        let path = write(&self.place.join("attack.tar"), data);
        let error = refused(&self.store, &self.place.join("store"), &docker(&path));
        let listed: Vec<_> = fs::read_dir(&self.outside)
            .expect("outside")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(listed, ["file"]);
        assert_eq!(read(&self.outside.join("file")), b"untouched");
        error
    }

    fn layers(&self, layers: &[Vec<u8>]) -> LayerError {
        match self.archive(&docker_old(&["bad"], layers, &config(layers))) {
            ImageError::Layer { source, .. } => *source,
            other => panic!("{other}"),
        }
    }

    fn entries(&self, entries: &[(&str, EntryType, &str, &[u8])]) -> LayerError {
        self.layers(&[tar_of(&[("good", b"x")]), layer(entries)])
    }
}

#[track_caller]
fn says(error: &LayerError, text: &str) {
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn names_that_leave_the_layer() {
    let attack = Attack::new("names");
    let absolute = attack.outside.join("new").display().to_string();
    for name in ["/etc/new", &absolute, "../new", "a/../../new", "..", "a/.."] {
        for kind in [Regular, Directory, Symlink, Fifo] {
            let error = attack.entries(&[(name, kind, "x", b"")]);
            assert!(matches!(error, LayerError::Name { .. }), "{name}: {error}");
            says(&error, name);
        }
    }
    let long = "n".repeat(300);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut tar::Header::new_gnu(), "ok", &b""[..])
        .expect("an entry");
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    tar.append_data(&mut header, &long, &b""[..])
        .expect("an entry");
    says(
        &attack.layers(&[tar.into_inner().expect("a tar")]),
        "longer than 255",
    );
}

#[test]
fn writing_through_a_link() {
    let attack = Attack::new("through");
    let outside = attack.outside.display().to_string();
    let up = format!("../../../../../../../..{outside}");
    for target in [&outside, &up] {
        for last in ["link/new", "link/file", "link/.wh.file", "link/a/b"] {
            let error = attack.entries(&[("link", Symlink, target, b""), (last, Regular, "", b"")]);
            assert!(matches!(error, LayerError::Refused { .. }), "{error}");
            says(&error, "leads to no directory");
        }
    }
    for last in ["loop/x", "self/x"] {
        let error = attack.entries(&[
            ("loop", Symlink, "pool", b""),
            ("pool", Symlink, "loop", b""),
            ("self", Symlink, "self/y", b""),
            (last, Regular, "", b""),
        ]);
        says(&error, "loop of symbolic links");
    }
    let error = attack.entries(&[("f", Regular, "", b""), ("f/x", Regular, "", b"")]);
    says(&error, "`f` is not a directory");
    let error = attack.entries(&[("p", Fifo, "", b""), ("p/x", Regular, "", b"")]);
    says(&error, "`p` is not a directory");
}

#[test]
fn a_link_that_climbs_stays_in_the_layer() {
    // RESOLVE_IN_ROOT: `..` of the root is the root, as in a chroot.
    let attack = Attack::new("climb");
    let layers = [layer(&[
        ("up", Symlink, "../../../../..", b""),
        ("up/new", Regular, "", b"x"),
        ("tmp/", Directory, "", b""),
        ("abs", Symlink, "/tmp", b""),
        ("abs/fairlead-climb", Regular, "", b"x"),
    ])];
    let saved = docker_old(&["x"], &layers, &config(&layers));
    let path = write(&attack.place.join("x.tar"), &saved);
    let image = attack.store.resolve(&docker(&path)).expect("an image");
    let lower = attack
        .store
        .snapshot(&image, "s")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay")
        .lower;
    assert!(lower[0].join("new").is_file());
    assert!(lower[0].join("tmp/fairlead-climb").is_file());
    assert!(!std::path::Path::new("/tmp/fairlead-climb").exists());
    assert!(!std::path::Path::new("/new").exists());
}

#[test]
fn hard_links_out_of_the_layer() {
    let attack = Attack::new("hardlink");
    let file = attack.outside.join("file").display().to_string();
    let outside = attack.outside.display().to_string();
    for target in [file.as_str(), "../../outside/file", "", "/etc/passwd"] {
        says(
            &attack.entries(&[("h", Link, target, b"")]),
            "outside the layer",
        );
    }
    says(
        &attack.entries(&[("h", Link, "missing", b"")]),
        "does not hold",
    );
    says(
        &attack.entries(&[("d/", Directory, "", b""), ("h", Link, "d", b"")]),
        "is no file",
    );
    says(
        &attack.entries(&[("h", Link, ".", b"")]),
        "root of the layer",
    );
    says(
        &attack.entries(&[(".wh.w", Regular, "", b""), ("h", Link, "w", b"")]),
        "is no file",
    );
    // Through a link.
    let error = attack.entries(&[("l", Symlink, &outside, b""), ("h", Link, "l/file", b"")]);
    says(&error, "does not hold");
}

#[test]
fn entries_that_no_layer_may_contain() {
    let attack = Attack::new("entries");
    says(&attack.entries(&[("c", Char, "", b"")]), "0/0");
    says(
        &attack.entries(&[(".wh.", Regular, "", b"")]),
        "whiteout of nothing",
    );
    says(
        &attack.entries(&[("a/.wh...", Regular, "", b"")]),
        "whiteout of nothing",
    );
    says(
        &attack.entries(&[(".", Symlink, "/", b"")]),
        "must be a directory",
    );
    let unknown = EntryType::new(b'N');
    says(
        &attack.entries(&[("n", unknown, "", b"")]),
        "which no layer may contain",
    );
    for attribute in [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.origin",
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        let key = format!("SCHILY.xattr.{attribute}");
        tar.append_pax_extensions([(key.as_str(), &b"/etc"[..])])
            .expect("an extension");
        append(&mut tar, "d", Directory, "", b"");
        says(
            &attack.layers(&[tar.into_inner().expect("a tar")]),
            attribute,
        );
    }
}

#[test]
fn bombs() {
    let megabyte = vec![0; 1 << 20];
    let small = Limits {
        bytes: 512 << 10,
        ..Limits::default()
    };
    let attack = Attack::with("bomb-bytes", small);
    let error = attack.layers(&[tar_of(&[("big", &megabyte)])]);
    assert!(
        matches!(error, LayerError::Limit { what: "bytes", .. }),
        "{error}"
    );
    // Nothing but zeros behind the end of the archive, compressed to almost nothing.
    let mut tail = tar_of(&[("small", b"")]);
    tail.extend_from_slice(&megabyte);
    for compress in [gzip, zstd] {
        let layers = [tail.clone()];
        let files = layout("v", &layers, &config(&layers), compress);
        match attack.archive(&archive(&files)) {
            ImageError::Layer { source, .. } => {
                assert!(
                    matches!(*source, LayerError::Limit { what: "bytes", .. }),
                    "{source}"
                );
            }
            other => panic!("{other}"),
        }
    }
    // The limit holds for all layers together.
    let third = vec![1; 200 << 10];
    let layers: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| tar_of(&[(name, &third)]))
        .collect();
    let error = attack.layers(&layers);
    assert!(
        matches!(error, LayerError::Limit { what: "bytes", .. }),
        "{error}"
    );
    // A compressed archive as a whole.
    let error = attack.archive(&gzip(&megabyte));
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Decompress { .. })),
        "{error}"
    );

    let attack = Attack::with(
        "bomb-entries",
        Limits {
            entries: 100,
            ..Limits::default()
        },
    );
    let names: Vec<_> = (0..200).map(|n| format!("f{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = attack.layers(&[tar_of(&files)]);
    assert!(
        matches!(
            error,
            LayerError::Limit {
                what: "entries",
                limit: 100
            }
        ),
        "{error}"
    );

    // Directories that the archive only uses count as well, and so does the length of their paths.
    let deep = format!("{}file", "d/".repeat(2000));
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..50 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let name = format!("{number}/{deep}");
        let added = archive.append_data(&mut header, name, std::io::empty());
        added.expect("an entry");
    }
    let used = archive.into_inner().expect("an archive");
    for (limits, wanted) in [
        (
            Limits {
                entries: 50_000,
                ..Limits::default()
            },
            "entries",
        ),
        (
            Limits {
                path_bytes: 10 << 20,
                ..Limits::default()
            },
            "bytes of directories' paths",
        ),
    ] {
        let attack = Attack::with("bomb-paths", limits);
        let error = attack.layers(std::slice::from_ref(&used));
        assert!(
            matches!(error, LayerError::Limit { what, .. } if what == wanted),
            "{error}"
        );
    }

    let attack = Attack::with(
        "bomb-file",
        Limits {
            file_bytes: 1 << 30,
            ..Limits::default()
        },
    );
    let sparse = attack.place.join("sparse");
    sh(&format!(
        "truncate -s 2T {0}; tar -C {1} --format=gnu -Scf {0}.tar sparse",
        sparse.display(),
        attack.place.join("").display()
    ));
    let error = attack.layers(&[read(&sparse.with_extension("tar"))]);
    assert!(
        matches!(
            error,
            LayerError::Limit {
                what: "bytes in one file",
                ..
            }
        ),
        "{error}"
    );

    let attack = Attack::with(
        "bomb-layers",
        Limits {
            layers: 3,
            ..Limits::default()
        },
    );
    let layers = vec![tar_of(&[]); 4];
    let error = attack.archive(&docker_old(&["x"], &layers, &config(&layers)));
    assert!(error.to_string().contains("4 layers"), "{error}");
}

#[test]
fn absurd_headers_do_not_become_memory() {
    let attack = Attack::new("headers");
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8 << 30);
        header.set_cksum();
        let mut data = header.as_bytes().to_vec();
        data.extend_from_slice(&[b'a'; 4096]);
        says(
            &attack.layers(&[data]),
            "extended headers of 8589934592 bytes",
        );
    }
    // Many of them before one entry add up.
    let mut many = Vec::new();
    for number in 0..3 {
        let value = "v".repeat(400 << 10);
        let record = |length| format!("{length} SCHILY.xattr.user.x{number}={value}\n");
        let mut length = record(0).len();
        while record(length).len() != length {
            length = record(length).len();
        }
        let record = record(length);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        many.extend_from_slice(header.as_bytes());
        many.extend_from_slice(record.as_bytes());
        many.resize(many.len().next_multiple_of(512), 0);
    }
    says(&attack.layers(&[many]), "before one entry, at most 1048576");
    let mut names = String::new();
    for number in 0..2000 {
        names += &format!("29 SCHILY.xattr.user.x{number:04}=v\n");
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(names.len() as u64);
    header.set_cksum();
    let mut data = header.as_bytes().to_vec();
    data.extend_from_slice(names.as_bytes());
    data.resize(data.len().next_multiple_of(512), 0);
    says(
        &attack.layers(&[data]),
        "more than 1024 extended attributes",
    );
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_cksum();
    header.as_old_mut().size = [0xff; 12];
    header.set_cksum();
    let error = attack.layers(&[header.as_bytes().to_vec()]);
    assert!(
        matches!(error, LayerError::Tar(TarError::Header { .. })),
        "{error}"
    );
}

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
