//! How the archive of a layer is made again, byte for byte.
//!
//! A layer's archive is not kept once it is unpacked, and a new archive of the same files would be
//! another one: order, formats and padding are the writer's choice. So unpacking writes a *recipe*: all
//! bytes of the archive that are no file's content, and for those that are, where they went. (Docker
//! does the same, and calls it tar-split.)
//!
//! # Format
//!
//! [`MAGIC`], then one zstd frame of records. Numbers are LEB128.
//!
//! | record | bytes |
//! |---|---|
//! | end | `0` |
//! | literal | `1`, length, so many bytes |
//! | content | `2`, inode, length of the path, path in the layer, offset, length |
//! | more content of the same file | `3`, offset, length |
//!
//! The content of a file that a later entry of the same layer replaced is kept beside the recipe,
//! named by its inode number at that time. No two such files have the same: as long as one is kept,
//! nobody else gets its number.

mod error;
mod rebuild;
mod record;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub use error::SaveError;
pub(crate) use rebuild::rebuild;
pub(crate) use record::Recorder;

/// What a recipe begins with.
const MAGIC: &[u8] = b"fairlead recipe 1\n";
const END: u8 = 0;
const LITERAL: u8 = 1;
const CONTENT: u8 = 2;
const MORE: u8 = 3;
/// The most bytes of one literal.
const MAX_LITERAL: usize = 64 << 10;
/// The longest path of a file (`PATH_MAX` in linux/limits.h).
const MAX_PATH: usize = 4096;

/// What is kept of a layer's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) recipe: PathBuf,
    /// A directory of files that later entries replaced. There is none where there are none.
    pub(crate) replaced: PathBuf,
}

impl Kept {
    /// The places whose names begin like `path`.
    pub(crate) fn beside(path: &Path) -> Self {
        let with = |end: &str| {
            let mut name = OsString::from(path);
            name.push(end);
            name.into()
        };
        Self {
            recipe: with(Self::RECIPE),
            replaced: with(Self::REPLACED),
        }
    }

    /// The ends of the names.
    pub(crate) const RECIPE: &'static str = ".recipe";
    pub(crate) const REPLACED: &'static str = ".replaced";
}
