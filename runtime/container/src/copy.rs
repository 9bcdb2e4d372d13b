//! A copy of a directory with all that is in it: what a tmpfs with `tmpcopyup` and a volume begin with.

use crate::error::{Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::root::beneath;
use crate::sys;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, Whence, fchownat, linkat, lseek, symlinkat};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Deeper than any directory of an image; a limit for the stack.
const MAX_DEPTH: usize = 256;

/// How much of a file is copied between two looks whether anybody still wants it.
const CHUNK: u64 = 16 << 20;

/// Copies what is in `from` into `to`, a mount that nobody else sees yet: content, owners, modes,
/// times and links.
pub fn tree(from: &OwnedFd, to: &OwnedFd, what: &str) -> Setup<()> {
    let go_on = || Ok(());
    Copier {
        exact: None,
        procfs: ProcFs::of_host().step("open", "/proc")?,
        go_on: &go_on,
    }
    .top(from, to, what)
}

/// As [`tree`], and with it extended attributes, and files with several names as such; the
/// directory `to` itself becomes as `from` is. Ends early with what `go_on` says.
pub fn exact(from: &OwnedFd, to: &OwnedFd, what: &str, go_on: &dyn Fn() -> Setup<()>) -> Setup<()> {
    let here = OsStr::new(".");
    let to = beneath(to, here, OFlag::O_RDONLY | OFlag::O_DIRECTORY).step("open", what)?;
    let top = to.try_clone().step("duplicate", "descriptor")?;
    let mut copier = Copier {
        exact: Some(Exact {
            top,
            path: PathBuf::new(),
            seen: HashMap::new(),
        }),
        procfs: ProcFs::of_host().step("open", "/proc")?,
        go_on,
    };
    copier.top(from, &to, what)?;
    let data = fstat(from).step("stat", what)?;
    let (uid, gid) = (Uid::from_raw(data.st_uid), Gid::from_raw(data.st_gid));
    nix::unistd::fchown(&to, Some(uid), Some(gid)).step("set owner of", what)?;
    fchmod(&to, Mode::from_bits_truncate(data.st_mode & 0o7777)).step("set mode of", what)?;
    sys::copy_attributes(from, &to).step("set attributes of", what)?;
    let (accessed, modified) = times(&data);
    nix::sys::stat::futimens(&to, &accessed, &modified).step("set times of", what)
}

struct Copier<'a> {
    exact: Option<Exact>,
    procfs: ProcFs,
    go_on: &'a dyn Fn() -> Setup<()>,
}

