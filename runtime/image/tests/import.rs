//! Images that are made of a root file system.

mod common;

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use common::{tree::*, *};
use image::{Digest, Image, ImageError, Import, LayerError, Limits, Options, Platform, Store};
use serde_json::{Value, json};
use tar::EntryType::{self, Char, Directory, Link, Regular, Symlink};

fn named(name: &str) -> Import {
    Import {
        name: Some(name.parse().expect("a name")),
        ..Import::default()
    }
}

fn config_of(store: &Store, image: &Image) -> Value {
    let stored = store.find(&image.id.to_string()).expect("it is there");
    assert_eq!(Digest::of(&stored.raw_config), image.id);
    serde_json::from_str(&stored.raw_config).expect("JSON")
}

#[test]
fn a_root_file_system_is_an_image_of_one_layer_however_it_is_packed() {
    let place = Place::new("import");
    python(MAKE, &[&place.join("t").to_string_lossy(), ""]);
    sh(&format!(
        "cd {}; tar -C t/a --xattrs --xattrs-include='*' -cf root.tar .",
        place.join("").display()
    ));
    let root = read(&place.join("root.tar"));
    let store = place.store();
    let mut import = named("made:1");
    import.changes = vec![
        "CMD [\"/bin/su\"]".into(),
        "ENV A=1\nENV B=$A$A".into(),
        "EXPOSE 80".into(),
    ];
    import.message = "by hand".into();
    import.created = Some(UNIX_EPOCH + Duration::from_secs(951_782_400));
    let mut images = Vec::new();
    for compress in [plain as fn(&[u8]) -> _, gzip, zstd] {
        let packed = compress(&root);
        images.push(store.import(&packed[..], &import).expect("an image"));
    }
    // The same archive and options are the same image.
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(place.join("store/l")).expect("l").count(), 1);
    assert_eq!(
        fs::read_dir(place.join("store/tmp")).expect("tmp").count(),
        0
    );
    let image = store.resolve(&reference("made:1")).expect("by name");
    assert_eq!(image.command(), ["/bin/su"]);
    assert_eq!(image.env(), ["A=1", "B=11"]);
    let created = "2000-02-29T00:00:00.000000000Z";
    assert_eq!(
        config_of(&store, &image),
        json!({
            "created": created,
            "architecture": Platform::host().architecture.to_string(),
            "os": "linux",
            "comment": "by hand",
            "config": {
                "Cmd": ["/bin/su"], "Env": ["A=1", "B=11"], "ExposedPorts": {"80/tcp": {}}
            },
            "history": [{"created": created, "comment": "by hand"}],
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&root).to_string()]}
        })
    );
    let mount = store.snapshot(&image, "s").expect("a snapshot");
    same(
        &mounted_listing(
            &mount.overlay_options().expect("an overlay"),
            &place.join("m"),
            true,
        ),
        &listing(&place.join("t/a"), true),
    );
    // And it can be saved like any other.
    let mut out = Vec::new();
    store.save(&["made:1"], &mut out).expect("saved");
    let other = Store::open(place.join("other")).expect("a store");
    let again = other.resolve(&docker(&write(&place.join("out.tar"), &out)));
    assert_eq!(again.expect("loaded").id, image.id);
}

