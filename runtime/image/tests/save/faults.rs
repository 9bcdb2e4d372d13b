//! What was changed, removed or never there, and readers that go away.

use std::io::{self, Write};

use image::{ImageError, SaveError};
use tar::EntryType::Regular;

use super::*;

fn two() -> [Vec<u8>; 2] {
    let big = vec![7; 3 << 20];
    [
        layer(&[
            ("a/file", Regular, "", &big),
            ("a/small", Regular, "", b"x"),
        ]),
        tar_of(&[("b", b"2")]),
    ]
}

#[track_caller]
fn refused(store: &Store, images: &[&str]) -> (ImageError, usize) {
    let mut out = Vec::new();
    let outcome = store.save(images, &mut out);
    let error = outcome.expect_err("it cannot be saved");
    (error, out.len())
}

#[test]
fn an_unknown_image_is_an_error_before_anything_is_written() {
    let place = Place::new("save-unknown");
    let store = place.store();
    load(&place, &store, "web:1", &two());
    for name in ["web:2", "none", "sha256:1234"] {
        let (error, written) = refused(&store, &["web:1", name]);
        assert!(matches!(error, ImageError::NotFound(_)), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(written, 0);
    }
}

#[test]
fn a_layer_that_somebody_changed_is_never_passed_off_as_what_it_was() {
    let place = Place::new("save-changed");
    let store = place.store();
    let image = load(&place, &store, "web:1", &two());
    let mount = store.snapshot(&image, "s").expect("a snapshot");
    let files = mount.overlay_options().expect("an overlay").lower[1].join("a");
    let (files, root) = (files.display(), place.join("").display().to_string());
    for (change, says) in [
        ("printf y > small", "was changed"),
        ("printf yx > small", "was changed"),
        (": > small", "has only 0 bytes"),
        ("truncate -s 1000000 file", "has only"),
        ("rm small", "small"),
        ("rm small; ln -s file small", "small"),
        ("rm small; mkfifo small", "regular file"),
        ("cd ..; mv a c; ln -s c a", "a/"),
    ] {
        sh(&format!("cp -a {files} {root}kept; cd {files}; {change}"));
        let outcome = store.save(&["web:1"], io::sink());
        let text = outcome.expect_err(change).to_string();
        let is_changed = text.contains("changed") || text.contains("not what was unpacked");
        assert!(is_changed && text.contains("layer 1"), "{change}: {text}");
        assert!(
            text.contains(says) || says == "was changed",
            "{change}: {text}"
        );
        assert!(text.contains("fairlead image rm"), "{text}");
        sh(&format!("cd {files}/..; rm -rf a c; mv {root}kept a"));
        saved(&store, &["web:1"]);
    }
}

#[test]
fn a_layer_without_a_recipe_says_how_it_gets_one() {
    let place = Place::new("save-norecipe");
    let store = place.store();
    let layers = two();
    load(&place, &store, "web:1", &layers);
    let recipes = place.join("store/layers");
    sh(&format!("rm {}/*.recipe", recipes.display()));
    drop(store);
    // As a store that an older version wrote.
    let store = place.store();
    let (error, written) = refused(&store, &["web:1"]);
    assert!(
        matches!(&error, ImageError::Save { source, number: 1, .. } if matches!(**source, SaveError::NoRecipe)),
        "{error}"
    );
    assert!(
        error.to_string().contains("pull or load them again"),
        "{error}"
    );
    assert_eq!(written, 0);
    store.remove("web:1", false).expect("removed");
    load(&place, &store, "web:1", &layers);
    saved(&store, &["web:1"]);

    // One that makes no sense is told from that.
    for damage in [
        "echo nonsense >",
        "truncate -s 100",
        "truncate -s 40",
        ": >",
    ] {
        let first = entries(&place, "layers");
        for recipe in first.iter().filter(|name| name.ends_with(".recipe")) {
            sh(&format!("cd {}; {damage} {recipe}", recipes.display()));
        }
        let (error, _) = refused(&store, &["web:1"]);
        assert!(
            matches!(&error, ImageError::Save { source, .. } if matches!(**source, SaveError::Damaged(_))),
            "{damage}: {error}"
        );
        store.remove("web:1", false).expect("removed");
        load(&place, &store, "web:1", &layers);
    }
}

/// Does something once, when so many bytes have come.
struct After<'a> {
    bytes: usize,
    then: Option<Box<dyn FnOnce() -> io::Result<()> + 'a>>,
    out: Vec<u8>,
}

impl Write for After<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.out.len() >= self.bytes
            && let Some(then) = self.then.take()
        {
            then()?;
        }
        self.out.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_being_saved_can_be_removed_and_goes_afterwards() {
    let place = Place::new("save-rm");
    let store = place.store();
    load(&place, &store, "web:1", &two());
    let expected = saved(&store, &["web:1"]);
    let remove = || {
        let removed = store.remove("web:1", true).expect("removed");
        assert!(removed.image.is_some());
        assert_eq!(removed.collected.layers, 0, "layers were taken away");
        store.prune(true, Default::default()).expect("pruned");
        // Nobody has to wait for who saves: the image can come again, and go again.
        load(&place, &store, "again:1", &two());
        store.remove("again:1", true).expect("removed");
        Ok(())
    };
    let mut out = After {
        bytes: 1 << 20,
        then: Some(Box::new(remove)),
        out: Vec::new(),
    };
    store.save(&["web:1"], &mut out).expect("saved");
    assert!(out.then.is_none());
    assert!(out.out == expected);
    for folder in ["l", "layers", "images", "tmp"] {
        assert!(entries(&place, folder).is_empty(), "{folder}");
    }
}

#[test]
fn a_reader_that_goes_away_leaves_nothing_pinned() {
    let place = Place::new("save-gone");
    let store = place.store();
    load(&place, &store, "web:1", &two());
    for bytes in [0, 1000, 1 << 20] {
        let mut out = After {
            bytes,
            then: Some(Box::new(|| Err(io::ErrorKind::BrokenPipe.into()))),
            out: Vec::new(),
        };
        let error = store.save(&["web:1"], &mut out).expect_err("nobody reads");
        assert!(matches!(error, ImageError::Write(_)), "{error}");
        assert!(entries(&place, "tmp").is_empty());
    }
    store.remove("web:1", false).expect("removed");
    assert!(entries(&place, "l").is_empty() && entries(&place, "layers").is_empty());
}

#[test]
fn a_recipe_goes_with_its_layer_and_leftovers_of_a_crash_go_too() {
    let place = Place::new("save-strays");
    let store = place.store();
    let image = load(&place, &store, "web:1", &two());
    let ends = |end: &str| {
        let names = entries(&place, "layers");
        names.iter().filter(|name| name.ends_with(end)).count()
    };
    assert_eq!((ends(".json"), ends(".recipe")), (2, 2));
    drop(store);
    // Died after a recipe was placed and before the record was; and between the removal of both.
    let stray = image::Digest::of("stray").hex();
    sh(&format!(
        "cd {}/layers; echo x > {stray}.recipe; mkdir {stray}.replaced; echo x > {stray}.replaced/1
         rm $(ls *.json | head -n 1)",
        place.join("store").display()
    ));
    let store = place.store();
    assert_eq!(
        (ends(".json"), ends(".recipe"), ends(".replaced")),
        (1, 1, 0)
    );
    assert_eq!(load(&place, &store, "web:1", &two()).id, image.id);
    saved(&store, &["web:1"]);
    store.remove("web:1", false).expect("removed");
    assert!(entries(&place, "layers").is_empty());
}
