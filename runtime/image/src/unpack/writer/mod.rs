//! Writes the entries of one layer into a directory, with [`Marks`] for what it takes away.

mod file;
mod link;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    rc::Rc,
};

use nix::{
    errno::Errno,
    sys::stat::{self, FchmodatFlags, FileStat, Mode, SFlag},
    unistd,
};

use super::{
    EntryPath, LayerError, Marks, display,
    error::{CHANGE_OWNER, FIND_PATH, MAKE_DEVICE, SET_TIME, SET_XATTR},
    home::Homes,
    links::Waiting,
    marks,
    metadata::{Metadata, set_times},
    tree::{self, Tree},
    xattr,
};
use crate::{
    limits::Budget,
    recipe::Recorder,
    tarball::{Entry, Kind, TarReader},
};

/// image-spec `layer.md`, section "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
/// Left by AUFS; Docker skips them.
const AUFS: &[u8] = b".wh..wh.";

/// Where an entry goes: an open directory and a name in it.
struct Place<'a> {
    path: EntryPath,
    directory: Rc<OwnedFd>,
    name: &'a OsStr,
}

/// What only the whole of a layer tells.
pub(super) struct Written {
    /// Directories that the archive did not describe.
    pub(super) implied: BTreeSet<EntryPath>,
    /// The layer hides all layers below it.
    pub(super) opaque_root: bool,
    /// Hard links to files of the layers below.
    pub(super) waiting: Waiting,
}

