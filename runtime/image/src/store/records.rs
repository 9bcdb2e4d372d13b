//! What the store writes down, and reads back when it is opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    disk::{self, Disk},
    snapshot::Snapshot,
};
use crate::{Digest, Name, StoreError, recipe::Kept};

/// `layers/<chain id>.json`. The layer exists if and only if this file does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) chain_id: Digest,
    pub(super) diff_id: Digest,
    /// The name of its directory in `l/`.
    pub(super) directory: String,
    /// It hides all layers below it, which overlayfs cannot express in the layer itself.
    pub(super) opaque: bool,
    /// Size of the decompressed archive, in bytes.
    pub(super) bytes: u64,
}

/// `images/<id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) id: Digest,
    /// Chain ids, bottom first.
    pub(super) layers: Vec<Digest>,
    pub(super) manifests: Vec<Digest>,
    /// Of the manifest that came last and had some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    /// The configuration as it was, byte for byte; its digest is the id.
    pub(super) config: String,
}

/// An entry of `archives.json`: a file that needs not be read again while it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArchiveRecord {
    pub(super) stamp: Stamp,
    pub(super) image: Digest,
    /// The names that the archive gives the image.
    pub(super) names: Vec<Name>,
}

/// What tells that a file is the one that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file's last change is long enough ago that a further one would show in its
    /// times. File systems keep them in steps, of up to 2 s.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        i64::try_from(now).is_ok_and(|now| self.changed.0 + 2 < now)
    }
}

/// All that the store knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) layers: BTreeMap<Digest, LayerRecord>,
    pub(super) images: BTreeMap<Digest, ImageRecord>,
    pub(super) names: BTreeMap<Name, Digest>,
    /// By the reference's text.
    pub(super) archives: BTreeMap<String, ArchiveRecord>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
}

impl State {
    /// Reads the records, and drops what no record accounts for.
    pub(super) fn read(disk: &Disk) -> Result<Self, StoreError> {
        let mut state = Self {
            names: disk::read_json(&disk.names())?.unwrap_or_default(),
            ..Self::default()
        };
        // Only saves work: when in doubt, without it.
        state.archives = disk::read_json(&disk.archives())
            .ok()
            .flatten()
            .unwrap_or_default();
        for path in records(&disk.layer_records())? {
            if let Some(layer) = disk::read_json::<LayerRecord>(&path)? {
                state.layers.insert(layer.chain_id, layer);
            }
        }
        for key in disk::names(&disk.snapshots())? {
            let path = disk.snapshots().join(&key);
            let read = disk::read_json(&path.join("snapshot.json"));
            let reason = match read {
                Ok(Some(snapshot)) => {
                    state.snapshots.insert(key, snapshot);
                    continue;
                }
                Ok(None) => "its record is missing".to_owned(),
                Err(error @ StoreError::Damaged { .. }) => error.to_string(),
                Err(error) => return Err(error),
            };
            // One task's loss is no reason to keep the others from going on. What it wrote may be of worth.
            let place = disk.put_aside(&path)?;
            tracing::warn!(snapshot = key, reason, place = %place.display(),
                "a snapshot cannot be used and was put aside; remove it when it is not needed");
        }
        for path in records(&disk.images())? {
            match disk::read_json::<ImageRecord>(&path) {
                Ok(Some(image)) if image.layers.iter().all(|l| state.layers.contains_key(l)) => {
                    state.images.insert(image.id, image);
                }
                // An image can be loaded again, so a bad record need not stop anything.
                outcome => {
                    let reason = match outcome {
                        Err(error) => error.to_string(),
                        Ok(_) => "a layer is missing".into(),
                    };
                    tracing::warn!(path = %path.display(), reason, "image record dropped");
                    disk.remove_file(&path)?;
                }
            }
        }
        state.names.retain(|_, id| state.images.contains_key(id));
        state
            .archives
            .retain(|_, archive| state.images.contains_key(&archive.image));
        state.drop_strays(disk)?;
        Ok(state)
    }

    /// A layer's directory and recipe get their names before its record is written, and lose them
    /// after the record is removed: a crash in between leaves what nothing refers to.
    fn drop_strays(&self, disk: &Disk) -> Result<(), StoreError> {
        let known: BTreeSet<_> = self.layers.values().map(|l| l.directory.as_str()).collect();
        for name in disk::names(&disk.layer_dirs())? {
            if !known.contains(name.as_str()) {
                disk.try_discard(&disk.layer_dirs().join(name));
            }
        }
        for name in disk::names(&disk.layer_records())? {
            let (Some(layer), path) = (
                name.strip_suffix(Kept::RECIPE)
                    .or_else(|| name.strip_suffix(Kept::REPLACED)),
                disk.layer_records().join(&name),
            ) else {
                continue;
            };
            let known = Digest::from_hex(layer).is_ok_and(|id| self.layers.contains_key(&id));
            if !known {
                disk.try_discard(&path);
            }
        }
        Ok(())
    }

    /// The names of an image.
    pub(super) fn names_of(&self, id: &Digest) -> Vec<Name> {
        self.names
            .iter()
            .filter(|(_, named)| *named == id)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn records(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let names = disk::names(directory)?;
    Ok(names
        .into_iter()
        .filter(|name| name.ends_with(".json"))
        .map(|name| directory.join(name))
        .collect())
}
