//! What is unpacked and mounted is what independent tools make of the same layers.

#[path = "../common/mod.rs"]
mod common;
mod links;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{tree::*, *};
use image::{Options, Snapshotter, Store};
use tar::EntryType::{Directory, Regular, Symlink};

/// Applies a layer as the specification says, with GNU tar.
fn apply(archive: &Path, root: &Path) {
    let (archive, root) = (archive.display(), root.display());
    sh(&format!(
        "tar -tf {archive} | grep -aE '(^|/)\\.wh\\.' > {archive}.wh || true
         while IFS= read -r w; do
           d=$(dirname \"$w\"); n=$(basename \"$w\")
           case $n in
             .wh..wh..opq) find {root}/$d -mindepth 1 -delete ;;
             *) rm -rf {root}/$d/\"${{n#.wh.}}\" ;;
           esac
         done < {archive}.wh
         tar --numeric-owner --same-owner -p --xattrs --xattrs-include='*' --exclude='.wh.*' \
           -C {root} -xf {archive}"
    ));
}

/// Packs the tree with GNU tar in one of its formats, unpacks it both ways, compares.
fn same_as_gnu_tar(test: &str, options: &str, compress: fn(&[u8]) -> Vec<u8>, xattrs: bool) {
    let place = Place::new(test);
    let user = if has_user_attributes(&place) {
        "user"
    } else {
        ""
    };
    python(MAKE, &[&place.join("t").to_string_lossy(), user]);
    let (first, second) = (place.join("1.tar"), place.join("2.tar"));
    let xattrs = if xattrs {
        "--xattrs --xattrs-include='*'"
    } else {
        "--no-xattrs"
    };
    let tree = place.join("t");
    let tree = tree.display();
    sh(&format!(
        "cd {tree}/a; tar {options} {xattrs} --sparse -cf {} . 
         cd {tree}/b; mkdir -p home old; touch old/.wh.before-epoch .wh.fifo home/.wh..wh..opq
         tar {options} -cf {} tmp/added new etc/passwd old/.wh.before-epoch .wh.fifo home",
        first.display(),
        second.display()
    ));
    let expected = place.join("expected");
    fs::create_dir(&expected).expect("a directory");
    apply(&first, &expected);
    let layers = [read(&first), read(&second)];
    let layout_dir = place.join("oci");
    write_layout(
        &layout_dir,
        &layout("v1", &layers, &config(&layers), compress),
    );

    let store = place.store();
    // One layer alone: times of directories as well.
    let alone = [layers[0].clone()];
    let saved = write(
        &place.join("one.tar"),
        &docker_old(&["one"], &alone, &config(&alone)),
    );
    let one = store.resolve(&docker(&saved)).expect("one layer");
    let one = store
        .snapshot(&one, "one")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    same(&listing(&one.lower[0], true), &listing(&expected, true));
    same(
        &mounted_listing(&one, &place.join("m1"), true),
        &listing(&expected, true),
    );

    apply(&second, &expected);
    let image = store
        .resolve(&reference(&format!("oci:{}", layout_dir.display())))
        .expect("two layers");
    let mount = store
        .snapshot(&image, "two")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    assert_eq!(mount.lower[1], one.lower[0], "the first layer is shared");
    same(
        &mounted_listing(&mount, &place.join("m2"), false),
        &listing(&expected, false),
    );
    // Holes must not become blocks.
    let blocks = sh(&format!("stat -c %b {}/hole", one.lower[0].display()));
    assert_eq!(blocks.trim(), "0");
}

#[test]
fn gnu_format_plain() {
    same_as_gnu_tar("gnu", "--format=gnu", plain, false);
}

#[test]
fn pax_format_gzip_with_attributes() {
    same_as_gnu_tar("pax00", "--format=pax --sparse-version=0.0", gzip, true);
}

#[test]
fn pax_format_zstd_sparse_0_1() {
    same_as_gnu_tar("pax01", "--format=pax --sparse-version=0.1", zstd, true);
}

#[test]
fn pax_format_sparse_1_0() {
    same_as_gnu_tar("pax10", "--format=pax --sparse-version=1.0", gzip, true);
}

/// Both kinds of store show what umoci unpacks.
fn same_as_umoci(place: &Place, layers: &[Vec<u8>]) {
    let (layout_dir, expected) = unpacked_by_umoci(place, layers);
    let reference = reference(&format!("oci:{}:v1", layout_dir.display()));
    for store in stores(place) {
        let image = store.resolve(&reference).expect("an image");
        same(
            &shown(&store, place, &image, false),
            &listing(&expected, false),
        );
    }
}

