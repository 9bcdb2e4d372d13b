//! The machine that an image must suit, and which of an index's images suits it best.
//!
//! Both are containerd's `platforms` package (`Normalize`, `Only`), so that one index leads to one image
//! whoever pulls it.

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, Os};

mod detect;

/// Operating system, architecture and variant, in Go's words (`linux`, `amd64`, `v3`).
///
/// One architecture and variant can be written in several ways. What is parsed, and what
/// [`Platform::host`] says, is in the usual one: `arm64` for `arm64/v8`, `arm/v7` for `arm`, `amd64` for
/// `amd64/v1`.
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
    /// This machine: what this program was built for, and on ARM and amd64 the variant that
    /// `/proc/cpuinfo` and `uname(2)` tell of. Where they do not, the least of the architecture.
    pub fn host() -> Self {
        let (architecture, variant) = normal(Arch::default(), detect::of_this_machine());
        Self {
            os: Os::default(),
            architecture,
            variant,
        }
    }

    /// What programs of this machine need, as far as it can be known without looking at them. An amd64
    /// machine says which level it reaches, and hardly a program asks for it.
    pub(crate) fn least(&self) -> Self {
        let variant = match self.architecture {
            Arch::Amd64 => None,
            _ => self.variant.clone(),
        };
        Self {
            variant,
            ..self.clone()
        }
    }

    /// How well an image for `other` suits: `None` is not at all, larger is better.
    pub(crate) fn rank(&self, other: &oci_spec::image::Platform) -> Option<u32> {
        self.rank_where(other, detect::runs_arm32())
    }

    fn rank_where(&self, other: &oci_spec::image::Platform, arm32: bool) -> Option<u32> {
        if other.os() != &self.os {
            return None;
        }
        let found = normal(other.architecture().clone(), other.variant().clone());
        let order = self.order(arm32);
        let place = order.iter().rev().position(|suits| *suits == found)?;
        u32::try_from(place).ok()
    }

    /// What runs on this, the best first. A machine runs what was made for its forerunners, and not
    /// what needs more. `arm32`: 64-bit ARM runs 32-bit programs.
    fn order(&self, arm32: bool) -> Vec<Suits> {
        let (architecture, variant) = normal(self.architecture.clone(), self.variant.clone());
        let mut order = vec![(architecture.clone(), variant.clone())];
        let version = version(&architecture, variant.as_deref());
        let mut add = |architecture: &Arch, variant: String| {
            order.push(normal(architecture.clone(), Some(variant)));
        };
        match (&architecture, version) {
            (Arch::Amd64, version) => {
                let level = version.map_or(1, |(level, _)| level);
                (1..level)
                    .rev()
                    .for_each(|v| add(&architecture, format!("v{v}")));
                order.push((Arch::i386, None));
            }
            (Arch::ARM, Some((version, _))) => {
                (5..version)
                    .rev()
                    .for_each(|v| add(&architecture, format!("v{v}")));
            }
            (Arch::ARM64, Some((major @ (8 | 9), minor))) => {
                let mut down = |major: u8, from: u8| {
                    (0..from).rev().for_each(|minor| match minor {
                        0 => add(&architecture, format!("v{major}")),
                        _ => add(&architecture, format!("v{major}.{minor}")),
                    });
                };
                down(major, minor);
                if major == 9 {
                    // Armv9.0 is Armv8.5 and more (Arm Architecture Reference Manual, A2.1).
                    down(8, minor.saturating_add(6));
                }
                if arm32 {
                    (5..=8).rev().for_each(|v| add(&Arch::ARM, format!("v{v}")));
                }
            }
            // Names without an order. An image that asks for no variant runs on each.
            _ if variant.is_some() => order.push((architecture, None)),
            _ => {}
        }
        order
    }
}

/// An architecture and a variant, in the usual words.
type Suits = (Arch, Option<String>);

