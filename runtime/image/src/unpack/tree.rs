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
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
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
        match unlink(directory, &current, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                pending.pop();
                continue;
            }
            Err(Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
        match unlink(directory, &current, UnlinkatFlags::RemoveDir) {
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
            let (all, flags) = (Mode::S_IRWXU, stat::FchmodatFlags::FollowSymlink);
            unprotected(directory, &current, || {
                stat::fchmodat(directory, current.as_os_str(), all, flags)
            })?;
        }
        for child in names(&handle)? {
            before(handle.as_fd(), &child)?;
            match unlink(handle.as_fd(), &child, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(errno),
            }
            let place = loop {
                let place = format!(".removed-{random:016x}-{moved}");
                moved += 1;
                let flags = fcntl::RenameFlags::RENAME_NOREPLACE;
                let (from, to) = (child.as_os_str(), place.as_str());
                match unprotected(handle.as_fd(), &child, || {
                    fcntl::renameat2(&handle, from, directory, to, flags)
                }) {
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

fn unlink(directory: BorrowedFd<'_>, name: &OsStr, flag: UnlinkatFlags) -> Result<(), Errno> {
    unprotected(directory, name, || unistd::unlinkat(directory, name, flag))
}

/// Does something to `name`; once more without the protection that it or its directory has, should that
/// forbid it: a task with `CAP_LINUX_IMMUTABLE` can give it (chattr(1), `+i` and `+a`).
fn unprotected(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    action: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match action() {
        Err(Errno::EPERM) => {
            let changed = [OsStr::new("."), name].map(|name| unprotect(directory, name));
            match changed.contains(&Ok(true)) {
                true => action(),
                false => Err(Errno::EPERM),
            }
        }
        outcome => outcome,
    }
}

/// Takes immutability and append-only away from a file or a directory. False where there was none.
fn unprotect(directory: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    // linux/fs.h; the calls carry an `int`, whatever the size in their numbers says.
    const PROTECTION: libc::c_int = 0x10 | 0x20;
    let found = stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    // To open anything else could do something, or wait.
    if !matches!(file_type(&found), SFlag::S_IFREG | SFlag::S_IFDIR) {
        return Ok(false);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = fcntl::openat(directory, name, flags, Mode::empty())?;
    let mut found: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one `int`.
    let got = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut found) };
    Errno::result(got)?;
    let wanted = found & !PROTECTION;
    if wanted == found {
        return Ok(false);
    }
    // SAFETY: as above; the kernel reads it.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const wanted) };
    Errno::result(set).map(|_| true)
}

/// What the files below `path` take on the disk, in bytes, on its own file system. Somebody may change
/// them meanwhile, so what cannot be read is nothing.
///
/// Depth costs neither stack nor descriptors: one directory is open at a time, and the way up is `..`.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    let flags = DIRECTORY | OFlag::O_NOFOLLOW;
    let Ok(root) = fcntl::open(path, flags, Mode::empty()) else {
        return 0;
    };
    let mut bytes = 0;
    let (mut here, mut ways) = (root, Vec::new());
    let Ok(mut inner) = Unread::of(&here, None, &mut bytes) else {
        return 0;
    };
    loop {
        if let Some(name) = inner.directories.pop() {
            let opened = subdirectory(&here, &name).and_then(|below| {
                let unread = Unread::of(&below, Some(inner.device), &mut bytes)?;
                Ok((below, unread))
            });
            if let Ok((below, unread)) = opened {
                ways.push(std::mem::replace(&mut inner, unread));
                here = below;
            }
            continue;
        }
        let Some(above) = ways.pop() else {
            return bytes;
        };
        // Where it was moved away meanwhile, `..` is another place, which may be outside.
        let up = subdirectory(&here, OsStr::new(".."));
        match up.and_then(|up| Ok((stat::fstat(&up)?, up))) {
            Ok((found, up)) if (found.st_dev, found.st_ino) == (above.device, above.inode) => {
                (here, inner) = (up, above);
            }
            _ => return bytes,
        }
    }
}

/// A directory whose files were counted.
struct Unread {
    device: u64,
    inode: u64,
    /// Those in it that were not looked into yet.
    directories: Vec<OsString>,
}

impl Unread {
    /// Adds what is in it to `bytes`. One of another file system than `device` is an error.
    fn of(directory: &OwnedFd, device: Option<u64>, bytes: &mut u64) -> Result<Self, Errno> {
        let own = stat::fstat(directory)?;
        if device.is_some_and(|device| device != own.st_dev) {
            return Err(Errno::EXDEV);
        }
        let mut directories = Vec::new();
        for name in names(directory)? {
            if let Ok(Some(found)) = look(directory, &name) {
                *bytes += found.st_blocks.unsigned_abs() * 512;
                if file_type(&found) == SFlag::S_IFDIR {
                    directories.push(name);
                }
            }
        }
        Ok(Self {
            device: own.st_dev,
            inode: own.st_ino,
            directories,
        })
    }
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