pub(super) struct Writer<'a> {
    tree: Tree,
    marks: Marks,
    /// Where the content of files is, for who makes the archive again.
    homes: Homes,
    /// Hard links to files of the layers below.
    waiting: Waiting,
    budget: &'a Budget<'a>,
    /// Directories whose attributes the archive has not given (yet). These paths have no links.
    implied: BTreeSet<EntryPath>,
    /// Times of directories, whose paths have no links: writing into a directory changes its time, so
    /// these come last.
    times: BTreeMap<EntryPath, (i64, u32)>,
    /// The layer hides all layers below it.
    opaque_root: bool,
    /// The entry being written, for messages.
    current: String,
    /// The directory of the entry before, which most often is that of the next one too.
    directory: Option<(EntryPath, Rc<OwnedFd>)>,
    /// For the content of files.
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Files that are replaced go to the directory `replaced`, which is made for the first one.
    pub(super) fn new(
        root: &Path,
        marks: Marks,
        replaced: &Path,
        budget: &'a Budget<'a>,
    ) -> Result<Self, LayerError> {
        let kernel = |source| LayerError::Kernel {
            entry: root.display().to_string(),
            action: "opening the layer's directory",
            source,
        };
        let tree = Tree::open(root).map_err(kernel)?;
        let homes = Homes::new(tree.root(), replaced).map_err(kernel)?;
        let implied = [EntryPath::default()].into();
        Ok(Self {
            tree,
            marks,
            homes,
            waiting: Waiting::new(root),
            budget,
            implied,
            times: BTreeMap::new(),
            opaque_root: false,
            current: String::new(),
            directory: None,
            buffer: vec![0; file::BUFFER],
        })
    }

    /// Writes one entry; `tar` stands at its data.
    pub(super) fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<Recorder<R>>,
    ) -> Result<(), LayerError> {
        self.current = display(&entry.name);
        let path = EntryPath::parse(&entry.name)?;
        let Some((parent, name)) = path.split() else {
            return self.root(entry);
        };
        let directory = match self.directory.take() {
            Some((path, directory)) if path == parent => directory,
            _ => Rc::new(self.parent(&parent)?),
        };
        self.directory = Some((parent.clone(), Rc::clone(&directory)));
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, &directory, name, OsStr::from_bytes(hidden));
        }
        let place = Place {
            path: path.clone(),
            directory,
            name,
        };
        match entry.kind {
            Kind::HardLink => return self.hard_link(&place, entry),
            Kind::File => return self.file(&place, entry, tar),
            _ => {}
        }
        let existing = self.at(tree::look(&place.directory, name), "looking at the name")?;
        if entry.kind == Kind::Directory {
            self.directory(&place, existing)?;
            let home = self.home(&place)?;
            self.budget.take_path(home.as_bytes())?;
            self.implied.remove(&home);
            self.times.insert(home, entry.mtime);
        } else {
            self.clear(&place, existing)?;
            self.node(&place, entry)?;
        }
        self.attributes(&place.directory, name, entry)
    }

    /// Sets what had to wait.
    pub(super) fn finish(self) -> Result<Written, LayerError> {
        for (path, mtime) in self.times.iter().rev() {
            let result = match path.split() {
                None => set_times(self.tree.root(), OsStr::new("."), *mtime),
                Some((parent, name)) => match self.tree.handle(&parent) {
                    Ok(directory) => set_times(directory, name, *mtime),
                    Err(errno) => Err(errno),
                },
            };
            match result {
                // Its path was too long to notice that a later entry replaced it.
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(source) => {
                    let entry = display(path.as_bytes());
                    let action = "setting the time of a directory";
                    return Err(LayerError::Kernel {
                        entry,
                        action,
                        source,
                    });
                }
            }
        }
        Ok(Written {
            implied: self.implied,
            opaque_root: self.opaque_root,
            waiting: self.waiting,
        })
    }

    fn at<T>(&self, result: Result<T, Errno>, action: &'static str) -> Result<T, LayerError> {
        result.map_err(|source| LayerError::Kernel {
            entry: self.current.clone(),
            action,
            source,
        })
    }

    fn marked(&self, result: Result<(), (&'static str, Errno)>) -> Result<(), LayerError> {
        result.or_else(|(action, errno)| self.at(Err(errno), action))
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, LayerError> {
        Err(LayerError::Refused {
            entry: self.current.clone(),
            reason: reason.into(),
        })
    }

    /// The archive's entry `./`: attributes of the root directory.
    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            return self.refuse("the root of a layer must be a directory");
        }
        self.times.insert(EntryPath::default(), entry.mtime);
        self.implied.remove(&EntryPath::default());
        self.attributes(self.tree.root(), OsStr::new("."), entry)
    }

    /// Opens the directory of an entry, and makes what is missing of it.
    fn parent(&mut self, path: &EntryPath) -> Result<OwnedFd, LayerError> {
        match self.tree.directory(path) {
            Ok(directory) => return Ok(directory),
            // ENOTDIR may be a whiteout in the way, which the new directory replaces.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::ELOOP) => return self.refuse("its directory is a loop of symbolic links"),
            Err(errno) => return self.at(Err(errno), "opening its directory"),
        }
        let (mut so_far, mut home) = (EntryPath::default(), EntryPath::default());
        let mut directory = self.at(self.tree.directory(&so_far), "opening the root")?;
        for name in path.components() {
            let next = so_far.join(name);
            let existing = self.at(tree::look(&directory, name), "looking at its directory")?;
            let kind = existing.as_ref().map(tree::file_type);
            if kind == Some(SFlag::S_IFLNK) {
                directory = match self.tree.directory(&next) {
                    Ok(directory) => directory,
                    Err(_) => {
                        return self.refuse(format!(
                            "it lies behind the symbolic link `{}`, which leads to no directory \
                             of the layer",
                            display(next.as_bytes())
                        ));
                    }
                };
                let found = self.homes.directory(directory.as_fd());
                home = self.at(found, FIND_PATH)?.unwrap_or_else(|| next.clone());
            } else {
                home = home.join(name);
                if existing
                    .as_ref()
                    .is_some_and(|found| !tree::is_whiteout(found))
                    && kind != Some(SFlag::S_IFDIR)
                {
                    let file = display(next.as_bytes());
                    return self.refuse(format!("`{file}` is not a directory"));
                }
                if kind != Some(SFlag::S_IFDIR) {
                    // As if the archive had an entry for it.
                    self.budget.take_entry()?;
                    self.budget.take_path(home.as_bytes())?;
                    // One that was deleted before is a new one.
                    if existing.is_none() {
                        self.implied.insert(home.clone());
                    }
                }
                let place = Place {
                    path: next.clone(),
                    directory: Rc::new(directory),
                    name,
                };
                self.directory(&place, existing)?;
                directory = self.at(
                    tree::subdirectory(&place.directory, name),
                    "opening its directory",
                )?;
            }
            so_far = next;
        }
        Ok(directory)
    }

    /// Makes a directory, or keeps the one that is there. One that takes the place of a whiteout
    /// is opaque: the whiteout hid all that lies below.
    fn directory(
        &mut self,
        place: &Place<'_>,
        existing: Option<FileStat>,
    ) -> Result<(), LayerError> {
        if existing
            .as_ref()
            .is_some_and(|found| tree::file_type(found) == SFlag::S_IFDIR)
        {
            return Ok(());
        }
        self.clear(place, existing)?;
        let mode = Mode::from_bits_truncate(0o755);
        self.at(
            stat::mkdirat(&place.directory, place.name, mode),
            "making a directory",
        )?;
        // mkdir(2) applies the umask.
        let result = stat::fchmodat(
            &place.directory,
            place.name,
            mode,
            FchmodatFlags::FollowSymlink,
        );
        self.at(result, "setting the mode")?;
        if existing.as_ref().is_some_and(tree::is_whiteout) {
            self.opaque(&place.directory, place.name)?;
        }
        Ok(())
    }

    fn opaque(&self, directory: impl AsFd, name: &OsStr) -> Result<(), LayerError> {
        self.marked(self.marks.opaque(directory, name))
    }

    /// The path of a directory, without links: what is noted of it is found by whichever way the archive
    /// takes to it. One that is too long for that is found by its own way only.
    fn home(&mut self, place: &Place<'_>) -> Result<EntryPath, LayerError> {
        let home = self.homes.of(place.directory.as_fd(), &place.path);
        Ok(self
            .at(home, FIND_PATH)?
            .unwrap_or_else(|| place.path.clone()))
    }

    /// Removes what an entry replaces. Nothing is ever written *through* an existing file: it
    /// may be a hard link to another one.
    fn clear(&mut self, place: &Place<'_>, existing: Option<FileStat>) -> Result<(), LayerError> {
        let Some(existing) = existing else {
            return Ok(());
        };
        // It may be that directory, or a link to it.
        self.directory = None;
        if tree::file_type(&existing) == SFlag::S_IFDIR {
            // Only these are looked at: an archive may do this for each of a million directories.
            let home = self.home(place)?;
            let below = home.below();
            let times = self.times.range(below.clone()).map(|(path, _)| path);
            let mut gone: Vec<EntryPath> = times.cloned().collect();
            gone.extend(self.implied.range(below).cloned());
            for path in gone.iter().chain([&home]) {
                self.times.remove(path);
                self.implied.remove(path);
            }
        }
        let removed = self.homes.remove(&place.directory, place.name);
        self.at(removed, "replacing an earlier entry")
    }

    /// `.wh.name` hides `name` of the layers below; never what this layer itself holds.
    fn whiteout(
        &mut self,
        parent: &EntryPath,
        directory: &OwnedFd,
        name: &OsStr,
        hidden: &OsStr,
    ) -> Result<(), LayerError> {
        if name.as_bytes() == marks::OPAQUE.as_bytes() {
            // overlayfs does not look at this mark on a layer's own root.
            self.opaque_root |= parent.is_root();
            return self.opaque(directory, OsStr::new("."));
        }
        if name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return self.refuse("a whiteout of nothing, or of a directory's own entries");
        }
        match self.at(
            tree::look(directory, hidden),
            "looking at what a whiteout hides",
        )? {
            None => self.marked(self.marks.whiteout(directory, hidden)),
            Some(found) if tree::file_type(&found) == SFlag::S_IFDIR => {
                let path = parent.join(hidden);
                let home = self.homes.of(directory.as_fd(), &path);
                let home = self.at(home, FIND_PATH)?.unwrap_or(path);
                // One that was deleted and comes again is a new one.
                self.implied.remove(&home);
                self.opaque(directory, hidden)
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes a link, a FIFO or a device, where nothing is.
    fn node(&self, place: &Place<'_>, entry: &Entry) -> Result<(), LayerError> {
        let private = Mode::from_bits_truncate(0o600);
        let device = |kind| {
            let number = stat::makedev(entry.device.0.into(), entry.device.1.into());
            stat::mknodat(&place.directory, place.name, kind, private, number)
        };
        match entry.kind {
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                let made = unistd::symlinkat(target, &place.directory, place.name);
                self.at(made, "making a symbolic link")
            }
            Kind::Fifo => self.at(
                unistd::mkfifoat(&place.directory, place.name, private),
                "making a FIFO",
            ),
            Kind::CharDevice if entry.device == (0, 0) => self.refuse(
                "a character device 0/0, which overlayfs takes for a deletion; a layer deletes \
                 with `.wh.` entries",
            ),
            Kind::CharDevice => self.at(device(SFlag::S_IFCHR), MAKE_DEVICE),
            Kind::BlockDevice => self.at(device(SFlag::S_IFBLK), MAKE_DEVICE),
            Kind::File | Kind::Directory | Kind::HardLink => {
                self.refuse("an entry of an unexpected kind")
            }
        }
    }

    /// Owner, mode, extended attributes and time. The order matters: chown(2) clears setuid bits
    /// and file capabilities, all of them touch the change time only.
    fn attributes(
        &self,
        directory: impl AsFd,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let metadata = metadata_of(entry);
        self.at(metadata.set_owner(&directory, name), CHANGE_OWNER)?;
        self.at(metadata.set_mode(&directory, name), "setting the mode")?;
        self.xattrs(&directory, name, entry)?;
        if entry.kind == Kind::Directory {
            return Ok(());
        }
        self.at(set_times(&directory, name, entry.mtime), SET_TIME)
    }

    fn xattrs(&self, directory: impl AsFd, name: &OsStr, entry: &Entry) -> Result<(), LayerError> {
        for (attribute, value) in &entry.xattrs {
            // `user.overlay.*` is that of overlayfs mounts with `userxattr`. Ours have no such option, so it is
            // as good as any other: an image that was built with such mounts inside has it.
            if attribute.starts_with(b"trusted.overlay.") {
                let attribute = display(attribute);
                return self.refuse(format!("the attribute {attribute} is overlayfs's own"));
            }
            // The labels of the machine where the image was built say nothing about this one.
            if attribute.starts_with(b"security.") && attribute != b"security.capability" {
                continue;
            }
            self.at(xattr::set(&directory, name, attribute, value), SET_XATTR)?;
        }
        Ok(())
    }
}

fn metadata_of(entry: &Entry) -> Metadata {
    Metadata {
        uid: entry.uid,
        gid: entry.gid,
        mode: (entry.kind != Kind::Symlink).then_some(entry.mode),
        mtime: entry.mtime,
    }
}
