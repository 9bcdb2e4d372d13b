//! The root file system as a descriptor: every path of the container is looked up below it, with
//! `openat2(2)`, so that no symbolic link in an image can lead to the host.

use crate::error::{Setup, SetupFailure};
use crate::procfs::ProcFs;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// How symbolic links are treated on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed inside the root: an absolute link starts at the root, `..` stops there.
    Follow,
    /// None may be on the path: for the places whose meaning is fixed (`/proc`, `/dev`, `/sys`).
    Refuse,
}

/// A directory that is treated as `/`.
pub struct Root {
    fd: OwnedFd,
    /// What is mounted at the places whose meaning is fixed, the latest last.
    fixed: Vec<(PathBuf, OwnedFd)>,
}

impl Root {
    pub fn new(fd: OwnedFd) -> Self {
        let fixed = Vec::new();
        Self { fd, fixed }
    }

    /// From here on `place` is this mount. By its path alone it could be lost: who shares the
    /// root file system with the container can exchange the directory that it lies on for another.
    pub fn fix(&mut self, place: &Path, mount: OwnedFd) {
        self.fixed.push((place.into(), mount));
    }

    /// Where to begin, and what is left of the path.
    fn start<'a>(&self, path: &'a Path) -> (&OwnedFd, &'a Path) {
        let mut fixed = self.fixed.iter().rev();
        let found = fixed.find_map(|(place, mount)| Some((mount, path.strip_prefix(place).ok()?)));
        match found {
            Some((mount, rest)) if rest.as_os_str().is_empty() => (mount, Path::new(".")),
            Some(found) => found,
            None => (&self.fd, path),
        }
    }

    /// Opens a directory of the host.
    pub fn open_host(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).map(Self::new)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens `path` below the root.
    pub fn open(&self, path: &Path, flags: OFlag, links: Links) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if links == Links::Refuse {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let (start, path) = self.start(path);
        // The kernel answers EAGAIN when a rename elsewhere disturbed the walk.
        loop {
            match openat2(start, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                result => return result,
            }
        }
    }

    /// The place `path`, whatever it is.
    pub fn locate(&self, path: &Path, links: Links) -> Result<OwnedFd, Errno> {
        self.open(path, OFlag::O_PATH, links)
    }

    /// The directory `path`, made with all its parents (mode 0755) where missing.
    pub fn make_dir(&self, path: &Path, links: Links) -> Setup<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.open(path, flags, links) {
            Err(Errno::ENOENT) => {}
            result => return result.map_err(|errno| refused("open directory", path, errno)),
        }
        // The deepest directory that is there. Most often it is the parent.
        let all = names(path)?;
        let place = |depth: usize| {
            let parts = all.get(..depth).unwrap_or_default();
            Path::new("/").join(parts.iter().collect::<PathBuf>())
        };
        let mut there = all.len().saturating_sub(1);
        let mut dir = loop {
            let so_far = place(there);
            match self.open(&so_far, flags, links) {
                Ok(dir) => break dir,
                Err(Errno::ENOENT) if there > 0 => there -= 1,
                Err(errno) => return Err(refused("open directory", &so_far, errno)),
            }
        };
        for (depth, name) in all.iter().enumerate().skip(there) {
            // `dir` is a descriptor inside the root and `name` one component: the new directory
            // cannot land elsewhere. A dangling link gives EEXIST, as does another container that
            // was faster in what both share.
            let so_far = place(depth + 1);
            match mkdirat(&dir, *name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(refused("create directory", &so_far, errno)),
            }
            dir = beneath(&dir, name, flags).map_err(|errno| match errno {
                Errno::ELOOP => refused("create directory", &so_far, Errno::EEXIST),
                errno => refused("open directory", &so_far, errno),
            })?;
        }
        Ok(dir)
    }

    /// The file `path`, made empty (and its parents) where missing: a place to mount a file on.
    pub fn make_file(&self, path: &Path, links: Links) -> Setup<OwnedFd> {
        match self.locate(path, links) {
            Err(Errno::ENOENT) => {}
            result => return result.map_err(|errno| refused("open", path, errno)),
        }
        let names = names(path)?;
        let Some((name, parents)) = names.split_last() else {
            return Err(SetupFailure::because(
                "create file",
                "/",
                "the root is a directory",
            ));
        };
        let parent = self.make_dir(
            &Path::new("/").join(parents.iter().collect::<PathBuf>()),
            links,
        )?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        match nix::fcntl::openat(&parent, *name, flags | OFlag::O_WRONLY, mode) {
            Ok(_) | Err(Errno::EEXIST) => {} // as with a directory
            Err(errno) => return Err(refused("create file", path, errno)),
        }
        beneath(&parent, name, OFlag::O_PATH).map_err(|errno| match errno {
            Errno::ELOOP => refused("create file", path, Errno::EEXIST),
            errno => refused("open", path, errno),
        })
    }

    /// The content of a regular file, at most `limit` bytes of it; `None` where there is none.
    pub fn read(
        &self,
        path: &Path,
        limit: u64,
        procfs: &ProcFs,
    ) -> std::io::Result<Option<Vec<u8>>> {
        // Looked at before it is opened: to open a FIFO may take for ever, and to open a device
        // may do anything, from rewinding a tape to rebooting the machine.
        let found = match self.locate(path, Links::Follow) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let data = fstat(&found)?;
        let size = u64::try_from(data.st_size).unwrap_or(u64::MAX);
        if data.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() || size > limit {
            return Err(std::io::Error::other(format!(
                "not a regular file of at most {limit} bytes"
            )));
        }
        // Or a file of procfs, to which a link may lead and which to read may have effects too.
        if size == 0 {
            return Ok(Some(Vec::new()));
        }
        let file = procfs.reopen(&found, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        let mut content = Vec::new();
        std::fs::File::from(file)
            .take(limit)
            .read_to_end(&mut content)?;
        Ok(Some(content))
    }
}

