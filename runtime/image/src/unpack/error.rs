//! What can go wrong with a layer.

use std::io;

use nix::errno::Errno;

use crate::{Digest, TarError};

/// Why a layer was refused. Nothing of the image stays in the store then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The tar stream is broken.
    #[error(transparent)]
    Tar(TarError),
    /// The blob cannot be read.
    #[error("reading the layer failed: {0}")]
    Read(#[source] io::Error),
    /// A compression that we do not have.
    #[error("the layer is compressed with {0}; only gzip and zstd are supported")]
    Compression(&'static str),
    /// What was read is not what the image names.
    #[error("the {what} is {actual}, but the image says {expected}: the archive is damaged")]
    Digest {
        /// Which digest: of the blob as stored, or of the layer once decompressed.
        what: &'static str,
        /// What the image says.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
    /// The blob has another size than the image says, in bytes.
    #[error("the blob has {actual} bytes, but the image says {expected}: the archive is damaged")]
    Size {
        /// What the image says.
        expected: u64,
        /// What was read.
        actual: u64,
    },
    /// One of the [`Limits`](crate::Limits) is exceeded.
    #[error("the image has more than {limit} {what}, which is the limit of this store")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// What is kept for saving the layer cannot be written.
    #[error("writing down how the layer is saved: {0}")]
    Recipe(#[source] io::Error),
    /// The archive breaks off behind an entry: nothing tells that it ends there.
    #[error(
        "the archive is not complete: it breaks off behind {entries} entries, without the blocks \
         that mark its end"
    )]
    Unfinished {
        /// Those that were read.
        entries: u64,
    },
    /// An entry's name is no path below the layer's root.
    #[error("entry `{entry}`: {reason}")]
    Name {
        /// The entry's name as written.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry that no layer may contain.
    #[error("entry `{entry}` is refused: {reason}")]
    Refused {
        /// The entry's name as written.
        entry: String,
        /// Why.
        reason: String,
    },
    /// The kernel refuses what the entry asks for.
    #[error("entry `{entry}`: {action} failed: {source}{}", hint(action, *source))]
    Kernel {
        /// The entry's name as written.
        entry: String,
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

impl LayerError {
    /// Whether another copy of the blob may be better.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Read(error) => {
                let code = error.raw_os_error();
                !matches!(code, Some(libc::ENOSPC | libc::EDQUOT))
            }
            Self::Tar(_)
            | Self::Compression(_)
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Unfinished { .. } => true,
            // It is what was promised, or it is not read to its end: too much, refused, or no room for it.
            Self::Limit { .. }
            | Self::Recipe(_)
            | Self::Name { .. }
            | Self::Refused { .. }
            | Self::Kernel { .. } => false,
        }
    }

    /// What was hit while reading (a limit, say) came through [`io::Error`]; this gets it back.
    pub(crate) fn of_read(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Read)
    }
}

impl From<TarError> for LayerError {
    fn from(error: TarError) -> Self {
        match error {
            // A limit that was hit while reading came through the reader's error type.
            TarError::Read { offset, source } => match source.downcast::<Self>() {
                Ok(limit) => limit,
                Err(source) => Self::Tar(TarError::Read { offset, source }),
            },
            other => Self::Tar(other),
        }
    }
}

/// The actions that file systems or missing privileges are known to forbid.
pub(crate) const SET_XATTR: &str = "setting an extended attribute";
pub(crate) const MAKE_DEVICE: &str = "making a device node";
pub(crate) const MAKE_WHITEOUT: &str = "making a whiteout (a character device 0/0)";
pub(crate) const MAKE_OPAQUE: &str = "setting trusted.overlay.opaque";
pub(crate) const FIND_PATH: &str = "finding out where its directory is";
pub(crate) const CHANGE_OWNER: &str = "changing the owner";

/// And two that are done in several places.
pub(crate) const SET_TIME: &str = "setting the time";
pub(crate) const WRITE_FILE: &str = "writing a file";

/// What the operator can do about it.
fn hint(action: &str, errno: Errno) -> &'static str {
    match (action, errno) {
        (MAKE_DEVICE | MAKE_WHITEOUT, Errno::EPERM) => {
            ". The store needs CAP_MKNOD in the initial user namespace, and a file system that \
             can hold device nodes"
        }
        (MAKE_OPAQUE, Errno::EPERM) => {
            ". trusted.* attributes need CAP_SYS_ADMIN in the initial user namespace"
        }
        (SET_XATTR | MAKE_OPAQUE, Errno::EOPNOTSUPP) => {
            ". The file system of the store has no such extended attributes: put the store on \
             ext4, xfs or btrfs"
        }
        (SET_XATTR, Errno::EPERM) => ". It needs CAP_SYS_ADMIN or CAP_SETFCAP",
        (SET_XATTR | MAKE_OPAQUE | FIND_PATH, Errno::ENOENT) => ". Is /proc mounted?",
        (CHANGE_OWNER, Errno::EPERM) => ". It needs CAP_CHOWN",
        (_, Errno::ENOSPC | Errno::EDQUOT) => ". Free space or inodes where the store is",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_copy_helps_only_against_damage() {
        let io = |code| io::Error::from_raw_os_error(code);
        let (limit, what) = (1, "bytes");
        let kernel = |source| LayerError::Kernel {
            entry: String::new(),
            action: WRITE_FILE,
            source,
        };
        for error in [
            LayerError::Limit { what, limit },
            LayerError::Recipe(io(libc::ENOSPC)),
            LayerError::Read(io(libc::ENOSPC)),
            kernel(Errno::ENOSPC),
        ] {
            assert!(!error.is_damage(), "{error}");
        }
        let (expected, actual) = (1, 2);
        for error in [
            LayerError::Size { expected, actual },
            LayerError::Read(io(libc::EIO)),
            LayerError::Unfinished { entries: 1 },
        ] {
            assert!(error.is_damage(), "{error}");
        }
    }

    #[test]
    fn what_the_file_system_forbids_is_said_with_a_way_out() {
        let text = |action, source| {
            LayerError::Kernel {
                entry: "dev/null".into(),
                action,
                source,
            }
            .to_string()
        };
        let device = text(MAKE_DEVICE, Errno::EPERM);
        assert!(
            device.contains("dev/null") && device.contains("CAP_MKNOD"),
            "{device}"
        );
        assert!(text(SET_XATTR, Errno::EOPNOTSUPP).contains("ext4"));
        assert!(text(SET_XATTR, Errno::ENOENT).contains("/proc"));
        assert!(text("writing a file", Errno::ENOSPC).contains("Free space"));
        assert!(text("writing a file", Errno::EIO).ends_with(&Errno::EIO.to_string()));
    }
}
