//! What is in the store, what uses it, and what can go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

use super::{Collected, Store, image, records::State};
use crate::{Digest, Image, ImageError, Name, Reference, StoreError, unpack::tree};

/// An image of the store, and what is known of its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The image.
    pub image: Image,
    /// Bytes of its layers, decompressed.
    pub bytes: u64,
    /// When it was last pulled, or a snapshot of it made or removed.
    pub used: SystemTime,
    /// Keys of its snapshots, and of those that are about to be made.
    pub snapshots: Vec<String>,
    /// The configuration, byte for byte.
    pub raw_config: String,
}

/// What became of an image that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that mean nothing any more.
    pub untagged: Vec<Name>,
    /// The image, if it is gone as a whole.
    pub image: Option<Digest>,
    /// What went with it.
    pub collected: Collected,
}

/// What the store holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Images.
    pub images: usize,
    /// Images that have snapshots, or are about to.
    pub images_in_use: usize,
    /// Layers.
    pub layers: usize,
    /// Bytes of all layers, decompressed.
    pub layer_bytes: u64,
    /// Bytes of the layers that no snapshot needs and nobody reads, decompressed.
    pub reclaimable_bytes: u64,
    /// Snapshots.
    pub snapshots: usize,
    /// Bytes on disk of what was written into them.
    pub snapshot_bytes: u64,
    /// Bytes on disk of downloads that are not complete.
    pub download_bytes: u64,
}

impl Store {
    /// All images and their use, by first name, those without a name last.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a configuration cannot be read.
    pub fn stored(&self) -> Result<Vec<Stored>, ImageError> {
        let state = self.state();
        let mut all: Vec<_> = state
            .images
            .keys()
            .map(|id| self.describe(&state, id))
            .collect::<Result<_, _>>()?;
        all.sort_by_cached_key(|stored| {
            let first = stored.image.names.first().cloned();
            (first.is_none(), first, stored.image.id)
        });
        Ok(all)
    }

    /// One image, by a name, its id, or the beginning of its id (at least four digits, with or without
    /// `sha256:`).
    ///
    /// # Errors
    /// [`ImageError::NotFound`], also where several ids begin like that.
    pub fn find(&self, text: &str) -> Result<Stored, ImageError> {
        let state = self.state();
        let id = self.id_of(&state, text)?;
        self.describe(&state, &id)
    }

    pub(super) fn id_of(&self, state: &State, text: &str) -> Result<Digest, ImageError> {
        let not_found = || ImageError::NotFound(text.to_owned());
        let named = match text.parse() {
            Ok(Reference::Id(id)) => {
                return state.images.get(&id).map(|i| i.id).ok_or_else(not_found);
            }
            Ok(Reference::Named(name)) => super::record_of(state, &name).map(|record| record.id),
            _ => None,
        };
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = digits.len() >= 4 && digits.bytes().all(|c| c.is_ascii_hexdigit());
        let mut begin = state
            .images
            .keys()
            .filter(|id| is_hex && id.hex().starts_with(digits));
        match (named, begin.next(), begin.next()) {
            (Some(id), ..) | (None, Some(&id), None) => Ok(id),
            _ => Err(not_found()),
        }
    }

    fn describe(&self, state: &State, id: &Digest) -> Result<Stored, ImageError> {
        let record = state.images.get(id).ok_or(ImageError::Gone(*id))?;
        let layers = record.layers.iter().filter_map(|id| state.layers.get(id));
        let path = self.image_path(id);
        let used = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .map_err(|error| StoreError::io("looking at", &path, error))?;
        Ok(Stored {
            image: image(state, record)?,
            bytes: layers.map(|layer| layer.bytes).sum(),
            used,
            snapshots: self.users(state, id),
            raw_config: record.config.clone(),
        })
    }

    /// Keys of the snapshots that an image has, and of those that it is pinned for.
    fn users(&self, state: &State, id: &Digest) -> Vec<String> {
        let snapshots = state.snapshots.values();
        let keys = snapshots
            .filter(|snapshot| snapshot.image() == id)
            .map(|snapshot| snapshot.key().to_owned());
        let users: BTreeSet<_> = keys.chain(self.claims.users(id)).collect();
        users.into_iter().collect()
    }