/// Opens one component in `dir`, which must not be a link.
pub fn beneath(dir: impl AsFd, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(
        dir,
        name,
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve),
    )
}

/// The components of an absolute path; `..` has no use in a path of a container and is refused.
pub fn names(path: &Path) -> Setup<Vec<&OsStr>> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(SetupFailure::because(
                "resolve",
                path.display(),
                "\"..\" is not allowed in this path",
            ))),
        })
        .collect()
}

fn refused(step: &str, path: &Path, errno: Errno) -> SetupFailure {
    let reason = match errno {
        Errno::ELOOP => "a symbolic link is on the path, or links form a loop",
        Errno::EEXIST => "a dangling symbolic link is in the way",
        Errno::EXDEV => "the path leads outside",
        Errno::ENOTDIR => "a part of the path is not a directory",
        _ => return SetupFailure::new(step, path.display(), errno),
    };
    SetupFailure {
        errno: errno as i32,
        ..SetupFailure::because(step, path.display(), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn procfs() -> ProcFs {
        ProcFs::of_host().expect("procfs")
    }

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = Root::open_host(dir.path()).expect("open");
        (dir, root)
    }

    #[test]
    fn links_stay_inside() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).expect("mkdir");
        std::fs::write(dir.path().join("etc/passwd"), "inside").expect("write");
        symlink("/etc", dir.path().join("absolute")).expect("symlink");
        symlink("../../../../etc", dir.path().join("dots")).expect("symlink");
        for name in ["/absolute/passwd", "/dots/passwd", "etc/passwd"] {
            let content = root
                .read(Path::new(name), 100, &procfs())
                .expect("read")
                .expect("present");
            assert_eq!(content, b"inside", "{name}");
        }
    }

    #[test]
    fn links_are_refused_where_asked() {
        let (dir, root) = root();
        symlink("/tmp", dir.path().join("proc")).expect("symlink");
        let error = root
            .make_dir(Path::new("/proc"), Links::Refuse)
            .expect_err("refused");
        assert_eq!(error.errno, Errno::ELOOP as i32, "{error}");
    }

    #[test]
    fn directories_and_files_are_made_inside() {
        let (dir, root) = root();
        symlink("/real", dir.path().join("link")).expect("symlink");
        std::fs::create_dir(dir.path().join("real")).expect("mkdir");
        root.make_dir(Path::new("/link/a/b"), Links::Follow)
            .expect("make");
        assert!(dir.path().join("real/a/b").is_dir());
        root.make_file(Path::new("/link/c/file"), Links::Follow)
            .expect("make");
        assert!(dir.path().join("real/c/file").is_file());
        symlink("/nowhere", dir.path().join("dangling")).expect("symlink");
        assert!(
            root.make_dir(Path::new("/dangling/x"), Links::Follow)
                .is_err()
        );
        assert!(
            root.make_dir(Path::new("/a/../b/x"), Links::Follow)
                .is_err()
        );
    }

    #[test]
    fn fifo_and_large_files_are_not_read() {
        let (dir, root) = root();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRUSR).expect("fifo");
        assert!(root.read(Path::new("/fifo"), 100, &procfs()).is_err());
        std::fs::write(dir.path().join("large"), [b'x'; 101]).expect("write");
        assert!(root.read(Path::new("/large"), 100, &procfs()).is_err());
        assert!(
            root.read(Path::new("/absent"), 100, &procfs())
                .expect("none")
                .is_none()
        );
    }
}
