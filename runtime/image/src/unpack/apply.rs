//! Layers put on top of each other by copying: what overlayfs does without.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{self, FileStat, Mode, SFlag},
    unistd,
};

use super::{
    EntryPath, copy, marks,
    metadata::Metadata,
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
        copy::copy(
            (child.from, child.name),
            &child.stat,
            (child.to, child.name),
        )
    }

    fn link(&self, first: &EntryPath, child: &Child<'_>) -> Result<(), Errno> {
        let (parent, name) = first.split().ok_or(Errno::EINVAL)?;
        let parent = self.to.handle(&parent)?;
        unistd::linkat(parent, name, child.to, child.name, AtFlags::empty())
    }
}

/// Removes everything in a directory.
fn clear(directory: impl AsFd) -> Result<(), Errno> {
    for name in tree::names(&directory)? {
        tree::remove(&directory, &name)?;
    }
    Ok(())
}
