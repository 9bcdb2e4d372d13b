//! Loading archives and layouts.

use std::{
    fmt::Display,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use oci_spec::image::Os;

use super::{
    Store,
    again::Again,
    disk::Scratch,
    image, lock,
    records::{ArchiveRecord, ImageRecord, LayerRecord, Stamp, State},
};
use crate::{
    ArchiveError, Digest, Image, ImageError, LayerError, Name, Reference, RegistryError,
    StoreError,
    limits::Budget,
    recipe::Kept,
    source::{self, Archive, Layout, Plan, PlannedLayer},
    unpack::{self, Marks, Unpacked},
};

/// Layers that are unpacked at once, at most: it is processor work up to here, then disk.
const MAX_THREADS: usize = 4;

/// A layer that is on its way into the store.
pub(super) struct Fresh {
    /// Position in the image, bottom first.
    pub(super) position: usize,
    pub(super) path: PathBuf,
    pub(super) unpacked: Unpacked,
}

impl Store {
    /// Loads an archive or a layout directory.
    pub(super) fn load(&self, reference: &Reference) -> Result<Image, ImageError> {
        let (path, is_directory) = match reference {
            Reference::DockerArchive { path, .. } | Reference::OciArchive { path, .. } => {
                (path, false)
            }
            Reference::OciLayout { path, .. } => (path, true),
            Reference::Directory { .. } | Reference::Id(_) | Reference::Named(_) => {
                return Err(ImageError::NotFound(reference.to_string()));
            }
        };
        if is_directory {
            // Its index is small; there is nothing to gain from remembering it.
            let plan = self.plan_layout(reference, path)?;
            return self.install(reference, &plan);
        }
        let open = |source| ArchiveError::Read {
            path: path.clone(),
            what: "the file".into(),
            source,
        };
        let file = source::open_regular(path).map_err(open)?;
        let stamp = Stamp::of(&file.metadata().map_err(open)?);
        if let Some(image) = self.recall(reference, &stamp)? {
            return Ok(image);
        }
        // Many tasks with one new image start at once: the first loads, the others find it.
        let _alone = self.claims.take([claim_of(reference)]);
        if let Some(image) = self.recall(reference, &stamp)? {
            return Ok(image);
        }
        let scratch = self.disk.scratch()?;
        let reopened = file.try_clone().map_err(open)?;
        let plan = self.plan_archive(reference, path, reopened, &scratch)?;
        let image = self.install(reference, &plan)?;
        let after = Stamp::of(&file.metadata().map_err(open)?);
        if after == stamp && stamp.is_settled() {
            self.remember(reference, stamp, &plan);
        }
        Ok(image)
    }

    fn plan_archive(
        &self,
        reference: &Reference,
        path: &Path,
        file: File,
        scratch: &Scratch,
    ) -> Result<Plan, ImageError> {
        let limits = &self.options.limits;
        let plain = scratch.path().join("archive.tar");
        let create = || {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&plain)
        };
        let archive = Archive::open(path, file, create, limits)?;
        Ok(match reference {
            Reference::DockerArchive { name, .. } => {
                source::plan_docker(path, &archive, name.as_ref(), limits)?
            }
            Reference::OciArchive { tag, .. } => {
                let layout = Layout::Archive(archive);
                source::plan_oci(
                    path,
                    &layout,
                    tag.as_deref(),
                    &self.options.platform,
                    limits,
                )?
            }
            other => return Err(ImageError::NotFound(other.to_string())),
        })
    }

    fn plan_layout(&self, reference: &Reference, path: &Path) -> Result<Plan, ImageError> {
        let tag = match reference {
            Reference::OciLayout { tag, .. } => tag.as_deref(),
            _ => None,
        };
        let (platform, limits) = (&self.options.platform, &self.options.limits);
        let layout = Layout::Directory(path.to_owned());
        Ok(source::plan_oci(path, &layout, tag, platform, limits)?)
    }

    /// The image of an archive that was read before and has not changed since.
    fn recall(&self, reference: &Reference, stamp: &Stamp) -> Result<Option<Image>, ImageError> {
        let mut state = self.state();
        let Some(known) = state.archives.get(&reference.to_string()) else {
            return Ok(None);
        };
        if known.stamp != *stamp {
            return Ok(None);
        }
        let (id, names) = (known.image, known.names.clone());
        if !state.images.contains_key(&id) {
            return Ok(None);
        }
        self.give_names(&mut state, &id, &names)?;
        state
            .images
            .get(&id)
            .map(|record| image(&state, record))
            .transpose()
    }

    /// Only saves work: the image is here also when this cannot be written.
    fn remember(&self, reference: &Reference, stamp: Stamp, plan: &Plan) {
        let mut state = self.state();
        let record = ArchiveRecord {
            stamp,
            image: plan.id,
            names: plan.names.clone(),
        };
        state.archives.insert(reference.to_string(), record);
        let written = self.disk.write_json(&self.disk.archives(), &state.archives);
        if let Err(error) = written {
            tracing::warn!(%reference, %error, "the archive will be read again after a restart");
        }
    }

    fn give_names(&self, state: &mut State, id: &Digest, names: &[Name]) -> Result<(), ImageError> {
        let named = names.iter().map(|name| (name.clone(), *id));
        Ok(self.change_names(state, |names| names.extend(named))?)
    }

    /// Makes a planned image part of the store.
    pub(super) fn install(
        &self,
        reference: &(impl Display + Sync + ?Sized),
        plan: &Plan,
    ) -> Result<Image, ImageError> {
        self.install_within(reference, plan, &self.budget(plan))
    }

    fn budget(&self, plan: &Plan) -> Budget<'_> {
        let limits = &self.options.limits;
        match &plan.downloads {
            Some(downloads) => Budget::until_cancelled(limits, &downloads.cancel),
            None => Budget::new(limits),
        }
    }

    /// [`Store::install`] with what is left of the limits.
    pub(super) fn install_within(
        &self,
        reference: &(impl Display + Sync + ?Sized),
        plan: &Plan,
        budget: &Budget<'_>,
    ) -> Result<Image, ImageError> {
        self.check_platform(reference, plan)?;
        let mut chain: Vec<Digest> = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            chain.push(Digest::chain(chain.last(), &layer.expected.diff_id));
        }
        // Until its record is there, nobody else may load these layers, or collect them. The blobs
        // too: a download has one file.
        let blobs = plan
            .layers
            .iter()
            .filter_map(|layer| Some(layer.expected.blob?.0));
        let keys = chain.iter().copied().chain(blobs);
        let _ours = match &plan.downloads {
            None => self.claims.take(keys),
            Some(downloads) => self
                .claims
                .take_unless_cancelled(keys, &downloads.cancel)
                .ok_or_else(|| ImageError::pull(&downloads.name, RegistryError::Cancelled))?,
        };
        let missing: Vec<usize> = {
            let state = self.state();
            (0..chain.len())
                .filter(|at| !state.layers.contains_key(&chain[*at]))
                .collect()
        };
        if !missing.is_empty() {
            let again = self.again(plan, &missing);
            match self.add_layers(reference, plan, &chain, &missing, Some(&again), budget) {
                // A file of the other layer was changed: what the registry has is what it should be.
                Err(ImageError::Layer { number, source, .. }) if again.of(number - 1).is_some() => {
                    tracing::warn!(%reference, number, error = %source,
                        "a layer that is here on top of others cannot be used again");
                    let budget = self.budget(plan);
                    self.add_layers(reference, plan, &chain, &missing, None, &budget)?;
                }
                outcome => outcome?,
            }
        }
        if let Some(downloads) = &plan.downloads {
            downloads.discard();
        }
        let record = ImageRecord {
            id: plan.id,
            layers: chain,
            manifests: plan.manifests.clone(),
            annotations: plan.annotations.clone(),
            config: plan.raw_config.clone(),
        };
        self.keep(&mut self.state(), record, &plan.names)
    }

    /// Whether tasks of this machine's kernel can use it.
    pub(super) fn check_platform(
        &self,
        reference: &(impl Display + ?Sized),
        plan: &Plan,
    ) -> Result<(), ImageError> {
        let wanted = &self.options.platform;
        if *plan.config.os() != wanted.os && *plan.config.os() != Os::Other(String::new()) {
            return Err(ImageError::Platform {
                id: plan.id,
                archive: reference.to_string(),
                found: plan.config.os().to_string(),
                wanted: wanted.to_string(),
            });
        }
        // Not an error: the kernel may run it (32-bit programs, binfmt_misc).
        if *plan.config.architecture() != wanted.architecture {
            tracing::warn!(%reference, image = %plan.config.architecture(), machine = %wanted,
                "the image is for another architecture");
        }
        Ok(())
    }

    /// Brings the layers at the positions `missing` into the store, all or none. Those that are here on top
    /// of others are made from these.
    fn add_layers(
        &self,
        reference: &(impl Display + Sync + ?Sized),
        plan: &Plan,
        chain: &[Digest],
        missing: &[usize],
        again: Option<&Again<'_>>,
        budget: &Budget<'_>,
    ) -> Result<(), ImageError> {
        let scratch = self.disk.scratch()?;
        let work = |again| {
            let fresh = self.unpack(reference, plan, missing, again, &scratch, budget)?;
            self.publish(&reference.to_string(), chain, fresh, &scratch, budget)
        };
        let Some(downloads) = &plan.downloads else {
            return work(None);
        };
        let from_others = |at: &usize| again.is_some_and(|again| again.of(*at).is_some());
        let coming: Vec<usize> = missing
            .iter()
            .copied()
            .filter(|at| !from_others(at))
            .collect();
        let running = downloads
            .start(&coming)
            .map_err(|error| ImageError::pull(&downloads.name, error))?;
        match work(again) {
            Ok(()) => Ok(()),
            Err(error) => match running.failure() {
                // Why it could not be read says more than that it could not.
                Some(failure) => {
                    // On a full disk what has come would be in everybody's way.
                    if matches!(*failure, RegistryError::Disk { .. }) {
                        running.discard();
                    }
                    Err(ImageError::pull(&downloads.name, failure))
                }
                None => {
                    if !matches!(error, ImageError::Layer { number, .. } if from_others(&(number - 1)))
                    {
                        running.discard();
                    }
                    Err(error)
                }
            },
        }
    }

    /// Makes an image's record visible, and gives it names.
    pub(super) fn keep(
        &self,
        state: &mut State,
        mut record: ImageRecord,
        names: &[Name],
    ) -> Result<Image, ImageError> {
        let known = state.images.get(&record.id);
        if record.annotations.is_empty()
            && let Some(known) = known
        {
            record.annotations.clone_from(&known.annotations);
        }
        // One configuration can be reached through manifests that differ in compression.
        for manifest in known.into_iter().flat_map(|known| &known.manifests) {
            if !record.manifests.contains(manifest) {
                record.manifests.push(*manifest);
            }
        }
        record.manifests.sort();
        let is_new = known.is_none();
        if known != Some(&record) {
            self.disk
                .write_json(&self.image_path(&record.id), &record)?;
            state.images.insert(record.id, record.clone());
        }
        if let Err(error) = self.give_names(state, &record.id, names) {
            // Nobody would know of it.
            if is_new {
                self.disk.remove_file(&self.image_path(&record.id))?;
                state.images.remove(&record.id);
            }
            return Err(error);
        }
        image(state, &record)
    }

    /// Unpacks layers side by side; they do not depend on each other.
    fn unpack(
        &self,
        reference: &(impl Display + Sync + ?Sized),
        plan: &Plan,
        missing: &[usize],
        again: Option<&Again<'_>>,
        scratch: &Scratch,
        budget: &Budget<'_>,
    ) -> Result<Vec<Fresh>, ImageError> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let work = || {
            while lock(&failed).is_none() {
                let Some(&position) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let path = scratch.path().join(position.to_string());
                let layer = &plan.layers[position];
                let unpacked = match again.and_then(|again| again.of(position)) {
                    Some(other) => self.unpack_again(other, &path, budget),
                    None => unpack_one(layer, &path, self.snapshotter.marks(), budget),
                };
                match unpacked {
                    Ok(unpacked) => {
                        plan.tell_unpacked(layer);
                        lock(&done).push(Fresh {
                            position,
                            path,
                            unpacked,
                        });
                    }
                    Err(source) => {
                        let archive = reference.to_string();
                        let diff_id = layer.expected.diff_id;
                        let error = layer_error(&archive, position, diff_id, source);
                        lock(&failed).get_or_insert(error);
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..threads.min(MAX_THREADS).min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = lock(&failed).take() {
            return Err(error);
        }
        let mut fresh = std::mem::take(&mut *lock(&done));
        fresh.sort_by_key(|fresh| fresh.position);
        Ok(fresh)
    }

    /// Gives unpacked layers their place, bottom first. All of them are on disk before the first
    /// one becomes visible.
    pub(super) fn publish(
        &self,
        archive: &str,
        chain: &[Digest],
        mut fresh: Vec<Fresh>,
        scratch: &Scratch,
        budget: &Budget<'_>,
    ) -> Result<(), ImageError> {
        // Where each layer is, and whether it hides those below it.
        let mut places: Vec<(PathBuf, bool)> = {
            let state = self.state();
            let place = |id: &Digest| {
                let record = state.layers.get(id)?;
                Some((self.layer_path(&record.directory), record.opaque))
            };
            chain
                .iter()
                .map(|id| place(id).unwrap_or_default())
                .collect()
        };
        for layer in &fresh {
            places[layer.position] = (layer.path.clone(), layer.unpacked.opaque_root);
        }
        for layer in &mut fresh {
            let mut lower = Vec::new();
            for (path, opaque) in places[..layer.position].iter().rev() {
                lower.push(path);
                if *opaque {
                    break;
                }
            }
            let (path, unpacked) = (&layer.path, &mut layer.unpacked);
            // Links that come before the entry that hides the layers below lead there all the same.
            let marks = self.snapshotter.marks();
            let linked = unpack::link_below(path, unpacked, marks, &lower, budget);
            linked
                .and_then(|()| unpack::adopt_implied(path, unpacked, marks, &lower))
                .map_err(|source| {
                    layer_error(archive, layer.position, layer.unpacked.diff_id, source)
                })?;
        }
        File::open(scratch.path())
            .and_then(|directory| nix::unistd::syncfs(&directory).map_err(io::Error::from))
            .map_err(|error| StoreError::io("syncing", scratch.path(), error))?;
        for layer in fresh {
            let directory = self.place(&layer.path)?;
            let record = LayerRecord {
                chain_id: chain[layer.position],
                diff_id: layer.unpacked.diff_id,
                directory,
                opaque: layer.unpacked.opaque_root,
                bytes: layer.unpacked.bytes,
            };
            let written = self.place_kept(&layer.path, &record).and_then(|()| {
                let path = self.layer_record_path(&record.chain_id);
                self.disk.write_json(&path, &record)
            });
            if let Err(error) = written {
                self.take_back(&layer.path, &record);
                return Err(error.into());
            }
            self.state().layers.insert(record.chain_id, record);
        }
        Ok(())
    }

    /// Gives what is kept for saving a layer its place. Nothing of value can be there: only a failure
    /// before the record was written leaves something.
    fn place_kept(&self, path: &Path, record: &LayerRecord) -> Result<(), StoreError> {
        let (from, to) = (Kept::beside(path), self.kept(record));
        self.disk.discard(&to.replaced)?;
        for (from, to) in [(from.recipe, to.recipe), (from.replaced, to.replaced)] {
            // Durable with the record, which is written to the same directory next.
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("creating", to, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Undoes [`Store::place`] and [`Store::place_kept`] where there is no record: until the next open nobody
    /// would find the files, and a full disk would stay full. They go with the scratch directory.
    fn take_back(&self, path: &Path, record: &LayerRecord) {
        // It is there where only its durability failed.
        let _ = self
            .disk
            .remove_file(&self.layer_record_path(&record.chain_id));
        let (to, from) = (Kept::beside(path), self.kept(record));
        for (from, to) in [
            (self.layer_path(&record.directory), path.to_owned()),
            (from.recipe, to.recipe),
            (from.replaced, to.replaced),
        ] {
            if let Err(error) = fs::rename(&from, &to)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %from.display(), %error, "it stays until the store is opened again");
            }
        }
    }

    /// Moves a layer's files to the first free number.
    fn place(&self, path: &Path) -> Result<String, StoreError> {
        let mut number = self.state().layers.len();
        loop {
            let directory = number.to_string();
            if self.disk.publish(path, &self.layer_path(&directory))? {
                return Ok(directory);
            }
            number += 1;
        }
    }
}

/// By what nobody else loads the same reference meanwhile.
pub(super) fn claim_of(reference: &Reference) -> Digest {
    Digest::of(format!("reference {reference}"))
}

/// Makes the directory that a layer is unpacked to.
pub(super) fn make_root(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    // The mode of the root directory, unless a layer says otherwise.
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn unpack_one(
    layer: &PlannedLayer,
    path: &Path,
    marks: Marks,
    budget: &Budget<'_>,
) -> Result<Unpacked, LayerError> {
    make_root(path).map_err(LayerError::Read)?;
    let blob = layer.blob.open().map_err(LayerError::Read)?;
    unpack::unpack(blob, &layer.expected, path, marks, budget)
}

fn layer_error(archive: &str, position: usize, diff_id: Digest, source: LayerError) -> ImageError {
    ImageError::Layer {
        archive: archive.to_owned(),
        number: position + 1,
        diff_id,
        source: Box::new(source),
    }
}
