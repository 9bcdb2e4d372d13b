//! Loading all that an archive holds.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Store, disk::Scratch};
use crate::{
    ArchiveError, Digest, Image, ImageError, LayerError, Reference, StoreError,
    limits::Budget,
    source::{self, Archive, Images, Layout},
};

/// How messages call what comes as a stream.
const SENT: &str = "the archive that was sent";
/// Images of one archive, at most.
const MAX_IMAGES: usize = 1000;
/// Bytes of it that are read at once.
const CHUNK: usize = 256 << 10;

impl Store {
    /// Loads the images of an archive or of a layout: all, or the one that the reference chooses. They have
    /// the order of the archive, or of their names in a layout.
    ///
    /// # Errors
    /// What is wrong with the archive: nothing of it is in the store then. [`ImageError::Layer`] and what the store
    /// fails with leave the images before the one that it is about.
    pub fn load_all(&self, reference: &Reference) -> Result<Vec<Image>, ImageError> {
        let (path, is_docker) = match reference {
            Reference::DockerArchive { path, name: None } => (path, true),
            Reference::OciArchive { path, tag: None } => (path, false),
            Reference::OciLayout { path, tag: None } => {
                let layout = Layout::Directory(path.clone());
                return self.install_all(reference, &self.images_of(path, &layout)?, path);
            }
            _ => return Ok(vec![self.resolve(reference)?]),
        };
        let file = source::open_regular(path).map_err(|source| ArchiveError::Read {
            path: path.clone(),
            what: "the file".into(),
            source,
        })?;
        let scratch = self.disk.scratch()?;
        let archive = self.open_archive(path, file, &scratch)?;
        if is_docker {
            let images = Images::docker(path, &archive, &self.options.limits)?;
            return self.install_all(reference, &images, path);
        }
        let layout = Layout::Archive(archive);
        self.install_all(reference, &self.images_of(path, &layout)?, path)
    }

    /// Loads all images of an archive that comes as a stream: of `docker save`, or an OCI layout; plain, or
    /// compressed. It is kept in the store's directory until they are loaded: what an archive says of itself is
    /// spread over it.
    ///
    /// # Errors
    /// As for [`Store::load_all`]; [`LayerError::Limit`] for an archive that is larger than all layers of an image
    /// may be. Of a stream that fails nothing is kept.
    pub fn load_stream(&self, mut archive: impl Read) -> Result<Vec<Image>, ImageError> {
        let limits = &self.options.limits;
        let scratch = self.disk.scratch()?;
        let spool = scratch.path().join("sent");
        let write = |source| StoreError::io("writing", &spool, source);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&spool)
            .map_err(write)?;
        let path = Path::new(SENT);
        let mut chunk = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let count = match archive.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ArchiveError::Read {
                        path: path.to_owned(),
                        what: "the content".into(),
                        source,
                    }
                    .into());
                }
            };
            size += count as u64;
            if size > limits.bytes {
                return Err(ArchiveError::Decompress {
                    path: path.to_owned(),
                    source: LayerError::Limit {
                        what: "bytes",
                        limit: limits.bytes,
                    },
                }
                .into());
            }
            io::Write::write_all(&mut file, &chunk[..count]).map_err(write)?;
        }
        let archive = self.open_archive(path, file, &scratch)?;
        if source::is_docker(&archive) {
            let images = Images::docker(path, &archive, limits)?;
            return self.install_all(SENT, &images, path);
        }
        if archive.blob("index.json").is_none() {
            let what = "manifest.json or index.json, so it is neither what `docker save` writes \
                        nor an OCI layout";
            return Err(ArchiveError::Missing {
                path: path.to_owned(),
                what: what.into(),
            }
            .into());
        }
        let layout = Layout::Archive(archive);
        self.install_all(SENT, &self.images_of(path, &layout)?, path)
    }

    /// Images that are listed more than once come once, with all their names. What they say of themselves is
    /// looked at before the first one is loaded.
    fn install_all(
        &self,
        archive: &(impl Display + Sync + ?Sized),
        images: &Images<'_>,
        path: &Path,
    ) -> Result<Vec<Image>, ImageError> {
        if images.len() > MAX_IMAGES {
            return Err(ArchiveError::Choice {
                path: path.to_owned(),
                problem: format!(
                    "it holds {} images, and at most {MAX_IMAGES} are loaded at once",
                    images.len()
                ),
                found: Vec::new(),
            }
            .into());
        }
        for at in 0..images.len() {
            self.check_platform(archive, &images.plan(at)?)?;
        }
        let budget = Budget::new(&self.options.limits);
        let mut loaded: BTreeMap<Digest, (usize, Image)> = BTreeMap::new();
        for at in 0..images.len() {
            let image = self.install_within(archive, &images.plan(at)?, &budget)?;
            let place = loaded.get(&image.id).map_or(at, |(place, _)| *place);
            loaded.insert(image.id, (place, image));
        }
        let mut loaded: Vec<_> = loaded.into_values().collect();
        loaded.sort_by_key(|(place, _)| *place);
        Ok(loaded.into_iter().map(|(_, image)| image).collect())
    }

    fn open_archive(
        &self,
        path: &Path,
        file: File,
        scratch: &Scratch,
    ) -> Result<Archive, ImageError> {
        let plain = scratch.path().join("archive.tar");
        let create = || {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).open(&plain)
        };
        Ok(Archive::open(path, file, create, &self.options.limits)?)
    }

    fn images_of<'a>(
        &'a self,
        path: &'a Path,
        layout: &'a Layout,
    ) -> Result<Images<'a>, ImageError> {
        let (platform, limits) = (&self.options.platform, &self.options.limits);
        Ok(Images::oci(path, layout, platform, limits)?)
    }
}
