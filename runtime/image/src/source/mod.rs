//! Where images come from. Each source is read into a [`Plan`]: the configuration, and where each
//! layer's bytes are, whatever the source: each is a kind of [`Blob`].

mod archive;
mod docker;
mod document;
mod error;
mod oci;
pub(crate) mod registry;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;

pub use error::ArchiveError;

pub(crate) use archive::Archive;
pub(crate) use docker::{is_docker, plan as plan_docker};
pub(crate) use oci::{Layout, plan as plan_oci};

use crate::{
    Digest, Limits, Name, Platform, PullEvent,
    download::{Download, Downloads, Follow},
    tarball::Stream,
    unpack::Expected,
};

/// An image before its layers are read. Configuration and manifest are verified, layers not yet.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The image's id.
    pub(crate) id: Digest,
    /// The configuration, byte for byte: its digest is the id.
    pub(crate) raw_config: String,
    pub(crate) config: ImageConfiguration,
    /// The manifest's digest, and those of the indexes that led to it.
    pub(crate) manifests: Vec<Digest>,
    /// The manifest's.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Names that the archive gives the image.
    pub(crate) names: Vec<Name>,
    /// Bottom first.
    pub(crate) layers: Vec<PlannedLayer>,
    /// Brings the layers' blobs, where they are not here yet.
    pub(crate) downloads: Option<Downloads>,
}

/// Digest and, where the source knows it, size (bytes) of a blob as stored.
pub(crate) type Promised = (Digest, Option<u64>);

#[derive(Debug)]
pub(crate) struct PlannedLayer {
    pub(crate) blob: Blob,
    pub(crate) expected: Expected,
}

impl Plan {
    /// To who follows a pull.
    pub(crate) fn tell_unpacked(&self, layer: &PlannedLayer) {
        if let (Some(downloads), Some((blob, _))) = (&self.downloads, layer.expected.blob) {
            downloads.progress.event(PullEvent::Unpacked { blob });
        }
    }

    /// Checks a configuration and puts a plan together. `blobs` are the layers, bottom first.
    pub(crate) fn new(
        source: &Path,
        raw_config: Vec<u8>,
        blobs: Vec<(Blob, Option<Promised>)>,
        limits: &Limits,
    ) -> Result<Self, ArchiveError> {
        let id = Digest::of(&raw_config);
        let json = |reason: String| ArchiveError::Json {
            path: source.to_owned(),
            what: format!("image configuration {id}"),
            reason,
        };
        let config: ImageConfiguration =
            serde_json::from_slice(&raw_config).map_err(|e| json(e.to_string()))?;
        let raw_config = String::from_utf8(raw_config).map_err(|e| json(e.to_string()))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != blobs.len() {
            return Err(json(format!(
                "it names {} layers, the manifest {}",
                diff_ids.len(),
                blobs.len()
            )));
        }
        if blobs.len() > limits.layers {
            return Err(json(format!(
                "the image has {} layers, at most {} are allowed",
                blobs.len(),
                limits.layers
            )));
        }
        let layers = diff_ids
            .iter()
            .zip(blobs)
            .map(|(diff_id, (blob, promised))| {
                let diff_id = diff_id.parse().map_err(|e| json(format!("diff id: {e}")))?;
                Ok(PlannedLayer {
                    blob,
                    expected: Expected {
                        blob: promised,
                        diff_id,
                    },
                })
            })
            .collect::<Result<Vec<_>, ArchiveError>>()?;
        let (manifests, names) = (Vec::new(), Vec::new());
        Ok(Self {
            id,
            raw_config,
            config,
            manifests,
            annotations: BTreeMap::new(),
            names,
            layers,
            downloads: None,
        })
    }
}

/// Annotations in an order of their own.
fn sorted(annotations: &Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    let annotations = annotations.iter().flatten();
    annotations
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The images of an archive. Each is planned when it is its turn: what all of them say of themselves may not
/// fit into memory.
pub(crate) enum Images<'a> {
    Docker(docker::All<'a>),
    Oci(oci::All<'a>),
}

impl<'a> Images<'a> {
    /// Of what `docker save` writes.
    pub(crate) fn docker(
        path: &'a Path,
        archive: &'a Archive,
        limits: &'a Limits,
    ) -> Result<Self, ArchiveError> {
        docker::All::open(path, archive, limits).map(Self::Docker)
    }

    /// Of an OCI layout, for `platform`.
    pub(crate) fn oci(
        path: &'a Path,
        layout: &'a Layout,
        platform: &'a Platform,
        limits: &'a Limits,
    ) -> Result<Self, ArchiveError> {
        oci::All::open(path, layout, platform, limits).map(Self::Oci)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Docker(all) => all.len(),
            Self::Oci(all) => all.len(),
        }
    }

    pub(crate) fn plan(&self, at: usize) -> Result<Plan, ArchiveError> {
        match self {
            Self::Docker(all) => all.plan(at),
            Self::Oci(all) => all.plan(at),
        }
    }
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    /// A part of a file.
    Section {
        file: Arc<File>,
        offset: u64,
        length: u64,
    },
    /// A whole file.
    File(PathBuf),
    /// What a registry sends.
    Download(Arc<Download>),
}

impl Blob {
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Section {
                file,
                offset,
                length,
            } => Box::new(Section::new(file.clone(), *offset, *length)),
            Self::File(path) => Box::new(open_regular(path)?),
            Self::Download(download) => Box::new(Follow::new(download.clone())),
        })
    }

    /// The whole blob, if it is no longer than `limit` bytes.
    pub(crate) fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        self.open()?
            .take(limit.saturating_add(1))
            .read_to_end(&mut data)?;
        if data.len() as u64 > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(data)
    }
}

/// Opens a file that must be an ordinary one: a FIFO would block for ever, a device has no end.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not an ordinary file",
        ));
    }
    Ok(file)
}

/// Reads a part of a file, without moving the file's own position: several threads may.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Section {
    pub(crate) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self {
            file,
            position: offset,
            end: offset.saturating_add(length),
        }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (self.end - self.position).min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..want], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Stream for Section {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self.position.checked_add(count) {
            Some(position) if position <= self.end => {
                self.position = position;
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
