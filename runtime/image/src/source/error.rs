//! What can be wrong with an archive or a layout directory.

use std::{io, path::PathBuf};

use crate::{Digest, DigestError, LayerError, TarError};

/// Why an archive was refused. `path` is always the archive or layout directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It cannot be opened or read.
    #[error("reading {what} of {}: {source}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Which part of it.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no proper tar archive.
    #[error("{} is not a usable tar archive: {source}", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: TarError,
    },
    /// The archive as a whole is compressed, and that cannot be undone.
    #[error("decompressing {}: {source}", path.display())]
    Decompress {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        source: LayerError,
    },
    /// A member's name is refused, or given twice.
    #[error("{}: member `{member}`: {reason}", path.display())]
    Member {
        /// The archive.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that is referred to is not there.
    #[error("{} does not contain {what}", path.display())]
    Missing {
        /// The archive.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A JSON document is malformed, or says what cannot be.
    #[error("{}: {what}: {reason}", path.display())]
    Json {
        /// The archive.
        path: PathBuf,
        /// Which document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document's bytes are not the ones that are referred to.
    #[error(
        "{}: {what} has digest {actual}, expected {expected}: the archive is damaged",
        path.display()
    )]
    Digest {
        /// The archive.
        path: PathBuf,
        /// Which document.
        what: String,
        /// What refers to it says this.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
    /// A digest that we cannot verify.
    #[error("{}: {source}", path.display())]
    BadDigest {
        /// The archive.
        path: PathBuf,
        /// The digest.
        source: DigestError,
    },
    /// The archive holds several images, or none of the asked name.
    #[error(
        "{}: {problem}; it holds: {}",
        path.display(),
        if found.is_empty() { "nothing with a name".to_owned() } else { found.join(", ") }
    )]
    Choice {
        /// The archive.
        path: PathBuf,
        /// Why none could be chosen.
        problem: String,
        /// What there is to choose from.
        found: Vec<String>,
    },
    /// No image in it is for this machine.
    #[error("{} holds no image for {wanted}; it holds: {}", path.display(), found.join(", "))]
    Platform {
        /// The archive.
        path: PathBuf,
        /// `os/architecture` of this machine.
        wanted: String,
        /// What it has images for.
        found: Vec<String>,
    },
}