/// What an exact copy has to know.
struct Exact {
    /// The copy's topmost directory.
    top: OwnedFd,
    /// Where the copying is, from there.
    path: PathBuf,
    /// Files with further names, by device and number: where their copy is, from the top.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    fn top(&mut self, from: &OwnedFd, to: &OwnedFd, what: &str) -> Setup<()> {
        let here = OsStr::new(".");
        let from = beneath(from, here, OFlag::O_RDONLY | OFlag::O_DIRECTORY).step("read", what)?;
        let to = beneath(to, here, OFlag::O_RDONLY | OFlag::O_DIRECTORY).step("open", what)?;
        self.directory(from, &to, what, 0)
    }

    fn directory(&mut self, from: OwnedFd, to: &OwnedFd, what: &str, depth: usize) -> Setup<()> {
        if depth > MAX_DEPTH {
            let reason = format!("directories more than {MAX_DEPTH} deep");
            return Err(SetupFailure::because("copy into", what, reason));
        }
        let parent = from.try_clone().step("duplicate", "descriptor")?;
        let mut entries = Dir::from_fd(from).step("read", what)?;
        for entry in entries.iter() {
            let entry = entry.step("read", what)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            (self.go_on)()?;
            let shown = format!("{} of {what}", name.to_string_lossy());
            let os_name = OsStr::from_bytes(name.to_bytes());
            if let Some(exact) = &mut self.exact {
                exact.path.push(os_name);
            }
            self.one(&parent, name, to, &shown, depth)?;
            if let Some(exact) = &mut self.exact {
                exact.path.pop();
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        from: &OwnedFd,
        name: &CStr,
        to: &OwnedFd,
        shown: &str,
        depth: usize,
    ) -> Setup<()> {
        let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
        // Looked at and read by one descriptor: others may be changing the directory.
        let os_name = OsStr::from_bytes(name.to_bytes());
        let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = nix::fcntl::openat(from, name, place, Mode::empty()).step("open", shown)?;
        let data = fstat(&found).step("stat", shown)?;
        let mode = Mode::from_bits_truncate(data.st_mode & 0o7777);
        let kind = SFlag::from_bits_truncate(data.st_mode & SFlag::S_IFMT.bits());
        if kind != SFlag::S_IFDIR && self.link(&data, name, to, shown)? {
            return Ok(());
        }
        match kind {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU).step("create directory", shown)?;
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let below = self.procfs.reopen(&found, flags).step("read", shown)?;
                let copy = beneath(to, os_name, flags).step("open", shown)?;
                self.directory(below, &copy, shown, depth + 1)?;
                fchmod(&copy, mode).step("set mode of", shown)?;
            }
            SFlag::S_IFREG => {
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let source = self.procfs.reopen(&found, flags).step("read", shown)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let copy = nix::fcntl::openat(to, name, flags, Mode::S_IRWXU);
                let copy = File::from(copy.step("create", shown)?);
                self.content(&source.into(), &copy, shown)?;
                fchmod(&copy, mode).step("set mode of", shown)?;
            }
            SFlag::S_IFLNK => {
                let target = nix::fcntl::readlinkat(&found, "").step("read link", shown)?;
                symlinkat(target.as_os_str(), to, name).step("create link", shown)?;
            }
            kind => {
                mknodat(to, name, kind, mode, data.st_rdev).step("create", shown)?;
                fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)
                    .step("set mode of", shown)?;
            }
        }
        let (uid, gid) = (Uid::from_raw(data.st_uid), Gid::from_raw(data.st_gid));
        fchownat(to, name, Some(uid), Some(gid), nofollow).step("set owner of", shown)?;
        if kind != SFlag::S_IFLNK && mode.intersects(Mode::S_ISUID | Mode::S_ISGID) {
            // A change of owner clears these.
            fchmodat(to, name, mode, FchmodatFlags::FollowSymlink).step("set mode of", shown)?;
        }
        if self.exact.is_some() {
            let copy = nix::fcntl::openat(to, name, place, Mode::empty()).step("open", shown)?;
            sys::copy_attributes(&found, &copy).step("set attributes of", shown)?;
        }
        let (accessed, modified) = times(&data);
        let links = UtimensatFlags::NoFollowSymlink;
        utimensat(to, name, &accessed, &modified, links).step("set times of", shown)
    }

    /// A further name of what was copied already; false where it was not.
    fn link(&mut self, data: &FileStat, name: &CStr, to: impl AsFd, shown: &str) -> Setup<bool> {
        let Some(exact) = self.exact.as_mut().filter(|_| data.st_nlink > 1) else {
            return Ok(false);
        };
        let Some(first) = exact.seen.get(&(data.st_dev, data.st_ino)) else {
            let path = exact.path.clone();
            exact.seen.insert((data.st_dev, data.st_ino), path);
            return Ok(false);
        };
        // Nobody else knows the copy, so its path has no links on it.
        let flags = LinkatFlags::empty();
        match linkat(
            &exact.top,
            first.as_path(),
            to,
            Path::new(OsStr::from_bytes(name.to_bytes())),
            flags,
        ) {
            Ok(()) => Ok(true),
            // As many as the file system takes, or too far down: a file of its own.
            Err(Errno::EMLINK | Errno::ENAMETOOLONG) => Ok(false),
            Err(errno) => Err(SetupFailure::new("create link", shown, errno)),
        }
    }

    /// Holes stay holes: a file may have far more of them than the disk has room.
    fn content(&self, mut from: &File, mut to: &File, shown: &str) -> Setup<()> {
        let size = from.metadata().step("stat", shown)?.len();
        let mut position = 0;
        while let Some((begin, end)) = data(from, position, size).step("read", shown)? {
            from.seek(SeekFrom::Start(begin)).step("read", shown)?;
            to.seek(SeekFrom::Start(begin)).step("write", shown)?;
            let wanted = (end - begin).min(CHUNK);
            let copied = std::io::copy(&mut from.take(wanted), &mut to).step("copy", shown)?;
            if copied == 0 {
                break; // it has become shorter
            }
            position = begin + copied;
            (self.go_on)()?;
        }
        to.set_len(size).step("set size of", shown)
    }
}

