//! A directory tree that is only reached through its own file descriptor.
//!
//! No path string is ever given to the kernel to be resolved from the outside: directories are
//! opened with openat2(2) and `RESOLVE_IN_ROOT`, so that symbolic links of the tree, absolute or
//! climbing, stay inside it; the last step of each operation is a name in an open directory, and
//! never follows a link.

use std::{
    ffi::{OsStr, OsString},
    hash::{BuildHasher, Hasher, RandomState},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{self, AtFlags, OFlag, OpenHow, ResolveFlag},
    sys::stat::{self, FileStat, Mode, SFlag},
    unistd::{self, UnlinkatFlags},
};

use super::path::EntryPath;

/// A handle on a directory, usable as the start of other operations only.
const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// The root of a tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens the tree at `path`, which must be the store's own, not a stranger's.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let root = fcntl::open(path, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory of the tree, following links inside the tree.
    pub(crate) fn directory(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        self.open_at(path, DIRECTORY, ResolveFlag::empty())
    }

    /// A handle on what is at `path`, reached without following any link: `ELOOP` where one stands
    /// in the way. A link at the end is what is returned.
    pub(crate) fn handle(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.open_at(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// Opens a file for reading, reached without following any link. It may be of any kind: nothing
    /// is waited for.
    pub(crate) fn file(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        self.open_at(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn open_at(&self, path: &EntryPath, flags: OFlag, more: ResolveFlag) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        loop {
            match fcntl::openat2(&self.root, path.as_os_str(), how) {
                // A rename somewhere made the kernel unsure; it says to try again.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

/// Looks at a name in a directory; `None` when there is none.
pub(crate) fn look(directory: impl AsFd, name: &OsStr) -> Result<Option<FileStat>, Errno> {
    match stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type bits of a mode.
pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Whether this is a whiteout, of either kind of [`Marks`](super::Marks).
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    match file_type(stat) {
        SFlag::S_IFCHR => stat.st_rdev == 0,
        kind => kind == SFlag::S_IFSOCK,
    }
}

/// Opens a directory by its name in another one, following nothing.
pub(crate) fn subdirectory(directory: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    fcntl::openat(
        directory,
        name,
        DIRECTORY | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )
}

/// Removes `name` in `directory`, with all that is below it. Nothing there is fine.
///
/// Subdirectories are first moved up into `directory`, one by one, so that depth costs neither
/// stack nor descriptors (a task can nest directories far deeper than both). Never leaves the
/// file system: a mount point below `name` is an error.
pub(crate) fn remove(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    remove_with(directory, name, |_, _| Ok(()))
}

/// [`remove`], which hands over each name to `before` first. What that has moved away is gone.
pub(crate) fn remove_with(
    directory: impl AsFd,
    name: &OsStr,
    mut before: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let directory = directory.as_fd();
    before(directory, name)?;
    let mut pending = vec![name.to_owned()];
    // Nobody can have taken such names beforehand.
    let (random, mut moved) = (RandomState::new().build_hasher().finish(), 0u64);
    while let Some(current) = pending.last().cloned() {
        match unistd::unlinkat(directory, current.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                pending.pop();
                continue;
            }
            Err(Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
        match unistd::unlinkat(directory, current.as_os_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                pending.pop();
                continue;
            }
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        // overlayfs leaves `work/work` with mode 000; only CAP_DAC_OVERRIDE gets past that.
        let handle = subdirectory(directory, &current)?;
        if stat::fstat(&handle)?.st_mode & 0o700 != 0o700 {
            let all = Mode::S_IRWXU;
            stat::fchmodat(
                directory,
                current.as_os_str(),
                all,
                stat::FchmodatFlags::FollowSymlink,
            )?;
        }
        for child in names(&handle)? {
            before(handle.as_fd(), &child)?;
            match unistd::unlinkat(&handle, child.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(errno),
            }
            let place = loop {
                let place = format!(".removed-{random:016x}-{moved}");
                moved += 1;
                let flags = fcntl::RenameFlags::RENAME_NOREPLACE;
                match fcntl::renameat2(&handle, child.as_os_str(), directory, place.as_str(), flags)
                {
                    Ok(()) => break place,
                    Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            };
            pending.push(place.into());
        }
    }
    Ok(())
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}
