//! Whatever the form of the layers: they come back as they were.

use serde_json::Value;
use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};

use super::*;
use crate::common::tree::*;

/// Saves, loads into another store, and compares with what was there. `times` of directories are not
/// compared where the archive does not tell them.
fn comes_back(
    place: &Place,
    store: &Store,
    image: &Image,
    name: &str,
    layers: &[Vec<u8>],
    times: bool,
) {
    let path = write(&place.join("out.tar"), &saved(store, &[name]));
    let list = members(&path);
    for layer in layers {
        let member = format!("blobs/sha256/{}", image::Digest::of(layer).hex());
        assert!(list.contains(&member), "{member} in {list:?}");
        let blob = place.join("blob");
        let (path, blob_path) = (path.display(), blob.display());
        sh(&format!("tar -xOf {path} {member} > {blob_path}"));
        assert!(read(&blob) == *layer, "the layer is another one");
    }
    let other = Store::open(place.join("other")).expect("a store");
    for text in ["docker-archive", "oci-archive"] {
        let again = other.resolve(&reference(&format!("{text}:{}", path.display())));
        let again = again.expect(text);
        assert_eq!((again.id, &again.rootfs), (image.id, &image.rootfs));
        assert_eq!(again.names[0], name.parse().expect("a name"));
    }
    let again = other.resolve(&reference(name)).expect("by name");
    // And once more, from the store that has loaded it.
    assert!(read(&path) == saved(&other, &[name]), "not deterministic");
    let mounted = |store: &Store, image: &Image, point: &str| {
        let snapshot = store.snapshot(image, "m").expect("a snapshot");
        let all = mounted_listing(
            &snapshot.overlay_options().expect("an overlay"),
            &place.join(point),
            times,
        );
        store.remove_snapshot("m").expect("removed");
        all
    };
    same(&mounted(&other, &again, "m1"), &mounted(store, image, "m2"));
    drop(other);
    sh(&format!("rm -r {}", place.join("other").display()));
}

/// Two layers with everything that a file system can hold, in one of GNU tar's formats.
fn of_gnu_tar(test: &str, options: &str, xattrs: bool) {
    let place = Place::new(test);
    let user = match has_user_attributes(&place) {
        true => "user",
        false => "",
    };
    python(MAKE, &[&place.join("t").to_string_lossy(), user]);
    let xattrs = match xattrs {
        true => "--xattrs --xattrs-include='*'",
        false => "--no-xattrs",
    };
    sh(&format!(
        "cd {}
         tar -C t/a {options} {xattrs} --sparse -cf 1.tar .
         cd t/b; mkdir -p home old; touch old/.wh.before-epoch .wh.fifo home/.wh..wh..opq
         tar {options} -b 1 -cf ../../2.tar tmp/added new etc/passwd old/.wh.before-epoch .wh.fifo \
           home",
        place.join("").display(),
    ));
    let layers = [read(&place.join("1.tar")), read(&place.join("2.tar"))];
    let store = place.store();
    let image = load(&place, &store, "all:1", &layers);
    comes_back(&place, &store, &image, "all:1", &layers, true);
    // Nothing of it is kept twice.
    let recipes = entries(&place, "layers");
    assert!(recipes.iter().all(|name| !name.ends_with(".replaced")));
}

#[test]
fn gnu_format() {
    of_gnu_tar("save-gnu", "--format=gnu", false);
}

#[test]
fn old_sparse_maps_and_attributes() {
    of_gnu_tar("save-pax00", "--format=pax --sparse-version=0.0", true);
}

#[test]
fn new_sparse_maps_and_attributes() {
    of_gnu_tar("save-pax10", "--format=pax --sparse-version=1.0", true);
}

