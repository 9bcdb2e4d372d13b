//! Writable root file systems on top of images.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Store, disk};
use crate::{Digest, Image, ImageError, RootFs, StoreError};

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
    mount: OverlayMount,
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

    /// What to mount.
    pub fn overlay_options(&self) -> OverlayMount {
        self.mount.clone()
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
        if !is_key(key) {
            return Err(ImageError::SnapshotKey(key.to_owned()));
        }
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
        let lower = match &image.rootfs {
            RootFs::Directory(path) => vec![path.clone()],
            RootFs::Layers(layers) if layers.is_empty() => vec![self.disk.empty()],
            RootFs::Layers(layers) => {
                let mut lower = Vec::with_capacity(layers.len());
                for id in layers.iter().rev() {
                    let layer = state.layers.get(id).ok_or(ImageError::Gone(image.id))?;
                    lower.push(self.layer_path(&layer.directory));
                    if layer.opaque {
                        break;
                    }
                }
                lower
            }
        };
        let place = self.disk.snapshots().join(key);
        let mount = OverlayMount {
            lower,
            upper: place.join("upper"),
            work: place.join("work"),
        };
        let snapshot = Snapshot {
            key: key.to_owned(),
            image: image.id,
            rootfs: image.rootfs.clone(),
            mount,
        };
        let scratch = self.disk.scratch()?;
        let made = scratch.path().join(key);
        make_directories(&made, &snapshot.mount.lower)?;
        self.disk
            .write_json(&made.join("snapshot.json"), &snapshot)?;
        if !self.disk.publish(&made, &place)? {
            let reason = "it is no snapshot of this store".into();
            return Err(StoreError::Damaged {
                path: place,
                reason,
            }
            .into());
        }
        state.snapshots.insert(key.to_owned(), snapshot.clone());
        if matches!(image.rootfs, RootFs::Layers(_)) {
            self.note_use(&image.id);
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
        let scratch = {
            let mut state = self.state();
            if !state.snapshots.contains_key(key) {
                return Ok(false);
            }
            let scratch = self.disk.set_aside(&self.disk.snapshots().join(key))?;
            state.snapshots.remove(key);
            scratch
        };
        // What a task wrote can take long to remove, and keeps nobody waiting.
        scratch.map(disk::Scratch::remove).transpose()?;
        Ok(true)
    }
}

/// The root directory of an overlayfs mount has the attributes of `upper`, so those of the image
/// must be put there.
fn make_directories(place: &Path, lower: &[PathBuf]) -> Result<(), StoreError> {
    let io = |action| move |error| StoreError::io(action, place, error);
    let create = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    let upper = place.join("upper");
    create(place).map_err(io("creating"))?;
    create(&upper).map_err(io("creating"))?;
    create(&place.join("work")).map_err(io("creating"))?;
    let top = lower
        .first()
        .map(fs::metadata)
        .transpose()
        .map_err(io("reading the layers for"))?;
    if let Some(top) = top {
        chown(&upper, Some(top.uid()), Some(top.gid())).map_err(io("changing the owner in"))?;
        let mode = Permissions::from_mode(top.mode() & 0o7777);
        fs::set_permissions(&upper, mode).map_err(io("setting the mode in"))?;
    }
    Ok(())
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
