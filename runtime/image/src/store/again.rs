//! Layers that are here already, on top of others.
//!
//! A layer belongs to those below it: it takes attributes from them, and files by hard links. So the same
//! archive on top of others is another layer, which is made from the files of the first one instead of
//! being downloaded again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter},
    path::Path,
    thread,
};

use super::{Store, claims::Pin, load::make_root, records::LayerRecord};
use crate::{
    Digest, LayerError,
    limits::Budget,
    recipe::rebuild,
    source::Plan,
    unpack::{self, Expected, Unpacked},
};

/// So much of an archive is written at once, in bytes: what a pipe holds.
const BUFFER: usize = 64 << 10;

/// Layers of an image that can be made from others, by position. They stay while this is held.
pub(super) struct Again<'a> {
    layers: BTreeMap<usize, LayerRecord>,
    _pin: Pin<'a>,
}

impl Again<'_> {
    /// The layer that the one at `position` is made from.
    pub(super) fn of(&self, position: usize) -> Option<&LayerRecord> {
        self.layers.get(&position)
    }
}

impl Store {
    /// Which of the layers at the positions `missing` are here on top of others.
    pub(super) fn again(&self, plan: &Plan, missing: &[usize]) -> Again<'_> {
        if plan.downloads.is_none() {
            // The archive is here, too.
            return Again {
                layers: BTreeMap::new(),
                _pin: self.claims.pin(BTreeSet::new()),
            };
        }
        let (mut layers, pin) = {
            let state = self.state();
            let by_diff_id: BTreeMap<Digest, &LayerRecord> =
                state.layers.values().map(|l| (l.diff_id, l)).collect();
            let same = |at: &usize| {
                let layer = by_diff_id.get(&plan.layers[*at].expected.diff_id)?;
                Some((*at, LayerRecord::clone(layer)))
            };
            let layers: BTreeMap<usize, LayerRecord> = missing.iter().filter_map(same).collect();
            let pinned = layers.values().map(|layer| layer.chain_id).collect();
            let pin = self.claims.pin(pinned);
            (layers, pin)
        };
        // Those of older versions have none.
        layers.retain(|_, layer| self.kept(layer).recipe.exists());
        Again { layers, _pin: pin }
    }

    /// Unpacks the archive of the layer `from` into the new directory `path`.
    pub(super) fn unpack_again(
        &self,
        from: &LayerRecord,
        path: &Path,
        budget: &Budget<'_>,
    ) -> Result<Unpacked, LayerError> {
        make_root(path).map_err(LayerError::Read)?;
        let expected = Expected {
            blob: None,
            diff_id: from.diff_id,
        };
        let (reader, writer) = io::pipe().map_err(LayerError::Read)?;
        let (kept, root) = (self.kept(from), self.layer_path(&from.directory));
        thread::scope(|scope| {
            let rebuilding = thread::Builder::new()
                .name("rebuild".into())
                .spawn_scoped(scope, || {
                    let out = BufWriter::with_capacity(BUFFER, writer);
                    rebuild(&kept, &root, &from.diff_id, from.bytes, out)
                })
                .map_err(LayerError::Read)?;
            // It ends when nobody reads it any more.
            let unpacked =
                unpack::unpack(reader, &expected, path, self.snapshotter.marks(), budget);
            match rebuilding.join() {
                // That the archive ends too soon says less.
                Ok(Err(error)) if unpacked.is_err() => {
                    Err(LayerError::Read(io::Error::other(error)))
                }
                _ => unpacked,
            }
        })
    }
}
