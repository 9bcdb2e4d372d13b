//! The client of registries (OCI distribution-spec 1.1; what Docker's registries do beside it).
//!
//! Blocking, one thread per request that is going on: a pull has a handful of them.

mod auth;
mod client;
mod config;
mod credentials;
mod error;
mod forward;
mod http;
mod no_proxy;
mod place;
mod proxy;
mod public;
mod redirect;
mod retry;

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ureq::http::header;

pub use config::{Credentials, HostConfig, Mirror, Registries, TlsConfig};
pub use error::RegistryError;

pub(crate) use retry::{Cancel, Retries, Wake};

use crate::{Digest, Name, PullOptions};
use place::{Place, Request};

/// What manifests may be, most wanted first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A repository of a registry, and the mirrors that may have its content too.
pub(crate) struct Repository {
    name: Name,
    /// In the order in which they are asked.
    places: Vec<Place>,
    /// The first one that is still asked for blobs.
    first: AtomicUsize,
    cancel: Cancel,
    attempts: u32,
}

/// A document, and the digest that was computed from it.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    /// What the registry says that it is.
    pub(crate) media_type: String,
    /// Where it came from.
    pub(crate) url: String,
}

/// The rest of a blob.
pub(crate) struct BlobStream {
    pub(crate) reader: Box<dyn Read + Send>,
    /// So many bytes come before it, from a server that cannot begin where it was asked to.
    pub(crate) skip: u64,
    /// Where it comes from.
    pub(crate) url: String,
    /// The position of the place it comes from.
    pub(crate) place: usize,
}

impl Repository {
    /// Does not talk to anybody yet.
    pub(crate) fn new(
        registries: &Registries,
        name: &Name,
        options: &PullOptions,
    ) -> Result<Self, RegistryError> {
        let registry = name.registry();
        let endpoints = registries
            .endpoints(registry)
            .map_err(RegistryError::Config)?;
        let mut places = Vec::new();
        for endpoint in endpoints {
            // What comes with a task is for the registry of its image, never for a mirror.
            let own = options
                .credentials
                .as_ref()
                .filter(|_| endpoint.mirror_of.is_none());
            let host = registries.host(&endpoint.host);
            let known = match own.cloned().or(host.auth) {
                Some(known) => Some(known),
                None => match registries
                    .auth_file
                    .clone()
                    .or_else(credentials::default_file)
                {
                    Some(file) => credentials::from_file(&file, &endpoint.host)?,
                    None => None,
                },
            };
            places.push(Place::new(endpoint, host.tls, known, name.repository()));
        }
        Ok(Self {
            name: name.clone(),
            places,
            first: AtomicUsize::new(0),
            cancel: options.cancel.clone(),
            attempts: options.attempts,
        })
    }

    /// How often a request is made before its failure counts.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A manifest or an index, by tag or digest. By digest, it is verified.
    pub(crate) fn manifest(
        self: &Arc<Self>,
        reference: &str,
        limit: u64,
        attempts: u32,
    ) -> Result<Document, RegistryError> {
        let request = Request {
            path: format!("manifests/{reference}"),
            accept: Some(MANIFEST_TYPES),
            offset: 0,
        };
        let expected: Option<Digest> = reference.parse().ok();
        self.everywhere(attempts, move |place| {
            place.document(&request, expected, limit)
        })
    }

    /// A small blob, verified.
    pub(crate) fn small_blob(
        self: &Arc<Self>,
        digest: &Digest,
        limit: u64,
    ) -> Result<Document, RegistryError> {
        let request = Request {
            path: format!("blobs/{digest}"),
            accept: None,
            offset: 0,
        };
        let digest = *digest;
        self.everywhere(self.attempts, move |place| {
            place.document(&request, Some(digest), limit)
        })
    }

    /// Begins to read a blob at `offset`: one attempt at each place. `urls` are where the blob of a
    /// foreign layer is, should the registry not have it.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        urls: &[String],
    ) -> Result<BlobStream, RegistryError> {
        let request = Request {
            path: format!("blobs/{digest}"),
            accept: None,
            offset,
        };
        let first = self.first.load(Ordering::Relaxed);
        let outcome = self.first(first, |place| place.stream(&request));
        let outcome = outcome.map(|(place, stream)| BlobStream { place, ..stream });
        match (outcome, self.places.last()) {
            (Err(RegistryError::NotFound { .. }), Some(place)) if !urls.is_empty() => {
                let mut last = None;
                for url in urls {
                    match place.foreign(url, offset) {
                        Ok(stream) => {
                            let place = self.places.len() - 1;
                            return Ok(BlobStream { place, ..stream });
                        }
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or(RegistryError::Cancelled))
            }
            (outcome, _) => outcome,
        }
    }

    /// For requests that end with `cancel`.
    pub(crate) fn retries(&self, cancel: &Cancel) -> Retries {
        Retries::new(cancel, self.attempts)
    }

    /// No longer asks the place at this position for blobs. False where there is no other one.
    pub(crate) fn leave(&self, place: usize) -> bool {
        let another = place + 1 < self.places.len();
        if another {
            self.first.fetch_max(place + 1, Ordering::Relaxed);
        }
        another
    }

    /// No longer asks mirrors for blobs. False where there is none.
    pub(crate) fn leave_mirrors(&self) -> bool {
        self.places.len() > 1 && self.leave(self.places.len() - 2)
    }

    /// What may be tried again is, at all places in turn.
    fn everywhere<T: Send + 'static>(
        self: &Arc<Self>,
        attempts: u32,
        ask: impl Fn(&Place) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let repository = self.clone();
        self.cancel.unless_cancelled(move || {
            let mut retries = Retries::new(&repository.cancel, attempts);
            loop {
                match repository.first(0, &ask) {
                    Err(error) => retries.pause(error)?,
                    Ok((_, answer)) => return Ok(answer),
                }
            }
        })
    }

    /// The first good answer, from the places at `first` and after it. Of failures, that of the
    /// registry itself counts.
    fn first<T>(
        &self,
        first: usize,
        ask: impl Fn(&Place) -> Result<T, RegistryError>,
    ) -> Result<(usize, T), RegistryError> {
        let mut last = RegistryError::Config(format!("{} has no place to ask", self.name));
        for (at, place) in self.places.iter().enumerate().skip(first) {
            self.cancel.check()?;
            match ask(place) {
                Ok(answer) => return Ok((at, answer)),
                Err(error) => {
                    if place.is_mirror() {
                        tracing::warn!(%error, "a mirror failed, going on with the next place");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// Reads a text in every way in which texts of registries and of files about them are read.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_text(text: &str) {
    let _ = auth::Challenge::parse(&[text]);
    http::read_text(text);
    let _ = Credentials::from_registry_auth(text);
    let _ = serde_json::from_str::<Registries>(text);
}

/// The type that an answer says it has, without parameters.
fn media_type(headers: &ureq::http::HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let value = value.unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}
