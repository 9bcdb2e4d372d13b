//! The store on disk.

mod again;
mod archive;
mod claims;
mod disk;
mod import;
mod load;
mod manage;
mod pull;
mod quota;
mod records;
mod save;
mod snapshot;
mod snapshotter;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use oci_spec::image::{ImageConfiguration, ImageConfigurationBuilder};

pub use claims::ImagePin;
pub use import::Import;
pub use manage::{Removed, Stored, Usage};
pub use snapshot::{OverlayMount, Snapshot, SnapshotRoot};
pub use snapshotter::Snapshotter;
pub use volumes::VolumeDirs;

use crate::health::Extensions;
use crate::{
    Digest, Image, ImageError, Limits, Name, Platform, Reference, Registries, RootFs, StoreError,
    recipe::Kept,
};
use claims::Claims;
use disk::Disk;
use records::{ImageRecord, LayerRecord, State};

/// What a store allows, and what it chooses images for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bounds on one image.
    pub limits: Limits,
    /// The machine that images must suit.
    pub platform: Platform,
    /// Where registries are.
    pub registries: Registries,
    /// How layers become a root file system. `None` leaves it to the store: as it did before, else by
    /// overlayfs where that works.
    pub snapshotter: Option<Snapshotter>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            platform: Platform::host(),
            registries: Registries::default(),
            snapshotter: None,
        }
    }
}

/// Images, layers and snapshots below one directory, which belongs to one store at a time.
///
/// # Layout
///
/// | path | holds |
/// |---|---|
/// | `lock` | locked with flock(2) while a store is open |
/// | `layout` | the version of this table |
/// | `snapshotter` | how layers become root file systems: `overlayfs` or `native` |
/// | `l/<number>/` | the files of a layer, in the form in which overlayfs keeps an upper directory, or with sockets for what it takes away |
/// | `layers/<chain id>.json` | a layer: chain id, diff id, its number. It exists if this does |
/// | `layers/<chain id>.recipe` | how the layer's archive is made again; layers of older versions have none |
/// | `layers/<chain id>.replaced/` | files of the archive that later entries of it replaced |
/// | `images/<id>.json` | an image: its configuration byte for byte, the chain ids of its layers |
/// | `names.json` | names, and the image that each means |
/// | `archives.json` | archive files that were read: their stat data, the image, its names |
/// | `blobs/<digest>` | what has come of a blob that is being pulled; the next pull goes on there |
/// | `snapshots/<key>/` | `snapshot.json`, `volumes/`; `upper/` and `work/`, or `root/` |
/// | `empty/` | the lower directory of an image without layers |
/// | `tmp/` | work in progress; emptied when the store is opened |
/// | `damaged/` | snapshots whose record was lost; nobody but the operator removes them |
///
/// Layers are found by content (chain id), but live under a small number, because mount(2) takes
/// all lower directories in one page of 4096 bytes: with a root of 24 characters, more than 100.
///
/// # Crashes
///
/// Files and directories are made in `tmp/`, synced, and renamed. The order is: layer directory,
/// recipe, layer record, image record, name; and the reverse when something is removed. At whatever
/// instant a process dies, every record that can be read refers to things that are complete, and
/// what no record refers to is removed when the store is opened again.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    options: Options,
    snapshotter: Snapshotter,
    /// Project ids that were given away, counted from the first one.
    next_project: AtomicU32,
    state: Mutex<State>,
    /// What is being loaded or pulled: fresh layers belong to no image for a moment.
    claims: Claims,
}

/// A download that nobody has gone on with for so long is not expected to be.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What [`Store::gc`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Layers.
    pub layers: usize,
    /// Bytes of their archives, decompressed.
    pub bytes: u64,
}

