//! Pulling images from registries.

use std::{collections::BTreeSet, sync::Arc};

use super::{ImagePin, Store, load::claim_of, record_of};
use crate::{
    Digest, Image, ImageError, Name, PullEvent, PullOptions, Reference, RegistryError,
    download::Downloads,
    registry::Repository,
    source::{
        Plan,
        registry::{self as source, Found},
    },
};

impl Store {
    /// Gets the image that a registry has under this name now, and gives it the name. What is here
    /// already is not downloaded again; a name with a digest that is here costs no request.
    ///
    /// Blocks until all is there. Several threads may pull: of the same image only one does, and the
    /// others find it.
    ///
    /// # Errors
    /// [`ImageError::Pull`] when the registry does not give it to us, [`ImageError::Layer`] and
    /// [`ImageError::Archive`] for what it gives that is no good. Nothing of it can be seen in the
    /// store then; what was downloaded is kept, and the next pull goes on there.
    pub fn pull(&self, name: &Name, options: &PullOptions) -> Result<Image, ImageError> {
        self.get(None, name, options).map(|(image, _)| image)
    }

    /// [`Store::pull`] for `user`, the key of a snapshot to come: until the pin is dropped, nobody
    /// takes the image away.
    ///
    /// # Errors
    /// As for [`Store::pull`]; nothing is pinned then.
    pub fn pull_for(
        &self,
        user: &str,
        name: &Name,
        options: &PullOptions,
    ) -> Result<(Image, ImagePin), ImageError> {
        self.get(Some(user), name, options)
    }

    fn get(
        &self,
        user: Option<&str>,
        name: &Name,
        options: &PullOptions,
    ) -> Result<(Image, ImagePin), ImageError> {
        let reference = Reference::Named(name.clone());
        let cancelled = || ImageError::pull(name, RegistryError::Cancelled);
        let _alone = self
            .claims
            .take_unless_cancelled([claim_of(&reference)], &options.cancel)
            .ok_or_else(cancelled)?;
        if name.digest().is_some()
            && let Ok(here) = self.here(user, name)
        {
            self.note_use(&here.0.id);
            return Ok(here);
        }
        let registries = self.options.registries.clone();
        let (wanted, own) = (name.clone(), options.clone());
        // A credential helper may be asked, which can take as long as it likes.
        let repository = options
            .cancel
            .unless_cancelled(move || Repository::new(&registries, &wanted, &own))
            .map_err(|error| ImageError::pull(name, error))?;
        let repository = Arc::new(repository);
        let (platform, limits) = (&self.options.platform, &self.options.limits);
        let attempts = match options.or_here {
            true => 1,
            false => options.attempts,
        };
        let found = match source::find(&repository, name, platform, limits, attempts) {
            Err(ImageError::Pull { source, .. }) if options.or_here && source.is_no_answer() => {
                let here = self.here(user, name);
                let here = here.map_err(|_| ImageError::pull(name, source.clone()))?;
                tracing::warn!(%name, error = %source, "the image that is here is used");
                return Ok(here);
            }
            outcome => outcome?,
        };
        options.progress.event(PullEvent::Manifest {
            name: name.clone(),
            digest: found.digest(),
        });
        if let Some(image) = self.known(user, &found, name)? {
            return Ok(image);
        }
        let place = |digest: &Digest| self.disk.blobs().join(digest.hex());
        let resumed = found.blobs(name)?.iter().any(|blob| place(blob).exists());
        let config = found.config(&repository, name, limits)?;
        let (mut plan, blobs) = found.plan(config, name, limits, place)?;
        plan.downloads = Some(Downloads {
            name: name.clone(),
            repository: repository.clone(),
            blobs,
            cancel: options.cancel.clone(),
            progress: options.progress.clone(),
        });
        // Before it can be seen, so that there is no moment to take it away in.
        let pin = self.claims.pin_image(user, plan.id, layers_of(&plan));
        let image = match self.install(&reference, &plan) {
            // What an earlier download left can be damaged, by a loss of power for example, and so
            // can a mirror's copy. What was downloaded is gone now.
            Err(ImageError::Layer { source, .. })
                if source.is_damage() && (repository.leave_mirrors() || resumed) =>
            {
                self.install(&reference, &plan)
            }
            outcome => outcome,
        }?;
        Ok((image, pin))
    }

    /// The image that has the name here.
    fn here(&self, user: Option<&str>, name: &Name) -> Result<(Image, ImagePin), ImageError> {
        let state = self.state();
        let record = record_of(&state, name);
        let record = record.ok_or_else(|| ImageError::NotFound(name.to_string()))?;
        let image = super::image(&state, record)?;
        let pin = self.pin(&state, user, &image);
        Ok((image, pin))
    }

    /// The image that was found, if it is here already.
    fn known(
        &self,
        user: Option<&str>,
        found: &Found,
        name: &Name,
    ) -> Result<Option<(Image, ImagePin)>, ImageError> {
        let id = found.id(name)?;
        let mut state = self.state();
        let Some(record) = state.images.get(&id) else {
            return Ok(None);
        };
        self.note_use(&id);
        let mut record = record.clone();
        record.manifests.clone_from(&found.manifests);
        record.annotations = found.annotations();
        let image = self.keep(&mut state, record, std::slice::from_ref(name))?;
        let pin = self.pin(&state, user, &image);
        Ok(Some((image, pin)))
    }
}

/// Chain ids of a planned image's layers.
fn layers_of(plan: &Plan) -> BTreeSet<Digest> {
    let mut below = None;
    let chain = plan.layers.iter().map(|layer| {
        let id = Digest::chain(below.as_ref(), &layer.expected.diff_id);
        below = Some(id);
        id
    });
    chain.collect()
}