/// The layers, and what umoci makes of them.
fn unpacked_by_umoci(place: &Place, layers: &[Vec<u8>]) -> (PathBuf, PathBuf) {
    let layout_dir = place.join("oci");
    let mut config = config(layers);
    // umoci looks the user up.
    config["config"]["User"] = "0".into();
    let files = layout("v1", layers, &config, plain);
    write_layout(&layout_dir, &files);
    let bundle = place.join("bundle");
    sh(&format!(
        "umoci unpack --image {}:v1 {}",
        layout_dir.display(),
        bundle.display()
    ));
    (layout_dir, bundle.join("rootfs"))
}

/// The two kinds of stores.
fn stores(place: &Place) -> [Store; 2] {
    [Snapshotter::Overlayfs, Snapshotter::Native].map(|snapshotter| {
        let options = Options {
            snapshotter: Some(snapshotter),
            ..Options::default()
        };
        let path = place.join(&format!("store-{snapshotter}"));
        open_store(path, options)
    })
}

fn shown(store: &Store, place: &Place, image: &image::Image, times: bool) -> String {
    let snapshot = store.snapshot(image, "s").expect("a snapshot");
    match snapshot.overlay_options() {
        Some(mount) => mounted_listing(&mount, &place.join("m"), times),
        None => listing(
            &place.join(&format!("store-{}/snapshots/s/root", store.snapshotter())),
            times,
        ),
    }
}

/// One image of `layers`, mounted, listed with `find`.
fn find(test: &str, layers: &[Vec<u8>]) -> Vec<String> {
    let place = Place::new(test);
    let saved = docker_old(&["x"], layers, &config(layers));
    let image = place.store();
    let store = image;
    let image = store
        .resolve(&docker(&write(&place.join("x.tar"), &saved)))
        .expect("an image");
    let mount = store
        .snapshot(&image, "s")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    let point = place.join("m");
    let script = format!("cd {}; find . -mindepth 1 | sort", point.display());
    mounted(&mount, &point, &script)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let base = layer(&[
        ("f", Regular, "", b"1"),
        ("d/", Directory, "", b""),
        ("d/old", Regular, "", b"1"),
        ("e/", Directory, "", b""),
        ("e/old", Regular, "", b"1"),
        ("g", Regular, "", b"1"),
        ("h/", Directory, "", b""),
        ("h/old", Regular, "", b"1"),
    ]);
    let top = layer(&[
        // Deleted.
        (".wh.f", Regular, "", b""),
        // Deleted and made again, in both orders.
        (".wh.d", Regular, "", b""),
        ("d/new", Regular, "", b"2"),
        ("e/", Directory, "", b""),
        ("e/new", Regular, "", b"2"),
        (".wh.e", Regular, "", b""),
        // A whiteout does not hide what its own layer holds.
        ("g", Regular, "", b"2"),
        (".wh.g", Regular, "", b""),
        // A directory that becomes a file.
        ("h", Regular, "", b"2"),
        // Of something that never was.
        (".wh.never", Regular, "", b""),
        // Left over from AUFS.
        (".wh..wh.plnk", Regular, "", b""),
    ]);
    assert_eq!(
        find("whiteouts", &[base, top]),
        ["./d", "./d/new", "./e", "./e/new", "./g", "./h"]
    );
}

