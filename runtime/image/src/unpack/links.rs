//! Hard links to files of the layers below.
//!
//! Layers are unpacked side by side: when such a link is met, what it leads to may not be there yet. An
//! empty file stands for it until the layers below are known. Then the file is copied into the layer, to its
//! own name and to those that are links to it: what link(2) does in an overlayfs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::DirBuilder,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{self, AtFlags, OFlag},
    sys::stat::{self, Mode, SFlag},
    unistd::{self, UnlinkatFlags},
};

use super::{
    EntryPath, LayerError, Marks, Unpacked, copy, display,
    merged::{self, Found},
    metadata::{Metadata, set_times},
    tree::{self, Tree},
};
use crate::limits::Budget;

/// What one link costs to remember beside its paths, in bytes.
const COST: u64 = 256;

/// What a link leads to, as far as the layer itself tells when the link is met.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) path: EntryPath,
    /// The way leads through a symbolic link of this layer.
    pub(super) by_own_link: bool,
}

/// A file of the layers below, and its names in this one.
#[derive(Debug)]
struct Link {
    target: Target,
    /// Of the file that stands for it.
    inode: u64,
    /// Without links. An entry that came later may have taken one.
    names: Vec<EntryPath>,
}

/// Links that wait for the layers below.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The files that stand for targets, so that nobody else gets their inode numbers. It is made for the first one, and
    /// the layer's owner removes it.
    folder: PathBuf,
    opened: Option<OwnedFd>,
    links: Vec<Link>,
    by_target: HashMap<Target, usize>,
    by_inode: HashMap<u64, usize>,
}

impl Waiting {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            folder: Self::beside(root),
            opened: None,
            links: Vec::new(),
            by_target: HashMap::new(),
            by_inode: HashMap::new(),
        }
    }

    /// What remembering `path` takes from the limits.
    pub(super) fn charge(budget: &Budget<'_>, path: &EntryPath) -> Result<(), LayerError> {
        budget.take_remembered(COST + path.as_bytes().len() as u64)
    }

    /// Where the files are, while the layer at `root` has links that wait.
    pub(crate) fn beside(root: &Path) -> PathBuf {
        let mut name = OsString::from(root);
        name.push(".links");
        name.into()
    }

    /// Puts a file that stands for `target` at `name` in `directory`, whose path is `home`.
    pub(super) fn put(
        &mut self,
        target: Target,
        (directory, name): (&OwnedFd, &OsStr),
        home: EntryPath,
    ) -> Result<(), Errno> {
        let folder = match &mut self.opened {
            Some(folder) => folder,
            none => {
                let make = DirBuilder::new().mode(0o700).create(&self.folder);
                make.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                none.insert(fcntl::open(&self.folder, flags, Mode::empty())?)
            }
        };
        let at = match self.by_target.get(&target) {
            Some(at) => *at,
            None => {
                let at = self.links.len();
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let private = Mode::from_bits_truncate(0o600);
                let file = fcntl::openat(&*folder, at.to_string().as_str(), flags, private)?;
                let inode = stat::fstat(&file)?.st_ino;
                self.links.push(Link {
                    target: target.clone(),
                    inode,
                    names: Vec::new(),
                });
                self.by_target.insert(target, at);
                self.by_inode.insert(inode, at);
                at
            }
        };
        let file = at.to_string();
        unistd::linkat(&*folder, file.as_str(), directory, name, AtFlags::empty())?;
        self.links[at].names.push(home);
        Ok(())
    }

    /// Whether the file with this inode number stands for another one.
    pub(super) fn has(&self, inode: u64) -> bool {
        self.by_inode.contains_key(&inode)
    }

    /// Notes that the file with this inode number has one more name.
    pub(super) fn add(&mut self, inode: u64, home: EntryPath) {
        if let Some(at) = self.by_inode.get(&inode) {
            self.links[*at].names.push(home);
        }
    }
}

/// The layer itself, among all layers.
const OWN: usize = 0;

