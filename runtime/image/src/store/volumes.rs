//! The volumes of a snapshot: directories beside its own, for the paths that an image wants kept apart
//! from its root file system. They go with the snapshot.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Store, disk, snapshot::Snapshot};
use crate::{ImageError, StoreError};

/// Where the volumes of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDirs {
    pub(super) place: PathBuf,
}

impl VolumeDirs {
    pub(super) fn of(snapshot: &Path) -> Self {
        Self {
            place: snapshot.join("volumes"),
        }
    }

    /// The directory of the volume with this number.
    pub fn directory(&self, number: usize) -> PathBuf {
        self.place.join(number.to_string())
    }

    /// A directory that is, and stays, empty: a layer that changes nothing.
    pub fn empty(&self) -> PathBuf {
        self.place.join("empty")
    }
}

impl Snapshot {
    /// Where its volumes are. They exist once [`Store::new_volumes`] has made them.
    pub fn volumes(&self) -> VolumeDirs {
        let written = self.written();
        VolumeDirs::of(written.parent().unwrap_or(written))
    }
}

impl Store {
    /// Makes empty volumes with these numbers for the snapshot called `key`, in place of those that it
    /// has. What is put into them is the caller's business, and not synced: whoever needs to know that
    /// it is complete has to keep that where a crash of the machine forgets it too.
    ///
    /// # Errors
    /// [`ImageError::NoSnapshot`], [`StoreError::Io`].
    pub fn new_volumes(&self, key: &str, numbers: &[usize]) -> Result<VolumeDirs, ImageError> {
        let snapshot = self.state().snapshots.get(key).cloned();
        let dirs = snapshot
            .ok_or_else(|| ImageError::NoSnapshot(key.to_owned()))?
            .volumes();
        disk::remove_tree(&dirs.place)?;
        let create = |path: &Path, mode| {
            fs::DirBuilder::new()
                .mode(mode)
                .create(path)
                // Whatever the umask is.
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map_err(|error| StoreError::io("creating", path, error))
        };
        create(&dirs.place, 0o700)?;
        create(&dirs.empty(), 0o755)?;
        for number in numbers {
            create(&dirs.directory(*number), 0o755)?;
        }
        Ok(dirs)
    }
}
