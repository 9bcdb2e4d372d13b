//! Archives with several images, those that come as a stream, and what they call their images.

use std::io::{self, Cursor, Read};

use image::{LayerError, Limits, Options, Reference};

use super::*;

/// Two images by other tools: the layouts `one` and `two`, with the tag `v1` in each.
fn layouts(place: &Place) {
    sh(&format!(
        "cd {}
         for image in one two; do
             umoci init --layout $image; umoci new --image $image:v1
             mkdir $image-files; echo $image > $image-files/file
             umoci insert --image $image:v1 $image-files /here
         done",
        place.join("").display()
    ));
}

fn names(image: &Image) -> Vec<String> {
    image.names.iter().map(ToString::to_string).collect()
}

fn at(place: &Place, kind: &str, name: &str) -> Reference {
    reference(&format!("{kind}:{}", place.join(name).display()))
}

/// Nothing was loaded, and nothing is left of the trial.
fn is_empty(place: &Place, store: &Store) {
    assert!(store.images().expect("images").is_empty());
    for folder in ["l", "layers", "tmp"] {
        let left = fs::read_dir(place.join("store").join(folder)).expect(folder);
        assert_eq!(left.count(), 0, "{folder}");
    }
}

#[test]
fn a_name_without_a_slash_is_a_name_and_a_bare_tag_is_none() {
    let place = Place::new("bare");
    layouts(&place);
    sh(&format!(
        "cd {}
         skopeo copy -q oci:one:v1 oci-archive:named.tar:web:1
         skopeo copy -q oci:one:v1 oci-archive:tagged.tar:1.0
         cp -a one both; sed -i 's|\"org.opencontainers.image.ref.name\": *\"v1\"|\
             \"org.opencontainers.image.ref.name\":\"other:2\", \
             \"io.containerd.image.name\":\"docker.io/team/app:3\"|' both/index.json",
        place.join("").display()
    ));
    let store = place.store();
    let tagged = store.resolve(&at(&place, "oci-archive", "tagged.tar"));
    assert_eq!(names(&tagged.expect("a bare tag")), [""; 0]);
    let by_umoci = store.resolve(&at(&place, "oci", "one")).expect("umoci's");
    assert_eq!(names(&by_umoci), [""; 0]);
    // What containerd says goes before.
    let both = store.resolve(&at(&place, "oci", "both")).expect("both");
    assert_eq!(names(&both), ["docker.io/team/app:3"]);

    let named = store.resolve(&at(&place, "oci-archive", "named.tar"));
    let named = named.expect("a name");
    assert!(names(&named).contains(&"docker.io/library/web:1".to_owned()));
    assert_eq!(
        store.resolve(&reference("web:1")).expect("web:1").id,
        named.id
    );
    for choice in ["web:1", "docker.io/library/web:1"] {
        let chosen = at(&place, "oci-archive", &format!("named.tar:{choice}"));
        assert_eq!(store.resolve(&chosen).expect(choice).id, named.id);
    }
    let wrong = at(&place, "oci-archive", "named.tar:web:2");
    let error = store.resolve(&wrong).expect_err("web:2").to_string();
    assert!(error.contains("it holds: web:1"), "{error}");
}

