//! The errors of a [`Store`](crate::Store).

use std::{io, path::PathBuf, sync::Arc};

use nix::errno::Errno;

use crate::{
    ArchiveError, ChangeError, Digest, LayerError, ReferenceError, RegistryError, SaveError,
};

/// What a store operation can end in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The text of a reference makes no sense.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The store holds no such image.
    #[error(
        "image `{0}` is not in the store: pull or load it first (`fairlead image pull`, `fairlead \
         image load`)"
    )]
    NotFound(String),
    /// An archive is not usable.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A registry does not give it to us.
    #[error("pulling {name}: {source}")]
    Pull {
        /// The image.
        name: String,
        /// Why.
        source: Arc<RegistryError>,
    },
    /// A layer was refused.
    #[error("layer {number} ({diff_id}) of {archive}: {source}")]
    Layer {
        /// The reference that was being loaded.
        archive: String,
        /// Counted from 1, bottom first.
        number: usize,
        /// The digest of the layer, decompressed.
        diff_id: Digest,
        /// What is wrong.
        source: Box<LayerError>,
    },
    /// What is to be imported makes no image.
    #[error("importing the archive: {0}")]
    Import(#[source] Box<LayerError>),
    /// What is to be imported is said to be for another operating system.
    #[error("the image would be for {found}, and this machine is {wanted}: it could not run here")]
    ImportPlatform {
        /// What was said.
        found: String,
        /// What this machine is.
        wanted: String,
    },
    /// A change of an imported image's configuration makes no sense.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// An image cannot be saved.
    #[error("saving image {image}: layer {number} ({diff_id}): {source}")]
    Save {
        /// The image.
        image: Digest,
        /// Counted from 1, bottom first.
        number: usize,
        /// The digest of the layer's archive.
        diff_id: Digest,
        /// Why not.
        source: Box<SaveError>,
    },
    /// Nobody takes what is saved.
    #[error("writing the saved images: {0}")]
    Write(#[source] io::Error),
    /// The store's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A directory cannot serve as root file system.
    #[error("root file system directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The image was removed after it had been resolved.
    #[error("image {0} is no longer in the store: resolve its reference again")]
    Gone(Digest),
    /// A part of its configuration cannot be meant so.
    #[error("the configuration of image {image} says under {field}: {reason}")]
    Configuration {
        /// The image.
        image: Digest,
        /// Such as `Healthcheck.Interval`.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// There is no snapshot to work on.
    #[error("there is no snapshot `{0}`")]
    NoSnapshot(String),
    /// Something needs the image, and it was not to be removed by force.
    #[error("image `{image}` is in use by the {what} {}", users.join(", "))]
    InUse {
        /// What was to be removed.
        image: String,
        /// `tasks` or `names`.
        what: &'static str,
        /// Which.
        users: Vec<String>,
    },
    /// A snapshot key that is no file name we would use.
    #[error(
        "snapshot key `{0}`: 1 to 128 letters, digits, `_`, `.` and `-`, starting with a letter \
         or digit"
    )]
    SnapshotKey(String),
    /// The key is taken by a snapshot of another image.
    #[error("snapshot `{key}` exists, of image {existing}: remove it first")]
    SnapshotExists {
        /// The key.
        key: String,
        /// What it is a snapshot of.
        existing: Digest,
    },
    /// The image is for another operating system.
    #[error("image {id} of {archive} is for {found}, this machine is {wanted}")]
    Platform {
        /// The image.
        id: Digest,
        /// The reference that was being loaded.
        archive: String,
        /// What the image is for.
        found: String,
        /// What this machine is.
        wanted: String,
    },
}

impl ImageError {
    pub(crate) fn pull(name: &crate::Name, source: impl Into<Arc<RegistryError>>) -> Self {
        Self::Pull {
            name: name.to_string(),
            source: source.into(),
        }
    }
}

/// Failures of the store's own directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another store, in this process or another, has the directory open.
    #[error("the image store {} is in use by another process", path.display())]
    Locked {
        /// The store's root.
        path: PathBuf,
    },
    /// The store was written by a version with another layout.
    #[error("the image store {} has layout `{found}`, this program knows `{known}`", path.display())]
    Layout {
        /// The store's root.
        path: PathBuf,
        /// What the file `layout` says.
        found: String,
        /// What we write.
        known: &'static str,
    },
    /// The layers that are there are kept for another snapshotter.
    #[error(
        "the image store {} is for the snapshotter {found}, not {wanted}: remove its images and \
         tasks first, or use another directory",
        path.display()
    )]
    Snapshotter {
        /// The store's root.
        path: PathBuf,
        /// What it is for.
        found: crate::Snapshotter,
        /// What was wanted.
        wanted: crate::Snapshotter,
    },
    /// How much a root file system holds cannot be limited.
    #[error(
        "the file system of {} has no project quotas, so what a task stores cannot be limited: \
         mount ext4 (made with `-O quota,project`) or XFS with the option `prjquota`",
        path.display()
    )]
    Quota {
        /// The snapshots' directory.
        path: PathBuf,
    },
    /// A record that running tasks may depend on is unreadable. Nothing is guessed or removed.
    #[error("{} is damaged ({reason}): restore it, or remove the store when no task runs", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refuses.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    /// For `map_err` on system calls.
    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::io(action, path, errno)
    }
}
