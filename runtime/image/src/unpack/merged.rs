//! What layers that lie on top of each other show at a path.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
};

use nix::{
    errno::Errno,
    fcntl,
    sys::stat::{FileStat, SFlag},
};

use super::{
    EntryPath, Marks,
    tree::{self, Tree},
};

/// So many links are followed on one way, as by the kernel (`MAXSYMLINKS` in linux/namei.h).
const MAX_FOLLOWED: usize = 40;
/// So many names are looked at on one way: links that climb make it as long as they like.
const MAX_STEPS: usize = 4096;

/// What a path leads to, and how.
pub(super) struct Way {
    pub(super) found: Found,
    /// It led through a link of the topmost layer.
    pub(super) by_own_link: bool,
    /// Names that were looked at.
    pub(super) steps: usize,
}

/// What is at a path.
pub(super) enum Found {
    Nothing,
    Directory,
    /// Anything else.
    File(File),
}

/// A file that the layers show.
pub(super) struct File {
    /// The number of its layer.
    pub(super) layer: usize,
    /// Its path without links.
    pub(super) path: EntryPath,
    /// Its directory in that layer.
    pub(super) directory: OwnedFd,
    pub(super) stat: FileStat,
}

/// One directory in the layers that have a part of it, topmost first.
type Directory = Vec<(usize, OwnedFd)>;

/// Finds `path` in the layers (topmost first), with what they take away from each other. Links on the way
/// are followed, from their own root; one at its end is what is found. A way that is too long leads nowhere.
pub(super) fn find(layers: &[&Tree], marks: Marks, path: &EntryPath) -> Result<Way, Errno> {
    let mut way = Way {
        found: Found::Nothing,
        by_own_link: false,
        steps: 0,
    };
    let mut rest: VecDeque<OsString> = path.components().map(OsStr::to_owned).collect();
    let mut at = EntryPath::default();
    let mut here = roots(layers, marks)?;
    let mut followed = 0;
    while let Some(name) = rest.pop_front() {
        way.steps += 1;
        if way.steps > MAX_STEPS {
            return Ok(way);
        }
        if name == ".." {
            // Of the root it is the root. No link leads here, so the path above tells what is above.
            let above = at.split().map(|(above, _)| above).unwrap_or_default();
            (at, here) = (EntryPath::default(), roots(layers, marks)?);
            prepend(&mut rest, above.components());
            continue;
        }
        match look(&here, &name, marks)? {
            Look::Nothing => return Ok(way),
            Look::Directory(directory) => {
                at = at.join(&name);
                here = directory;
            }
            Look::File(part, stat) if rest.is_empty() => {
                let (layer, directory) = here.swap_remove(part);
                way.found = Found::File(File {
                    layer,
                    path: at.join(&name),
                    directory,
                    stat,
                });
                return Ok(way);
            }
            Look::File(part, stat) => {
                followed += 1;
                if tree::file_type(&stat) != SFlag::S_IFLNK || followed > MAX_FOLLOWED {
                    return Ok(way);
                }
                way.by_own_link |= here[part].0 == 0;
                let target = fcntl::readlinkat(&here[part].1, name.as_os_str())?;
                let target = target.as_bytes();
                if target.starts_with(b"/") {
                    (at, here) = (EntryPath::default(), roots(layers, marks)?);
                }
                let components = target.split(|byte| *byte == b'/');
                let components = components.filter(|name| !matches!(*name, b"" | b"."));
                prepend(&mut rest, components.map(OsStr::from_bytes));
            }
        }
    }
    way.found = Found::Directory;
    Ok(way)
}

fn prepend<'a>(rest: &mut VecDeque<OsString>, first: impl Iterator<Item = &'a OsStr>) {
    let mut first: VecDeque<OsString> = first.map(OsStr::to_owned).collect();
    first.append(rest);
    *rest = first;
}

fn roots(layers: &[&Tree], marks: Marks) -> Result<Directory, Errno> {
    let mut roots = Vec::with_capacity(layers.len());
    for (layer, tree) in layers.iter().enumerate() {
        let root = tree.directory(&EntryPath::default())?;
        let opaque = marks.is_opaque(&root)?;
        roots.push((layer, root));
        if opaque {
            break;
        }
    }
    Ok(roots)
}

/// What a name stands for in a directory.
enum Look {
    Nothing,
    Directory(Directory),
    /// In that part of the directory.
    File(usize, FileStat),
}

fn look(here: &Directory, name: &OsStr, marks: Marks) -> Result<Look, Errno> {
    let mut directory = Vec::new();
    for (part, (layer, fd)) in here.iter().enumerate() {
        let Some(stat) = tree::look(fd, name)? else {
            continue;
        };
        if tree::is_whiteout(&stat) {
            break;
        }
        if tree::file_type(&stat) != SFlag::S_IFDIR {
            if directory.is_empty() {
                return Ok(Look::File(part, stat));
            }
            break;
        }
        let inside = tree::subdirectory(fd, name)?;
        let opaque = marks.is_opaque(&inside)?;
        directory.push((*layer, inside));
        if opaque {
            break;
        }
    }
    Ok(match directory.is_empty() {
        true => Look::Nothing,
        false => Look::Directory(directory),
    })
}
