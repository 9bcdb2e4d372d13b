//! Layers that are here on top of others.

use std::{fs, thread};

use tar::EntryType::{Directory, Link, Regular};

use crate::{bed::*, common::*, line::*, made::*};

/// Images with one and the same layer on top of different ones.
fn on_bases(count: u8) -> (Vec<u8>, Vec<Made>) {
    let shared = layer(&[
        // Its directory is described by the layers below alone.
        ("tmp/file", Regular, "", &noise(1, 300_000)),
        ("linked", Link, "which", b""),
        (".wh.gone", Regular, "", b""),
    ]);
    let made = (0..count)
        .map(|n| {
            let mut base = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(Directory);
            header.set_mode(0o1700 | u32::from(n));
            header.set_size(0);
            base.append_data(&mut header, "tmp", &b""[..]).expect("tmp");
            append(&mut base, "which", Regular, "", &[b'0' + n]);
            append(&mut base, "gone", Regular, "", b"");
            let layers = [base.into_inner().expect("a layer"), shared.clone()];
            let made = Made::new(Form::Oci, &layers, gzip);
            made.push(REGISTRY, "app", &format!("v{n}"));
            made
        })
        .collect();
    (shared, made)
}

/// What the image called so shows is what its own base makes of it.
fn is_right(bed: &Bed, store: &image::Store, name: &str, n: u8) {
    let image = pull(store, name).expect(name);
    let key = format!("look-{n}");
    let mount = snapshot(store, &image, &key)
        .overlay_options()
        .expect("an overlay");
    let point = bed.path(&key);
    let script = format!(
        "cd {}; ls; stat -c %a tmp; cat linked; stat -c %h which; sha256sum <tmp/file",
        point.display()
    );
    let sum = image::Digest::of(noise(1, 300_000));
    assert_eq!(
        mounted(&mount, &point, &script),
        format!(
            "linked\ntmp\nwhich\n{:o}\n{n}2\n{}  -\n",
            0o1700 | u32::from(n),
            sum.hex()
        )
    );
}

#[test]
fn a_layer_on_top_of_another_one_is_not_downloaded_again() {
    let bed = Bed::new("again");
    let _registry = bed.registry();
    let (shared, made) = on_bases(3);
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    for n in 0..2 {
        is_right(&bed, &store, &line.name(&format!("app:v{n}")), n);
    }
    assert_eq!(line.offsets(&made[0].blob(1)), [0], "it came once");
    // Nor does it go with the image that it came with.
    store.remove_snapshot("look-0").expect("removed");
    store
        .remove(&made[0].id().to_string(), true)
        .expect("removed");
    store.gc().expect("collected");
    is_right(&bed, &store, &line.name("app:v2"), 2);
    assert_eq!(line.offsets(&made[0].blob(1)), [0], "it came once");
    let mut saved = Vec::new();
    store
        .save(&[line.name("app:v2")], &mut saved)
        .expect("saved");
    assert!(saved.windows(shared.len()).any(|part| part == shared));
    bed.is_clean(4, 0);
}

/// At the same time, too.
#[test]
fn one_blob_on_top_of_many_layers_comes_once() {
    let bed = Bed::new("again-many");
    let _registry = bed.registry();
    let (_, made) = on_bases(6);
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    thread::scope(|scope| {
        for n in 0..6 {
            let (bed, store, name) = (&bed, &store, line.name(&format!("app:v{n}")));
            scope.spawn(move || is_right(bed, store, &name, n));
        }
    });
    assert_eq!(line.offsets(&made[0].blob(1)), [0], "it came once");
    bed.is_clean(12, 0);
}

#[test]
fn a_layer_whose_files_were_changed_is_downloaded() {
    let bed = Bed::new("again-changed");
    let _registry = bed.registry();
    let (_, made) = on_bases(2);
    let line = Line::to(REGISTRY, |_| Fault::None);
    let store = bed.store();
    let image = pull(&store, &line.name("app:v0")).expect("an image");
    let mount = snapshot(&store, &image, "s")
        .overlay_options()
        .expect("an overlay");
    fs::write(mount.lower[0].join("tmp/file"), noise(2, 300_000)).expect("changed");
    is_right(&bed, &store, &line.name("app:v1"), 1);
    assert_eq!(line.offsets(&made[0].blob(1)), [0, 0], "it came again");
    bed.is_clean(4, 0);
}
