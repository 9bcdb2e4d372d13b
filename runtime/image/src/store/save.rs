//! Saving images as an archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
};

use super::{
    Store,
    claims::Pin,
    records::{ImageRecord, LayerRecord, State},
};
use crate::{
    Digest, ImageError, Name, Reference, SaveError,
    recipe::rebuild,
    saved::{Blob, Contents, Members, Saved},
};

/// Bytes that are collected before somebody has to take them.
const BUFFER: usize = 256 << 10;

/// An image that was asked for.
struct Chosen {
    record: ImageRecord,
    layers: Vec<LayerRecord>,
    /// The names that were asked for, not others that it has.
    names: Vec<Name>,
}

impl Store {
    /// Writes images to `out` as `docker save` does: an archive that `docker load`, everything that
    /// reads an OCI layout, and [`Store::resolve`] take. `images` are names, ids, or beginnings of ids;
    /// an image that is asked for by its id has no name in the archive. Layers that images share come
    /// once, and are byte for byte what was unpacked, so that ids stay the same.
    ///
    /// Nothing is written if one of the images is not there or was unpacked by a version that kept
    /// too little. What is being saved may be removed meanwhile: it goes afterwards.
    ///
    /// # Errors
    /// [`ImageError::NotFound`]; [`ImageError::Save`] also when a layer turns out to have been changed
    /// on the disk, which is known only when all of it is written: what was written is of no use then;
    /// [`ImageError::Write`] when `out` fails.
    pub fn save(&self, images: &[impl AsRef<str>], out: impl Write) -> Result<(), ImageError> {
        let (chosen, pin) = self.choose(images)?;
        let outcome = self.write_archive(&chosen, out);
        drop(pin);
        let forgotten = {
            let state = self.state();
            let is_here = |image: &Chosen| state.images.contains_key(&image.record.id);
            !chosen.iter().all(is_here)
        };
        if forgotten && let Err(error) = self.gc() {
            tracing::warn!(%error, "layers of an image that was removed are left");
        }
        outcome
    }

    /// The images that are asked for. Their layers stay while the pin is held.
    fn choose(&self, images: &[impl AsRef<str>]) -> Result<(Vec<Chosen>, Pin<'_>), ImageError> {
        let state = self.state();
        let mut chosen: Vec<Chosen> = Vec::new();
        for text in images.iter().map(AsRef::as_ref) {
            let id = self.id_of(&state, text)?;
            let at = match chosen.iter().position(|image| image.record.id == id) {
                Some(at) => at,
                None => {
                    chosen.push(chosen_of(&state, &id)?);
                    chosen.len() - 1
                }
            };
            let named = match text.parse() {
                Ok(Reference::Named(name)) => Some(name),
                _ => None,
            };
            let names = &mut chosen[at].names;
            names.extend(named.filter(|n| state.names.get(n) == Some(&id) && !names.contains(n)));
        }
        let layers: BTreeSet<Digest> = chosen
            .iter()
            .flat_map(|image| &image.record.layers)
            .copied()
            .collect();
        let pin = self.claims.pin(layers);
        Ok((chosen, pin))
    }

    fn write_archive(&self, images: &[Chosen], out: impl Write) -> Result<(), ImageError> {
        let sources = self.sources(images)?;
        let size = |layer: &LayerRecord| (layer.diff_id, layer.bytes);
        let saved: Vec<_> = images
            .iter()
            .map(|image| Saved {
                id: image.record.id,
                config: &image.record.config,
                layers: image.layers.iter().map(size).collect(),
                names: &image.names,
            })
            .collect();
        let contents = Contents::new(&saved);
        let mut members = Members(BufWriter::with_capacity(BUFFER, out));
        members.directories().map_err(ImageError::Write)?;
        for (digest, blob) in &contents.blobs {
            match blob {
                Blob::Document(content) => {
                    members.blob(digest, content).map_err(ImageError::Write)?;
                }
                Blob::Layer(size) => {
                    members
                        .begin_blob(digest, *size)
                        .map_err(ImageError::Write)?;
                    if let Some(source) = sources.get(digest) {
                        self.rebuild(source, &mut members.0)?;
                    }
                    members.pad(*size).map_err(ImageError::Write)?;
                }
            }
        }
        for (name, content) in &contents.documents {
            members.document(name, content).map_err(ImageError::Write)?;
        }
        members.finish().map_err(ImageError::Write)
    }

    /// Where each layer's archive is made from. One archive can be several layers, on top of different
    /// ones; any will do that has a recipe.
    fn sources<'a>(
        &self,
        images: &'a [Chosen],
    ) -> Result<BTreeMap<Digest, Source<'a>>, ImageError> {
        let mut sources: BTreeMap<Digest, Source<'a>> = BTreeMap::new();
        let mut lacking = Vec::new();
        for image in images {
            for (position, layer) in image.layers.iter().enumerate() {
                let source = Source {
                    image: image.record.id,
                    position,
                    layer,
                };
                if self.kept(layer).recipe.exists() {
                    sources.entry(layer.diff_id).or_insert(source);
                } else {
                    lacking.push(source);
                }
            }
        }
        match lacking
            .iter()
            .find(|source| !sources.contains_key(&source.layer.diff_id))
        {
            Some(source) => Err(source.error(SaveError::NoRecipe)),
            None => Ok(sources),
        }
    }

    fn rebuild(&self, source: &Source<'_>, out: impl Write) -> Result<(), ImageError> {
        let layer = source.layer;
        let root = self.layer_path(&layer.directory);
        let (kept, size) = (self.kept(layer), layer.bytes);
        rebuild(&kept, &root, &layer.diff_id, size, out).map_err(|error| match error {
            SaveError::Write(error) => ImageError::Write(error),
            error => source.error(error),
        })
    }
}

/// A layer, and where it was found first.
struct Source<'a> {
    image: Digest,
    position: usize,
    layer: &'a LayerRecord,
}

impl Source<'_> {
    fn error(&self, source: SaveError) -> ImageError {
        ImageError::Save {
            image: self.image,
            number: self.position + 1,
            diff_id: self.layer.diff_id,
            source: Box::new(source),
        }
    }
}

fn chosen_of(state: &State, id: &Digest) -> Result<Chosen, ImageError> {
    let record = state.images.get(id).ok_or(ImageError::Gone(*id))?;
    let layer = |chain_id| state.layers.get(chain_id).cloned();
    let layers = record.layers.iter().map(layer).collect::<Option<Vec<_>>>();
    Ok(Chosen {
        record: record.clone(),
        layers: layers.ok_or(ImageError::Gone(*id))?,
        names: Vec::new(),
    })
}
