//! The store's directory: where things are, and how they change so that a crash cannot hurt.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{self, AT_FDCWD, Flock, FlockArg, OFlag, RenameFlags},
    sys::stat::Mode,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Digest, StoreError, unpack::tree};

/// What the file `layout` holds.
const LAYOUT: &str = "fairlead-images 1";

#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Held as long as the store is open; the kernel gives it up when the process dies.
    _lock: Flock<File>,
    next: AtomicU64,
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        create_dir(root)?;
        let root = root
            .canonicalize()
            .map_err(|e| StoreError::io("resolving the path", root, e))?;
        let lock = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|e| StoreError::io("opening", &lock, e))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => StoreError::Locked { path: root.clone() },
                    errno => StoreError::io("locking", &lock, errno),
                },
            )?;
        let mut disk = Self {
            root,
            _lock: lock,
            next: AtomicU64::new(0),
        };
        for name in [
            "l",
            "layers",
            "images",
            "snapshots",
            "blobs",
            "tmp",
            "empty",
        ] {
            create_dir(&disk.root.join(name))?;
        }
        // It gives its mode to the root directory of a container.
        let empty_root = disk.empty();
        fs::set_permissions(&empty_root, Permissions::from_mode(0o755))
            .map_err(|error| StoreError::io("setting the mode of", &empty_root, error))?;
        // Whatever was going on when the last owner died never became visible.
        for name in names(&disk.tmp())? {
            let path = disk.tmp().join(&name);
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "what an earlier run left cannot be removed and stays");
                // Nothing new may get its name.
                if let Ok(number) = name.parse::<u64>() {
                    disk.next = disk.next.into_inner().max(number.saturating_add(1)).into();
                }
            }
        }
        disk.check_layout()?;
        Ok(disk)
    }

    fn check_layout(&self) -> Result<(), StoreError> {
        let path = self.root.join("layout");
        match read_text(&path)? {
            Some(found) if found.trim_end() == LAYOUT => Ok(()),
            Some(found) => Err(StoreError::Layout {
                path: self.root.clone(),
                found: found.trim_end().chars().take(80).collect(),
                known: LAYOUT,
            }),
            None => self.write(&path, format!("{LAYOUT}\n").as_bytes()),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn snapshotter(&self) -> PathBuf {
        self.root.join("snapshotter")
    }

    /// Files of layers: `l/<number>`.
    pub(super) fn layer_dirs(&self) -> PathBuf {
        self.root.join("l")
    }

    pub(super) fn layer_records(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Downloads that are not complete: `blobs/<hex digits of the digest>`.
    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names.json")
    }

    pub(super) fn archives(&self) -> PathBuf {
        self.root.join("archives.json")
    }

    /// The lower directory of an image without layers.
    pub(super) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// A path in `tmp/` that nothing has.
    pub(super) fn fresh(&self) -> PathBuf {
        self.tmp()
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A new directory in `tmp/`, removed with all its content when dropped.
    pub(super) fn scratch(&self) -> Result<Scratch, StoreError> {
        let path = self.fresh();
        create_dir(&path)?;
        Ok(Scratch(path))
    }

    /// Replaces the file `path`, all or nothing, durably.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), StoreError> {
        let temporary = self.fresh();
        let write = || {
            let mut file = File::create_new(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| {
            // It failed already; what is left is removed by the next open at the latest.
            let _ = fs::remove_file(&temporary);
            StoreError::io("writing", path, error)
        })?;
        sync_parent(path)
    }

    pub(super) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let content = serde_json::to_vec_pretty(value)
            .map_err(|error| StoreError::io("encoding", path, io::Error::other(error)))?;
        self.write(path, &content)
    }

    /// Gives a directory or file of `tmp/` its final name, durably. False where that name is taken.
    pub(super) fn publish(&self, from: &Path, to: &Path) -> Result<bool, StoreError> {
        let cwd = AT_FDCWD;
        match fcntl::renameat2(cwd, from, cwd, to, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => sync_parent(to).map(|()| true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(StoreError::io("creating", to, errno)),
        }
    }

    /// Makes a directory or file disappear at once, durably. Its content is in the result, and goes with
    /// it; `None` where there is none.
    pub(super) fn set_aside(&self, path: &Path) -> Result<Option<Scratch>, StoreError> {
        let scratch = self.scratch()?;
        match fs::rename(path, scratch.0.join("0")) {
            Ok(()) => sync_parent(path).map(|()| Some(scratch)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("removing", path, error)),
        }
    }

    /// [`Disk::set_aside`], and removes the content.
    pub(super) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        self.set_aside(path)?
            .map(Scratch::remove)
            .transpose()
            .map(drop)
    }

    /// [`Disk::discard`] of what is only in the way: it stays if it cannot be removed.
    pub(super) fn try_discard(&self, path: &Path) {
        if let Err(error) = self.discard(path) {
            tracing::warn!(path = %path.display(), %error, "what nothing refers to cannot be removed and stays");
        }
    }

    /// Keeps a directory that cannot be used for whoever wants to look into it: where it is then.
    pub(super) fn put_aside(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let damaged = self.root.join("damaged");
        create_dir(&damaged)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut place = damaged.join(&*name);
        let mut number = 1u32;
        while !self.publish(path, &place)? {
            number += 1;
            place = damaged.join(format!("{name}-{number}"));
        }
        sync_parent(path)?;
        Ok(place)
    }

    /// Removes downloads that nobody works on and that were not written to for `age`.
    pub(super) fn drop_downloads(
        &self,
        age: Duration,
        is_claimed: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        for name in names(&self.blobs())? {
            let path = self.blobs().join(&name);
            let is_old = fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed > age));
            let digest = format!("sha256:{name}").parse();
            if is_old && !digest.is_ok_and(|digest| is_claimed(&digest)) {
                self.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes a file durably. Absent is fine.
    pub(super) fn remove_file(&self, path: &Path) -> Result<bool, StoreError> {
        match fs::remove_file(path) {
            Ok(()) => sync_parent(path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("removing", path, error)),
        }
    }
}

/// A directory in `tmp/` that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn remove(self) -> Result<(), StoreError> {
        remove_tree(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(%error, "work in progress is left until the store is opened again");
        }
    }
}

/// Removes a directory with all its content, however deep. Absent is fine.
pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    fcntl::open(parent, flags, Mode::empty())
        .and_then(|parent| tree::remove(parent, name))
        .map_err(StoreError::errno("removing", path))
}

/// The names in a directory of the store, sorted. Names that are not UTF-8 are not ours.
pub(super) fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| StoreError::io("listing", path, error))?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Reads a file as text; `None` where there is none.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("reading", path, error)),
    }
}

/// Reads a record; `None` where there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("reading", path, error)),
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

fn create_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StoreError::io("creating", path, error))
}

/// Makes a change of names in the directory of `path` durable.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|error| StoreError::io("syncing", parent, error))
}
