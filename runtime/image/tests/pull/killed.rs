//! Pulls that die, and disks that are full.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use image::{Registries, Store};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{bed::*, child, line::*, made::*};

fn entries(path: &Path) -> usize {
    fs::read_dir(path).map_or(0, |entries| entries.count())
}

/// Opens the store that a dead process left: it is whole, and has the image or not.
fn reopened(bed: &Bed, made: &Made) -> (Store, bool) {
    let store = bed.store();
    let images = store.images().expect("images");
    assert!(images.iter().all(|image| image.id == made.id()));
    assert_eq!(entries(&bed.path("store/tmp")), 0);
    assert_eq!(
        2 * entries(&bed.path("store/l")),
        entries(&bed.path("store/layers")),
        "a layer without its record or recipe, or these without the layer"
    );
    (store, !images.is_empty())
}

/// Kills a process that pulls when `when` is true; the next pull goes on. Whether it had become
/// complete is the result.
fn killed(bed: &Bed, line: &Line, made: &Made, when: impl Fn() -> bool) -> bool {
    let text = line.name("app:v1");
    let pull = child::pull(bed, &text, &Registries::default(), &[]);
    let limit = Instant::now() + Duration::from_secs(120);
    while !when() {
        assert!(Instant::now() < limit, "it does not happen");
        thread::sleep(Duration::from_millis(1));
    }
    pull.kill();
    let (store, complete) = reopened(bed, made);
    let image = crate::bed::pull(&store, &text).expect("an image");
    assert_eq!(image.id, made.id());
    bed.is_clean(made.blobs.len() - 1, 0);
    drop(store);
    bed.forget();
    complete
}

#[test]
fn a_pull_that_is_killed_at_some_moment_is_gone_on_with() {
    let bed = Bed::new("killed");
    let _registry = bed.registry();
    let made = large(3, 1_500_000);
    made.push(REGISTRY, "app", "v1");
    let (blobs, first) = (bed.path("store/blobs"), made.blob(0));
    let size = |blob: image::Digest| fs::metadata(blobs.join(blob.hex())).map_or(0, |m| m.len());

    // At the manifest; at the configuration; in the middle of a blob.
    let id = made.id().to_string();
    for part in ["/manifests/".to_owned(), id, first.to_string()] {
        let stalled = part.clone();
        let count = AtomicUsize::new(0);
        let line = Line::to(REGISTRY, move |seen| {
            let is_it = seen.path().contains(&stalled);
            match is_it && count.fetch_add(1, Ordering::SeqCst) == 0 {
                true => Fault::Stall(400_000),
                false => Fault::None,
            }
        });
        let of_blob = part == first.to_string();
        killed(&bed, &line, &made, || match of_blob {
            true => size(first) == 400_000,
            false => line.seen().iter().any(|seen| seen.path().contains(&part)),
        });
        if of_blob {
            assert_eq!(line.offsets(&first), [0, 400_000]);
        }
    }

    // When all has come, in the middle of unpacking and writing down; at any time.
    let line = Line::to(REGISTRY, |_| Fault::None);
    killed(&bed, &line, &made, || {
        // Who does not look in time finds the image.
        size(made.blob(2)) > 1_500_000 || entries(&bed.path("store/images")) > 0
    });
    killed(&bed, &line, &made, || entries(&bed.path("store/l")) > 0);
    killed(&bed, &line, &made, || {
        entries(&bed.path("store/layers")) > 2
    });
    killed(&bed, &line, &made, || {
        entries(&bed.path("store/images")) > 0
    });
    let begun = Arc::new(AtomicUsize::new(0));
    for round in 0..8 {
        line.forget();
        let begun = begun.clone();
        let started = std::cell::Cell::new(None);
        killed(&bed, &line, &made, || {
            if started.get().is_none() && !line.seen().is_empty() {
                started.set(Some(Instant::now()));
                begun.fetch_add(1, Ordering::SeqCst);
            }
            started
                .get()
                .is_some_and(|at| at.elapsed() > Duration::from_millis(13 * round))
        });
    }
    assert_eq!(begun.load(Ordering::SeqCst), 8);
}

#[test]
fn a_full_disk_is_an_error_and_the_next_pull_works() {
    let bed = Bed::new("full");
    let _registry = bed.registry();
    let made = large(2, 3_000_000);
    made.push(REGISTRY, "app", "v1");
    // Mounts of this thread alone, which go with it.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).expect("private mounts");
    let root = bed.path("store");
    fs::create_dir(&root).expect("a folder");
    let size = |kilobytes: u32, flags: MsFlags| {
        let options = format!("size={kilobytes}k");
        mount(Some("tmpfs"), &root, Some("tmpfs"), flags, Some(&*options)).expect("tmpfs");
    };
    // Not enough for the downloads; enough for them but not for what is unpacked.
    size(2_000, MsFlags::empty());
    let store = bed.store();
    let text = format!("{REGISTRY}/app:v1");
    for kilobytes in [2_000, 4_500, 8_000] {
        size(kilobytes, MsFlags::MS_REMOUNT);
        let outcome = pull(&store, &text);
        // By the number whoever retries tells a full disk from what never works.
        let error = outcome.as_ref().expect_err("the pull must fail");
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
        let numbers: Vec<_> = causes
            .filter_map(|e| {
                let io = e.downcast_ref::<std::io::Error>();
                let errno = e.downcast_ref::<nix::errno::Errno>();
                io.and_then(|e| e.raw_os_error())
                    .or(errno.map(|e| *e as i32))
            })
            .collect();
        assert_eq!(numbers.first(), Some(&(nix::errno::Errno::ENOSPC as i32)));
        let error = failure(outcome, &text);
        assert!(
            error.contains("ENOSPC") || error.contains("No space left"),
            "{error}"
        );
        assert_eq!(store.images().expect("images"), []);
        assert_eq!(
            ["l", "tmp", "blobs"].map(|folder| entries(&root.join(folder))),
            [0; 3],
            "the disk does not stay full"
        );
    }
    size(64_000, MsFlags::MS_REMOUNT);
    let image = pull(&store, &text).expect("an image");
    assert_eq!(image.id, made.id());
    bed.is_clean(2, 0);
    drop(store);
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
}
