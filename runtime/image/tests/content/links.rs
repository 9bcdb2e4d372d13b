//! Hard links to files that only layers below hold.

use image::{ImageError, LayerError, Limits, Options, Store};
use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};

use super::{same_as_umoci, shown, stores};
use crate::common::*;

fn base() -> Vec<u8> {
    layer(&[
        ("f", Regular, "", b"f of the base"),
        ("sticky/", Directory, "", b""),
        ("sticky/deep/", Directory, "", b""),
        ("sticky/deep/t", Regular, "", b"t"),
        ("s", Symlink, "f", b""),
        ("way", Symlink, "sticky/../sticky/deep", b""),
        ("around", Symlink, "/way/..", b""),
        ("p", Fifo, "", b""),
        ("changed", Regular, "", b"as it was"),
        ("moved", Regular, "", b"under its old name"),
        ("hidden/", Directory, "", b""),
        ("hidden/x", Regular, "", b"x"),
        ("empty", Regular, "", b""),
        ("s1/", Directory, "", b""),
        ("s1/x", Regular, "", b"hidden by a link"),
        ("d1/", Directory, "", b""),
        ("d1/x", Regular, "", b"what it leads to"),
        ("bin", Symlink, "usr/bin", b""),
        ("usr/bin/", Directory, "", b""),
        ("usr/bin/sh", Regular, "", b"as old as the base"),
        ("late/", Directory, "", b""),
        ("late/x", Regular, "", b"before it became a link"),
    ])
}

/// Every way in which they are written, in one image.
#[test]
fn they_lead_where_umoci_has_them_lead() {
    let place = Place::new("links");
    let links = layer(&[
        ("f2", Link, "f", b""),
        // To a link that waits.
        ("f3", Link, "f2", b""),
        ("new/dir/t2", Link, "/sticky/deep/t", b""),
        // To links, and through links.
        ("s2", Link, "s", b""),
        ("through", Link, "way/t", b""),
        ("around2", Link, "around/deep/t", b""),
        ("p2", Link, "p", b""),
        ("empty2", Link, "empty", b""),
        // What comes later in the layer.
        ("kept", Link, "changed", b""),
        ("changed", Regular, "", b"as it is"),
        ("renamed", Link, "moved", b""),
        (".wh.moved", Regular, "", b""),
        ("x2", Link, "hidden/x", b""),
        ("hidden/", Directory, "", b""),
        ("hidden/.wh..wh..opq", Regular, "", b""),
        ("replaced", Link, "f", b""),
        ("replaced", Regular, "", b"a file of this layer"),
        ("twice", Link, "f", b""),
        ("twice", Link, "f", b""),
        // Through links of this layer, and to its own files through one of the base.
        ("s1", Symlink, "d1", b""),
        ("through-own", Link, "s1/x", b""),
        ("usr/bin/sh", Regular, "", b"as new as this layer"),
        ("usr/bin/dash", Link, "bin/sh", b""),
        ("late2", Link, "late/x", b""),
        ("late", Symlink, "d1", b""),
        ("gone/link", Link, "f", b""),
        ("gone", Regular, "", b"no directory any more"),
    ]);
    let more = layer(&[
        ("f4", Link, "kept", b""),
        ("x3", Link, "x2", b""),
        (".wh.f", Regular, "", b""),
    ]);
    let layers = [base(), links, more];
    same_as_umoci(&place, &layers);
}

const ATTRIBUTES: &str = r#"
import os, struct, sys
os.chdir(sys.argv[1])
capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
os.setxattr("cap", "security.capability", capability)
os.setxattr("su", "trusted.note", b"kept")
"#;

/// Owner, mode, attributes, capabilities and time come with the file, those of directories that are made for
/// it stay, and the layer is saved as it came.
#[test]
fn all_that_a_file_has_comes_with_it() {
    let place = Place::new("links-all");
    let folder = place.join("");
    let folder = folder.display();
    sh(&format!(
        "cd {folder}; mkdir -p t/sticky; echo 1 > t/sticky/su; echo 2 > t/sticky/cap
         chown 7:8 t/sticky/su t/sticky; chmod 4751 t/sticky/su; chmod 1777 t/sticky"
    ));
    python(ATTRIBUTES, &[&place.join("t/sticky").to_string_lossy()]);
    let touch = "touch -d 2001-02-03T04:05:06.789 t/sticky";
    sh(&format!(
        "cd {folder}; touch -d 2002-02-03 t/sticky/su; {touch}
         tar --format=pax --xattrs --xattrs-include='*' -C t -cf base.tar .
         ln t/sticky/su t/su2; ln t/sticky/cap t/cap2; ln t/sticky/su t/sticky/su3; {touch}"
    ));
    let links = layer(&[
        ("su2", Link, "sticky/su", b""),
        ("cap2", Link, "sticky/cap", b""),
        // The layer has no entry for its directory.
        ("sticky/su3", Link, "sticky/su", b""),
    ]);
    let layers = [read(&place.join("base.tar")), links.clone()];
    let saved = docker_old(&["x:1"], &layers, &config(&layers));
    let saved = write(&place.join("x.tar"), &saved);
    for store in stores(&place) {
        let image = store.resolve(&docker(&saved)).expect("an image");
        same(
            &shown(&store, &place, &image, true),
            &listing(&place.join("t"), true),
        );
        let mut held = Vec::new();
        store.save(&["x:1"], &mut held).expect("saved");
        let found = held.windows(links.len()).any(|part| part == links);
        assert!(found, "the layer is not what it was");
    }
}

