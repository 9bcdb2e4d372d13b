//! What fuzzers and tests feed with bytes. What is checked holds for any bytes; else only that it
//! comes back is of interest.

mod archive;
mod entries;
mod unpacked;

use std::path::{Path, PathBuf};

use crate::{
    Digest, LayerError, Limits, Name, Platform, Reference,
    registry::{self, Document},
    source::registry::{Step, read},
    unpack::Marks,
};

pub use archive::mend;

/// Texts of people, of configurations and of registries.
pub fn text(text: &str) {
    if let Ok(name) = text.parse::<Name>() {
        let whole = name.to_string();
        assert_eq!(whole.parse(), Ok(name), "{whole}");
        // It becomes a part of URLs.
        assert!(whole.bytes().all(|byte| byte.is_ascii_graphic()), "{whole}");
        assert!(
            !whole.contains(['?', '#', '%', '\\']) && whole.split('/').all(|part| part != ".."),
            "{whole}"
        );
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let whole = reference.to_string();
        assert_eq!(whole.parse(), Ok(reference), "{whole}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    registry::read_text(text);
}

/// A manifest or an index, and after a NUL the configuration that goes with it.
pub fn documents(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let manifest = parts.next().unwrap_or_default();
    let config = parts.next().unwrap_or_default();
    let document = Document {
        digest: Digest::of(manifest),
        bytes: manifest.to_vec(),
        media_type: String::new(),
        url: "http://registry/".into(),
    };
    let Ok(name) = "registry:5000/app".parse::<Name>() else {
        return;
    };
    let Ok(Step::Found(found)) = read(document, None, &name, &Platform::host()) else {
        return;
    };
    let limits = Limits::default();
    let place = |digest: &Digest| Path::new("/blobs").join(digest.hex());
    let _ = found.id(&name);
    let blobs = found.blobs(&name);
    if let Ok((plan, downloads)) = found.plan(config.to_vec(), &name, &limits, place) {
        let named: Vec<_> = downloads.iter().map(|download| download.digest()).collect();
        assert_eq!(blobs.ok().as_ref(), Some(&named));
        assert_eq!(plan.layers.len(), named.len());
    }
}

/// A layer, which is unpacked below `folder` and taken away again. Nothing else there changes.
///
/// # Errors
///
/// Why it is refused: nothing is wrong with that.
pub fn layer(bytes: &[u8], folder: &Path) -> Result<(), LayerError> {
    unpacked::check(bytes, folder, Marks::Overlay, &limits())
}

/// A layer that is made of decisions: entries of all kinds that have names in common. It is unpacked as
/// [`layer`] does.
///
/// # Errors
///
/// Why it is refused: nothing is wrong with that.
pub fn entries(decisions: &[u8], folder: &Path) -> Result<(), LayerError> {
    let layer = entries::write(decisions, &outside(folder), limits());
    unpacked::check(&layer.archive, folder, layer.marks, &layer.limits)
}

/// What a fuzzer's layer may take.
fn limits() -> Limits {
    Limits {
        bytes: 1 << 20,
        file_bytes: 1 << 20,
        entries: 1000,
        ..Limits::default()
    }
}

/// A folder beside the layer.
fn outside(folder: &Path) -> PathBuf {
    folder.join("outside")
}

#[cfg(test)]
mod tests;