impl Store {
    /// Opens the store at `root`, or makes one.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another store has it open; [`StoreError::Layout`] and
    /// [`StoreError::Damaged`] when what is there cannot be understood; [`StoreError::Snapshotter`] when
    /// what is there is for the other one.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_with(root, Options::default())
    }

    /// [`Store::open`] with limits and a platform of one's own.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_with(root: impl AsRef<Path>, options: Options) -> Result<Self, ImageError> {
        let disk = Disk::open(root.as_ref())?;
        let state = State::read(&disk)?;
        let is_empty = state.layers.is_empty() && state.snapshots.is_empty();
        let snapshotter = Snapshotter::of(&disk, options.snapshotter, is_empty)?;
        Ok(Self {
            disk,
            options,
            snapshotter,
            next_project: AtomicU32::new(0),
            state: Mutex::new(state),
            claims: Claims::default(),
        })
    }

    /// How layers become a root file system here.
    pub fn snapshotter(&self) -> Snapshotter {
        self.snapshotter
    }

    /// The image that `reference` means. Archives and layouts are loaded, unless they are already;
    /// that makes their names known, as `docker load` does.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] for a name or id that was not loaded before, else what is wrong with
    /// the archive or the store. After an error nothing of the archive is in the store.
    pub fn resolve(&self, reference: &Reference) -> Result<Image, ImageError> {
        match reference {
            Reference::Named(name) => self.named(name),
            Reference::Id(id) => {
                let state = self.state();
                match state.images.get(id) {
                    Some(record) => image(&state, record),
                    None => Err(ImageError::NotFound(id.to_string())),
                }
            }
            Reference::Directory { path } => self.directory(path),
            Reference::DockerArchive { .. }
            | Reference::OciArchive { .. }
            | Reference::OciLayout { .. } => self.load(reference),
        }
    }

    /// [`Store::resolve`] for `user`, the key of a snapshot to come: until the pin is dropped, nobody
    /// takes the image away.
    ///
    /// # Errors
    /// As for [`Store::resolve`].
    pub fn resolve_for(
        &self,
        user: &str,
        reference: &Reference,
    ) -> Result<(Image, ImagePin), ImageError> {
        loop {
            let image = self.resolve(reference)?;
            let state = self.state();
            let is_here = match image.rootfs {
                RootFs::Layers(_) => state.images.contains_key(&image.id),
                RootFs::Directory(_) => true,
            };
            // Else it was taken away just now: it is loaded again, or there is none.
            if is_here {
                let pin = self.pin(&state, Some(user), &image);
                return Ok((image, pin));
            }
        }
    }

    /// Pins an image that is in the state.
    fn pin(&self, _: &State, user: Option<&str>, image: &Image) -> ImagePin {
        let layers = match &image.rootfs {
            RootFs::Layers(layers) => layers.iter().copied().collect(),
            RootFs::Directory(_) => BTreeSet::new(),
        };
        self.claims.pin_image(user, image.id, layers)
    }

    /// All images, by id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a configuration cannot be read.
    pub fn images(&self) -> Result<Vec<Image>, ImageError> {
        let state = self.state();
        state
            .images
            .values()
            .map(|record| image(&state, record))
            .collect()
    }

    /// Forgets an image and its names. Its snapshots stay usable; its layers go with the next
    /// [`Store::gc`] unless something else uses them. False when there was no such image.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove_image(&self, id: &Digest) -> Result<bool, ImageError> {
        let mut state = self.state();
        if !state.images.contains_key(id) {
            return Ok(false);
        }
        self.forget(&mut state, id)?;
        Ok(true)
    }

    /// Removes the layers that neither an image nor a snapshot uses, and what has come of downloads
    /// that nobody went on with for a day.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was not removed is removed by the next call, or the next open.
    pub fn gc(&self) -> Result<Collected, ImageError> {
        let mut state = self.state();
        let used: BTreeSet<Digest> = state
            .images
            .values()
            .flat_map(|image| &image.layers)
            .chain(
                state
                    .snapshots
                    .values()
                    .flat_map(|snapshot| snapshot.layers()),
            )
            .copied()
            .collect();
        let unused: Vec<_> = state
            .layers
            .values()
            .filter(|l| {
                let id = &l.chain_id;
                !used.contains(id) && !self.claims.holds(id) && !self.claims.pins(id)
            })
            .cloned()
            .collect();
        self.disk
            .drop_downloads(ABANDONED, |digest| self.claims.holds(digest))?;
        let mut collected = Collected::default();
        let mut aside = Vec::new();
        for layer in unused {
            self.disk
                .remove_file(&self.layer_record_path(&layer.chain_id))?;
            state.layers.remove(&layer.chain_id);
            let kept = self.kept(&layer);
            self.disk.remove_file(&kept.recipe)?;
            aside.extend(self.disk.set_aside(&kept.replaced)?);
            aside.extend(self.disk.set_aside(&self.layer_path(&layer.directory))?);
            collected.layers += 1;
            collected.bytes += layer.bytes;
        }
        drop(state);
        // Many files take long to remove, which keeps nobody waiting.
        for layer in aside {
            layer.remove()?;
        }
        Ok(collected)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn image_path(&self, id: &Digest) -> PathBuf {
        self.disk.images().join(format!("{}.json", id.hex()))
    }

    fn layer_record_path(&self, chain_id: &Digest) -> PathBuf {
        self.disk
            .layer_records()
            .join(format!("{}.json", chain_id.hex()))
    }

    /// What is kept for saving a layer.
    fn kept(&self, layer: &LayerRecord) -> Kept {
        Kept::beside(&self.disk.layer_records().join(layer.chain_id.hex()))
    }

    fn layer_path(&self, directory: &str) -> PathBuf {
        self.disk.layer_dirs().join(directory)
    }

    fn named(&self, name: &Name) -> Result<Image, ImageError> {
        let state = self.state();
        let found = record_of(&state, name);
        match found {
            Some(record) => image(&state, record),
            None => Err(ImageError::NotFound(name.to_string())),
        }
    }

    /// An image that is made of a directory: no configuration, no layers of the store.
    fn directory(&self, path: &Path) -> Result<Image, ImageError> {
        let refuse = |reason: String| ImageError::Directory {
            path: path.to_owned(),
            reason,
        };
        let real = path
            .canonicalize()
            .map_err(|error| refuse(error.to_string()))?;
        if !real.is_dir() {
            return Err(refuse("it is not a directory".into()));
        }
        // overlayfs would refuse the mount: "overlapping lowerdir path".
        if self.disk.root().starts_with(&real) || real.starts_with(self.disk.root()) {
            return Err(refuse("it overlaps with the image store".into()));
        }
        Ok(Image {
            id: Digest::of(format!("dir:{}", real.display())),
            names: Vec::new(),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
            config: ImageConfigurationBuilder::default()
                .os(self.options.platform.os.clone())
                .architecture(self.options.platform.architecture.clone())
                .build()
                .map_err(|error| refuse(error.to_string()))?,
            rootfs: RootFs::Directory(real),
            extensions: Extensions::default(),
        })
    }
}