/// Gives the links of a layer that wait what they lead to in the layers below (`lower`, topmost first).
pub(crate) fn link_below(
    root: &Path,
    unpacked: &mut Unpacked,
    marks: Marks,
    lower: &[impl AsRef<Path>],
    budget: &Budget<'_>,
) -> Result<(), LayerError> {
    let links = std::mem::take(&mut unpacked.waiting.links);
    if links.is_empty() {
        return Ok(());
    }
    let waiting = links.iter().map(|link| link.inode).collect();
    let open = |path: &Path| {
        Tree::open(path).map_err(|source| LayerError::Kernel {
            entry: path.display().to_string(),
            action: "opening a layer",
            source,
        })
    };
    let mut layer = Layer {
        tree: open(root)?,
        lower: lower
            .iter()
            .map(|path| open(path.as_ref()))
            .collect::<Result<_, _>>()?,
        marks,
        copies: HashMap::new(),
        waiting,
        implied: &mut unpacked.implied,
        budget,
    };
    links.into_iter().try_for_each(|link| layer.link(link))
}

struct Layer<'a> {
    tree: Tree,
    lower: Vec<Tree>,
    marks: Marks,
    /// Files of the layers below that were copied, by device and inode, and where to.
    copies: HashMap<(u64, u64), EntryPath>,
    /// Inodes of the files that still stand for others.
    waiting: HashSet<u64>,
    implied: &'a mut BTreeSet<EntryPath>,
    budget: &'a Budget<'a>,
}