#[test]
fn it_is_made_now_for_this_machine_unless_something_else_is_said() {
    let place = Place::new("import-now");
    let store = place.store();
    let root = tar_of(&[("a", b"1")]);
    let image = store
        .import(&root[..], &Import::default())
        .expect("an image");
    assert!(image.names.is_empty());
    let config = config_of(&store, &image);
    let today = sh("date -u +%Y-%m-%dT%H");
    let created = config["created"].as_str().expect("a time");
    assert!(created.starts_with(&today.trim()[..8]), "{created}");
    assert_eq!(
        (&config["variant"], &config["comment"]),
        (&Value::Null, &Value::Null)
    );

    let mut import = named("arm");
    import.platform = Some("linux/arm/v7".parse().expect("a platform"));
    let image = store.import(&root[..], &import).expect("an image");
    let config = config_of(&store, &image);
    assert_eq!(
        (&config["architecture"], &config["variant"]),
        (&json!("arm"), &json!("v7"))
    );
    import.platform = Some("windows/amd64".parse().expect("a platform"));
    let error = store.import(&root[..], &import).expect_err("not for us");
    assert!(
        matches!(error, ImageError::ImportPlatform { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("windows/amd64"), "{error}");
}

/// Name, type, link target, data.
type LayerEntry<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

/// Importing must fail, and leave the store as a new one is.
fn refused(test: &str, archive: &[u8], limits: Limits) -> LayerError {
    let place = Place::new(test);
    let outside = place.join("outside");
    fs::create_dir(&outside).expect("a directory");
    let options = Options {
        limits,
        ..Options::default()
    };
    let store = Store::open_with(place.join("store"), options).expect("a store");
    let error = store.import(archive, &named("bad")).expect_err(test);
    assert!(store.images().expect("images").is_empty());
    for directory in ["l", "layers", "images", "tmp"] {
        let left = fs::read_dir(place.join("store").join(directory)).expect(directory);
        assert_eq!(left.count(), 0, "{directory}");
    }
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    match error {
        ImageError::Import(source) => *source,
        other => panic!("{other}"),
    }
}

#[test]
fn hostile_archives_are_refused_as_layers_are() {
    let attacks: [(&str, &[LayerEntry<'_>], &str); 5] = [
        (
            "climb",
            &[("a/../../outside/x", Regular, "", b"x")],
            "climbs",
        ),
        (
            "through",
            &[
                ("l", Symlink, "../../../../outside", b""),
                ("l/x", Regular, "", b"x"),
            ],
            "symbolic link",
        ),
        ("whiteout", &[("dev", Char, "", b"")], "0/0"),
        (
            "hardlink",
            &[("h", Link, "../outside", b"")],
            "outside the layer",
        ),
        ("root", &[(".", Regular, "", b"")], "must be a directory"),
    ];
    for (test, entries, reason) in attacks {
        let error = refused(
            &format!("import-{test}"),
            &layer(entries),
            Limits::default(),
        );
        assert!(error.to_string().contains(reason), "{test}: {error}");
    }
    let limits = Limits {
        entries: 2,
        ..Limits::default()
    };
    let three = tar_of(&[("a", b""), ("b", b""), ("c", b"")]);
    let error = refused("import-limit", &three, limits);
    assert!(matches!(error, LayerError::Limit { .. }), "{error}");
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let bomb = gzip(&tar_of(&[("zeros", &vec![0; 8 << 20])]));
    let error = refused("import-bomb", &bomb, limits);
    assert!(matches!(error, LayerError::Limit { .. }), "{error}");
}

#[test]
fn what_is_no_whole_archive_is_refused() {
    let whole = layer(&[("d/", Directory, "", b""), ("d/a", Regular, "", &[1; 1000])]);
    let entries = 4 * 512;
    assert!(whole.len() > entries);
    // At every place before the end, also where an entry ends.
    for length in [0, 1, 511, 512, 700, 1024, 1025, 1600, entries - 1, entries] {
        let error = refused("import-cut", &whole[..length], Limits::default());
        let text = error.to_string();
        let says = ["truncated", "breaks off"]
            .iter()
            .any(|word| text.contains(word));
        assert!(says, "{length}: {text}");
    }
    let cut = gzip(&whole);
    let error = refused("import-gzip", &cut[..cut.len() - 9], Limits::default());
    assert!(error.to_string().contains("gzip"), "{error}");
    for (bytes, reason) in [
        (&b"#!/bin/sh\n".repeat(100)[..], "bad tar header"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
    ] {
        let error = refused("import-other", bytes, Limits::default());
        assert!(error.to_string().contains(reason), "{error}");
    }

    // No entries at all are an empty root, if their end is there.
    let place = Place::new("import-empty");
    let store = place.store();
    let image = store
        .import(&[0; 1024][..], &named("empty"))
        .expect("an image");
    assert_eq!(image.names.len(), 1);
}

#[test]
fn a_bad_change_is_an_error_before_anything_is_read() {
    struct Unread;
    impl std::io::Read for Unread {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("it is read");
        }
    }
    let place = Place::new("import-change");
    let store = place.store();
    let mut import = named("x");
    import.changes = vec!["CMD /bin/sh".into(), "RUN make".into()];
    let error = store
        .import(Unread, &import)
        .expect_err("RUN changes no configuration");
    assert!(matches!(error, ImageError::Change(_)), "{error}");
    assert!(error.to_string().contains("`RUN make`"), "{error}");
}