/// A panic elsewhere leaves the state as the last completed change made it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn image(state: &State, record: &ImageRecord) -> Result<Image, ImageError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged {
        path: format!("images/{}.json", record.id.hex()).into(),
        reason: error.to_string(),
    };
    let mut config: ImageConfiguration = serde_json::from_str(&record.config).map_err(damaged)?;
    let extensions = Extensions::of(&record.config).map_err(damaged)?;
    // These are sets, and come out of the parser in another order each time.
    if let Some(mut section) = config.config().clone() {
        section.set_exposed_ports(section.exposed_ports().clone().map(sorted));
        section.set_volumes(section.volumes().clone().map(sorted));
        config.set_config(Some(section));
    }
    Ok(Image {
        id: record.id,
        names: state.names_of(&record.id),
        manifests: record.manifests.clone(),
        annotations: record.annotations.clone(),
        config,
        rootfs: RootFs::Layers(record.layers.clone()),
        extensions,
    })
}

/// The record that a name means. A digest decides alone, as it does for Docker; the name before it is
/// for people.
fn record_of<'a>(state: &'a State, name: &Name) -> Option<&'a ImageRecord> {
    match name.digest() {
        Some(digest) => state
            .images
            .get(digest)
            .or_else(|| state.images.values().find(|i| i.manifests.contains(digest))),
        None => state.images.get(state.names.get(name)?),
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}
