//! Root file systems that are copies, and how much is written to one.

mod common;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use common::{tree::*, *};
use image::{Image, ImageError, Options, Snapshot, SnapshotRoot, Snapshotter, Store, StoreError};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

fn open(root: &Path, snapshotter: Option<Snapshotter>) -> Result<Store, ImageError> {
    let options = Options {
        snapshotter,
        ..Options::default()
    };
    Store::open_with(root, options)
}

fn native(place: &Place) -> Store {
    open(&place.join("native"), Some(Snapshotter::Native)).expect("a store")
}

fn root_of(snapshot: &Snapshot) -> PathBuf {
    match snapshot.root() {
        SnapshotRoot::Directory { root } => root.clone(),
        other => panic!("not a copy: {other:?}"),
    }
}

/// The layers as an image of the store.
fn load(place: &Place, store: &Store, layers: &[Vec<u8>]) -> Image {
    let saved = docker_old(&["x"], layers, &config(layers));
    let path = write(&place.join("x.tar"), &saved);
    store.resolve(&docker(&path)).expect("an image")
}

/// Two layers with everything that a file system can hold; the second one takes away files,
/// directories and the content of a directory.
fn everything(place: &Place) -> [Vec<u8>; 2] {
    let user = has_user_attributes(place);
    let tree = place.join("t");
    python(
        MAKE,
        &[&tree.to_string_lossy(), if user { "user" } else { "" }],
    );
    let (first, second) = (place.join("1.tar"), place.join("2.tar"));
    let xattrs = "--format=pax --xattrs --xattrs-include='*'";
    sh(&format!(
        "cd {0}/a; tar {xattrs} --sparse -cf {1} .
         cd {0}/b; mkdir -p home old; touch old/.wh.before-epoch .wh.fifo home/.wh..wh..opq
         mkdir -p new/under; touch .wh.secret; mkdir -p bin/wall; touch bin/wall/now-a-directory
         tar {xattrs} -cf {2} tmp/added new etc/passwd old/.wh.before-epoch .wh.fifo home .wh.secret bin",
        tree.display(),
        first.display(),
        second.display()
    ));
    [read(&first), read(&second)]
}

#[test]
fn a_copy_is_what_overlayfs_shows() {
    let place = Place::new("copy");
    let layers = everything(&place);
    let overlay = place.store();
    for (name, layers) in [("one", &layers[..1]), ("two", &layers[..])] {
        let image = load(&place, &overlay, layers);
        let mount = overlay.snapshot(&image, name).expect("a snapshot");
        let mount = mount.overlay_options().expect("an overlay");
        let shown = mounted_listing(&mount, &place.join(name), true);

        let copies = native(&place);
        let image = load(&place, &copies, layers);
        let snapshot = copies.snapshot(&image, name).expect("a copy");
        let root = root_of(&snapshot);
        same(&listing(&root, true), &shown);
        let mode = |path: &Path| fs::metadata(path).expect("a directory").mode() & 0o7777;
        assert_eq!(mode(&root), 0o751, "the root's own mode");
        let blocks = sh(&format!("stat -c %b {}/hole", root.display()));
        assert_eq!(blocks.trim(), "0", "a hole is copied as a hole");
    }
}

#[test]
fn what_a_copy_gets_no_other_one_and_no_layer_gets() {
    let place = Place::new("apart");
    let layers = [tar_of(&[("etc/conf", b"image"), ("etc/other", b"image")])];
    let store = native(&place);
    let image = load(&place, &store, &layers);
    let [one, two] = ["one", "two"].map(|key| store.snapshot(&image, key).expect("a copy"));
    fs::write(root_of(&one).join("etc/conf"), "changed").expect("written");
    fs::remove_file(root_of(&one).join("etc/other")).expect("removed");
    let content = |snapshot: &Snapshot| fs::read_to_string(root_of(snapshot).join("etc/conf"));
    assert_eq!(content(&two).expect("the file"), "image");
    let three = store.snapshot(&image, "three").expect("a copy");
    assert_eq!(content(&three).expect("the file"), "image");
    assert!(root_of(&three).join("etc/other").exists());
    // Asked for again, it is the same one, as it was left.
    let again = store.snapshot(&image, "one").expect("a copy");
    assert_eq!(content(&again).expect("the file"), "changed");
    assert!(store.remove_snapshot("one").expect("removed"));
    assert!(!root_of(&one).exists());
}

#[test]
fn a_directory_as_image_is_copied_without_its_sockets() {
    let place = Place::new("dir");
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("a")).expect("a directory");
    fs::write(tree.join("a/file"), "content").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("a/socket")).expect("a socket");
    let store = native(&place);
    let image = store
        .resolve(&reference(&format!("dir:{}", tree.display())))
        .expect("an image");
    let root = root_of(&store.snapshot(&image, "s").expect("a copy"));
    assert_eq!(listed(&root), ["./a", "./a/file"]);
}

