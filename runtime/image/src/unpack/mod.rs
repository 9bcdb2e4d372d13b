//! From a layer blob to a directory that overlayfs can use as it is, or that can be copied.

mod adopt;
mod ahead;
pub(crate) mod apply;
mod copy;
mod decompress;
mod error;
mod home;
mod links;
mod marks;
mod merged;
mod metadata;
mod path;
pub(crate) mod tree;
mod writer;
mod xattr;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, BufReader, Read},
    path::Path,
    thread,
};

use nix::{errno::Errno, sys::stat};

pub use error::LayerError;

pub(crate) use adopt::adopt_implied;
pub(crate) use decompress::decompress;
pub(crate) use links::{Waiting, link_below};
pub(crate) use marks::Marks;
pub(crate) use path::{EntryPath, display};

use crate::{
    Digest,
    digest::HashingReader,
    limits::Budget,
    recipe::{Kept, Recorder},
    source::Promised,
    tarball::TarReader,
};
use ahead::{Ahead, read_ahead};
use metadata::Metadata;
use tree::Tree;
use writer::{Writer, Written};

/// How much of a blob is read at once, in bytes.
const BLOB_BUFFER: usize = 128 << 10;

/// A blob that turns out to be no good is read to its end, to tell whether it was damaged on its way,
/// only if it is no longer than this, in bytes: nobody waits for more of it than that.
const CHECKED_TO_THE_END: u64 = 64 << 20;

/// What a blob must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// `None` in old Docker archives.
    pub(crate) blob: Option<Promised>,
    /// Digest of the tar stream once decompressed.
    pub(crate) diff_id: Digest,
}

/// A layer that was unpacked and found to be what it should be.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Directories that the archive uses and does not describe.
    implied: BTreeSet<EntryPath>,
    /// The layer hides all layers below it.
    pub(crate) opaque_root: bool,
    /// Digest of the tar stream.
    pub(crate) diff_id: Digest,
    /// Bytes of the tar stream.
    pub(crate) bytes: u64,
    /// Hard links to files of the layers below, for [`link_below`].
    waiting: Waiting,
}

/// Unpacks `blob` into the empty directory `root`; `marks` stand for what it takes away. What is needed to
/// make its archive again is written beside it ([`Kept::beside`]).
///
/// Nobody may use `root` before this has returned: only at the end of the stream is it known
/// whether the content is the expected one.
pub(crate) fn unpack(
    blob: impl Read + Send,
    expected: &Expected,
    root: &Path,
    marks: Marks,
    budget: &Budget<'_>,
) -> Result<Unpacked, LayerError> {
    // One byte more than allowed is enough to notice, and a wrong size must not cost more.
    let size = expected.blob.as_ref().and_then(|(_, size)| *size);
    let blob = blob.take(size.map_or(u64::MAX, |size| size.saturating_add(1)));
    let (outcome, blob) = thread::scope(|scope| {
        let (ahead, reading) =
            read_ahead(scope, HashingReader::new(blob)).map_err(LayerError::Read)?;
        let outcome = unpack_stream(ahead, root, marks, budget);
        Ok::<_, LayerError>((outcome, reading.end()))
    })?;
    if let Err(
        error @ (LayerError::Limit { .. } | LayerError::Kernel { .. } | LayerError::Recipe(_)),
    ) = outcome
    {
        return Err(error);
    }
    if outcome.is_err() && size.is_none_or(|size| size > CHECKED_TO_THE_END) {
        return outcome.map(|(unpacked, _)| unpacked);
    }
    let found = blob.finish();
    if let (Err(_), Some((wanted, _)), Ok((digest, _))) = (&outcome, &expected.blob, &found)
        && digest != wanted
    {
        // A damaged blob: that says more than what is odd about its first odd byte.
        return Err(LayerError::Digest {
            what: "digest of the blob",
            expected: *wanted,
            actual: *digest,
        });
    }
    let (unpacked, _) = outcome?;
    let (blob_digest, blob_bytes) = found.map_err(LayerError::Read)?;

    if let Some(expected) = size.filter(|size| *size != blob_bytes) {
        return Err(LayerError::Size {
            expected,
            actual: blob_bytes,
        });
    }
    let check = |what, expected: Digest, actual| {
        if expected == actual {
            Ok(())
        } else {
            Err(LayerError::Digest {
                what,
                expected,
                actual,
            })
        }
    };
    if let Some((expected, _)) = expected.blob {
        check("digest of the blob", expected, blob_digest)?;
    }
    check(
        "digest of the decompressed layer",
        expected.diff_id,
        unpacked.diff_id,
    )?;
    Ok(unpacked)
}

