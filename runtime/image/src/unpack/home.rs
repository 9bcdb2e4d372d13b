//! Where the content of a layer's files is once the layer is unpacked.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::{Mode, SFlag},
};

use super::{
    EntryPath,
    tree::{self, look},
};

/// Finds out the paths of files, and keeps those that are replaced.
pub(super) struct Homes {
    /// The layer's root, as the kernel calls it.
    root: PathBuf,
    /// A directory as an entry names it, and as it is called without links. What an archive's entries
    /// have in common with the one before is mostly this.
    parent: Option<(EntryPath, EntryPath)>,
    /// Replaced files, by inode number. Made for the first one.
    replaced: (PathBuf, Option<OwnedFd>),
}

impl Homes {
    pub(super) fn new(root: BorrowedFd<'_>, replaced: &Path) -> Result<Self, Errno> {
        Ok(Self {
            root: path_of(root)?,
            parent: None,
            replaced: (replaced.to_owned(), None),
        })
    }

    /// The path of a name in a directory of the layer, without links. `path` is how the archive calls it.
    /// None where the path is too long to find it again.
    pub(super) fn of(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &EntryPath,
    ) -> Result<Option<EntryPath>, Errno> {
        let Some((parent, name)) = path.split() else {
            return Ok(None);
        };
        if let Some((named, real)) = &self.parent
            && *named == parent
        {
            return Ok(usable(real.join(name)));
        }
        let Some(real) = self.directory(directory)? else {
            return Ok(None);
        };
        let home = real.join(name);
        self.parent = Some((parent, real));
        Ok(usable(home))
    }

    /// The path of a directory of the layer, without links. None where it is longer than the kernel can tell.
    pub(super) fn directory(&self, directory: BorrowedFd<'_>) -> Result<Option<EntryPath>, Errno> {
        let found = match path_of(directory) {
            Ok(found) => found,
            Err(Errno::ENAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let Ok(below) = found.strip_prefix(&self.root) else {
            return Err(Errno::EXDEV);
        };
        Ok(match below.as_os_str().as_bytes() {
            b"" => Some(EntryPath::default()),
            below => EntryPath::parse(below).ok(),
        })
    }

    /// Removes `name` in `directory` with all that is below it, as [`tree::remove`] does. The content
    /// of files is kept.
    pub(super) fn remove(&mut self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        self.parent = None;
        tree::remove_with(directory, name, |directory, name| {
            let Some(found) = look(directory, name)? else {
                return Ok(());
            };
            if tree::file_type(&found) != SFlag::S_IFREG || found.st_size == 0 {
                return Ok(());
            }
            let replaced = open(&mut self.replaced)?;
            // Of a file with several names the second one stays where it is, and is removed.
            let number = found.st_ino.to_string();
            fcntl::renameat(directory, name, replaced, number.as_str())
        })
    }
}

/// The kernel takes no longer path than this (`PATH_MAX` in linux/limits.h, with its NUL).
fn usable(path: EntryPath) -> Option<EntryPath> {
    (path.as_bytes().len() < 4096).then_some(path)
}

fn open((path, opened): &mut (PathBuf, Option<OwnedFd>)) -> Result<BorrowedFd<'_>, Errno> {
    let directory = match opened.take() {
        Some(directory) => directory,
        None => {
            DirBuilder::new()
                .mode(0o700)
                .create(&*path)
                .map_err(errno)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            fcntl::open(&*path, flags, Mode::empty())?
        }
    };
    let opened: &OwnedFd = opened.insert(directory);
    Ok(opened.as_fd())
}

/// What the kernel calls an open directory.
fn path_of(directory: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fs::read_link(link).map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