/// As kaniko and Nix write them.
#[test]
fn names_from_the_root() {
    use tar::EntryType::Link;
    let base = layer(&[("etc/", Directory, "", b""), ("etc/old", Regular, "", b"1")]);
    let top = layer(&[
        ("/", Directory, "", b""),
        ("/nix/store/", Directory, "", b""),
        ("/nix/store/file", Regular, "", b"2"),
        ("/nix/store/link", Link, "/nix/store/file", b""),
        ("//etc/.wh.old", Regular, "", b""),
    ]);
    let found = find("from-root", &[base, top]);
    let expected = [
        "./etc",
        "./nix",
        "./nix/store",
        "./nix/store/file",
        "./nix/store/link",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let base = layer(&[("a", Regular, "", b"1"), ("b/", Directory, "", b"")]);
    let top = layer(&[("c", Regular, "", b"1"), (".wh..wh..opq", Regular, "", b"")]);
    assert_eq!(find("opaque-root", &[base, top]), ["./c"]);
}

#[test]
fn later_entries_replace_earlier_ones_and_never_write_through_them() {
    let entries = layer(&[
        ("a", Regular, "", b"first"),
        ("b", tar::EntryType::Link, "a", b""),
        ("b", Regular, "", b"second"),
        ("c", Symlink, "a", b""),
        ("c", Regular, "", b"third"),
        ("d/", Directory, "", b""),
        ("d/x", Regular, "", b""),
        ("d", Regular, "", b"file"),
        ("e", Symlink, "a", b""),
        ("e/", Directory, "", b""),
    ]);
    let place = Place::new("replace");
    let layers = [entries];
    let saved = docker_old(&["x"], &layers, &config(&layers));
    let store = place.store();
    let image = store
        .resolve(&docker(&write(&place.join("x.tar"), &saved)))
        .expect("an image");
    let lower = store
        .snapshot(&image, "s")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay")
        .lower;
    for (name, content) in [
        ("a", "first"),
        ("b", "second"),
        ("c", "third"),
        ("d", "file"),
    ] {
        assert_eq!(
            fs::read_to_string(lower[0].join(name)).expect(name),
            content,
            "{name}"
        );
    }
    assert!(
        fs::symlink_metadata(lower[0].join("e"))
            .expect("e")
            .is_dir()
    );
}

#[test]
fn what_a_task_writes_stays_in_its_snapshot() {
    let place = Place::new("upper");
    let layers = [layer(&[("a", Regular, "", b"1")])];
    let saved = write(
        &place.join("x.tar"),
        &docker_old(&["x"], &layers, &config(&layers)),
    );
    let store = place.store();
    let image = store.resolve(&docker(&saved)).expect("an image");
    let first = store.snapshot(&image, "first").expect("a snapshot");
    let second = store.snapshot(&image, "second").expect("a snapshot");
    let point = place.join("m");
    let script = format!(
        "cd {}; echo changed > a; mkdir -p b/c; rm -f nothing",
        point.display()
    );
    mounted(
        &first.overlay_options().expect("an overlay"),
        &point,
        &script,
    );
    let show = format!("cat {}/a", point.display());
    assert_eq!(
        mounted(&first.overlay_options().expect("an overlay"), &point, &show),
        "changed\n"
    );
    assert_eq!(
        mounted(
            &second.overlay_options().expect("an overlay"),
            &point,
            &show
        ),
        "1"
    );
    // overlayfs left work/work without any permission behind.
    assert!(store.remove_snapshot("first").expect("removed"));
    assert!(!place.join("store/snapshots/first").exists());
    assert!(
        fs::read_dir(place.join("store/tmp"))
            .expect("tmp")
            .next()
            .is_none()
    );
}

#[test]
fn a_directory_serves_as_the_only_layer() {
    let place = Place::new("dir");
    let root = place.join("root fs");
    fs::create_dir_all(root.join("etc")).expect("a directory");
    write(&root.join("etc/hostname"), b"host");
    let store = place.store();
    let image = store
        .resolve(&reference(&format!("dir:{}", root.display())))
        .expect("an image");
    assert_eq!(image.command(), Vec::<String>::new());
    let mount = store
        .snapshot(&image, "d")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    assert_eq!(mount.lower, [root.canonicalize().expect("a path")]);
    let point = place.join("m");
    let script = format!("cat {0}/etc/hostname; echo x > {0}/new", point.display());
    assert_eq!(mounted(&mount, &point, &script), "host");
    assert!(!root.join("new").exists());
    for bad in [
        place.join("missing"),
        write(&place.join("file"), b""),
        place.join("store/l"),
    ] {
        let error = store.resolve(&reference(&format!("dir:{}", bad.display())));
        assert!(
            matches!(error, Err(image::ImageError::Directory { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    assert_eq!(find("scratch", &[]), Vec::<String>::new());
}

#[test]
fn many_layers_fit_into_one_mount() {
    let layers: Vec<_> = (0..90)
        .map(|n| tar_of(&[(&format!("f{n}"), b"x"), ("same", &[n])]))
        .collect();
    assert_eq!(find("many", &layers).len(), 91);
}

#[test]
fn umoci_and_skopeo_agree() {
    let place = Place::new("umoci");
    let root = place.join("");
    let root = root.display();
    sh(&format!(
        "cd {root}
         umoci init --layout made
         umoci new --image made:v1
         mkdir -p tree/etc tree/var/lib; echo one > tree/etc/one; echo two > tree/var/lib/two
         chmod 4755 tree/etc/one; ln tree/etc/one tree/etc/linked; ln -s etc/one tree/link
         umoci insert --image made:v1 tree/etc /etc
         umoci insert --image made:v1 tree/var /var
         umoci insert --image made:v1 --whiteout /var/lib/two
         umoci config --image made:v1 --config.cmd /bin/sh --config.user 7
         umoci unpack --image made:v1 bundle
         skopeo copy -q oci:made:v1 docker-archive:saved.tar:team/app:7
         skopeo copy -q oci:made:v1 oci-archive:oci.tar:v1"
    ));
    let store = place.store();
    let layout = store
        .resolve(&reference(&format!("oci:{root}made:v1")))
        .expect("a layout");
    let saved = store
        .resolve(&docker(&place.join("saved.tar")))
        .expect("a docker archive");
    let packed = store
        .resolve(&reference(&format!("oci-archive:{root}oci.tar:v1")))
        .expect("oci");
    assert_eq!(layout.rootfs, saved.rootfs);
    assert_eq!((layout.id, layout.user()), (packed.id, Some("7")));
    assert_eq!(
        store.resolve(&reference("team/app:7")).expect("by name").id,
        saved.id
    );
    let mount = store
        .snapshot(&layout, "s")
        .expect("a snapshot")
        .overlay_options()
        .expect("an overlay");
    same(
        &mounted_listing(&mount, &place.join("m"), false),
        &listing(&place.join("bundle/rootfs"), false),
    );
}

/// What is noted of a directory goes with it, by whichever way the archive comes to it.
#[test]
fn a_directory_is_replaced_through_a_link() {
    for (test, entry, link) in [
        ("file", Regular, ""),
        ("link", Symlink, "f"),
        ("none", Directory, ""),
    ] {
        let place = Place::new(&format!("replaced-{test}"));
        let mut base = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(Directory);
        header.set_size(0);
        header.set_mtime(1_600_000_000);
        header.set_mode(0o1777);
        header.set_uid(7);
        base.append_data(&mut header, "d", &b""[..]).expect("d");
        let base = base.into_inner().expect("a layer");
        let layers = [
            base,
            layer(&[
                ("f/", Directory, "", b""),
                ("a", Symlink, ".", b""),
                ("d/x", Regular, "", b"1"),
                ("a/d", entry, link, b""),
                ("a/f/", Directory, "", b""),
            ]),
        ];
        let (layout_dir, expected) = unpacked_by_umoci(&place, &layers);
        let reference = reference(&format!("oci:{}:v1", layout_dir.display()));
        for store in stores(&place) {
            let image = store.resolve(&reference).expect("an image");
            same(
                &shown(&store, &place, &image, true),
                &listing(&expected, true),
            );
        }
    }
}

/// A directory with an owner and a mode that tell that it was taken over.
fn owned(tar: &mut tar::Builder<Vec<u8>>, name: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(Directory);
    header.set_size(0);
    header.set_mtime(1_600_000_000);
    header.set_mode(0o700);
    header.set_uid(1000);
    tar.append_data(&mut header, name, &b""[..]).expect(name);
}

/// A directory that a layer uses and does not describe is the one below, unless that was deleted.
#[test]
fn a_deleted_directory_gives_nothing_to_the_next_one() {
    let base = || {
        let mut base = tar::Builder::new(Vec::new());
        for name in ["a", "a/b", "d", "e", "e/f", "g", "h", "h/i", "k"] {
            owned(&mut base, name);
        }
        base.into_inner().expect("a layer")
    };
    let cases = [
        (
            "below",
            vec![
                vec!["a/.wh..wh..opq", "e/.wh.f"],
                vec!["a/b/c", "e/f/c", "d/c"],
            ],
        ),
        (
            "beside",
            // Deleted and made again; its parent emptied; itself emptied; nothing of that.
            vec![vec![
                ".wh.d",
                "d/new",
                "h/.wh..wh..opq",
                "h/i/new",
                "g/.wh..wh..opq",
                "g/new",
                "k/new",
            ]],
        ),
        ("root", vec![vec![".wh..wh..opq", "a/new"]]),
    ];
    for (test, tops) in cases {
        let place = Place::new(&format!("adopted-{test}"));
        let mut layers = vec![base()];
        let files = |names: Vec<_>| names.into_iter().map(|name| (name, &b""[..]));
        let tops = tops.into_iter();
        layers.extend(tops.map(|names| tar_of(&files(names).collect::<Vec<_>>())));
        same_as_umoci(&place, &layers);
    }
}

/// Of an overlayfs that a program without rights mounts, such as podman: for ours they mean nothing.
#[test]
fn attributes_of_other_overlays_are_kept() {
    let place = Place::new("user-overlay");
    if !has_user_attributes(&place) {
        return;
    }
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "lower", Directory, "", b"");
    let opaque = [("SCHILY.xattr.user.overlay.opaque", &b"y"[..])];
    tar.append_pax_extensions(opaque).expect("attributes");
    append(&mut tar, "d", Directory, "", b"");
    let top = tar.into_inner().expect("a layer");
    let layers = [layer(&[("d/below", Regular, "", b"1")]), top];
    let saved = docker_old(&["x"], &layers, &config(&layers));
    let path = write(&place.join("x.tar"), &saved);
    for store in stores(&place) {
        let image = store.resolve(&docker(&path)).expect("an image");
        let seen = shown(&store, &place, &image, false);
        assert!(seen.contains("('user.overlay.opaque', b'y')"), "{seen}");
        assert!(seen.contains("'d/below'"), "{seen}");
    }
}
