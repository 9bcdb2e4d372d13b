//! Layers put on top of each other by copying: what overlayfs does without.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{self, AtFlags, OFlag},
    sys::stat::{self, FileStat, Mode, SFlag},
    unistd,
};

use super::{
    EntryPath, marks,
    metadata::{Metadata, set_times},
    tree::{self, Tree},
    xattr,
};
use crate::StoreError;

/// Copies layers, bottom first, into the empty directory `root`. What their [`Marks`](super::Marks) take
/// away is not there then; sockets of a directory that is no layer are left out, as archives leave them out.
/// On file systems that can (XFS, btrfs), the content of files is shared with the layer until it is
/// written to.
pub(crate) fn apply(layers: &[impl AsRef<Path>], root: &Path) -> Result<(), StoreError> {
    for layer in layers {
        let layer = layer.as_ref();
        let open = |path| Tree::open(path).map_err(StoreError::errno("opening", path));
        let copy = Copy {
            from: open(layer)?,
            to: open(root)?,
            links: HashMap::new(),
            remembered: 0,
        };
        copy.run().map_err(|failed| {
            let path = layer.join(failed.path.as_os_str());
            StoreError::io(failed.action, path, failed.errno)
        })?;
    }
    Ok(())
}

struct Copy {
    from: Tree,
    to: Tree,
    /// Where a file with more than one name was copied to, by its inode.
    links: HashMap<(u64, u64), EntryPath>,
    /// Bytes of these paths.
    remembered: usize,
}

/// No more are remembered: a further name of a file becomes a file of its own then.
const MAX_REMEMBERED: usize = 256 << 20;

/// What failed, and where in the layer.
struct Failed {
    path: EntryPath,
    action: &'static str,
    errno: Errno,
}

/// One name in a directory of the layer, and where its copy goes.
struct Child<'a> {
    path: EntryPath,
    name: &'a OsStr,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    stat: FileStat,
}

