//! One place that has a repository: the registry itself, or a mirror.

use std::{
    io::{self, Read as _},
    sync::{Mutex, PoisonError},
};

use ureq::{
    Body, ResponseExt,
    http::{Response, StatusCode, header},
};

use super::{
    BlobStream, Credentials, Document, RegistryError,
    auth::{Challenge, Grant},
    client::{Client, Failure, Get},
    config::{Endpoint, TlsConfig},
    http, media_type,
    proxy::ProxyError,
};
use crate::{Digest, name::split_port};

pub(super) struct Place {
    endpoint: Endpoint,
    tls: TlsConfig,
    credentials: Option<Credentials>,
    repository: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made at the first request. With it, whether it speaks plain HTTP after all.
    client: Option<(Client, bool)>,
    grant: Option<Grant>,
}

/// What is asked of a place, below `/v2/<repository>/`.
pub(super) struct Request {
    pub(super) path: String,
    pub(super) accept: Option<&'static str>,
    /// Only from this byte on.
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: TlsConfig,
        credentials: Option<Credentials>,
        repository: &str,
    ) -> Self {
        Self {
            endpoint,
            tls,
            credentials,
            repository: repository.to_owned(),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.endpoint.mirror_of.is_some()
    }

    /// A whole document in memory, verified where its digest is known.
    pub(super) fn document(
        &self,
        request: &Request,
        expected: Option<Digest>,
        limit: u64,
    ) -> Result<Document, RegistryError> {
        let (url, answer) = self.ask(request)?;
        let refuse = |reason: String| RegistryError::Answer {
            url: url.clone(),
            reason,
        };
        let promised = answer.headers().get("docker-content-digest");
        let promised: Option<Digest> = promised.and_then(|v| v.to_str().ok()?.parse().ok());
        let media_type = media_type(answer.headers());
        let mut bytes = Vec::new();
        answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| RegistryError::Transport {
                url: url.clone(),
                reason: error.to_string(),
            })?;
        if bytes.len() as u64 > limit {
            return Err(refuse(format!("the answer is longer than {limit} bytes")));
        }
        let digest = Digest::of(&bytes);
        match expected.or(promised) {
            Some(expected) if expected != digest => Err(RegistryError::Digest {
                url,
                expected,
                actual: digest,
            }),
            _ => Ok(Document {
                digest,
                bytes,
                media_type,
                url,
            }),
        }
    }

    /// The rest of a blob.
    pub(super) fn stream(&self, request: &Request) -> Result<BlobStream, RegistryError> {
        let (url, answer) = match self.ask(request) {
            Err(RegistryError::Status {
                url, status: 416, ..
            }) => {
                let reason = format!("the blob has no more than {} bytes", request.offset);
                return Err(RegistryError::Answer { url, reason });
            }
            outcome => outcome?,
        };
        if begin(&answer).is_some_and(|at| at == 0 || at == request.offset) {
            return stream(url, answer, request.offset);
        }
        // One that does not understand it right; without it, all of the blob comes.
        let whole = Request {
            path: request.path.clone(),
            accept: request.accept,
            offset: 0,
        };
        let (url, answer) = self.ask(&whole)?;
        stream(url, answer, request.offset)
    }

    /// The rest of a blob that is somewhere else, where nobody knows us: on a public host, or the registry's.
    pub(super) fn foreign(&self, url: &str, offset: u64) -> Result<BlobStream, RegistryError> {
        let (client, _) = self.client()?;
        let client = client.only_public(&self.tls)?;
        let answer =
            send(&client, url, None, None, offset).map_err(|error| http::transport(url, &error))?;
        stream(url.to_owned(), http::checked(url, answer)?, offset)
    }

    /// Asks, and answers the challenge if there is one.
    fn ask(&self, request: &Request) -> Result<(String, Response<Body>), RegistryError> {
        let (mut client, mut plain) = self.client()?;
        let mut grant = self.state().grant.clone().filter(Grant::is_good);
        let mut challenged = false;
        loop {
            let url = self.url(request, plain);
            let header = grant.as_ref().map(|grant| grant.header.as_str());
            let answer = match send(&client, &url, header, request.accept, request.offset) {
                Ok(answer) => answer,
                Err(error) if !plain && self.endpoint.may_be_plain && self.may_be_plain(&error) => {
                    plain = true;
                    client = Client::new(&self.tls, &self.endpoint.base, true)?;
                    continue;
                }
                Err(error) => return Err(http::transport(&url, &error)),
            };
            if plain {
                // Not before somebody has answered: it may have been down.
                self.state().client = Some((client.clone(), true));
            }
            // Who we are is no business of a host that we were sent to.
            if !http::is_same_server(&url, answer.get_uri()) {
                return http::checked(&url, answer).map(|answer| (url, answer));
            }
            if answer.status() != StatusCode::UNAUTHORIZED || challenged {
                return http::checked(&url, answer).map(|answer| (url, answer));
            }
            challenged = true;
            let Some(challenge) = Challenge::of(answer.headers()) else {
                return http::checked(&url, answer).map(|answer| (url, answer));
            };
            let credentials = self.credentials.as_ref();
            grant = challenge.answer(&client, credentials, &self.repository)?;
            if grant.is_none() {
                return http::checked(&url, answer).map(|answer| (url, answer));
            }
            self.state().grant.clone_from(&grant);
        }
    }

    /// Nobody speaks TLS there. Or nobody listens there, and the port for plain HTTP is another one. Or a
    /// proxy makes no tunnel to there, as many do for ports that are not TLS's.
    fn may_be_plain(&self, failure: &Failure) -> bool {
        let error = match failure {
            Failure::Transport { error, .. } => error,
            Failure::Proxy(ProxyError::Refused { .. }) => return true,
            _ => return false,
        };
        let refused = match error {
            // The second is what a proxy says of a port where nobody listens.
            ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => true,
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        http::speaks_no_tls(error) || refused && split_port(&self.endpoint.host).1.is_none()
    }

    fn url(&self, request: &Request, plain: bool) -> String {
        let base = match self.endpoint.base.strip_prefix("https") {
            Some(rest) if plain => format!("http{rest}"),
            _ => self.endpoint.base.clone(),
        };
        let (repository, path) = (&self.repository, &request.path);
        match &self.endpoint.mirror_of {
            // As containerd does it, so that a mirror can serve several registries.
            Some(registry) => format!("{base}/v2/{repository}/{path}?ns={registry}"),
            None => format!("{base}/v2/{repository}/{path}"),
        }
    }

    fn client(&self) -> Result<(Client, bool), RegistryError> {
        let mut state = self.state();
        if let Some(known) = &state.client {
            return Ok(known.clone());
        }
        let plain = self.endpoint.base.starts_with("http://");
        let made = (Client::new(&self.tls, &self.endpoint.base, plain)?, plain);
        state.client = Some(made.clone());
        Ok(made)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(
    client: &Client,
    url: &str,
    authorization: Option<&str>,
    accept: Option<&str>,
    offset: u64,
) -> Result<Response<Body>, Failure> {
    let range = (offset > 0).then(|| (header::RANGE, format!("bytes={offset}-")));
    let accept = accept.map(|value| (header::ACCEPT, value.to_owned()));
    let headers: Vec<_> = accept.into_iter().chain(range).collect();
    let get = Get {
        query: &[],
        authorization,
        headers: &headers,
    };
    client.get(url, &get)
}

/// The byte that a body begins with, where that can be told.
fn begin(answer: &Response<Body>) -> Option<u64> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// The body from `offset` on, whether or not the other side can begin there.
fn stream(url: String, answer: Response<Body>, offset: u64) -> Result<BlobStream, RegistryError> {
    let skip = match begin(&answer) {
        Some(0) => offset,
        Some(at) if at == offset => 0,
        _ => {
            let reason = format!("bytes from {offset} on were asked for, and others came");
            return Err(RegistryError::Answer { url, reason });
        }
    };
    Ok(BlobStream {
        // The size is checked by whoever reads.
        reader: Box::new(
            answer
                .into_body()
                .into_with_config()
                .limit(u64::MAX)
                .reader(),
        ),
        skip,
        url,
        place: 0,
    })
}
