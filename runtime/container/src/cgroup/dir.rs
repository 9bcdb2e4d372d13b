//! Directories and files of a hierarchy. Each is found from a descriptor with `openat2(2)`, which
//! neither leaves the directory nor follows a link nor passes onto another mount: the names below
//! a container's cgroup are the container's to choose.

use super::error::{CgroupError, Result};
use super::layout::{Hierarchy, Version};
use crate::fault;
use crate::sys;
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An open directory of a hierarchy.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

impl Dir {
    /// The root of a hierarchy, as it is mounted.
    pub fn mount(hierarchy: &Hierarchy) -> Result<Self> {
        let path = hierarchy.mountpoint.clone();
        let fd = openat(AT_FDCWD, &path, DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| file_error("open", &path, None, errno))?;
        let found = fstatfs(&fd).map_err(|errno| file_error("look at", &path, None, errno))?;
        let expected = match hierarchy.version {
            Version::V1 => CGROUP_SUPER_MAGIC,
            Version::V2 => CGROUP2_SUPER_MAGIC,
        };
        if found.filesystem_type() == expected {
            Ok(Self { fd, path })
        } else {
            // Something was mounted over it since the mount table was read.
            Err(file_error("open", &path, None, Errno::ESTALE))
        }
    }

    /// A directory below, by a relative path without `..`; the directory itself by an empty one.
    pub fn open(&self, below: &Path) -> Result<Self> {
        let path = self.path.join(below);
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        match self.lookup(below, DIRECTORY) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(errno) => Err(file_error("open", &path, None, errno)),
        }
    }

    /// As [`Dir::open`]; `None` when it is not there.
    pub fn find(&self, below: &Path) -> Result<Option<Self>> {
        match self.open(below) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory above. Only for one that was reached from above: cgroups never move to
    /// another parent, so this cannot leave the tree.
    pub fn up(&self) -> Result<Self> {
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        let fd = openat(&self.fd, "..", DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| file_error("open", &path, None, errno))?;
        Ok(Self { fd, path })
    }

    /// Makes a child; false when it is there already.
    pub fn make(&self, name: &Path) -> Result<bool> {
        let made = fault::step("make cgroup")
            .and_then(|()| mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755)));
        match made {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(file_error("create", &self.path.join(name), None, errno)),
        }
    }

    /// Removes a child without children of its own.
    pub fn remove(&self, name: &Path) -> Result<(), Errno> {
        unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir)
    }

    /// The names of its child cgroups.
    pub fn children(&self) -> Result<Vec<PathBuf>> {
        let failed = |errno| file_error("read", &self.path, None, errno);
        // A cgroup has one link more for each child (`kernfs_refresh_inode` of the kernel).
        if sys::fstat(&self.fd).map_err(failed)?.st_nlink == 2 {
            return Ok(Vec::new());
        }
        let fd = self
            .lookup(Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(failed)?;
        let mut list = nix::dir::Dir::from_fd(fd).map_err(failed)?;
        let mut names = Vec::new();
        for entry in list.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == Some(Type::Directory) && name != b"." && name != b".." {
                use std::os::unix::ffi::OsStrExt;
                names.push(std::ffi::OsStr::from_bytes(name).into());
            }
        }
        Ok(names)
    }

    /// Whether it has this file.
    pub fn has(&self, file: &str) -> bool {
        self.lookup(Path::new(file), OFlag::O_PATH).is_ok()
    }

    /// The content of a file, as text.
    pub fn read(&self, file: &str) -> Result<String> {
        let failed = |errno| file_error("read", &self.path.join(file), None, errno);
        let fd = self
            .lookup(Path::new(file), OFlag::O_RDONLY)
            .map_err(failed)?;
        sys::read_text(&fd).map_err(failed)
    }

    /// As [`Dir::read`]; `None` when the file is not there, or this cgroup type has no content
    /// for it.
    pub fn read_if(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_gone() || error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a value at once, as the kernel wants it. A missing file is never made: it is a
    /// controller that is missing.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        self.write_each(file, [value])
    }

    /// As [`Dir::write`], several values one after the other.
    pub fn write_each(
        &self,
        file: &str,
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<()> {
        let mut open = None;
        for value in values {
            let value = value.as_ref();
            let failed = |errno| file_error("write", &self.path.join(file), Some(value), errno);
            if open.is_none() {
                let fd = self.lookup(Path::new(file), OFlag::O_WRONLY);
                open = Some(File::from(fd.map_err(failed)?));
            }
            let Some(stream) = &mut open else { continue };
            fault::step("write in cgroup").map_err(failed)?;
            stream.write_all(value.as_bytes()).map_err(|error| {
                failed(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
            })?;
        }
        Ok(())
    }

    /// Changes the owner of one of its files; its own by `.`.
    pub fn give(&self, file: &str, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let path = self.path.join(file);
        let failed = |errno| file_error("change the owner of", &path, None, errno);
        let fd = self
            .lookup(Path::new(file), OFlag::O_PATH)
            .map_err(failed)?;
        fchownat(&fd, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).map_err(failed)
    }

    /// One of its files, open.
    pub fn file(&self, file: &str, flags: OFlag) -> Result<OwnedFd> {
        self.lookup(Path::new(file), flags)
            .map_err(|errno| file_error("open", &self.path.join(file), None, errno))
    }

    /// Opened for reading: what `bpf(2)` wants.
    pub fn readable(&self) -> Result<OwnedFd> {
        self.file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lookup(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        fault::step("open in cgroup")?;
        // The kernel answers EAGAIN when a rename elsewhere disturbed the walk.
        loop {
            match openat2(&self.fd, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                result => return result,
            }
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub fn file_error(
    action: &'static str,
    path: &Path,
    value: Option<&str>,
    errno: Errno,
) -> CgroupError {
    CgroupError::File {
        action,
        path: path.into(),
        value: value.map(Into::into),
        source: errno.into(),
    }
}
