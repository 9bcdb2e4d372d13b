//! Writable root file systems on top of images.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Snapshotter, Store, disk,
    quota::{self, Quota},
    records::State,
};
use crate::{Digest, Image, ImageError, RootFs, StoreError, unpack};

/// Where the files of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SnapshotRoot {
    /// What an overlayfs mount puts together.
    Overlay(OverlayMount),
    /// A directory.
    Directory {
        /// Its path.
        root: PathBuf,
    },
}

/// The directories of one overlayfs mount. The mount is made elsewhere, in the mount namespace of
/// the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayMount {
    /// Read-only directories, topmost first: the order of the option `lowerdir`. Absolute; those
    /// of the store have no characters that the option would need escaped, unless the store's
    /// root has.
    pub lower: Vec<PathBuf>,
    /// Takes all changes.
    pub upper: PathBuf,
    /// overlayfs's own scratch space.
    pub work: PathBuf,
}

/// A writable root file system on top of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    key: String,
    image: Digest,
    rootfs: RootFs,
    mount: SnapshotRoot,
    /// By what the file system counts, where what it holds is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<u32>,
}

impl Snapshot {
    /// The key that it was asked for with.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The id of its image, which may have been removed since.
    pub fn image(&self) -> &Digest {
        &self.image
    }

    /// Where its files are.
    pub fn root(&self) -> &SnapshotRoot {
        &self.mount
    }

    /// What to mount, where it is to be mounted.
    pub fn overlay_options(&self) -> Option<OverlayMount> {
        match &self.mount {
            SnapshotRoot::Overlay(mount) => Some(mount.clone()),
            SnapshotRoot::Directory { .. } => None,
        }
    }

    /// Where what takes space of its own is.
    pub(super) fn written(&self) -> &Path {
        match &self.mount {
            SnapshotRoot::Overlay(mount) => &mount.upper,
            SnapshotRoot::Directory { root } => root,
        }
    }

    pub(super) fn project(&self) -> Option<u32> {
        self.project
    }

    /// The layers that it keeps in the store.
    pub(super) fn layers(&self) -> &[Digest] {
        match &self.rootfs {
            RootFs::Layers(layers) => layers,
            RootFs::Directory(_) => &[],
        }
    }
}

impl Store {
    /// The snapshot of `image` called `key`; it is made when there is none yet.
    ///
    /// # Errors
    /// [`ImageError::SnapshotExists`] when the key is taken by another image's, [`ImageError::Gone`] when
    /// the image was removed meanwhile, [`ImageError::SnapshotKey`], [`StoreError::Io`].
    pub fn snapshot(&self, image: &Image, key: &str) -> Result<Snapshot, ImageError> {
        self.snapshot_within(image, key, None)
    }

    /// [`Store::snapshot`] to which at most `limit` bytes can be written beside what the image holds. The
    /// kernel does not hold it against a process with `CAP_SYS_RESOURCE`, unless it writes by overlayfs.
    ///
    /// # Errors
    /// [`StoreError::Quota`] when the file system cannot limit it, and those of [`Store::snapshot`].
    pub fn snapshot_within(
        &self,
        image: &Image,
        key: &str,
        limit: Option<u64>,
    ) -> Result<Snapshot, ImageError> {
        if !is_key(key) {
            return Err(ImageError::SnapshotKey(key.to_owned()));
        }
        // Two who want the same wait here.
        let _ours = self.claims.take([Digest::of(format!("snapshot {key}"))]);
        let mut state = self.state();
        if let Some(existing) = state.snapshots.get(key) {
            if existing.image != image.id || existing.rootfs != image.rootfs {
                return Err(ImageError::SnapshotExists {
                    key: key.into(),
                    existing: existing.image,
                });
            }
            return Ok(existing.clone());
        }
        let lower = self.lower(&state, image)?;
        let quota = limit
            .map(|bytes| Quota::new(&self.disk.snapshots(), &state, &self.next_project, bytes))
            .transpose()?;
        let snapshot = match self.snapshotter {
            Snapshotter::Overlayfs => self.stack(image, key, lower, quota)?,
            Snapshotter::Native => {
                let layers = match &image.rootfs {
                    RootFs::Layers(layers) => layers.iter().copied().collect(),
                    RootFs::Directory(_) => Default::default(),
                };
                let _pinned = self.claims.pin(layers);
                // A copy takes its time, and keeps nobody waiting.
                drop(state);
                let snapshot = self.copy(image, key, &lower, quota)?;
                state = self.state();
                snapshot
            }
        };
        state.snapshots.insert(key.to_owned(), snapshot.clone());
        if matches!(image.rootfs, RootFs::Layers(_)) {
            self.note_use(&image.id);
        }
        Ok(snapshot)
    }

    /// The directories of an image's files, topmost first.
    fn lower(&self, state: &State, image: &Image) -> Result<Vec<PathBuf>, ImageError> {
        let layers = match &image.rootfs {
            RootFs::Directory(path) => return Ok(vec![path.clone()]),
            RootFs::Layers(layers) if layers.is_empty() => return Ok(vec![self.disk.empty()]),
            RootFs::Layers(layers) => layers,
        };
        let mut lower = Vec::with_capacity(layers.len());
        for id in layers.iter().rev() {
            let layer = state.layers.get(id).ok_or(ImageError::Gone(image.id))?;
            lower.push(self.layer_path(&layer.directory));
            if layer.opaque {
                break;
            }
        }
        Ok(lower)
    }

