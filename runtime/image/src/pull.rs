//! What a pull is asked for, and what it tells while it goes on.

use std::sync::Arc;

use crate::{Credentials, Digest, Name, registry::Cancel};

/// What a pull tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullEvent {
    /// The manifest that is for this machine is known.
    Manifest {
        /// What was asked for.
        name: Name,
        /// The manifest's digest.
        digest: Digest,
    },
    /// A layer's blob is wanted or here already, bottom first. Nothing of this is told of an image
    /// that is here as a whole.
    Layer {
        /// The blob.
        blob: Digest,
        /// Bytes.
        size: u64,
        /// Whether the layer is here already.
        here: bool,
    },
    /// Some more of a blob has come.
    Downloading {
        /// The blob.
        blob: Digest,
        /// So many bytes of it are here.
        bytes: u64,
        /// So many it has.
        of: u64,
    },
    /// A layer is unpacked and verified.
    Unpacked {
        /// Its blob.
        blob: Digest,
    },
}

/// Who wants to know how a pull goes on. Called by several threads, often; it should not block.
pub trait Progress: Send + Sync {
    /// Something has happened.
    fn event(&self, event: PullEvent);
}

impl<F: Fn(PullEvent) + Send + Sync> Progress for F {
    fn event(&self, event: PullEvent) {
        self(event);
    }
}

/// How to pull an image.
#[derive(Clone)]
pub struct PullOptions {
    /// Who we are for the registry; else what the configuration says.
    pub credentials: Option<Credentials>,
    /// How often a request is made before its failure counts, at least 1.
    pub attempts: u32,
    /// Whether the image that has the name here will do where the registry does not answer. The
    /// question what the name means is asked once then; what follows an answer has all attempts.
    pub or_here: bool,
    /// Who wants to know.
    pub progress: Arc<dyn Progress>,
    pub(crate) cancel: Cancel,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            attempts: 6,
            or_here: false,
            progress: Arc::new(|_: PullEvent| {}),
            cancel: Cancel::default(),
        }
    }
}

impl std::fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullOptions")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl PullOptions {
    /// What ends the pull from another thread. What was downloaded stays for the next one.
    pub fn canceller(&self) -> PullCanceller {
        PullCanceller(self.cancel.clone())
    }
}

/// Ends a pull; see [`PullOptions::canceller`].
#[derive(Debug, Clone)]
pub struct PullCanceller(Cancel);

impl PullCanceller {
    /// Ends it, soon, unless all layers are unpacked already.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
