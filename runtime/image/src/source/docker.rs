//! `docker save` archives. Both the old form (`<id>.json`, `<id>/layer.tar`) and the new one (an
//! OCI layout, since Docker 25) have a `manifest.json` that names the members, so one reader does.
//! Described in moby `image/spec/v1.2.md` and `v1.3.md`, "Combined Image JSON + Filesystem
//! Changeset Format".

use std::path::Path;

use serde::Deserialize;

use super::{Archive, ArchiveError, Blob, Plan};
use crate::{Digest, Limits, Name};

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// What lists the images of an archive.
const MANIFEST: &str = "manifest.json";

/// Whether an archive is of this kind, also where it is an OCI layout as well.
pub(crate) fn is_docker(archive: &Archive) -> bool {
    archive.blob(MANIFEST).is_some()
}

/// Plans the image called `wanted`, or the only one.
pub(crate) fn plan(
    path: &Path,
    archive: &Archive,
    wanted: Option<&Name>,
    limits: &Limits,
) -> Result<Plan, ArchiveError> {
    let listed = list(path, archive, limits)?;
    plan_one(path, archive, choose(path, &listed, wanted)?, limits)
}

/// All images of an archive.
pub(crate) struct All<'a> {
    path: &'a Path,
    archive: &'a Archive,
    listed: Vec<Listed>,
    limits: &'a Limits,
}

impl<'a> All<'a> {
    pub(crate) fn open(
        path: &'a Path,
        archive: &'a Archive,
        limits: &'a Limits,
    ) -> Result<Self, ArchiveError> {
        let listed = list(path, archive, limits)?;
        if listed.is_empty() {
            // It says so.
            choose(path, &listed, None)?;
        }
        Ok(Self {
            path,
            archive,
            listed,
            limits,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.listed.len()
    }

    pub(crate) fn plan(&self, at: usize) -> Result<Plan, ArchiveError> {
        plan_one(self.path, self.archive, &self.listed[at], self.limits)
    }
}

fn missing(path: &Path, what: String) -> ArchiveError {
    ArchiveError::Missing {
        path: path.to_owned(),
        what,
    }
}

fn read(path: &Path, blob: &Blob, what: &str, limits: &Limits) -> Result<Vec<u8>, ArchiveError> {
    blob.read_all(limits.json_bytes)
        .map_err(|source| ArchiveError::Read {
            path: path.to_owned(),
            what: what.to_owned(),
            source,
        })
}

fn list(path: &Path, archive: &Archive, limits: &Limits) -> Result<Vec<Listed>, ArchiveError> {
    let missing = |what| missing(path, what);
    let manifest = archive.blob(MANIFEST).ok_or_else(|| {
        missing(match archive.blob("index.json") {
            Some(_) => "manifest.json; it is an OCI layout, so use oci-archive: for it".into(),
            None => "manifest.json, so it is not what `docker save` writes".into(),
        })
    })?;
    let document = read(path, &manifest, MANIFEST, limits)?;
    serde_json::from_slice(&document).map_err(|error| ArchiveError::Json {
        path: path.to_owned(),
        what: MANIFEST.into(),
        reason: error.to_string(),
    })
}

fn plan_one(
    path: &Path,
    archive: &Archive,
    image: &Listed,
    limits: &Limits,
) -> Result<Plan, ArchiveError> {
    let missing = |what| missing(path, what);
    let config = archive
        .blob(&image.config)
        .ok_or_else(|| missing(format!("`{}`", image.config)))?;
    let raw_config = read(path, &config, &image.config, limits)?;
    if let Some(expected) = named_digest(&image.config) {
        let actual = Digest::of(&raw_config);
        if actual != expected {
            let (path, what) = (path.to_owned(), image.config.clone());
            return Err(ArchiveError::Digest {
                path,
                what,
                expected,
                actual,
            });
        }
    }
    let layers = image
        .layers
        .iter()
        .flatten()
        .map(|layer| {
            let blob = archive
                .blob(layer)
                .ok_or_else(|| missing(format!("layer `{layer}`")))?;
            // Only blobs are called by their digest; the old form's `<id>/layer.tar` is not.
            let promised = layer
                .strip_prefix("blobs/sha256/")
                .and_then(|hex| Digest::from_hex(hex).ok())
                .map(|digest| (digest, None));
            Ok((blob, promised))
        })
        .collect::<Result<Vec<_>, ArchiveError>>()?;
    let mut plan = Plan::new(path, raw_config, layers, limits)?;
    plan.names = names(image);
    Ok(plan)
}

fn choose<'a>(
    path: &Path,
    listed: &'a [Listed],
    wanted: Option<&Name>,
) -> Result<&'a Listed, ArchiveError> {
    let problem = match (wanted, listed) {
        (None, [only]) => return Ok(only),
        (None, []) => "it holds no image".to_owned(),
        (None, _) => "it does not hold exactly one image, so name the one to use".to_owned(),
        (Some(wanted), _) => match listed.iter().find(|image| names(image).contains(wanted)) {
            Some(image) => return Ok(image),
            None => format!("no image in it is called `{wanted}`"),
        },
    };
    let found = listed
        .iter()
        .flat_map(names)
        .map(|name| name.to_string())
        .collect();
    Err(ArchiveError::Choice {
        path: path.to_owned(),
        problem,
        found,
    })
}

/// The image's names. `<none>:<none>` and the like are no names.
fn names(image: &Listed) -> Vec<Name> {
    image
        .repo_tags
        .iter()
        .flatten()
        .filter_map(|tag| tag.parse().ok())
        .collect()
}

/// The digest in `blobs/sha256/<hex>` or `<hex>.json`.
fn named_digest(member: &str) -> Option<Digest> {
    let hex = member
        .strip_prefix("blobs/sha256/")
        .or_else(|| member.strip_suffix(".json"))?;
    Digest::from_hex(hex).ok()
}
