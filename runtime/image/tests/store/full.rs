//! Disks that are full: at each page that may be the one too many, what was begun ends with an error that
//! says so, and nothing of it stays.

use std::{error::Error, io, iter::successors, path::Path, thread, time::Instant};

use image::{Import, Options, Snapshotter};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statvfs::statvfs,
};

use super::*;

/// tmpfs gives whole pages.
const PAGE: u64 = 4096;
/// More pages than any of this needs.
const ROOM: u64 = 1024;

/// The store's disk: a tmpfs in a mount namespace of the test's thread, which goes with that.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Place) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("private mounts");
        let disk = Self(place.join("store"));
        fs::create_dir(&disk.0).expect("a folder");
        disk.mount(ROOM, MsFlags::empty());
        disk
    }

    fn mount(&self, pages: u64, flags: MsFlags) {
        let options = format!("size={}", pages * PAGE);
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &self.0, tmpfs, flags, Some(&*options)).expect("tmpfs");
    }

    fn resize(&self, pages: u64) {
        self.mount(pages, MsFlags::MS_REMOUNT);
    }

    /// Pages and files that are used.
    fn used(&self) -> (u64, u64) {
        let stat = statvfs(&self.0).expect("the disk");
        assert_eq!(stat.fragment_size(), PAGE);
        let pages = stat.blocks() - stat.blocks_free();
        (pages, stat.files() - stat.files_free())
    }

    /// No more is used than `before`. A program that another test starts has our open files for a moment, until
    /// it becomes another one; and so files that were removed stay.
    fn wait_for(&self, before: (u64, u64), why: &str) {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let (pages, files) = self.used();
            if pages <= before.0 && files <= before.1 {
                return;
            }
            let now = (pages, files);
            assert!(
                Instant::now() < limit,
                "{now:?}, and before {before:?}; {why}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does `work` with one page more each time, until there is room for it; what it has made. Before that, it
    /// fails each time because the disk is full, and leaves nothing but layers that `store` collects.
    fn fill<T>(&self, store: &Store, least: usize, work: impl Fn() -> Result<T, ImageError>) -> T {
        let before = (self.used(), store.images().expect("images"));
        let ((used, _), _) = before;
        for more in 0..ROOM - used {
            self.resize(used + more);
            let error = match work() {
                Ok(made) => {
                    let least = least as u64 / PAGE;
                    assert!(more > least, "{more} pages are enough for {least}");
                    return made;
                }
                Err(error) => error,
            };
            assert!(says_full(&error), "{more} pages: {error}");
            store.gc().expect("collected");
            assert_eq!(store.images().expect("images"), before.1);
            self.wait_for(before.0, &format!("{more} pages: {error}"));
        }
        panic!("there is no room in {ROOM} pages");
    }
}

impl Drop for Disk {
    /// The place's folder can be removed then.
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// For people, and by its number for programs: who retries tells a full disk from what never works.
fn says_full(error: &ImageError) -> bool {
    let causes = successors(Some(error as &(dyn Error + 'static)), |error| {
        (**error).source()
    });
    let mut numbers = causes.filter_map(|error| {
        let io = error.downcast_ref::<io::Error>();
        let errno = error.downcast_ref::<Errno>();
        let io = io.and_then(|error| error.raw_os_error());
        io.or(errno.map(|errno| *errno as i32))
    });
    let text = error.to_string();
    let is_told = ["No space left", "ENOSPC"]
        .iter()
        .any(|part| text.contains(part));
    is_told && numbers.next() == Some(Errno::ENOSPC as i32)
}

/// Bytes that cannot be compressed.
fn noise(mut seed: u64, size: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    words.take(size / 8).flatten().collect()
}

const SIZE: usize = 25 * PAGE as usize;

/// Two layers; each has a large file, and some that are one page each.
fn layers() -> [Vec<u8>; 2] {
    [1, 2].map(|seed| {
        let (large, name) = (noise(seed, SIZE), format!("large{seed}"));
        let small: Vec<_> = (0..5).map(|n| format!("d{seed}/{n}")).collect();
        let small = small.iter().map(|name| (&**name, &b"x"[..]));
        let files: Vec<_> = [(&*name, &*large)].into_iter().chain(small).collect();
        tar_of(&files)
    })
}

/// Each file of [`layers`] is somewhere below, once.
fn is_whole(below: &Path) {
    for seed in [1, 2] {
        let name = format!("large{seed}");
        let found = sh(&format!("find {} -name {name}", below.display()));
        assert_eq!(found.lines().count(), 1, "{found}");
        assert!(
            read(Path::new(found.trim())) == noise(seed, SIZE),
            "{found}"
        );
    }
}

/// The name is known, and still is when the store is opened again.
fn is_kept(store: Store, disk: &Disk, name: &str, image: &Image) -> Store {
    disk.resize(ROOM);
    let found = |store: &Store| store.resolve(&reference(name)).expect(name).id;
    assert_eq!(found(&store), image.id);
    drop(store);
    let store = open_store(&disk.0, Options::default());
    assert_eq!(found(&store), image.id, "after a restart");
    store
}

/// Removes the image; the store is as it was.
fn forget(store: &Store, disk: &Disk, name: &str) {
    store.remove(name, false).expect("removed");
    assert_eq!(store.images().expect("images"), []);
    for folder in ["l", "layers", "images", "tmp", "blobs"] {
        let left = fs::read_dir(disk.0.join(folder)).expect(folder);
        assert_eq!(left.count(), 0, "{folder}");
    }
}

/// The layers as an archive, and the same compressed.
fn archives(place: &Place) -> [PathBuf; 2] {
    let layers = layers();
    let saved = docker_old(&["web"], &layers, &config(&layers));
    let plain = write(&place.join("x.tar"), &saved);
    [plain, write(&place.join("x.tar.gz"), &gzip(&saved))]
}

#[test]
fn an_archive_that_is_loaded() {
    let place = Place::new("full-load");
    let disk = Disk::new(&place);
    let [plain, packed] = archives(&place);
    let sent = read(&plain);
    // Then it is also written down which image they are.
    thread::sleep(Duration::from_secs(4));
    type Load<'a> = dyn Fn(&Store) -> Result<Image, ImageError> + 'a;
    let ways: [&Load<'_>; 3] = [
        &|store| store.resolve(&docker(&plain)),
        &|store| store.resolve(&docker(&packed)),
        &|store| Ok(store.load_stream(&sent[..])?.remove(0)),
    ];
    let mut store = open_store(&disk.0, Options::default());
    for load in ways {
        let image = disk.fill(&store, 2 * SIZE, || load(&store));
        store = is_kept(store, &disk, "web", &image);
        is_whole(&disk.0.join("l"));
        forget(&store, &disk, "web");
    }
}

#[test]
fn a_root_file_system_that_is_imported() {
    let place = Place::new("full-import");
    let disk = Disk::new(&place);
    let [layer, _] = layers();
    let import = Import {
        name: Some("made:1".parse().expect("a name")),
        ..Import::default()
    };
    let mut store = open_store(&disk.0, Options::default());
    for compress in [plain as fn(&[u8]) -> _, gzip] {
        let packed = compress(&layer);
        let import = || store.import(&packed[..], &import);
        let image = disk.fill(&store, SIZE, import);
        store = is_kept(store, &disk, "made:1", &image);
        let found = sh(&format!("cat {}/l/*/large1 | wc -c", disk.0.display()));
        assert_eq!(found.trim(), SIZE.to_string());
        forget(&store, &disk, "made:1");
    }
}

#[test]
fn a_root_file_system_that_is_copied() {
    let place = Place::new("full-copy");
    let disk = Disk::new(&place);
    let options = Options {
        snapshotter: Some(Snapshotter::Native),
        ..Options::default()
    };
    let store = open_store(&disk.0, options);
    let [archive, _] = archives(&place);
    let image = store.resolve(&docker(&archive)).expect("an image");
    let before = disk.used();
    let snapshot = disk.fill(&store, 2 * SIZE, || {
        assert_eq!(store.snapshots(), [], "the one that failed is none");
        store.snapshot(&image, "task-1")
    });
    is_whole(&disk.0.join("snapshots"));
    assert_eq!(store.snapshots(), [snapshot]);
    assert!(store.remove_snapshot("task-1").expect("removed"));
    disk.wait_for(before, "it was removed");
}

/// Else nobody could make room.
#[test]
fn images_can_be_removed_when_there_is_no_room_at_all() {
    let place = Place::new("full-remove");
    let disk = Disk::new(&place);
    let [archive, _] = archives(&place);
    let mut store = open_store(&disk.0, Options::default());
    let ways: [&dyn Fn(&Store); 2] = [
        &|store| drop(store.remove("web", false).expect("removed")),
        &|store| drop(store.prune(true, Duration::ZERO).expect("pruned")),
    ];
    for remove in ways {
        store.resolve(&docker(&archive)).expect("an image");
        // Pages may still become free, see above.
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            disk.resize(disk.used().0);
            let probe = fs::write(disk.0.join("probe"), "x");
            fs::remove_file(disk.0.join("probe")).expect("removed");
            if probe.is_err() {
                break;
            }
            assert!(Instant::now() < limit, "there is room");
        }
        remove(&store);
        assert_eq!(store.images().expect("images"), []);
        assert_eq!(fs::read_dir(disk.0.join("l")).expect("l").count(), 0);
        drop(store);
        disk.resize(ROOM);
        store = open_store(&disk.0, Options::default());
        assert_eq!(store.images().expect("images"), []);
        let unknown = store.resolve(&reference("web")).expect_err("removed");
        assert!(matches!(unknown, ImageError::NotFound(_)), "{unknown}");
    }
}