/// containerd's `normalizeArch`: the usual words of those that mean the same.
fn normal(architecture: Arch, variant: Option<String>) -> Suits {
    let variant = variant.map(|text| text.to_ascii_lowercase());
    let variant = variant.as_deref().filter(|text| !text.is_empty());
    let variant = match (&architecture, variant) {
        (Arch::Amd64, Some("v1" | "1")) | (Arch::ARM64, Some("v8" | "8")) => None,
        (Arch::ARM, None) => Some("v7".to_owned()),
        (Arch::ARM, Some(number @ ("5" | "6" | "7" | "8"))) => Some(format!("v{number}")),
        (_, other) => other.map(str::to_owned),
    };
    (architecture, variant)
}

/// The number of a variant in the usual words, and what is behind its point.
fn version(architecture: &Arch, variant: Option<&str>) -> Option<(u8, u8)> {
    let Some(variant) = variant else {
        let least = match architecture {
            Arch::Amd64 => 1,
            Arch::ARM64 => 8,
            _ => return None,
        };
        return Some((least, 0));
    };
    let number = variant.strip_prefix('v')?;
    match number.split_once('.') {
        Some((major, minor)) => Some((major.parse().ok()?, minor.parse().ok()?)),
        None => Some((number.parse().ok()?, 0)),
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
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("i386" | "i686", _) => ("386", None),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            other => other,
        };
        let (architecture, variant) = normal(architecture.into(), variant.map(str::to_owned));
        Ok(Self {
            os: os.to_ascii_lowercase().as_str().into(),
            architecture,
            variant,
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

    fn platform(text: &str) -> Platform {
        text.parse().expect(text)
    }

    /// As it stands in an index.
    fn image(text: &str) -> oci_spec::image::Platform {
        let mut words = text.split('/');
        let mut platform = oci_spec::image::Platform::default();
        platform.set_os(words.next().expect("a system").into());
        platform.set_architecture(words.next().expect("an architecture").into());
        platform.set_variant(words.next().map(str::to_owned));
        platform
    }

    /// The image that the machine gets: the best, of equals the first.
    fn chosen<'a>(machine: &Platform, arm32: bool, index: &[&'a str]) -> Option<&'a str> {
        let rank = |text: &&str| machine.rank_where(&image(text), arm32);
        let found = index.iter().rev().filter(|text| rank(text).is_some());
        found.max_by_key(|text| rank(text)).copied()
    }

    #[test]
    fn platforms_are_written_as_docker_does() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/AMD64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/V3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/i686/x", "linux/386"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9.1", "linux/arm64/v9.1"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
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
    fn this_machine_is_written_as_others_are() {
        let host = Platform::host();
        assert_eq!(platform(&host.to_string()), host);
        assert!(host.rank(&image(&host.least().to_string())).is_some());
    }

    #[test]
    fn a_platform_takes_what_containerd_takes_in_its_order() {
        let arm = ["arm/v8", "arm/v7", "arm/v6", "arm/v5"];
        let order = |text: &str, arm32: bool| -> Vec<String> {
            let order = platform(&format!("linux/{text}")).order(arm32);
            let text = |(architecture, variant): Suits| match variant {
                Some(variant) => format!("{architecture}/{variant}"),
                None => architecture.to_string(),
            };
            order.into_iter().map(text).collect()
        };
        for (text, expected) in [
            ("amd64", vec!["amd64", "386"]),
            ("amd64/v2", vec!["amd64/v2", "amd64", "386"]),
            (
                "amd64/v4",
                vec!["amd64/v4", "amd64/v3", "amd64/v2", "amd64", "386"],
            ),
            ("amd64/x", vec!["amd64/x", "386"]),
            ("386", vec!["386"]),
            ("arm/v8", arm.to_vec()),
            ("arm/v7", arm[1..].to_vec()),
            ("arm", arm[1..].to_vec()),
            ("arm/v6", arm[2..].to_vec()),
            ("arm/v5", arm[3..].to_vec()),
            ("arm/v4", vec!["arm/v4"]),
            ("arm64", [&["arm64"], &arm[..]].concat()),
            (
                "arm64/v8.2",
                [&["arm64/v8.2", "arm64/v8.1", "arm64"], &arm[..]].concat(),
            ),
            (
                "arm64/v9",
                [
                    &[
                        "arm64/v9",
                        "arm64/v8.5",
                        "arm64/v8.4",
                        "arm64/v8.3",
                        "arm64/v8.2",
                        "arm64/v8.1",
                        "arm64",
                    ],
                    &arm[..],
                ]
                .concat(),
            ),
            ("s390x", vec!["s390x"]),
            ("ppc64le/power9", vec!["ppc64le/power9", "ppc64le"]),
        ] {
            assert_eq!(order(text, true), expected, "{text}");
        }
        assert_eq!(order("arm64", false), ["arm64"]);
        // 32-bit machines are not asked.
        assert_eq!(order("arm/v6", false), arm[2..]);
    }

    /// Indexes in the order of their entries, with the attestations that BuildKit adds.
    #[test]
    fn a_machine_gets_the_best_that_it_can_run() {
        let debian = [
            "linux/amd64",
            "unknown/unknown",
            "linux/arm/v5",
            "unknown/unknown",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/386",
            "linux/mips64le",
            "linux/ppc64le",
            "linux/riscv64",
            "linux/s390x",
        ];
        let alpine = [
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/386",
            "linux/ppc64le",
            "linux/riscv64",
            "linux/s390x",
        ];
        let levels = [
            "linux/amd64",
            "linux/amd64/v2",
            "linux/amd64/v3",
            "linux/amd64/v4",
            "linux/arm64",
        ];
        let for_arm32 = ["linux/386", "linux/arm/v6", "linux/arm/v7"];
        let windows = ["windows/amd64", "linux/amd64/v1", "linux/amd64"];
        for (machine, index, expected) in [
            ("amd64", &debian[..], Some("linux/amd64")),
            ("amd64/v3", &debian, Some("linux/amd64")),
            ("arm64", &debian, Some("linux/arm64/v8")),
            ("arm/v8", &debian, Some("linux/arm/v7")),
            ("arm/v7", &debian, Some("linux/arm/v7")),
            ("arm/v6", &debian, Some("linux/arm/v5")),
            ("arm/v6", &alpine, Some("linux/arm/v6")),
            ("arm/v5", &alpine, None),
            ("386", &alpine, Some("linux/386")),
            ("s390x", &alpine, Some("linux/s390x")),
            ("amd64", &levels, Some("linux/amd64")),
            ("amd64/v3", &levels, Some("linux/amd64/v3")),
            ("amd64/v3", &levels[..2], Some("linux/amd64/v2")),
            ("amd64/v3", &levels[3..], None),
            ("arm64/v9", &levels, Some("linux/arm64")),
            ("arm64", &for_arm32, Some("linux/arm/v7")),
            ("arm64", &for_arm32[..2], Some("linux/arm/v6")),
            ("amd64", &for_arm32, Some("linux/386")),
            // Two words for one thing: the first.
            ("amd64/v2", &windows, Some("linux/amd64/v1")),
        ] {
            let found = chosen(&platform(&format!("linux/{machine}")), true, index);
            assert_eq!(found, expected, "{machine}");
        }
        let arm64 = platform("linux/arm64");
        assert_eq!(chosen(&arm64, false, &for_arm32), None);
        assert_eq!(chosen(&arm64, false, &alpine), Some("linux/arm64/v8"));
    }

    #[test]
    fn what_is_made_on_a_machine_needs_no_level() {
        for (machine, least) in [
            ("linux/amd64/v3", "linux/amd64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64", "linux/arm64"),
        ] {
            assert_eq!(platform(machine).least(), platform(least));
        }
    }
}
