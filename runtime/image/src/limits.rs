//! How much one image may take.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{LayerError, RegistryError, registry::Cancel};

/// Bounds on what one image, or all images of one archive together, may make the store do. Beyond them
/// loading fails, and leaves nothing of the image behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together once decompressed, and of a compressed archive once
    /// decompressed.
    pub bytes: u64,
    /// Size of one file, in bytes, counting the holes of a sparse one.
    pub file_bytes: u64,
    /// Entries (files, directories, links, ...) of all layers together, and of the archive itself.
    pub entries: u64,
    /// Bytes of the paths of all layers' directories, and of hard links to files of other layers, together:
    /// they are remembered while a layer is unpacked.
    pub path_bytes: u64,
    /// Layers. The kernel stacks at most 500 (`OVL_MAX_STACK` in `fs/overlayfs/params.h`).
    pub layers: usize,
    /// Size of one manifest, index or configuration, in bytes.
    pub json_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            file_bytes: 1 << 40,
            entries: 4_000_000,
            path_bytes: 256 << 20,
            layers: 500,
            json_bytes: 16 << 20,
        }
    }
}

/// What is left of the [`Limits`] while an image is unpacked, shared by the layers' threads.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    pub(crate) limits: &'a Limits,
    bytes: AtomicU64,
    entries: AtomicU64,
    path_bytes: AtomicU64,
    /// Of who wants the image.
    cancel: Option<Cancel>,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            bytes: limits.bytes.into(),
            entries: limits.entries.into(),
            path_bytes: limits.path_bytes.into(),
            cancel: None,
        }
    }

    /// One that is over when it is cancelled.
    pub(crate) fn until_cancelled(limits: &'a Limits, cancel: &Cancel) -> Self {
        Self {
            cancel: Some(cancel.clone()),
            ..Self::new(limits)
        }
    }

    /// An error when nobody wants the image any more.
    pub(crate) fn goes_on(&self) -> Result<(), LayerError> {
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => {
                Err(LayerError::Read(io::Error::other(RegistryError::Cancelled)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn take_bytes(&self, count: u64) -> Result<(), LayerError> {
        take(&self.bytes, count).ok_or(LayerError::Limit {
            what: "bytes",
            limit: self.limits.bytes,
        })
    }

    /// For a path that is remembered.
    pub(crate) fn take_path(&self, path: &[u8]) -> Result<(), LayerError> {
        self.take_remembered(path.len() as u64)
    }

    /// For so many bytes that are remembered.
    pub(crate) fn take_remembered(&self, count: u64) -> Result<(), LayerError> {
        take(&self.path_bytes, count).ok_or(LayerError::Limit {
            what: "bytes of directories' paths",
            limit: self.limits.path_bytes,
        })
    }

    pub(crate) fn take_entry(&self) -> Result<(), LayerError> {
        take(&self.entries, 1).ok_or(LayerError::Limit {
            what: "entries",
            limit: self.limits.entries,
        })
    }
}

fn take(left: &AtomicU64, count: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(count)
    })
    .ok()
    .map(drop)
}