/// [`unpack`] of a blob of which nothing is known: whatever comes is right, as long as it is a whole
/// archive.
pub(crate) fn unpack_unknown(
    blob: impl Read + Send,
    root: &Path,
    marks: Marks,
    budget: &Budget<'_>,
) -> Result<Unpacked, LayerError> {
    match unpack_stream(blob, root, marks, budget)? {
        (unpacked, End::Marked) => Ok(unpacked),
        (_, End::Missing { entries }) => Err(LayerError::Unfinished { entries }),
    }
}

/// How a tar stream ended.
enum End {
    Marked,
    /// Without the blocks that should be there.
    Missing {
        entries: u64,
    },
}

/// Whether the marks of a layer can be made in `directory`; what is tried stays.
pub(crate) fn try_marks(directory: &Path, marks: Marks) -> Result<(), (&'static str, Errno)> {
    let tree = Tree::open(directory).map_err(|errno| ("opening a directory", errno))?;
    marks.whiteout(tree.root(), OsStr::new("whiteout"))?;
    marks.opaque(tree.root(), OsStr::new("."))
}

fn unpack_stream(
    blob: impl Read + Send,
    root: &Path,
    marks: Marks,
    budget: &Budget<'_>,
) -> Result<(Unpacked, End), LayerError> {
    let content = Metered {
        inner: decompress(BufReader::with_capacity(BLOB_BUFFER, blob))?,
        budget,
    };
    thread::scope(|scope| {
        let (content, _) = read_ahead(scope, content).map_err(LayerError::Read)?;
        let (content, reading) =
            read_ahead(scope, HashingReader::new(content)).map_err(LayerError::Read)?;
        let (written, end) = write(content, root, marks, budget)?;
        let (diff_id, bytes) = reading.end().finish().map_err(LayerError::of_read)?;
        let unpacked = Unpacked {
            implied: written.implied,
            opaque_root: written.opaque_root,
            diff_id,
            bytes,
            waiting: written.waiting,
        };
        Ok((unpacked, end))
    })
}

/// Writes the entries of a tar stream, and reads it to its end.
fn write(
    content: Ahead,
    root: &Path,
    marks: Marks,
    budget: &Budget<'_>,
) -> Result<(Written, End), LayerError> {
    let kept = Kept::beside(root);
    let mut tar = TarReader::new(Recorder::new(content, &kept.recipe)?);
    let mut writer = Writer::new(root, marks, &kept.replaced, budget)?;
    let mut entries = 0;
    while let Some(entry) = tar.next_entry()? {
        budget.take_entry()?;
        writer.apply(&entry, &mut tar)?;
        entries += 1;
    }
    let written = writer.finish()?;
    let end = match tar.is_ended() {
        true => End::Marked,
        false => End::Missing { entries },
    };
    tar.into_inner().finish()?;
    Ok((written, end))
}

/// Gives a directory all that another one has: owner, mode, time and attributes.
pub(crate) fn copy_attributes(from: &Path, to: &Path) -> Result<(), Errno> {
    let (from, to) = (Tree::open(from)?, Tree::open(to)?);
    xattr::copy(from.root(), to.root())?;
    Metadata::of(&stat::fstat(from.root())?).apply_to_directory(to.root())
}

/// Counts decompressed bytes against the limits, also those that no file accounts for.
struct Metered<'a, R> {
    inner: R,
    budget: &'a Budget<'a>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.budget
            .take_bytes(count as u64)
            .map_err(io::Error::other)?;
        Ok(count)
    }
}
