//! Images, for people and for programs.

use std::collections::BTreeMap;

use fairlead_api::v1;
use serde::Serialize;

/// An image for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Digest of the configuration.
    pub id: String,
    /// Complete names.
    pub names: Vec<String>,
    /// Digests of manifest and indexes.
    pub manifests: Vec<String>,
    /// Bytes of the layers, decompressed.
    pub bytes: u64,
    /// When it was made; RFC 3339, or empty.
    pub created: String,
    /// When it was last used: nanoseconds since the epoch.
    pub used_nanos: u64,
    /// Ids of the tasks that have it.
    pub tasks: Vec<String>,
    /// Those of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl From<v1::Image> for Image {
    fn from(image: v1::Image) -> Self {
        Self {
            id: image.id,
            names: image.names,
            manifests: image.manifests,
            bytes: image.bytes,
            created: image.created,
            used_nanos: image.used,
            tasks: image.tasks,
            annotations: image.annotations.into_iter().collect(),
        }
    }
}

/// A number of bytes in decimal units, three digits, as Docker shows it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345, "12.3kB"),
            (999_499, "999kB"),
            (999_500, "1.00MB"),
            (9_994_999, "9.99MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