impl Copy {
    fn run(mut self) -> Result<(), Failed> {
        // Not by recursion: how deep a layer is, is for its author to say.
        let mut pending = vec![EntryPath::default()];
        let mut directories = Vec::new();
        while let Some(path) = pending.pop() {
            self.directory(&path, &mut pending)?;
            directories.push(path);
        }
        // Writing into a directory changes its time.
        for path in directories.iter().rev() {
            let finish = || {
                let (from, to) = (self.from.handle(path)?, self.to.handle(path)?);
                xattr::replace(&from, &to)?;
                Metadata::of(&stat::fstat(&from)?).apply_to_directory(&to)
            };
            finish().map_err(|errno| Failed {
                path: path.clone(),
                action: "copying the attributes of",
                errno,
            })?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &EntryPath, pending: &mut Vec<EntryPath>) -> Result<(), Failed> {
        let failed = |action| {
            let path = path.clone();
            move |errno| Failed {
                path,
                action,
                errno,
            }
        };
        let from = self.from.handle(path).map_err(failed("opening"))?;
        let to = self
            .to
            .handle(path)
            .map_err(failed("opening the copy of"))?;
        let names = tree::names(&from).map_err(failed("listing"))?;
        let is_mark = |found: Option<FileStat>| {
            found.is_some_and(|found| tree::file_type(&found) == SFlag::S_IFSOCK)
        };
        if names.iter().any(|name| name == marks::OPAQUE) {
            let mark = tree::look(&from, OsStr::new(marks::OPAQUE));
            if is_mark(mark.map_err(failed("looking into"))?) {
                clear(&to).map_err(failed("hiding what is below"))?;
            }
        }
        for name in &names {
            let Some(stat) = tree::look(&from, name).map_err(failed("looking into"))? else {
                continue;
            };
            let child = Child {
                path: path.join(name),
                name,
                from: &from,
                to: &to,
                stat,
            };
            let is_directory = tree::file_type(&child.stat) == SFlag::S_IFDIR;
            self.child(&child).map_err(|errno| Failed {
                path: child.path.clone(),
                action: "copying",
                errno,
            })?;
            if is_directory {
                pending.push(child.path);
            }
        }
        Ok(())
    }

    fn child(&mut self, child: &Child<'_>) -> Result<(), Errno> {
        let kind = tree::file_type(&child.stat);
        let existing = tree::look(child.to, child.name)?;
        if let Some(existing) = existing {
            if kind == SFlag::S_IFDIR && tree::file_type(&existing) == SFlag::S_IFDIR {
                return Ok(());
            }
            tree::remove(child.to, child.name)?;
        }
        if tree::is_whiteout(&child.stat) {
            return Ok(());
        }
        if kind == SFlag::S_IFDIR {
            return stat::mkdirat(child.to, child.name, Mode::S_IRWXU);
        }
        let inode = (child.stat.st_dev, child.stat.st_ino);
        if child.stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode) {
                return self.link(first, child);
            }
            let length = child.path.as_bytes().len();
            if self.remembered + length <= MAX_REMEMBERED {
                self.remembered += length;
                self.links.insert(inode, child.path.clone());
            }
        }
        self.node(child, kind)?;
        let mut metadata = Metadata::of(&child.stat);
        if kind == SFlag::S_IFLNK {
            metadata.mode = None;
        }
        metadata.set_owner(child.to, child.name)?;
        metadata.set_mode(child.to, child.name)?;
        xattr::copy_at(child.from, child.to, child.name)?;
        set_times(child.to, child.name, metadata.mtime)
    }

    fn link(&self, first: &EntryPath, child: &Child<'_>) -> Result<(), Errno> {
        let (parent, name) = first.split().ok_or(Errno::EINVAL)?;
        let parent = self.to.handle(&parent)?;
        unistd::linkat(parent, name, child.to, child.name, AtFlags::empty())
    }

    fn node(&self, child: &Child<'_>, kind: SFlag) -> Result<(), Errno> {
        match kind {
            SFlag::S_IFREG => file(child),
            SFlag::S_IFLNK => {
                let target: OsString = fcntl::readlinkat(child.from, child.name)?;
                unistd::symlinkat(target.as_os_str(), child.to, child.name)
            }
            _ => stat::mknodat(
                child.to,
                child.name,
                kind,
                Mode::S_IRUSR | Mode::S_IWUSR,
                child.stat.st_rdev,
            ),
        }
    }
}

/// Removes everything in a directory.
fn clear(directory: impl AsFd) -> Result<(), Errno> {
    for name in tree::names(&directory)? {
        tree::remove(&directory, &name)?;
    }
    Ok(())
}

fn file(child: &Child<'_>) -> Result<(), Errno> {
    let common = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let from = fcntl::openat(
        child.from,
        child.name,
        common | OFlag::O_RDONLY,
        Mode::empty(),
    )?;
    let to = fcntl::openat(
        child.to,
        child.name,
        common | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?;
    // SAFETY: FICLONE (linux/fs.h) takes a descriptor by value; both are open.
    let cloned = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if cloned == 0 {
        return Ok(());
    }
    copy_data(from.into(), to.into(), child.stat.st_size.unsigned_abs())
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Copies content, and leaves holes where there are holes.
fn copy_data(mut from: File, mut to: File, size: u64) -> io::Result<()> {
    let mut position = 0;
    while position < size {
        let Some((begin, end)) = data(&from, position, size)? else {
            break;
        };
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        // By copy_file_range(2) where the kernel can.
        let copied = io::copy(&mut (&from).take(end - begin), &mut to)?;
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position = begin + copied;
    }
    to.set_len(size)
}

/// The next piece at or after `position` that is no hole.
fn data(file: &File, position: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        unistd::lseek(file, from, whence).map(i64::unsigned_abs)
    };
    match seek(position, unistd::Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(None),
        // A file system that does not know.
        Err(Errno::EINVAL) => Ok(Some((position, size))),
        Err(errno) => Err(errno.into()),
        Ok(begin) => Ok(Some((
            begin,
            seek(begin, unistd::Whence::SeekHole)?.min(size),
        ))),
    }
}
