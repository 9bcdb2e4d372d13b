//! Why a layer's archive cannot be made again.

use std::io;

use crate::Digest;

/// Why a layer cannot be saved. What was written of the archive is of no use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The layer was unpacked by a version that did not note how its archive is made again.
    #[error(
        "it was unpacked by an older version, which did not keep what saving needs: remove the \
         images that have it (`fairlead image rm`), then pull or load them again"
    )]
    NoRecipe,
    /// The recipe cannot be read.
    #[error("reading its recipe: {0}")]
    Recipe(#[source] io::Error),
    /// The recipe makes no sense.
    #[error(
        "its recipe is damaged ({0}): remove the images that have it (`fairlead image rm`), then \
         pull or load them again"
    )]
    Damaged(String),
    /// A file of the layer is not what it was.
    #[error("its file `{file}` is not what was unpacked: {reason}; {REMEDY}")]
    File {
        /// The path in the layer.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the layer has other content, it cannot be told which.
    #[error("its files were changed on the disk, they have the digest {actual} now: {REMEDY}")]
    Changed {
        /// Of the archive as it would be now.
        actual: Digest,
    },
    /// Who asked does not take it.
    #[error("writing the archive: {0}")]
    Write(#[source] io::Error),
}

const REMEDY: &str = "remove the images that have it (`fairlead image rm`), then pull or load \
                      them again";