    /// A snapshot that overlayfs is to mount on top of the layers.
    fn stack(
        &self,
        image: &Image,
        key: &str,
        lower: Vec<PathBuf>,
        quota: Option<Quota>,
    ) -> Result<Snapshot, StoreError> {
        let scratch = self.disk.scratch()?;
        let made = scratch.path().join(key);
        let (upper, work) = (made.join("upper"), made.join("work"));
        for directory in [&made, &upper, &work] {
            create(directory)?;
        }
        take_after(&lower, &upper)?;
        if let Some(quota) = &quota {
            // Both: the kernel renames from one to the other, which has to be within one project.
            quota.count(&upper)?;
            quota.count(&work)?;
            quota.enforce()?;
        }
        let place = self.disk.snapshots().join(key);
        let mount = SnapshotRoot::Overlay(OverlayMount {
            lower,
            upper: place.join("upper"),
            work: place.join("work"),
        });
        self.finish(image, key, mount, quota, &made)
    }

    /// A snapshot that is a copy of the layers.
    fn copy(
        &self,
        image: &Image,
        key: &str,
        lower: &[PathBuf],
        quota: Option<Quota>,
    ) -> Result<Snapshot, StoreError> {
        let scratch = self.disk.scratch()?;
        let made = scratch.path().join(key);
        let root = made.join("root");
        create(&made)?;
        create(&root)?;
        if let Some(quota) = &quota {
            quota.count(&root)?;
        }
        let bottom_first: Vec<&PathBuf> = lower.iter().rev().collect();
        unpack::apply::apply(&bottom_first, &root)?;
        if let Some(quota) = &quota {
            quota.enforce()?;
        }
        // Whoever finds it after a power failure must find all of it.
        File::open(&root)
            .and_then(|directory| nix::unistd::syncfs(&directory).map_err(std::io::Error::from))
            .map_err(|error| StoreError::io("syncing", &root, error))?;
        let mount = SnapshotRoot::Directory {
            root: self.disk.snapshots().join(key).join("root"),
        };
        self.finish(image, key, mount, quota, &made)
    }

    /// Makes a snapshot visible.
    fn finish(
        &self,
        image: &Image,
        key: &str,
        mount: SnapshotRoot,
        quota: Option<Quota>,
        made: &Path,
    ) -> Result<Snapshot, StoreError> {
        let snapshot = Snapshot {
            key: key.to_owned(),
            image: image.id,
            rootfs: image.rootfs.clone(),
            mount,
            project: quota.map(|quota| quota.project()),
        };
        self.disk
            .write_json(&made.join("snapshot.json"), &snapshot)?;
        let place = self.disk.snapshots().join(key);
        if !self.disk.publish(made, &place)? {
            let reason = "it is no snapshot of this store".into();
            return Err(StoreError::Damaged {
                path: place,
                reason,
            });
        }
        Ok(snapshot)
    }

    /// The snapshot called `key`, and its image if that is still here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the image's configuration cannot be read.
    pub fn snapshot_of(&self, key: &str) -> Result<Option<(Snapshot, Option<Image>)>, ImageError> {
        let state = self.state();
        let Some(snapshot) = state.snapshots.get(key) else {
            return Ok(None);
        };
        let record = state.images.get(&snapshot.image);
        let image = record
            .map(|record| super::image(&state, record))
            .transpose()?;
        Ok(Some((snapshot.clone(), image)))
    }

    /// All snapshots, by key.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.state().snapshots.values().cloned().collect()
    }

    /// Removes a snapshot with everything that was written into it; false when there is none.
    /// It must not be mounted any more.
    ///
    /// # Errors
    /// [`StoreError::Io`]. The key is free again all the same if the files could be moved away;
    /// the next open removes the rest.
    pub fn remove_snapshot(&self, key: &str) -> Result<bool, ImageError> {
        if !is_key(key) {
            return Err(ImageError::SnapshotKey(key.to_owned()));
        }
        let (scratch, project) = {
            let mut state = self.state();
            let Some(snapshot) = state.snapshots.get(key) else {
                return Ok(false);
            };
            let project = snapshot.project;
            let scratch = self.disk.set_aside(&self.disk.snapshots().join(key))?;
            if let Some(snapshot) = state.snapshots.remove(key)
                && state.images.contains_key(&snapshot.image)
            {
                self.note_use(&snapshot.image);
            }
            (scratch, project)
        };
        // What a task wrote can take long to remove, and keeps nobody waiting.
        scratch.map(disk::Scratch::remove).transpose()?;
        if let Some(project) = project {
            quota::forget(&self.disk.snapshots(), project)?;
        }
        Ok(true)
    }
}

fn create(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| StoreError::io("creating", path, error))
}

/// The root directory of an overlayfs mount has the attributes of `upper`, so those of the image
/// must be put there.
fn take_after(lower: &[PathBuf], upper: &Path) -> Result<(), StoreError> {
    let Some(top) = lower.first() else {
        return Ok(());
    };
    unpack::copy_attributes(top, upper).map_err(StoreError::errno(
        "copying the attributes of the image's root to",
        upper,
    ))
}

/// A key is a file name, and no option of a mount needs it escaped.
fn is_key(key: &str) -> bool {
    (1..=128).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn keys_are_plain_file_names() {
        for key in ["a", "task-1.web_2", "0", &"x".repeat(128)] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a:b",
            "a,b",
            "a b",
            "é",
            &"x".repeat(129),
        ] {
            assert!(!is_key(key), "{key}");
        }
    }
}
