//! Entries that would lead out of their layer, and those that none may contain.

use super::*;

#[test]
fn names_that_leave_the_layer() {
    let attack = Attack::new("names");
    let climbing = format!("/..{}", attack.outside.join("new").display());
    for name in [
        "/../etc/new",
        &climbing,
        "../new",
        "a/../../new",
        "..",
        "a/..",
    ] {
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
    // From the root of the layer, where no such file is.
    for target in [file.as_str(), "/etc/passwd"] {
        says(
            &attack.entries(&[("h", Link, target, b"")]),
            "neither the layer nor one below it holds",
        );
    }
    for target in ["../../outside/file", "/../outside/file", ""] {
        says(
            &attack.entries(&[("h", Link, target, b"")]),
            "outside the layer",
        );
    }
    says(
        &attack.entries(&[("h", Link, "missing", b"")]),
        "neither the layer nor one below it holds",
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
    says(&error, "neither the layer nor one below it holds");
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
    for attribute in ["trusted.overlay.redirect", "trusted.overlay.opaque"] {
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