#[test]
fn what_later_entries_replace_is_in_the_archive_and_not_in_the_layer() {
    let long = vec![b'l'; 200_000];
    let layers = [layer(&[
        ("twice", Regular, "", b"first"),
        ("twice", Regular, "", b"second"),
        ("twice", Regular, "", b"third"),
        // One file with two names: the content lives on in the second, then in none.
        ("a", Regular, "", b"linked"),
        ("b", Link, "a", b""),
        ("a", Regular, "", b"other"),
        ("c", Regular, "", b"linked too"),
        ("d", Link, "c", b""),
        ("c", Fifo, "", b""),
        ("d", Symlink, "a", b""),
        // Whole trees.
        ("e/f/g", Regular, "", &long),
        ("e/f/empty", Regular, "", b""),
        ("e/f/fifo", Fifo, "", b""),
        ("e/h", Regular, "", b"in a tree"),
        ("e", Regular, "", b"a file now"),
        ("e", Directory, "", b""),
        ("e/h", Regular, "", b"a tree again"),
        // A directory that is a link, and then is none any more.
        ("real/", Directory, "", b""),
        ("link", Symlink, "real", b""),
        ("link/x", Regular, "", b"through the link"),
        ("link/y", Regular, "", b"through it too"),
        ("link", Regular, "", b"no link"),
        ("link", Directory, "", b""),
        ("link/x", Regular, "", b"elsewhere"),
        // Entries that make no file, with data all the same.
        (".wh.gone", Regular, "", b"data of a whiteout"),
        (".wh..wh.plnk/1", Regular, "", b"left by AUFS"),
        ("real/.wh..wh..opq", Regular, "", b"opaque"),
    ])];
    let place = Place::new("save-replaced");
    let store = place.store();
    let image = load(&place, &store, "replaced:1", &layers);
    let files = lower(&store, &image);
    for (file, content) in [
        ("twice", "third"),
        ("b", "linked"),
        ("e/h", "a tree again"),
        ("real/x", "through the link"),
        ("link/x", "elsewhere"),
    ] {
        assert_eq!(read(&files.join(file)), content.as_bytes(), "{file}");
    }
    comes_back(&place, &store, &image, "replaced:1", &layers, false);
    let kept = entries(&place, "layers");
    let replaced = kept.iter().find(|name| name.ends_with(".replaced"));
    let replaced = replaced.expect("what was replaced");
    let contents = entries(&place, &format!("layers/{replaced}"));
    assert_eq!(contents.len(), 8, "{contents:?}");
    store.remove_image(&image.id).expect("removed");
    store.gc().expect("a collection");
    assert!(entries(&place, "layers").is_empty());
}

#[test]
fn paths_through_links_and_longer_than_the_kernel_can_tell() {
    let name = "n".repeat(250);
    let deep = vec![name.as_str(); 16].join("/");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        match kind {
            Symlink => tar.append_link(&mut header, path, link),
            _ => tar.append_data(&mut header, path, data),
        }
        .expect("an entry");
    };
    add(&format!("{deep}/file"), Regular, "", b"deep");
    add("short", Symlink, &deep, b"");
    add(
        &format!("short/{deep}/file"),
        Regular,
        "",
        b"deeper than a path",
    );
    add("abs", Symlink, "/usr/lib", b"");
    add("usr/lib/", Directory, "", b"");
    add("abs/so", Regular, "", b"behind an absolute link");
    let layers = [tar.into_inner().expect("an archive")];
    let place = Place::new("save-links");
    let store = place.store();
    let image = load(&place, &store, "links:1", &layers);
    // Not compared file by file: python cannot walk there.
    let path = write(&place.join("out.tar"), &saved(&store, &["links:1"]));
    let other = Store::open(place.join("other")).expect("a store");
    let again = other.resolve(&docker(&path)).expect("loaded");
    assert_eq!(again.id, image.id);
    store.remove("links:1", true).expect("removed");
    other.remove("links:1", true).expect("removed");
}

#[test]
fn odd_ends_of_archives_are_kept() {
    let whole = tar_of(&[("a", b"1"), ("b", b"22")]);
    // Without the end, without the padding, with rubbish behind the end.
    let unended = whole[..4 * 512].to_vec();
    let unpadded = whole[..3 * 512 + 2].to_vec();
    let more = [whole.clone(), b"rubbish".repeat(50_000)].concat();
    let place = Place::new("save-ends");
    let store = place.store();
    for (at, layer) in [unended, unpadded, more, Vec::new()]
        .into_iter()
        .enumerate()
    {
        let layers = [layer];
        let name = format!("end{at}:1");
        let image = load(&place, &store, &name, &layers);
        comes_back(&place, &store, &image, &name, &layers, true);
    }
}

