//! What fuzzers and tests feed with bytes. What is checked holds for any bytes; else only that it
//! comes back is of interest.

use std::{fs, path::Path};

use crate::{
    Digest, Limits, Name, Platform, Reference,
    limits::Budget,
    recipe::{self, Kept},
    registry::{self, Document},
    source::registry::{Step, read},
    unpack::{self, Expected, Marks},
};

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

/// A layer, which is unpacked below `folder`. Nothing else there changes.
pub fn layer(bytes: &[u8], folder: &Path) {
    let limits = Limits {
        bytes: 1 << 20,
        file_bytes: 1 << 20,
        entries: 1000,
        ..Limits::default()
    };
    let root = folder.join("root");
    let beside = folder.join("beside");
    fs::create_dir_all(&root).expect("a folder for the layer");
    fs::write(&beside, "untouched").expect("a file beside it");
    let expected = Expected {
        blob: None,
        diff_id: Digest::of(bytes),
    };
    let kept = Kept::beside(&root);
    let outcome = unpack::unpack(
        bytes,
        &expected,
        &root,
        Marks::Overlay,
        &Budget::new(&limits),
    );
    if let Ok(unpacked) = &outcome {
        assert!(unpacked.bytes <= limits.bytes);
        let mut again = Vec::new();
        let size = unpacked.bytes;
        let rebuilt = recipe::rebuild(&kept, &root, &expected.diff_id, size, &mut again);
        rebuilt.expect("what was unpacked is rebuilt");
        assert!(again == bytes, "the digest is right, and the bytes are not");
    }
    for path in [&kept.recipe, &kept.replaced] {
        remove(path);
    }
    let left = fs::read_dir(folder).expect("the folder").count();
    assert_eq!(left, 2, "something was made outside");
    let content = fs::read_to_string(&beside).expect("the file beside it");
    assert_eq!(content, "untouched");
    let _ = fs::remove_file(&beside);
    remove(&root);
}

/// However odd the names and modes below it are.
fn remove(root: &Path) {
    use nix::{
        fcntl::{OFlag, open},
        sys::stat::Mode,
    };
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return;
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = open(parent, flags, Mode::empty()).expect("the folder");
    unpack::tree::remove(parent, name).expect("removed");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: good enough to spoil things, and the same every time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }

        /// Some changes of a few bytes each, as fuzzers make them.
        fn spoil(&mut self, seed: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                match self.below(5) {
                    0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                    1 if !bytes.is_empty() => bytes[at] = b"\0\xff./:@-0\"{}[],"[self.below(14)],
                    2 => bytes.truncate(at),
                    3 => bytes.insert(at, self.below(256) as u8),
                    _ => {
                        let end = (at + self.below(600)).min(bytes.len());
                        let piece = bytes[at..end].to_vec();
                        let to = self.below(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                }
            }
            bytes
        }
    }

    /// The corpus of a fuzzer.
    fn seeds(of: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(of);
        let mut paths: Vec<_> = fs::read_dir(folder)
            .expect("a corpus")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| fs::read(path).expect("a seed"))
            .collect()
    }

    fn each(of: &str, rounds: usize, mut test: impl FnMut(&[u8])) {
        let mut random = Random(5);
        for seed in seeds(of) {
            test(&seed);
            for _ in 0..rounds {
                test(&random.spoil(&seed));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused() {
        each("text", 3000, |bytes| {
            bytes
                .split(|b| *b == b'\n')
                .for_each(|line| text(&String::from_utf8_lossy(line)));
            text(&String::from_utf8_lossy(bytes));
        });
    }

    #[test]
    fn any_documents_are_planned_or_refused() {
        each("documents", 3000, documents);
    }

    #[test]
    fn any_layer_is_unpacked_or_refused_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        each("layer", 100, |bytes| layer(bytes, folder.path()));
    }
}