/// A layer that needs another one below is not here without it.
#[test]
fn what_is_not_there_is_refused() {
    let place = Place::new("links-refused");
    let base = base();
    for (entries, target) in [
        (&[("h", Link, "nowhere", &b""[..])][..], "nowhere"),
        (&[("h", Link, "sticky", b"")], "sticky"),
        (&[("h", Link, "f/x", b"")], "f/x"),
        (
            &[("h", Link, "way", b""), ("i", Link, "way/no", b"")],
            "way/no",
        ),
        (
            &[
                (".wh.sticky", Regular, "", b""),
                ("h", Link, "sticky/deep/t", b""),
            ],
            "sticky/deep/t",
        ),
        (
            &[
                ("sticky/.wh..wh..opq", Regular, "", b""),
                ("h", Link, "sticky/deep/t", b""),
            ],
            "sticky/deep/t",
        ),
        (
            &[(".wh..wh..opq", Regular, "", b""), ("h", Link, "f", b"")],
            "f",
        ),
        (
            &[
                ("sticky/.wh..wh..opq", Regular, "", b""),
                ("sticky/own", Symlink, "deep", b""),
                ("h", Link, "sticky/own/t", b""),
            ],
            "sticky/own/t",
        ),
        (
            &[
                ("sticky", Regular, "", b""),
                ("h", Link, "sticky/deep/t", b""),
            ],
            "sticky/deep/t",
        ),
        // Out of all layers.
        (
            &[
                ("out", Symlink, "/etc", b""),
                ("h", Link, "out/passwd", b""),
            ],
            "out/passwd",
        ),
        (
            &[("loop", Symlink, "loop/x", b""), ("h", Link, "loop/x", b"")],
            "loop/x",
        ),
    ] {
        let layers = [base.clone(), layer(entries)];
        let saved = docker_old(&["x:1"], &layers, &config(&layers));
        let saved = write(&place.join("x.tar"), &saved);
        for store in stores(&place) {
            let root = place.join(&format!("store-{}", store.snapshotter()));
            let error = refused(&store, &root, &docker(&saved));
            let ImageError::Layer {
                number: 2, source, ..
            } = error
            else {
                panic!("{error}");
            };
            let LayerError::Refused { reason, .. } = &*source else {
                panic!("{source}");
            };
            assert!(reason.contains(&format!("`{target}`")), "{reason}");
            let why = match target {
                "sticky" => "is no file",
                _ => "neither the layer nor one below it holds",
            };
            assert!(reason.ends_with(why), "{reason}");
        }
    }
}

/// Each copy counts as what it takes.
#[test]
fn copies_are_limited() {
    let place = Place::new("links-limit");
    let big = vec![b'x'; 1 << 20];
    let mut layers = vec![layer(&[("big", Regular, "", &big)])];
    for n in 0..8 {
        let name = format!("link{n}");
        layers.push(layer(&[(&name, Link, "big", b"")]));
    }
    let saved = docker_old(&["x:1"], &layers, &config(&layers));
    let saved = write(&place.join("x.tar"), &saved);
    let options = Options {
        limits: Limits {
            bytes: 6 << 20,
            ..Limits::default()
        },
        ..Options::default()
    };
    let store = Store::open_with(place.join("store"), options).expect("a store");
    let error = refused(&store, &place.join("store"), &docker(&saved));
    assert!(error.to_string().contains("bytes"), "{error}");
}

/// Entries that hide all layers below do not reach back.
#[test]
fn a_link_leads_below_a_root_that_is_hidden_later() {
    let place = Place::new("links-opaque");
    let layers = [
        base(),
        layer(&[
            ("f2", Link, "f", b""),
            (".wh..wh..opq", Regular, "", b""),
            ("own", Regular, "", b""),
        ]),
    ];
    let saved = docker_old(&["x:1"], &layers, &config(&layers));
    let saved = write(&place.join("x.tar"), &saved);
    for store in stores(&place) {
        let image = store.resolve(&docker(&saved)).expect("an image");
        let shown = shown(&store, &place, &image, false);
        let names: Vec<_> = shown.lines().skip(1).collect();
        assert_eq!(names.len(), 2, "{shown}");
        assert!(
            names[0].starts_with("['f2'") && names[0].contains(" 13, "),
            "{shown}"
        );
    }
}

/// Links that climb and lead to each other make a short path as long as they like.
#[test]
fn a_way_without_end_is_not_gone() {
    let place = Place::new("links-way");
    let deep = "a/".repeat(40);
    let mut base: Vec<(String, tar::EntryType, String)> =
        vec![(format!("{deep}x"), Regular, String::new())];
    for n in 0..40 {
        let next = if n == 39 {
            "x".to_owned()
        } else {
            format!("l{}", n + 1)
        };
        let target = format!("{}{}{next}", "a/".repeat(18), "../".repeat(18));
        base.push((format!("l{n}"), Symlink, target));
    }
    base.push(("x/".to_owned(), Directory, String::new()));
    base.push(("x/y".to_owned(), Regular, String::new()));
    let base: Vec<_> = base
        .iter()
        .map(|(name, kind, link)| (name.as_str(), *kind, link.as_str(), &b""[..]))
        .collect();
    let layers = [layer(&base), layer(&[("h", Link, "l0/y", b"")])];
    let saved = docker_old(&["x:1"], &layers, &config(&layers));
    let saved = write(&place.join("x.tar"), &saved);
    let store = place.store();
    let error = refused(&store, &place.join("store"), &docker(&saved));
    assert!(format!("{error:?}").contains("holds"), "{error:?}");
}
