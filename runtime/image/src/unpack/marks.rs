//! How the directory of a layer says what it takes away from the layers below.

use std::{ffi::OsStr, os::fd::AsFd};

use nix::{
    errno::Errno,
    sys::stat::{self, Mode, SFlag},
};

use super::{
    error::{MAKE_OPAQUE, MAKE_WHITEOUT},
    tree, xattr,
};

/// In the archive it is names that say it (image-spec `layer.md`, section "Whiteouts"); these stand for
/// an opaque directory there too, and so never for a file.
pub(super) const OPAQUE: &str = ".wh..wh..opq";

/// overlayfs's own.
const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Those of overlayfs, which can use the directory as it is: a character device 0/0 for a whiteout,
    /// an attribute for an opaque directory (kernel `Documentation/filesystems/overlayfs.rst`, "whiteouts
    /// and opaque directories").
    Overlay,
    /// A socket for a whiteout, and one called [`OPAQUE`] in an opaque directory. Every file system that
    /// has sockets can hold them, also overlayfs itself; an archive can hold none.
    Sockets,
}

impl Marks {
    /// Marks `name` of the layers below as deleted. What was being done is told with the error.
    pub(super) fn whiteout(
        self,
        directory: impl AsFd,
        name: &OsStr,
    ) -> Result<(), (&'static str, Errno)> {
        let kind = match self {
            Self::Overlay => SFlag::S_IFCHR,
            Self::Sockets => SFlag::S_IFSOCK,
        };
        stat::mknodat(directory, name, kind, Mode::empty(), 0)
            .map_err(|errno| (MAKE_WHITEOUT, errno))
    }

    /// Marks everything that the layers below have in the directory `name` as deleted.
    pub(super) fn opaque(
        self,
        directory: impl AsFd,
        name: &OsStr,
    ) -> Result<(), (&'static str, Errno)> {
        let mark = || match self {
            Self::Overlay => xattr::set(directory, name, OVERLAY_OPAQUE, b"y"),
            Self::Sockets => {
                let inside = tree::subdirectory(directory, name)?;
                match stat::mknodat(inside, OPAQUE, SFlag::S_IFSOCK, Mode::empty(), 0) {
                    Err(Errno::EEXIST) => Ok(()),
                    outcome => outcome,
                }
            }
        };
        mark().map_err(|errno| (MAKE_OPAQUE, errno))
    }

    /// Whether the directory hides what the layers below have in it.
    pub(super) fn is_opaque(self, directory: impl AsFd) -> Result<bool, Errno> {
        match self {
            Self::Overlay => xattr::is(directory, OVERLAY_OPAQUE, b"y"),
            Self::Sockets => {
                let mark = tree::look(directory, OsStr::new(OPAQUE))?;
                Ok(mark.is_some_and(|mark| tree::file_type(&mark) == SFlag::S_IFSOCK))
            }
        }
    }
}
