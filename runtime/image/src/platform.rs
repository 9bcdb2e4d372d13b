//! The machine that an image must suit.

use std::fmt;

use oci_spec::image::{Arch, Os};

/// Operating system, architecture and variant, in Go's words (`linux`, `amd64`, `v8`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `GOOS`.
    pub os: Os,
    /// `GOARCH`.
    pub architecture: Arch,
    /// Such as `v7` for 32-bit ARM.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this program was built for.
    pub fn host() -> Self {
        Self {
            os: Os::default(),
            architecture: Arch::default(),
            variant: None,
        }
    }

    /// How well an image for `other` suits: `None` is not at all, larger is better.
    pub(crate) fn rank(&self, other: &oci_spec::image::Platform) -> Option<u8> {
        if other.os() != &self.os || other.architecture() != &self.architecture {
            return None;
        }
        Some(match (&self.variant, other.variant()) {
            (wanted, variant) if wanted == variant => 2,
            (_, None) => 1,
            _ => 0,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}