#[test]
fn copies_share_their_content_where_the_file_system_can() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: root is needed");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let place = Place::new("reflink");
    let point = place.join("xfs");
    fs::create_dir(&point).expect("a directory");
    let _mounted = Mounted(point.clone());
    sh(&format!(
        "modprobe -q loop || true; modprobe -q xfs || true
         truncate -s 400M {0}; mkfs.xfs -q -m reflink=1 {0}; mount -o loop {0} {1}",
        place.join("disk").display(),
        point.display()
    ));
    let store = open(&point.join("store"), Some(Snapshotter::Native)).expect("a store");
    let content: Vec<u8> = (0u32..8 << 20).flat_map(u32::to_le_bytes).collect();
    let image = load(&place, &store, &[tar_of(&[("big", &content)])]);
    let used = || {
        let used = sh(&format!(
            "sync -f {0}; df --output=used -k {0} | tail -1",
            point.display()
        ));
        used.trim().parse::<u64>().expect("a number")
    };
    let before = used();
    let [one, two] = ["one", "two"].map(|key| store.snapshot(&image, key).expect("a copy"));
    let more = used() - before;
    assert!(more < 4 << 10, "{more} KiB for two copies of 32 MiB");
    // What is written to one is its own.
    sh(&format!(
        "printf x | dd of={}/big conv=notrunc 2>/dev/null",
        root_of(&one).display()
    ));
    let other = fs::read(root_of(&two).join("big")).expect("the file");
    assert!(other == content, "the other copy has changed");
}

fn listed(root: &Path) -> Vec<String> {
    let found = sh(&format!("cd {}; find . -mindepth 1 | sort", root.display()));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn a_store_stays_with_its_way_while_it_holds_something() {
    let place = Place::new("stays");
    let root = place.join("store");
    let store = open(&root, None).expect("a store");
    assert_eq!(store.snapshotter(), Snapshotter::Overlayfs);
    drop(store);
    // Empty, so it may change.
    let store = open(&root, Some(Snapshotter::Native)).expect("a store");
    let image = load(&place, &store, &[tar_of(&[("file", b"")])]);
    drop(store);
    let store = open(&root, None).expect("a store");
    assert_eq!(store.snapshotter(), Snapshotter::Native, "as it was");
    drop(store);
    let error = open(&root, Some(Snapshotter::Overlayfs)).expect_err("it is for copies");
    assert!(
        matches!(error, ImageError::Store(StoreError::Snapshotter { .. })),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("native") && text.contains("overlayfs"),
        "{text}"
    );
    let store = open(&root, None).expect("nothing has changed");
    assert_eq!(store.images().expect("images")[0].id, image.id);
    drop(store);

    fs::write(root.join("snapshotter"), "zfs\n").expect("written");
    let error = open(&root, None).expect_err("damaged").to_string();
    assert!(
        error.contains("zfs") && error.contains("snapshotter"),
        "{error}"
    );
}

#[test]
fn on_top_of_an_overlay_images_are_copied() {
    // The mounts of this thread, and of the programs that it starts.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: root is needed");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let place = Place::new("nested");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(place.join(name)).expect("a directory");
    }
    let (lower, upper) = (place.join("lower"), place.join("upper"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        place.join("work").display()
    );
    let merged = place.join("merged");
    let (kind, flags) = ("overlay", MsFlags::empty());
    mount(
        Some(kind),
        &merged,
        Some(kind),
        flags,
        Some(options.as_str()),
    )
    .expect("an overlay");

    let store = open(&merged.join("store"), None).expect("a store");
    assert_eq!(store.snapshotter(), Snapshotter::Native);
    let layers = [
        tar_of(&[
            ("gone", b""),
            ("dir/old", b""),
            ("dir/kept", b""),
            ("all/old", b""),
        ]),
        tar_of(&[
            (".wh.gone", b""),
            ("dir/.wh.old", b""),
            ("all/.wh..wh..opq", b""),
            ("all/new", b""),
        ]),
    ];
    let image = load(&place, &store, &layers);
    let root = root_of(&store.snapshot(&image, "s").expect("a copy"));
    assert_eq!(listed(&root), ["./all", "./all/new", "./dir", "./dir/kept"]);
    drop(store);
    nix::mount::umount(&merged).expect("unmounted");
}

#[test]
fn killed_while_it_copies_nothing_is_left_of_the_copy() {
    const ROLE: &str = "FAIRLEAD_TEST_COPIES";
    let layer = || {
        let names: Vec<String> = (0..4000).map(|n| format!("d{}/{n}", n % 50)).collect();
        let entries: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), &b"content"[..]))
            .collect();
        tar_of(&entries)
    };
    if let Ok(root) = std::env::var(ROLE) {
        let store = open(Path::new(&root), None).expect("a store");
        let image = &store.images().expect("images")[0];
        for number in 0.. {
            let key = format!("s{number}");
            store.snapshot(image, &key).expect("a copy");
            store.remove_snapshot(&key).expect("removed");
        }
    }
    let place = Place::new("killed-copy");
    load(&place, &native(&place), &[layer()]);
    let root = place.join("native");
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--exact",
                "killed_while_it_copies_nothing_is_left_of_the_copy",
            ])
            .env(ROLE, &root)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the victim");
        std::thread::sleep(std::time::Duration::from_millis(150 + 37 * round));
        let running = child.try_wait().expect("the victim").is_none();
        assert!(running, "it must be killed, not fail");
        child.kill().expect("killed");
        child.wait().expect("the victim");
        let store = open(&root, None).expect("a store");
        assert_eq!(fs::read_dir(root.join("tmp")).expect("tmp").count(), 0);
        for snapshot in store.snapshots() {
            let files = listed(&root_of(&snapshot)).len();
            assert_eq!(files, 4050, "an incomplete copy became visible");
            store.remove_snapshot(snapshot.key()).expect("removed");
        }
    }
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may be unmounted already.
        let _ = Command::new("umount").arg("-lR").arg(&self.0).output();
    }
}