impl Layer<'_> {
    fn link(&mut self, link: Link) -> Result<(), LayerError> {
        let Some(first) = link.names.first() else {
            return Ok(());
        };
        self.budget.goes_on()?;
        let target = display(link.target.path.as_bytes());
        let entry = display(first.as_bytes());
        let refuse = |why| {
            Err(LayerError::Refused {
                entry: entry.clone(),
                reason: format!("a hard link to `{target}`, which {why}"),
            })
        };
        let kernel = |action| {
            let entry = entry.clone();
            move |source| LayerError::Kernel {
                entry,
                action,
                source,
            }
        };
        let (found, steps) = self
            .find(&link.target)
            .map_err(kernel("looking for the target of a hard link"))?;
        // A way that is odd enough costs as much as many files.
        (0..=steps / 16).try_for_each(|_| self.budget.take_entry())?;
        let found = match found {
            Found::File(found) => found,
            Found::Directory => return refuse("is no file"),
            Found::Nothing => return refuse("neither the layer nor one below it holds"),
        };
        self.waiting.remove(&link.inode);
        let mut names = Vec::new();
        let unique: BTreeSet<EntryPath> = link.names.into_iter().collect();
        for name in unique {
            let inode = match self.tree.handle(&name) {
                Ok(handle) => stat::fstat(&handle).map(|stat| stat.st_ino),
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(errno) => Err(errno),
            };
            if inode.map_err(kernel("looking at a hard link"))? == link.inode {
                names.push(name);
            }
        }
        let key = (found.stat.st_dev, found.stat.st_ino);
        if found.layer == OWN {
            self.copies.insert(key, found.path.clone());
        }
        if !self.copies.contains_key(&key)
            && let Some(first) = names.first()
        {
            self.budget.take_entry()?;
            if tree::file_type(&found.stat) == SFlag::S_IFREG {
                // Holes stay holes. Blocks have 512 bytes here (stat(2)).
                let held = found.stat.st_blocks.saturating_mul(512);
                let held = held.min(found.stat.st_size).unsigned_abs();
                self.budget.take_bytes(held)?;
            }
            let from = (&found.directory, name_of(&found.path));
            self.replace(first, |directory, name| {
                copy::copy(from, &found.stat, (directory, name))
            })
            .map_err(kernel("copying a file of a layer below"))?;
            self.copies.insert(key, first.clone());
            names.remove(0);
        }
        let Some(copied) = self.copies.get(&key).cloned() else {
            return Ok(());
        };
        for name in &names {
            self.replace(name, |directory, name| self.join(&copied, directory, name))
                .map_err(kernel("making a hard link"))?;
        }
        self.put_target(&copied, &found.path)
            .map_err(|failed| match failed {
                Failed::Limit(error) => error,
                Failed::Kernel(errno) => kernel("giving the file of a layer below its name")(errno),
            })
    }

    /// Where the target was when the layer had come as far as the link, and how many names were looked at.
    ///
    /// What all layers show now is that, unless an entry that came later is in the way: the link waits
    /// because its path led to nothing in this layer, so whatever is there now is later. Then what the
    /// layers below show is meant.
    fn find(&self, target: &Target) -> Result<(Found, usize), Errno> {
        let mut layers: Vec<&Tree> = self.lower.iter().collect();
        layers.insert(OWN, &self.tree);
        let now = merged::find(&layers, self.marks, &target.path)?;
        let is_later = match &now.found {
            _ if now.by_own_link != target.by_own_link => true,
            Found::Nothing | Found::Directory => true,
            Found::File(file) if file.layer == OWN => {
                file.path == target.path || self.waiting.contains(&file.stat.st_ino)
            }
            Found::File(_) => false,
        };
        if !is_later {
            return Ok((now.found, now.steps));
        }
        if target.by_own_link {
            let found = match now.found {
                Found::Directory => Found::Directory,
                _ => Found::Nothing,
            };
            return Ok((found, now.steps));
        }
        layers.remove(OWN);
        let below = merged::find(&layers, self.marks, &target.path)?;
        let found = match below.found {
            Found::File(mut file) => {
                file.layer += 1;
                Found::File(file)
            }
            other => other,
        };
        Ok((found, now.steps + below.steps))
    }

    /// Puts something else in the place of a file that stands for it.
    fn replace(
        &self,
        path: &EntryPath,
        put: impl FnOnce(&OwnedFd, &OsStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.inside(path, |directory, name| {
            unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?;
            put(directory, name)
        })
    }

    /// Changes the directory of `path`, whose time stays as it was.
    fn inside(
        &self,
        path: &EntryPath,
        change: impl FnOnce(&OwnedFd, &OsStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (parent, name) = path.split().ok_or(Errno::EINVAL)?;
        let directory = self.tree.handle(&parent)?;
        let before = Metadata::of(&stat::fstat(&directory)?);
        change(&directory, name)?;
        set_times(&directory, OsStr::new("."), before.mtime)
    }

    fn join(&self, path: &EntryPath, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let (parent, last) = path.split().ok_or(Errno::EINVAL)?;
        let from = self.tree.handle(&parent)?;
        unistd::linkat(from, last, directory, name, AtFlags::empty())
    }

    /// Gives the copy the name that its file has below as well, unless the layer has something else there or hides it.
    fn put_target(&mut self, copied: &EntryPath, path: &EntryPath) -> Result<(), Failed> {
        let Some((parent, name)) = path.split() else {
            return Ok(());
        };
        let mut at = EntryPath::default();
        let mut directory = self.tree.directory(&at)?;
        let mut hidden = self.marks.is_opaque(&directory)?;
        for component in parent.components() {
            let next = at.join(component);
            match tree::look(&directory, component)? {
                Some(found) if tree::file_type(&found) == SFlag::S_IFDIR => {}
                None if !hidden => {
                    self.budget.take_entry().map_err(Failed::Limit)?;
                    self.budget
                        .take_path(next.as_bytes())
                        .map_err(Failed::Limit)?;
                    self.inside(&next, |directory, name| {
                        stat::mkdirat(directory, name, Mode::from_bits_truncate(0o755))
                    })?;
                    // It gets its attributes with the others that no entry describes.
                    self.implied.insert(next.clone());
                }
                _ => return Ok(()),
            }
            directory = tree::subdirectory(&directory, component)?;
            hidden |= self.marks.is_opaque(&directory)?;
            at = next;
        }
        if hidden || tree::look(&directory, name)?.is_some() {
            return Ok(());
        }
        self.inside(path, |directory, name| self.join(copied, directory, name))?;
        Ok(())
    }
}

enum Failed {
    Limit(LayerError),
    Kernel(Errno),
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

fn name_of(path: &EntryPath) -> &OsStr {
    path.components().last().unwrap_or(OsStr::new("."))
}