    /// Notes that an image is used. Its record's time of change tells that, which costs no write that
    /// has to be waited for; that it may be lost in a crash only makes an image look older.
    pub(super) fn note_use(&self, id: &Digest) {
        let path = self.image_path(id);
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!(path = %path.display(), %error, "cannot note that the image is used");
        }
    }

    /// Removes a name; with its last name the image, and the layers that nothing else needs.
    ///
    /// By its id an image goes with its only name. Where it has several, or snapshots, or is pinned
    /// for one, it goes only by `force`; what its snapshots and pins need stays until they go.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::InUse`], [`StoreError::Io`].
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        {
            let mut state = self.state();
            let id = self.id_of(&state, text)?;
            let names = state.names_of(&id);
            let by_name = text.parse().ok().filter(|name| names.contains(name));
            let in_use = |users: Vec<String>, what| ImageError::InUse {
                image: text.to_owned(),
                what,
                users,
            };
            if let Some(name) = by_name
                && names.len() > 1
            {
                self.change_names(&mut state, |names| {
                    names.remove(&name);
                })?;
                removed.untagged.push(name);
                return Ok(removed);
            }
            let tags: Vec<_> = names.iter().filter(|name| is_tag(name)).collect();
            if !force && tags.len() > 1 {
                let tags = tags.iter().map(ToString::to_string).collect();
                return Err(in_use(tags, "names"));
            }
            let users = self.users(&state, &id);
            if !force && !users.is_empty() {
                return Err(in_use(users, "tasks"));
            }
            self.forget(&mut state, &id)?;
            removed.untagged = names;
            removed.image = Some(id);
        }
        removed.collected = self.gc()?;
        Ok(removed)
    }

    /// Removes images that no snapshot needs, that are pinned for none, and that nobody has used for
    /// `unused_for`: those without a name, or `all`; then layers and downloads that belong to nothing. What is being loaded or
    /// pulled is not touched.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the next call goes on.
    pub fn prune(
        &self,
        all: bool,
        unused_for: Duration,
    ) -> Result<(Vec<Digest>, Collected), ImageError> {
        let now = SystemTime::now();
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            let ids: Vec<Digest> = state.images.keys().copied().collect();
            for id in ids {
                let stored = self.describe(&state, &id)?;
                let age = now.duration_since(stored.used).unwrap_or_default();
                let wanted = !all && stored.image.names.iter().any(is_tag);
                if wanted || !stored.snapshots.is_empty() || age < unused_for {
                    continue;
                }
                self.forget(&mut state, &id)?;
                gone.push(id);
            }
        }
        let mut collected = self.gc()?;
        collected.bytes += self.drop_downloads(now, unused_for)?;
        Ok((gone, collected))
    }

    /// Removes downloads that nobody goes on with.
    fn drop_downloads(&self, now: SystemTime, unused_for: Duration) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for name in super::disk::names(&self.disk.blobs())? {
            let path = self.disk.blobs().join(&name);
            let Ok(digest) = Digest::from_hex(&name) else {
                continue;
            };
            // Nobody can begin with it while we hold this.
            let Some(_ours) = self.claims.try_take(digest) else {
                continue;
            };
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(_) => continue, // it has been used up meanwhile
            };
            let age = metadata
                .modified()
                .ok()
                .and_then(|at| now.duration_since(at).ok());
            if age.unwrap_or_default() >= unused_for && self.disk.remove_file(&path)? {
                bytes += metadata.blocks() * 512;
            }
        }
        Ok(bytes)
    }

    /// Forgets an image and its names. The caller may have asked who uses it.
    pub(super) fn forget(&self, state: &mut State, id: &Digest) -> Result<(), StoreError> {
        // First what needs no room: a disk may be full, and this is how it gets empty. Names without an image
        // are dropped by the next open.
        self.disk.remove_file(&self.image_path(id))?;
        state.images.remove(id);
        state.names.retain(|_, named| named != id);
        state.archives.retain(|_, archive| archive.image != *id);
        let names = self.disk.write_json(&self.disk.names(), &state.names);
        let archives = self.disk.write_json(&self.disk.archives(), &state.archives);
        if let Err(error) = names.and(archives) {
            tracing::warn!(image = %id, %error, "names of an image that was removed stay on the disk for now");
        }
        Ok(())
    }

    /// Changes what names mean: on the disk, and then here, so that what cannot be written is tried again.
    pub(super) fn change_names(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut BTreeMap<Name, Digest>),
    ) -> Result<(), StoreError> {
        let mut names = state.names.clone();
        change(&mut names);
        if names != state.names {
            self.disk.write_json(&self.disk.names(), &names)?;
            state.names = names;
        }
        Ok(())
    }

    /// What the store holds, in numbers. Walks over the files of all snapshots.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let (mut usage, written) = {
            let state = self.state();
            let needed: BTreeSet<&Digest> = state
                .snapshots
                .values()
                .flat_map(|snapshot| snapshot.layers())
                .collect();
            let bytes = |layer: &super::records::LayerRecord| layer.bytes;
            let unneeded = state
                .layers
                .values()
                .filter(|l| !needed.contains(&l.chain_id) && !self.claims.pins(&l.chain_id));
            let in_use = |id: &&Digest| !self.users(&state, id).is_empty();
            let usage = Usage {
                images: state.images.len(),
                images_in_use: state.images.keys().filter(in_use).count(),
                layers: state.layers.len(),
                layer_bytes: state.layers.values().map(bytes).sum(),
                reclaimable_bytes: unneeded.map(bytes).sum(),
                snapshots: state.snapshots.len(),
                ..Usage::default()
            };
            let snapshots = state.snapshots.values();
            let written = snapshots.flat_map(|s| [s.written().to_owned(), s.volumes().place]);
            (usage, written.collect::<Vec<_>>())
        };
        usage.snapshot_bytes = written.iter().map(|path| tree::disk_bytes(path)).sum();
        usage.download_bytes = tree::disk_bytes(&self.disk.blobs());
        Ok(usage)
    }
}

/// Whether somebody gave an image this name. One with a digest only says where it came from.
fn is_tag(name: &Name) -> bool {
    name.digest().is_none()
}
