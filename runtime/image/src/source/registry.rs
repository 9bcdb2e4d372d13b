//! Images of registries.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;

use super::{Blob, Plan, document::Kind, oci::MAX_DEPTH, oci::choose_platform};
use crate::{
    Digest, ImageError, Limits, Name, Platform, RegistryError,
    download::Download,
    registry::{Document, Repository},
};

/// An image of a registry, before anything but its manifest is here.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its digest, and before it those of the indexes that led to it.
    pub(crate) manifests: Vec<Digest>,
    digest: Digest,
    manifest: ImageManifest,
    /// Where it came from.
    url: String,
}

/// Finds the manifest for `platform`. What the name means is asked `attempts` times.
pub(crate) fn find(
    repository: &Arc<Repository>,
    name: &Name,
    platform: &Platform,
    limits: &Limits,
    mut attempts: u32,
) -> Result<Found, ImageError> {
    let mut reference = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let failed = |error: RegistryError| ImageError::pull(name, error);
    let mut manifests = Vec::new();
    let mut parent: Option<Descriptor> = None;
    for _ in 0..MAX_DEPTH {
        let document = repository
            .manifest(&reference, limits.json_bytes, attempts)
            .map_err(&failed)?;
        // It answers.
        attempts = repository.attempts();
        manifests.push(document.digest);
        match read(document, parent.as_ref(), name, platform)? {
            Step::Next(child) => {
                reference = child.digest().to_string();
                parent = Some(*child);
            }
            Step::Found(found) => {
                return Ok(Found {
                    manifests,
                    ..*found
                });
            }
        }
    }
    let reason = format!("more than {MAX_DEPTH} nested indexes");
    Err(failed(refuse(&reference, reason)))
}

/// What a document leads to.
pub(crate) enum Step {
    /// An index: what it says of the manifest for the platform.
    Next(Box<Descriptor>),
    /// A manifest.
    Found(Box<Found>),
}

/// Reads an index or a manifest; `parent` is what an index says of it.
pub(crate) fn read(
    document: Document,
    parent: Option<&Descriptor>,
    name: &Name,
    platform: &Platform,
) -> Result<Step, ImageError> {
    let failed = |error: RegistryError| ImageError::pull(name, error);
    let called = parent.map(|parent| parent.media_type().to_string());
    let said = [
        document.media_type.as_str(),
        called.as_deref().unwrap_or_default(),
    ];
    let kind =
        Kind::of(&document.bytes, &said).map_err(|reason| failed(refuse(&document.url, reason)))?;
    if let Some(parent) = parent {
        check_size(&document, parent).map_err(failed)?;
    }
    if kind == Kind::Manifest {
        return Ok(Step::Found(Box::new(Found {
            manifests: vec![document.digest],
            digest: document.digest,
            manifest: parse(&document).map_err(failed)?,
            url: document.url,
        })));
    }
    let index: ImageIndex = parse(&document).map_err(failed)?;
    let all: Vec<_> = index.manifests().iter().collect();
    let source = name.to_string();
    let chosen = choose_platform(Path::new(&source), &all, platform)?;
    digest_of(&document.url, chosen).map_err(failed)?;
    Ok(Step::Next(Box::new(chosen.clone())))
}

/// The digest has been compared already; image-spec `descriptor.md` wants both.
fn check_size(document: &Document, descriptor: &Descriptor) -> Result<(), RegistryError> {
    let (found, said) = (document.bytes.len() as u64, descriptor.size());
    if found == said {
        return Ok(());
    }
    let reason = format!("it has {found} bytes, and what refers to it says {said}");
    Err(refuse(&document.url, reason))
}

impl Found {
    /// The manifest's digest.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The image's id.
    pub(crate) fn id(&self, name: &Name) -> Result<Digest, ImageError> {
        digest_of(&self.url, self.manifest.config()).map_err(|error| ImageError::pull(name, error))
    }

    /// The layers' blobs, bottom first.
    pub(crate) fn blobs(&self, name: &Name) -> Result<Vec<Digest>, ImageError> {
        let layers = self.manifest.layers().iter();
        layers
            .map(|layer| digest_of(&self.url, layer))
            .collect::<Result<_, _>>()
            .map_err(|error| ImageError::pull(name, error))
    }

    /// Gets the configuration.
    pub(crate) fn config(
        &self,
        repository: &Arc<Repository>,
        name: &Name,
        limits: &Limits,
    ) -> Result<Vec<u8>, ImageError> {
        let failed = |error: RegistryError| ImageError::pull(name, error);
        let document = repository
            .small_blob(&self.id(name)?, limits.json_bytes)
            .map_err(failed)?;
        check_size(&document, self.manifest.config()).map_err(failed)?;
        Ok(document.bytes)
    }

    /// Of the manifest.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        super::sorted(self.manifest.annotations())
    }

    /// Plans the layers. `place` says where a blob's file is.
    pub(crate) fn plan(
        self,
        config: Vec<u8>,
        name: &Name,
        limits: &Limits,
        place: impl Fn(&Digest) -> std::path::PathBuf,
    ) -> Result<(Plan, Vec<Arc<Download>>), ImageError> {
        let failed = |error: RegistryError| ImageError::pull(name, error);
        let mut downloads: Vec<Arc<Download>> = Vec::new();
        let mut blobs = Vec::new();
        let mut bytes: u64 = 0;
        for layer in self.manifest.layers() {
            let digest = digest_of(&self.url, layer).map_err(&failed)?;
            let kind = layer.media_type().to_string();
            if kind.contains("+encrypted") {
                let reason = format!("layer {digest} is encrypted");
                return Err(failed(refuse(&self.url, reason)));
            }
            // The same blob can be several layers, and is downloaded once.
            let known = downloads
                .iter()
                .find(|known| known.digest() == digest)
                .cloned();
            if known.is_none() {
                bytes = bytes.saturating_add(layer.size());
            }
            let download = known.unwrap_or_else(|| {
                let urls = layer.urls().clone().unwrap_or_default();
                Arc::new(Download::new(digest, layer.size(), urls, place(&digest)))
            });
            downloads.push(download.clone());
            blobs.push((Blob::Download(download), Some((digest, Some(layer.size())))));
        }
        // Compressed, they are no more than what may come out of them.
        if bytes > limits.bytes {
            let reason = format!(
                "its layers have {bytes} bytes; at most {} are allowed",
                limits.bytes
            );
            return Err(failed(refuse(&self.url, reason)));
        }
        let source = name.to_string();
        let mut plan = Plan::new(Path::new(&source), config, blobs, limits)?;
        plan.annotations = self.annotations();
        plan.manifests = self.manifests;
        plan.names = vec![name.clone()];
        Ok((plan, downloads))
    }
}

fn parse<T: DeserializeOwned>(document: &Document) -> Result<T, RegistryError> {
    serde_json::from_slice(&document.bytes)
        .map_err(|error| refuse(&document.url, error.to_string()))
}

fn refuse(url: &str, reason: String) -> RegistryError {
    RegistryError::Answer {
        url: url.to_owned(),
        reason,
    }
}

fn digest_of(url: &str, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    let digest = descriptor.digest().to_string();
    digest
        .parse()
        .map_err(|error: crate::DigestError| refuse(url, error.to_string()))
}