#[test]
fn several_images_share_layers_and_keep_the_names_that_were_asked_for() {
    let place = Place::new("save-several");
    let store = place.store();
    let base = tar_of(&[("base", b"1")]);
    let (one, two) = (tar_of(&[("one", b"1")]), tar_of(&[("two", b"2")]));
    let layers = [base.clone(), one.clone(), base.clone()];
    let first = load(&place, &store, "first:1", &layers);
    load(&place, &store, "registry.test:5000/a/first:2", &layers);
    let second = load(&place, &store, "second:1", &[two, base]);
    let names = [
        "first:1",
        "second:1",
        "registry.test:5000/a/first:2",
        "first:1",
    ];
    let path = write(&place.join("all.tar"), &saved(&store, &names));
    let list = members(&path);
    let blobs = list.iter().filter(|m| m.len() > "blobs/sha256/".len());
    // Three layers, two configurations, two manifests.
    assert_eq!(blobs.count(), 7, "{list:?}");
    let mut sorted = list.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, list);
    let document = |name: &str| -> Value {
        let text = sh(&format!("tar -xOf {} {name}", path.display()));
        serde_json::from_str(&text).expect(name)
    };
    let manifest = document("manifest.json");
    assert_eq!(
        manifest[0]["RepoTags"],
        serde_json::json!(["first:1", "registry.test:5000/a/first:2"])
    );
    assert_eq!(manifest[0]["Layers"].as_array().map(Vec::len), Some(3));
    let index = document("index.json");
    let names: Vec<_> = index["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .map(|m| m["annotations"]["io.containerd.image.name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            Some("docker.io/library/first:1"),
            Some("registry.test:5000/a/first:2"),
            Some("docker.io/library/second:1")
        ]
    );
    let other = Store::open(place.join("other")).expect("a store");
    for (name, id) in [("first:1", first.id), ("second:1", second.id)] {
        let at = format!("docker-archive:{}:{name}", path.display());
        assert_eq!(other.resolve(&reference(&at)).expect(name).id, id);
        let full = format!("oci-archive:{}:docker.io/library/{name}", path.display());
        assert_eq!(other.resolve(&reference(&full)).expect(name).id, id);
    }

    // By its id it has no name.
    let digits = &first.id.hex()[..12];
    let path = write(&place.join("id.tar"), &saved(&store, &[digits]));
    let third = Store::open(place.join("third")).expect("a store");
    let again = third.resolve(&docker(&path)).expect("loaded");
    assert_eq!((again.id, again.names.len()), (first.id, 0));
}

#[test]
fn other_peoples_tools_take_it() {
    let place = Place::new("save-tools");
    // umoci leaves out empty attributes.
    python(MAKE, &[&place.join("t").to_string_lossy(), ""]);
    sh(&format!(
        "cd {}
         tar -C t/a --format=pax --xattrs --xattrs-include='*' -cf 1.tar .
         mkdir w; touch w/.wh.fifo; tar -C w -cf 2.tar .wh.fifo",
        place.join("").display()
    ));
    let layers = [read(&place.join("1.tar")), read(&place.join("2.tar"))];
    let store = place.store();
    // umoci looks the user up.
    let mut config = config(&layers);
    config["config"]["User"] = serde_json::json!("7:8");
    let archive = docker_old(&["tools:1"], &layers, &config);
    let image = store.resolve(&docker(&write(&place.join("in.tar"), &archive)));
    let image = image.expect("loaded");
    write(&place.join("out.tar"), &saved(&store, &["tools:1"]));
    let said = sh(&format!(
        "cd {}
         mkdir podman
         skopeo inspect --raw --config docker-archive:out.tar:tools:1 | sha256sum
         skopeo copy -q --insecure-policy docker-archive:out.tar:tools:1 dir:docker
         skopeo inspect --raw --config dir:docker | sha256sum
         skopeo copy -q --insecure-policy oci-archive:out.tar oci:oci:1
         skopeo inspect --raw --config oci:oci:1 | sha256sum
         mkdir layout; tar -C layout -xf out.tar
         umoci unpack --image layout:1 umoci
         if command -v podman >/dev/null; then
           podman --root $PWD/podman/root --runroot $PWD/podman/run --storage-driver vfs \\
             load -q -i out.tar >&2
           podman --root $PWD/podman/root --runroot $PWD/podman/run --storage-driver vfs \\
             image inspect --format '{{{{.Id}}}}' docker.io/library/tools:1
         fi",
        place.join("").display()
    ));
    for id in said.lines() {
        assert!(id.starts_with(&image.id.hex()), "{said}");
    }
    assert!(said.lines().count() >= 3, "{said}");
    let snapshot = store.snapshot(&image, "s").expect("a snapshot");
    same(
        &mounted_listing(
            &snapshot.overlay_options().expect("an overlay"),
            &place.join("m"),
            false,
        ),
        &listing(&place.join("umoci/rootfs"), false),
    );
}