/// An ext4 that counts by project, on a loop device in a mount namespace of this thread. `None` where the
/// kernel cannot do it: not every one has the format of these quotas.
fn counting_file_system(place: &Place) -> Option<Mounted> {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: root is needed");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let (disk, point) = (place.join("disk"), place.join("ext4"));
    fs::create_dir(&point).expect("a directory");
    let output = Command::new("sh")
        .arg("-euc")
        .arg(format!(
            "modprobe -q loop || true; modprobe -q quota_v2 || true
             truncate -s 128M {0}
             mkfs.ext4 -q -O quota,project -E quotatype=prjquota {0}
             mount -o loop,prjquota {0} {1}",
            disk.display(),
            point.display()
        ))
        .output()
        .expect("a shell");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_none(),
            "the distribution's kernel has project quotas: {error}"
        );
        eprintln!("not tested, this kernel has no project quotas: {error}");
        return None;
    }
    Some(Mounted(point))
}

/// Writes so many MiB as a task's root would, without `CAP_SYS_RESOURCE`; what dd(1) says.
fn fill(file: &Path, mebibytes: u32) -> String {
    let file = file.display();
    sh(&format!(
        "setpriv --bounding-set=-sys_resource --inh-caps=-all --reuid 0 --clear-groups -- \
           dd if=/dev/zero of={file} bs=1M count={mebibytes} conv=fsync 2>&1 || true"
    ))
}

#[test]
fn more_than_the_limit_cannot_be_written() {
    let place = Place::new("quota");
    let Some(disk) = counting_file_system(&place) else {
        return;
    };
    let layer = tar_of(&[("bin/program", &[7; 3 << 20])]);
    for (way, name) in [
        (Snapshotter::Overlayfs, "overlayfs"),
        (Snapshotter::Native, "native"),
    ] {
        let store = open(&disk.0.join(name), Some(way)).expect("a store");
        let image = load(&place, &store, std::slice::from_ref(&layer));
        let limited = store
            .snapshot_within(&image, "limited", Some(8 << 20))
            .expect("a snapshot");
        let free = store.snapshot(&image, "free").expect("a snapshot");
        let point = place.join("mounted");
        fs::create_dir_all(&point).expect("a mount point");
        let _overlay = Mounted(point.clone());
        let files = |snapshot: &Snapshot| match snapshot.overlay_options() {
            None => root_of(snapshot),
            Some(overlay) => {
                let lower = overlay.lower[0].display();
                sh(&format!(
                    "mount -t overlay o -o lowerdir={lower},upperdir={},workdir={} {}",
                    overlay.upper.display(),
                    overlay.work.display(),
                    point.display()
                ));
                point.clone()
            }
        };
        let root = files(&limited);
        let said = fill(&root.join("a"), 5);
        assert!(!said.contains("quota"), "{name}: {said}");
        let said = fill(&root.join("b"), 5);
        assert!(said.contains("Disk quota exceeded"), "{name}: {said}");
        // Renames go through the directory `work`.
        sh(&format!(
            "cd {0}; rm a b; mv bin/program bin/other; mkdir new",
            root.display()
        ));
        let said = fill(&root.join("new/c"), 4);
        assert!(
            !said.contains("quota"),
            "{name}: what was removed is free again: {said}"
        );
        if root == point {
            nix::mount::umount(&point).expect("unmounted");
        }
        let root = files(&free);
        let said = fill(&root.join("d"), 20);
        assert!(!said.contains("quota"), "{name}: {said}");
        if root == point {
            nix::mount::umount(&point).expect("unmounted");
        }
        for key in ["limited", "free"] {
            assert!(store.remove_snapshot(key).expect("removed"));
        }
        // The next one has no trouble with what the one before it was.
        let next = store.snapshot_within(&image, "next", Some(1 << 20));
        assert!(next.is_ok(), "{next:?}");
    }
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused() {
    let place = Place::new("no-quota");
    let store = place.store();
    let image = load(&place, &store, &[tar_of(&[("file", b"")])]);
    let error = store
        .snapshot_within(&image, "s", Some(1 << 20))
        .expect_err("no quotas on this file system");
    assert!(error.to_string().contains("prjquota"), "{error}");
    assert!(store.snapshots().is_empty());
    assert_eq!(
        fs::read_dir(place.join("store/tmp")).expect("tmp").count(),
        0
    );
}
