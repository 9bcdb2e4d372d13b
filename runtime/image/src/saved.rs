//! The archive that `docker save` writes since version 25: an OCI image layout in a tar, with a
//! `manifest.json` beside it that names the images for `docker load`.
//!
//! The same images make the same bytes: members are sorted and have no times. As the documents come
//! last, an archive that breaks off is one that nobody can load.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::{Digest, Name};

/// tar(5): everything is a multiple of this, in bytes.
const BLOCK: u64 = 512;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The layer as its writer made it, before any compression.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image to be saved.
pub(crate) struct Saved<'a> {
    pub(crate) id: Digest,
    /// The configuration, byte for byte.
    pub(crate) config: &'a str,
    /// Digests of the layers' archives and their sizes in bytes, bottom first.
    pub(crate) layers: Vec<(Digest, u64)>,
    /// What the archive will call it.
    pub(crate) names: &'a [Name],
}

/// A file in `blobs/sha256/`.
pub(crate) enum Blob {
    /// A configuration or a manifest.
    Document(Vec<u8>),
    /// A layer of this size.
    Layer(u64),
}

/// All files of the archive.
pub(crate) struct Contents {
    pub(crate) blobs: BTreeMap<Digest, Blob>,
    /// Names and contents, sorted.
    pub(crate) documents: [(&'static str, Vec<u8>); 3],
}

impl Contents {
    pub(crate) fn new(images: &[Saved<'_>]) -> Self {
        let mut blobs = BTreeMap::new();
        let (mut descriptors, mut listed) = (Vec::new(), Vec::new());
        for image in images {
            let manifest = manifest(image);
            let digest = Digest::of(&manifest);
            descriptors.extend(self::descriptors(&digest, manifest.len(), image.names));
            listed.push(json!({
                "Config": path(&image.id),
                "RepoTags": tags(image.names).map(Name::familiar).collect::<Vec<_>>(),
                "Layers": image.layers.iter().map(|(id, _)| path(id)).collect::<Vec<_>>(),
            }));
            blobs.insert(image.id, Blob::Document(image.config.into()));
            blobs.insert(digest, Blob::Document(manifest));
            let layers = image.layers.iter();
            blobs.extend(layers.map(|(diff_id, size)| (*diff_id, Blob::Layer(*size))));
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors
        });
        let version = json!({"imageLayoutVersion": "1.0.0"});
        Self {
            blobs,
            documents: [
                ("index.json", text(&index)),
                ("manifest.json", text(&Value::Array(listed))),
                ("oci-layout", text(&version)),
            ],
        }
    }
}

fn manifest(image: &Saved<'_>) -> Vec<u8> {
    let layer = |(diff_id, size): &(Digest, u64)| json!({"mediaType": LAYER, "digest": diff_id.to_string(), "size": size});
    text(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG, "digest": image.id.to_string(), "size": image.config.len()
        },
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
    }))
}

/// One for each name, or one without a name.
fn descriptors(digest: &Digest, size: usize, names: &[Name]) -> Vec<Value> {
    let plain = json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": size});
    let mut all: Vec<Value> = tags(names)
        .map(|name| {
            let mut named = plain.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag(),
            });
            named
        })
        .collect();
    if all.is_empty() {
        all.push(plain);
    }
    all
}

/// A name with a digest means a manifest that is not in the archive: ours is another one.
fn tags(names: &[Name]) -> impl Iterator<Item = &Name> {
    names
        .iter()
        .filter(|name| name.tag().is_some() && name.digest().is_none())
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Writes the archive's members.
pub(crate) struct Members<W>(pub(crate) W);

impl<W: Write> Members<W> {
    /// The directories, which come first.
    pub(crate) fn directories(&mut self) -> io::Result<()> {
        self.header("blobs/", EntryType::Directory, 0)?;
        self.header("blobs/sha256/", EntryType::Directory, 0)
    }

    pub(crate) fn document(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        self.header(name, EntryType::Regular, size)?;
        self.0.write_all(content)?;
        self.pad(size)
    }

    pub(crate) fn blob(&mut self, digest: &Digest, content: &[u8]) -> io::Result<()> {
        self.document(&path(digest), content)
    }

    /// Begins a blob whose `size` bytes the caller writes, and then [`Members::pad`]s.
    pub(crate) fn begin_blob(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        self.header(&path(digest), EntryType::Regular, size)
    }

    /// Ends a member of `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK) - size;
        self.0.write_all(&[0; BLOCK as usize][..padding as usize])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.write_all(&[0; 2 * BLOCK as usize])?;
        self.0.flush()
    }

    fn header(&mut self, name: &str, kind: EntryType, size: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(match kind {
            EntryType::Directory => 0o755,
            _ => 0o644,
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.write_all(header.as_bytes())
    }
}