#[test]
fn all_images_of_an_archive_are_loaded_unless_one_is_chosen() {
    let place = Place::new("several");
    layouts(&place);
    sh(&format!(
        "cd {}
         skopeo copy -q oci:one:v1 oci:many:web:1
         skopeo copy -q oci:two:v1 oci:many:team/app:2
         skopeo copy -q oci:two:v1 oci:many:team/app:3
         tar -C many -cf many.tar .; gzip -k many.tar",
        place.join("").display()
    ));
    let store = place.store();
    for (kind, name) in [("oci", "many"), ("oci-archive", "many.tar")] {
        let several = at(&place, kind, name);
        let error = store.resolve(&several).expect_err("which one?");
        assert!(
            matches!(error, ImageError::Archive(ArchiveError::Choice { .. })),
            "{error}"
        );
        let one = store.load_all(&at(&place, kind, &format!("{name}:web:1")));
        let one = one.expect("the one that is chosen");
        assert_eq!((one.len(), store.images().expect("images").len()), (1, 1));
        assert_eq!(names(&one[0]), ["docker.io/library/web:1"]);
        let all = store.load_all(&several).expect("all");
        let called: Vec<_> = all.iter().map(names).collect();
        let app = ["docker.io/team/app:2", "docker.io/team/app:3"].map(str::to_owned);
        assert_eq!(called, [app.to_vec(), names(&one[0])]);
        for image in all {
            store.remove(&image.id.to_string(), true).expect("removed");
        }
        is_empty(&place, &store);
    }

    // The same as a stream; then as we save them, in either way.
    let compressed = read(&place.join("many.tar.gz"));
    let images = store.load_stream(&compressed[..]).expect("a stream");
    assert_eq!(images.len(), 2);
    let mut saved = Vec::new();
    let wanted = ["web:1", "team/app:2", "team/app:3"];
    store.save(&wanted, &mut saved).expect("saved");
    write(&place.join("saved.tar"), &saved);
    let other = Store::open(place.join("other")).expect("a store");
    let found = other.load_stream(&saved[..]).expect("a stream");
    let third = Store::open(place.join("third")).expect("a store");
    let by_file = third.load_all(&docker(&place.join("saved.tar")));
    for found in [found, by_file.expect("a file")] {
        let mut found: Vec<_> = found.iter().map(|image| (image.id, names(image))).collect();
        let mut expected: Vec<_> = images
            .iter()
            .map(|image| (image.id, names(image)))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_stream_that_is_refused_or_breaks_off_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
    let place = Place::new("broken");
    let layers = [tar_of(&[("a", &[7; 100_000])]), tar_of(&[("b", b"2")])];
    let saved = docker_old(&["web"], &layers, &config(&layers));
    let store = place.store();
    for length in [0, 100, 512, 50_000, saved.len() / 2, saved.len() - 4096] {
        let half = &saved[..length];
        let error = store.load_stream(half.chain(Broken)).expect_err("broken");
        let what = error.to_string();
        assert!(what.contains("the archive that was sent"), "{what}");
        is_empty(&place, &store);
        // An end that comes too early.
        store.load_stream(half).expect_err("too short");
        is_empty(&place, &store);
    }
    // All of it came, but nobody said so.
    let all = (&saved[..]).chain(Broken);
    store.load_stream(all).expect_err("not ended");
    is_empty(&place, &store);
    let error = store.load_stream(&layers[0][..]).expect_err("no images");
    assert!(error.to_string().contains("neither"), "{error}");
    is_empty(&place, &store);
    drop(store);

    let options = Options {
        limits: Limits {
            bytes: 50_000,
            ..Limits::default()
        },
        ..Options::default()
    };
    let store = Store::open_with(place.join("store"), options).expect("a store");
    // It must not be read to its end.
    let mut endless = Cursor::new(saved.clone()).chain(io::repeat(0));
    let error = store.load_stream(&mut endless).expect_err("too long");
    assert!(
        matches!(
            error,
            ImageError::Archive(ArchiveError::Decompress {
                source: LayerError::Limit { .. },
                ..
            })
        ),
        "{error}"
    );
    is_empty(&place, &store);
}

/// skopeo leaves a manifest in the layout whose tag it has given to another one.
#[test]
fn what_a_tag_meant_before_is_left_out() {
    let place = Place::new("before");
    layouts(&place);
    sh(&format!(
        "cd {}; for image in one two; do skopeo copy -q oci:$image:v1 oci:moved:web:1; done
         grep -o '\"digest\"' moved/index.json | wc -l | grep -qx 2",
        place.join("").display()
    ));
    let store = place.store();
    let two = store.resolve(&at(&place, "oci", "two")).expect("two").id;
    let moved = at(&place, "oci", "moved");
    let loaded = store.load_all(&moved).expect("one image");
    assert_eq!(
        loaded.iter().map(|image| image.id).collect::<Vec<_>>(),
        [two]
    );
    assert_eq!(store.resolve(&moved).expect("for a task").id, two);
}

/// An archive has the limits of one image, however many it lists.
#[test]
fn an_archive_of_too_much_is_refused() {
    let place = Place::new("too-much");
    let store = |limits| {
        let options = Options {
            limits,
            ..Options::default()
        };
        open_store(place.join("store"), options)
    };
    let listed = |images: &[(String, serde_json::Value)]| {
        let mut files = Vec::new();
        let mut manifest = Vec::new();
        for (layer, config) in images {
            let config = config.to_string().into_bytes();
            let name = format!("{}.json", Digest::of(&config).hex());
            manifest.push(json!({"Config": name, "RepoTags": null, "Layers": [layer]}));
            if files.iter().all(|(other, _)| *other != name) {
                files.push((name, config));
            }
        }
        files.push((
            "manifest.json".into(),
            serde_json::Value::from(manifest).to_string().into_bytes(),
        ));
        files
    };
    let content = vec![0; 1 << 20];
    let layer = tar_of(&[("zeros", &content[..])]);
    // Each image says something else, and so has its own layer on top.
    let images: Vec<_> = (0..5u8)
        .map(|n| {
            let own = tar_of(&[("own", &[n][..]), ("zeros", &content[..])]);
            (own.clone(), config(&[own]))
        })
        .collect();
    let mut files = listed(
        &images
            .iter()
            .enumerate()
            .map(|(n, (_, config))| (format!("{n}.tar"), config.clone()))
            .collect::<Vec<_>>(),
    );
    for (n, (own, _)) in images.iter().enumerate() {
        files.push((format!("{n}.tar"), own.clone()));
    }
    let path = write(&place.join("five.tar"), &archive(&files));
    let limits = Limits {
        bytes: 3 << 20,
        ..Limits::default()
    };
    let plain = store(limits);
    let error = plain.load_all(&docker(&path)).expect_err("five megabytes");
    assert!(format!("{error:?}").contains("Limit"), "{error:?}");
    drop(plain);

    let one = (String::from("0.tar"), config(std::slice::from_ref(&layer)));
    let mut files = listed(&vec![one; 1001]);
    files.push(("0.tar".into(), layer));
    let path = write(&place.join("many.tar"), &archive(&files));
    let error = store(Limits::default())
        .load_all(&docker(&path))
        .expect_err("too many");
    assert!(error.to_string().contains("1001 images"), "{error}");
}