/// The next piece at or after `position` that is no hole: where it begins and ends.
fn data(file: &File, position: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    if position >= size {
        return Ok(None);
    }
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        lseek(file, from, whence).map(i64::unsigned_abs)
    };
    match seek(position, Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(None),
        // A file system that does not know.
        Err(Errno::EINVAL) => Ok(Some((position, size))),
        Err(errno) => Err(errno),
        Ok(begin) => Ok(Some((begin, seek(begin, Whence::SeekHole)?.min(size)))),
    }
}

fn times(data: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(data.st_atime, data.st_atime_nsec),
        TimeSpec::new(data.st_mtime, data.st_mtime_nsec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

    fn open(path: &Path) -> OwnedFd {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).expect("open")
    }

    #[test]
    fn an_exact_copy_has_the_same_names_for_the_same_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).expect("mkdir");
        fs::create_dir(&to).expect("mkdir");
        fs::write(from.join("a/b/file"), "content").expect("write");
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o640))
            .expect("chmod");
        fs::hard_link(from.join("a/b/file"), from.join("again")).expect("link");
        fs::hard_link(from.join("a/b/file"), from.join("a/third")).expect("link");
        symlink("/nowhere", from.join("a/link")).expect("symlink");
        let holes = File::create(from.join("holes")).expect("create");
        holes.set_len(1 << 40).expect("a hole of a terabyte");
        holes.write_all_at(b"end", 1 << 39).expect("write");
        fs::set_permissions(&from, fs::Permissions::from_mode(0o711)).expect("chmod");
        exact(&open(&from), &open(&to), "test", &|| Ok(())).expect("copied");

        let meta = |path: &str| fs::symlink_metadata(to.join(path)).expect("there");
        let holes = meta("holes");
        assert_eq!(holes.len(), 1 << 40);
        assert!(holes.blocks() < 1 << 10, "{} blocks", holes.blocks());
        let mut end = [0; 3];
        let copy = File::open(to.join("holes")).expect("open");
        copy.read_exact_at(&mut end, 1 << 39).expect("read");
        assert_eq!(&end, b"end");
        assert_eq!(fs::read(to.join("again")).expect("read"), b"content");
        assert_eq!(meta("a/b/file").ino(), meta("again").ino());
        assert_eq!(meta("a/b/file").ino(), meta("a/third").ino());
        assert_eq!(meta("again").mode() & 0o7777, 0o640);
        assert_eq!(meta(".").mode() & 0o7777, 0o711);
        assert_eq!(
            fs::read_link(to.join("a/link")).expect("link"),
            Path::new("/nowhere")
        );
        let times = |meta: fs::Metadata| (meta.mtime(), meta.mtime_nsec());
        let original = fs::symlink_metadata(from.join("a/b")).expect("there");
        assert_eq!(times(meta("a/b")), times(original));
    }

    #[test]
    fn nobody_waits_for_a_copy_that_nobody_wants() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&to).expect("mkdir");
        fs::create_dir(&from).expect("mkdir");
        fs::write(from.join("file"), "content").expect("write");
        let stop = || Err(SetupFailure::because("copy", "test", "enough"));
        let failure = exact(&open(&from), &open(&to), "test", &stop).expect_err("stopped");
        assert_eq!(failure.reason, "enough");
        assert!(!to.join("file").exists());
    }
}
