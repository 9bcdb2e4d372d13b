//! What tasks and accidents leave behind, which must not keep the store from working.

use nix::{
    fcntl::{OFlag, open, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, mkdirat},
};

use super::*;

/// A task with `CAP_LINUX_IMMUTABLE` can make files that nobody can remove as they are.
#[test]
fn what_a_task_made_unchangeable_goes_with_its_snapshot() {
    let place = Place::new("immutable");
    // tmpfs has it since Linux 6.6.
    let probe = place.join("");
    let probe = sh(&format!(
        "cd {}; touch probe; chattr +i probe 2>/dev/null && echo yes; chattr -i probe || true",
        probe.display()
    ));
    if probe.is_empty() {
        return;
    }
    let (store, image, _) = with_image(&place);
    let snapshot = store.snapshot(&image, "task-1").expect("a snapshot");
    let upper = snapshot.overlay_options().expect("an overlay").upper;
    sh(&format!(
        "cd {}; mkdir -p d/e/f a/b; touch file log d/e/f/g a/b/c
         chattr +i file d/e/f/g d/e/f d/e d; chattr +a log a/b/c a/b a; chattr +i .",
        upper.display()
    ));
    assert!(fs::remove_file(upper.join("file")).is_err(), "they are set");
    assert!(store.remove_snapshot("task-1").expect("removed"));
    let left = || fs::read_dir(place.join("store/tmp")).expect("tmp").count();
    assert_eq!(left(), 0);
    drop(store);
    assert_eq!(place.store().snapshots(), []);
    assert_eq!(left(), 0);
}

#[test]
fn what_cannot_be_removed_keeps_no_store_from_opening() {
    let place = Place::new("left");
    let (store, image, _) = with_image(&place);
    drop(store);
    // Nobody can remove a mount point. The thread's own mounts go with it.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none).expect("no mount leaves it");
    let points = ["tmp/0/0", "l/7"].map(|point| place.join("store").join(point));
    for point in &points {
        fs::create_dir_all(point).expect("a folder");
        mount(Some("x"), point, Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
    }
    let store = place.store();
    // Nothing is mixed up with what is left.
    for key in ["task-1", "task-2"] {
        store.snapshot(&image, key).expect("a snapshot");
        assert!(store.remove_snapshot(key).expect("removed"));
    }
    for point in &points {
        umount2(point, MntFlags::MNT_DETACH).expect("unmounted");
    }
}

#[test]
fn a_tree_of_any_depth_is_measured() {
    let place = Place::new("deep");
    let (store, image, _) = with_image(&place);
    let snapshot = store.snapshot(&image, "task-1").expect("a snapshot");
    let upper = snapshot.overlay_options().expect("an overlay").upper;
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut deep = open(&upper, flags, Mode::empty()).expect("open");
    for _ in 0..5000 {
        mkdirat(&deep, "d", Mode::S_IRWXU).expect("mkdir");
        deep = openat(&deep, "d", flags, Mode::empty()).expect("open");
    }
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(&deep, "file", flags, Mode::S_IRWXU).expect("a file");
    let before = store.usage().expect("usage").snapshot_bytes;
    nix::unistd::write(&file, &[b'x'; 1 << 16]).expect("written");
    nix::unistd::fsync(&file).expect("on the disk");
    write(&upper.join("beside"), &[b'x'; 1 << 16]);
    let after = store.usage().expect("usage").snapshot_bytes;
    assert!(after - before >= 2 << 16, "{before} {after}");
    assert!(store.remove_snapshot("task-1").expect("removed"));
}

#[test]
fn the_root_directory_has_all_that_it_has_in_the_image() {
    let place = Place::new("root");
    let mut tar = tar::Builder::new(Vec::new());
    let value = "\u{1}";
    tar.append_pax_extensions([("SCHILY.xattr.trusted.mark", value.as_bytes())])
        .expect("attributes");
    append(&mut tar, "./", Directory, "", b"");
    append(&mut tar, "./a", Regular, "", b"1");
    let layers = [tar.into_inner().expect("a layer")];
    let archive = docker_old(&["web"], &layers, &config(&layers));
    let path = write(&place.join("x.tar"), &archive);
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
    let snapshot = store.snapshot(&image, "task-1").expect("a snapshot");
    let mount = snapshot.overlay_options().expect("an overlay");
    let (point, seen) = (place.join("m"), place.join("m").display().to_string());
    let script = format!(
        "python3 -c 'import os, sys; p = sys.argv[1]
print(os.getxattr(p, \"trusted.mark\"), os.stat(p).st_mtime_ns)' '{seen}'"
    );
    let seen = mounted(&mount, &point, &script);
    assert_eq!(seen, "b'\\x01' 1700000000000000000\n");
}

/// The disk can lose a record; the other tasks' root file systems are still there.
#[test]
fn a_snapshot_whose_record_is_lost_is_put_aside() {
    let place = Place::new("aside");
    let (store, image, _) = with_image(&place);
    for key in ["task-1", "task-2", "task-3"] {
        let snapshot = store.snapshot(&image, key).expect("a snapshot");
        let upper = snapshot.overlay_options().expect("an overlay").upper;
        write(&upper.join("kept"), key.as_bytes());
    }
    drop(store);
    let record = |key: &str| {
        place
            .join("store/snapshots")
            .join(key)
            .join("snapshot.json")
    };
    fs::remove_file(record("task-1")).expect("removed");
    write(&record("task-2"), b"{");
    let store = place.store();
    let keys: Vec<_> = store
        .snapshots()
        .iter()
        .map(|s| s.key().to_owned())
        .collect();
    assert_eq!(keys, ["task-3"]);
    // The files are there for who wants them, and the keys are free.
    for key in ["task-1", "task-2"] {
        let kept = place.join("store/damaged").join(key).join("upper/kept");
        assert_eq!(read(&kept), key.as_bytes());
        store.snapshot(&image, key).expect("a new one");
    }
    drop(store);
    fs::remove_file(record("task-1")).expect("removed");
    let store = place.store();
    assert_eq!(store.snapshots().len(), 2);
    assert_eq!(
        fs::read_dir(place.join("store/damaged"))
            .expect("damaged")
            .count(),
        3
    );
}
