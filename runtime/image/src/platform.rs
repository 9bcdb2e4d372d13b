//! The machine that an image must suit.

use std::{fmt, str::FromStr};

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
    pub(crate) fn rank(&self, other: &oci_spec::image::Platform) -> Option<u32> {
        if other.os() != &self.os || other.architecture() != &self.architecture {
            return None;
        }
        let level = |variant: &Option<String>| self.level(variant.as_deref());
        match (level(&self.variant), level(other.variant())) {
            // A machine runs what was made for its forerunners, and not what needs more.
            (Some(own), Some(needed)) => (needed <= own).then_some(needed + 1),
            _ if &self.variant == other.variant() => Some(2),
            _ => other.variant().is_none().then_some(1),
        }
    }

    /// Variants of these architectures have an order. Without one, the usual is meant (containerd's
    /// `platforms`, `normalizeArch`).
    fn level(&self, variant: Option<&str>) -> Option<u32> {
        let usual = match self.architecture {
            Arch::Amd64 => 1,
            Arch::ARM => 7,
            Arch::ARM64 => 8,
            _ => return None,
        };
        match variant {
            None | Some("") => Some(usual),
            Some(text) => text.strip_prefix('v').unwrap_or(text).parse().ok(),
        }
    }
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: write linux/amd64 or linux/arm/v7")]
pub struct PlatformError(pub String);

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os/architecture[/variant]`, the architecture in Go's words or in the kernel's.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_word = |word: &&str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
        };
        let words: Vec<_> = text.split('/').filter(is_word).collect();
        let (os, architecture, variant) = match words[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if words.len() != text.split('/').count() {
            return Err(PlatformError(text.to_owned()));
        }
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("i386" | "i686", variant) => ("386", variant),
            ("armhf", None) => ("arm", Some("v7")),
            ("armel", None) => ("arm", Some("v6")),
            other => other,
        };
        Ok(Self {
            os: os.to_ascii_lowercase().as_str().into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_written_as_docker_does() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            let platform: Platform = text.parse().expect(text);
            assert_eq!(platform.to_string(), normal);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "a/b/c/d",
            "linux//v7",
            "linux/a b",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_machine_gets_the_best_that_it_can_run() {
        let rank = |architecture: Arch, own: Option<&str>, image: Option<&str>| {
            let machine = Platform {
                architecture: architecture.clone(),
                variant: own.map(str::to_owned),
                ..Platform::host()
            };
            let mut other = oci_spec::image::Platform::default();
            other.set_os(machine.os.clone());
            other.set_architecture(architecture);
            other.set_variant(image.map(str::to_owned));
            machine.rank(&other)
        };
        let arm = |own, image| rank(Arch::ARM, own, image);
        assert!(arm(Some("v7"), Some("v6")) < arm(Some("v7"), Some("v7")));
        assert_eq!(arm(Some("v7"), None), arm(Some("v7"), Some("v7")));
        assert_eq!(arm(None, Some("v8")), None);
        assert_eq!(arm(Some("v6"), Some("v7")), None);
        assert_eq!(rank(Arch::Amd64, None, Some("v3")), None);
        assert!(rank(Arch::Amd64, None, Some("v1")).is_some());
        assert!(rank(Arch::ARM64, None, Some("v8")).is_some());
        // Others have names without an order.
        let other = |own, image| rank(Arch::PowerPC64le, own, image);
        assert!(other(Some("x"), None) < other(Some("x"), Some("x")));
        assert_eq!(other(Some("x"), Some("y")), None);
    }
}
