//! OCI image layouts, as a directory or in a tar archive (image-spec `image-layout.md`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, OciLayout};
use serde::de::DeserializeOwned;

use super::{Archive, ArchiveError, Blob, Plan, document::Kind};
use crate::{Digest, Limits, Name, Platform};

/// How deep indexes may be nested. Two is usual: the layout's own, and one per platform.
pub(super) const MAX_DEPTH: usize = 4;
/// image-spec `annotations.md`; the value is a tag, or with some tools a whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Written by containerd and by Docker beside it: the whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Where the layout's files are.
pub(crate) enum Layout {
    Directory(PathBuf),
    Archive(Archive),
}

impl Layout {
    fn file(&self, name: &str) -> Option<Blob> {
        match self {
            Self::Archive(archive) => archive.blob(name),
            Self::Directory(root) => {
                let path = root.join(name);
                path.exists().then_some(Blob::File(path))
            }
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    layout: &'a Layout,
    limits: &'a Limits,
}

/// Plans the image with the tag `wanted`, or the only one, for `platform`.
pub(crate) fn plan(
    path: &Path,
    layout: &Layout,
    wanted: Option<&str>,
    platform: &Platform,
    limits: &Limits,
) -> Result<Plan, ArchiveError> {
    let (reader, index) = Reader::open(path, layout, limits)?;
    reader.plan(&choose_name(path, index.manifests(), wanted)?, platform)
}

/// All images of a layout that are called something; the only one where none is. What has no name beside
/// others that have one is what a tag meant before.
pub(crate) struct All<'a> {
    reader: Reader<'a>,
    platform: &'a Platform,
    /// The manifests of each.
    images: Vec<Vec<Descriptor>>,
}

impl<'a> All<'a> {
    pub(crate) fn open(
        path: &'a Path,
        layout: &'a Layout,
        platform: &'a Platform,
        limits: &'a Limits,
    ) -> Result<Self, ArchiveError> {
        let (reader, index) = Reader::open(path, layout, limits)?;
        let mut by_name: BTreeMap<&str, Vec<Descriptor>> = BTreeMap::new();
        for descriptor in index.manifests() {
            if let Some(name) = called(descriptor) {
                by_name.entry(name).or_default().push(descriptor.clone());
            }
        }
        let mut images: Vec<_> = by_name.into_values().collect();
        if images.is_empty() {
            let only = choose_name(path, index.manifests(), None)?;
            images.push(only.into_iter().cloned().collect());
        }
        Ok(Self {
            reader,
            platform,
            images,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    pub(crate) fn plan(&self, at: usize) -> Result<Plan, ArchiveError> {
        let image: Vec<&Descriptor> = self.images[at].iter().collect();
        self.reader.plan(&image, self.platform)
    }
}

impl<'a> Reader<'a> {
    /// Begins to read a layout, and reads its index.
    fn open(
        path: &'a Path,
        layout: &'a Layout,
        limits: &'a Limits,
    ) -> Result<(Self, ImageIndex), ArchiveError> {
        let reader = Self {
            path,
            layout,
            limits,
        };
        let version: OciLayout = reader.document("oci-layout")?;
        if !version.image_layout_version().starts_with("1.") {
            let version = version.image_layout_version();
            return Err(reader.json("oci-layout", format!("version `{version}` is not 1.x")));
        }
        let index = reader.document("index.json")?;
        Ok((reader, index))
    }

    /// Plans the one image that `top` is, for `platform`.
    fn plan(&self, top: &[&Descriptor], platform: &Platform) -> Result<Plan, ArchiveError> {
        let names = top.iter().filter_map(|descriptor| full_name(descriptor));
        let mut names: Vec<Name> = names.collect();
        names.sort();
        names.dedup();

        let mut manifests = Vec::new();
        let mut descriptor = choose_platform(self.path, top, platform)?.clone();
        for _ in 0..MAX_DEPTH {
            let digest = self.digest(&descriptor)?;
            let data = self.verified(&descriptor)?;
            manifests.push(digest);
            let called = descriptor.media_type().to_string();
            let kind = Kind::of(&data, &[&called])
                .map_err(|reason| self.json(&digest.to_string(), reason))?;
            if kind == Kind::Manifest {
                let manifest: ImageManifest = self.parse(&digest.to_string(), &data)?;
                let mut plan = self.image(&manifest)?;
                (plan.manifests, plan.names) = (manifests, names);
                plan.annotations = super::sorted(manifest.annotations());
                return Ok(plan);
            }
            let index: ImageIndex = self.parse(&digest.to_string(), &data)?;
            let all: Vec<_> = index.manifests().iter().collect();
            descriptor = choose_platform(self.path, &all, platform)?.clone();
        }
        Err(self.json(
            "index.json",
            format!("more than {MAX_DEPTH} nested indexes"),
        ))
    }
}

impl Reader<'_> {
    fn json(&self, what: &str, reason: String) -> ArchiveError {
        ArchiveError::Json {
            path: self.path.to_owned(),
            what: what.to_owned(),
            reason,
        }
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, data: &[u8]) -> Result<T, ArchiveError> {
        serde_json::from_slice(data).map_err(|error| self.json(what, error.to_string()))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let blob = self
            .layout
            .file(name)
            .ok_or_else(|| ArchiveError::Missing {
                path: self.path.to_owned(),
                what: format!("`{name}`"),
            })?;
        blob.read_all(self.limits.json_bytes)
            .map_err(|source| ArchiveError::Read {
                path: self.path.to_owned(),
                what: name.to_owned(),
                source,
            })
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, ArchiveError> {
        self.parse(name, &self.read(name)?)
    }

    fn digest(&self, descriptor: &Descriptor) -> Result<Digest, ArchiveError> {
        descriptor
            .digest()
            .to_string()
            .parse()
            .map_err(|source| ArchiveError::BadDigest {
                path: self.path.to_owned(),
                source,
            })
    }

    /// A small blob, in memory, verified.
    fn verified(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
        let expected = self.digest(descriptor)?;
        let data = self.read(&format!("blobs/sha256/{}", expected.hex()))?;
        let actual = Digest::of(&data);
        if actual != expected || data.len() as u64 != descriptor.size() {
            let (path, what) = (
                self.path.to_owned(),
                format!("blob of {} bytes", data.len()),
            );
            return Err(ArchiveError::Digest {
                path,
                what,
                expected,
                actual,
            });
        }
        Ok(data)
    }

    fn image(&self, manifest: &ImageManifest) -> Result<Plan, ArchiveError> {
        let raw_config = self.verified(manifest.config())?;
        let layers = manifest
            .layers()
            .iter()
            .map(|descriptor| {
                let digest = self.digest(descriptor)?;
                let kind = descriptor.media_type().to_string();
                if kind.contains("+encrypted") {
                    return Err(self.json(&digest.to_string(), "the layer is encrypted".into()));
                }
                let name = format!("blobs/sha256/{}", digest.hex());
                let blob = self
                    .layout
                    .file(&name)
                    .ok_or_else(|| ArchiveError::Missing {
                        path: self.path.to_owned(),
                        what: format!("layer {digest} ({kind})"),
                    })?;
                Ok((blob, Some((digest, Some(descriptor.size())))))
            })
            .collect::<Result<Vec<_>, ArchiveError>>()?;
        Plan::new(self.path, raw_config, layers, self.limits)
    }
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor
        .annotations()
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

/// What a manifest is called in its index: a whole name where it has one, else what may be a bare tag.
fn called(descriptor: &Descriptor) -> Option<&str> {
    annotation(descriptor, CONTAINERD_NAME).or_else(|| annotation(descriptor, REF_NAME))
}

/// The whole name that annotations give. A bare tag (`1.0`), as umoci and buildah write it, names nothing outside
/// its layout; `web:1`, as skopeo writes it, is what it is for Docker. A tag has neither `:` nor `/`
/// (distribution-spec, "Pulling manifests").
fn full_name(descriptor: &Descriptor) -> Option<Name> {
    let whole = |value: &str| match value.contains(['/', ':']) {
        true => value.parse().ok(),
        false => None,
    };
    let by = |key| annotation(descriptor, key).and_then(whole);
    by(CONTAINERD_NAME).or_else(|| by(REF_NAME))
}

/// The manifests that `wanted` means: those that are called so, or, without it, those that have a name, where
/// they are one image. What has none beside them is what a tag meant before.
fn choose_name<'a>(
    path: &Path,
    manifests: &'a [Descriptor],
    wanted: Option<&str>,
) -> Result<Vec<&'a Descriptor>, ArchiveError> {
    let found = manifests.iter().filter_map(called);
    let mut found: Vec<String> = found.map(str::to_owned).collect();
    found.sort();
    found.dedup();
    let problem = match wanted {
        Some(wanted) => {
            let name = wanted.parse::<Name>().ok();
            let called = |descriptor: &&Descriptor| {
                annotation(descriptor, REF_NAME) == Some(wanted)
                    || annotation(descriptor, CONTAINERD_NAME) == Some(wanted)
                    || name.is_some() && full_name(descriptor) == name
            };
            let chosen: Vec<_> = manifests.iter().filter(called).collect();
            if !chosen.is_empty() {
                return Ok(chosen);
            }
            format!("no image in it is tagged `{wanted}`")
        }
        None => {
            let is_meant =
                |descriptor: &&Descriptor| found.is_empty() || called(descriptor).is_some();
            let meant: Vec<_> = manifests.iter().filter(is_meant).collect();
            let is_one = || meant.iter().all(|one| one.digest() == meant[0].digest());
            if meant.is_empty() {
                "it holds no image".to_owned()
            } else if found.len() < 2 || is_one() {
                return Ok(meant);
            } else {
                "it holds several images, so name the one to use".to_owned()
            }
        }
    };
    Err(ArchiveError::Choice {
        path: path.to_owned(),
        problem,
        found,
    })
}

/// The manifest for this machine. One without a platform is taken only if it is alone, or beside what is for no
/// machine: `unknown/unknown`, as buildx calls attestations.
pub(super) fn choose_platform<'a>(
    path: &Path,
    manifests: &[&'a Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ArchiveError> {
    let best = manifests
        .iter()
        // Of equals, the first.
        .rev()
        .filter_map(|descriptor| {
            let rank = platform.rank(descriptor.platform().as_ref()?)?;
            Some((rank, *descriptor))
        })
        .max_by_key(|(rank, _)| *rank);
    if let Some((_, descriptor)) = best {
        return Ok(descriptor);
    }
    let without: Vec<_> = manifests
        .iter()
        .filter(|d| d.platform().is_none())
        .collect();
    let is_none = |d: &&Descriptor| {
        let platform = d.platform().as_ref();
        platform.is_none_or(|platform| platform.os().to_string() == "unknown")
    };
    match (without.as_slice(), manifests) {
        ([only], all) if all.iter().all(is_none) => Ok(only),
        ([], _) => Err(ArchiveError::Platform {
            path: path.to_owned(),
            wanted: platform.to_string(),
            found: manifests
                .iter()
                .filter_map(|d| d.platform().as_ref())
                .map(|p| match p.variant() {
                    Some(variant) => format!("{}/{}/{variant}", p.os(), p.architecture()),
                    None => format!("{}/{}", p.os(), p.architecture()),
                })
                .collect(),
        }),
        _ => Err(ArchiveError::Choice {
            path: path.to_owned(),
            problem: "several images in it name no platform, so name the one to use".into(),
            found: without.iter().map(|d| d.digest().to_string()).collect(),
        }),
    }
}
