//! Loading all that an archive holds.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Store, disk::Scratch};
use crate::{
    ArchiveError, Image, ImageError, LayerError, Reference, StoreError,
    source::{self, Archive, Layout, Plan},
};

/// How messages call what comes as a stream.
const SENT: &str = "the archive that was sent";
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
                return self.install_all(reference, self.plan_all(path, &layout)?);
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
        let plans = match is_docker {
            true => source::plan_all_docker(path, &archive, &self.options.limits)?,
            false => self.plan_all(path, &Layout::Archive(archive))?,
        };
        self.install_all(reference, plans)
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
        let plans = match source::is_docker(&archive) {
            true => source::plan_all_docker(path, &archive, limits)?,
            false if archive.blob("index.json").is_none() => {
                let what = "manifest.json or index.json, so it is neither what `docker save` writes \
                            nor an OCI layout";
                return Err(ArchiveError::Missing {
                    path: path.to_owned(),
                    what: what.into(),
                }
                .into());
            }
            false => self.plan_all(path, &Layout::Archive(archive))?,
        };
        self.install_all(SENT, plans)
    }

    /// Images that are listed more than once come once, with all their names.
    fn install_all(
        &self,
        archive: &(impl Display + Sync + ?Sized),
        plans: Vec<Plan>,
    ) -> Result<Vec<Image>, ImageError> {
        let mut images: Vec<Image> = Vec::with_capacity(plans.len());
        for plan in &plans {
            let image = self.install(archive, plan)?;
            match images.iter_mut().find(|known| known.id == image.id) {
                Some(known) => *known = image,
                None => images.push(image),
            }
        }
        Ok(images)
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

    fn plan_all(&self, path: &Path, layout: &Layout) -> Result<Vec<Plan>, ImageError> {
        let (platform, limits) = (&self.options.platform, &self.options.limits);
        Ok(source::plan_all_oci(path, layout, platform, limits)?)
    }
}
