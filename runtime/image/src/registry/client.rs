//! Requests, each by its own way: directly or through a proxy, and again where a redirect leads.
//!
//! ureq could follow redirects, but with the proxy of the first URL.

use std::{io, sync::Arc};

use ureq::{
    Agent, Body, Proxy, ResponseExt,
    http::{HeaderName, Response, StatusCode, Uri, header},
    unversioned::resolver::{DefaultResolver, Resolver},
};

use super::{
    RegistryError, config,
    http::{self, is_same_server},
    proxy::{Proxies, ProxyError},
    public::{self, NotPublic, Public},
    redirect,
};

/// One after the other, until content comes.
const MAX_REDIRECTS: u32 = 5;
/// Of the text that comes with a redirect; it is read so that the connection can be used again.
const MAX_REDIRECT_TEXT: u64 = 16 << 10;

/// What talks to a host, and to those that it sends us to. Clones share their connections.
#[derive(Clone)]
pub(super) struct Client {
    proxies: Arc<Proxies>,
    /// For the host itself, on whatever port: its token server is often there too.
    own: Agents,
    /// The host.
    host: String,
    /// For all others. What is said of the host's TLS is not said of theirs.
    other: Agents,
    /// Those may have public addresses only.
    only_public: bool,
    /// The host speaks plain HTTP, so others may.
    plain: bool,
}

/// What talks to a kind of hosts.
#[derive(Clone)]
struct Agents {
    /// For direct connections.
    direct: Agent,
    through: Vec<(Proxy, Agent)>,
}

/// What is asked for with GET.
#[derive(Default)]
pub(super) struct Get<'a> {
    /// Behind the URL; not where a redirect leads, which has said all that is to be asked.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// The value of `Authorization`. Only the URL's own server sees it.
    pub(super) authorization: Option<&'a str>,
    pub(super) headers: &'a [(HeaderName, String)],
}

/// Why there was no answer.
pub(super) enum Failure {
    /// There is no way to the host.
    Proxy(ProxyError),
    /// A redirect leads nowhere, or a URL to where we do not go.
    Redirect(String),
    Transport {
        error: ureq::Error,
        /// The proxy that it came through, in words.
        proxy: Option<String>,
    },
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        Self::Transport { error, proxy: None }
    }
}

impl Client {
    /// For the server of the URL `base`. Reads the files of `tls`, and the proxies of the environment.
    pub(super) fn new(
        tls: &config::TlsConfig,
        base: &str,
        plain: bool,
    ) -> Result<Self, RegistryError> {
        let proxies = Proxies::of_environment();
        let base: Option<Uri> = base.parse().ok();
        let own = Agents::new(tls, plain, &proxies, DefaultResolver::default)?;
        let elsewhere = elsewhere(tls);
        let other = match elsewhere == *tls {
            true => own.clone(),
            false => Agents::new(&elsewhere, plain, &proxies, DefaultResolver::default)?,
        };
        Ok(Self {
            proxies: Arc::new(proxies),
            own,
            host: base.as_ref().and_then(Uri::host).unwrap_or_default().into(),
            other,
            only_public: false,
            plain,
        })
    }

    /// The same for URLs that anybody may have written.
    pub(super) fn only_public(&self, tls: &config::TlsConfig) -> Result<Self, RegistryError> {
        let other = Agents::new(&elsewhere(tls), self.plain, &self.proxies, Public::default)?;
        Ok(Self {
            other,
            only_public: true,
            ..self.clone()
        })
    }

    /// The answer of the server that redirects lead to, whatever its status.
    pub(super) fn get(&self, url: &str, get: &Get<'_>) -> Result<Response<Body>, Failure> {
        let (mut answer, mut redirected) = self.follow(url, get)?;
        // Redirects lose who we are: where one leads can be anybody, be it another port of the same
        // host. Where it stays with the same server, its target is asked itself.
        for _ in 0..MAX_REDIRECTS {
            let end = answer.get_uri();
            let refused =
                answer.status() == StatusCode::UNAUTHORIZED && get.authorization.is_some();
            if !refused || !redirected || !is_same_server(url, end) {
                break;
            }
            let at = end.to_string();
            (answer, redirected) = self.follow(&at, &Get { query: &[], ..*get })?;
        }
        Ok(answer)
    }

    /// Sends a form. A redirect is asked with GET, and one that wants the form again is the answer:
    /// there are secrets in it.
    pub(super) fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let at = parsed(url)?;
        let form = form.iter().copied();
        let answer = self.once(&at, |agent| agent.post(url).send_form(form))?;
        match answer.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => Ok(answer),
            _ => match redirect::target(&at, &answer).map_err(Failure::Redirect)? {
                Some(next) => {
                    let followed = self.follow(&next.to_string(), &Get::default());
                    followed.map(|(answer, _)| answer)
                }
                None => Ok(answer),
            },
        }
    }

    /// The answer of where redirects lead, and whether there was one.
    fn follow(&self, url: &str, get: &Get<'_>) -> Result<(Response<Body>, bool), Failure> {
        let mut at = parsed(url)?;
        for redirects in 0..=MAX_REDIRECTS {
            let answer = self.once(&at, |agent| {
                let mut request = agent.get(&at);
                for (name, value) in get.headers {
                    request = request.header(name, value);
                }
                if redirects == 0 {
                    request = request.query_pairs(get.query.iter().copied());
                    if let Some(value) = get.authorization {
                        request = request.header(header::AUTHORIZATION, value);
                    }
                }
                request.call()
            })?;
            match redirect::target(answer.get_uri(), &answer).map_err(Failure::Redirect)? {
                Some(next) => at = next,
                None => return Ok((answer, redirects > 0)),
            }
            let text = answer.into_body().into_with_config();
            let _ = io::copy(&mut text.limit(MAX_REDIRECT_TEXT).reader(), &mut io::sink());
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects, one after the other");
        Err(Failure::Redirect(reason))
    }

    /// One request, by the way that leads to `url`.
    fn once(
        &self,
        url: &Uri,
        ask: impl FnOnce(&Agent) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let host = url.host().unwrap_or_default();
        let is_own = host.eq_ignore_ascii_case(&self.host);
        if !self.plain && url.scheme_str() == Some("http") {
            // The rest of it may be what opens the door there.
            let port = url.port_u16().map(|port| format!(":{port}"));
            let port = port.unwrap_or_default();
            return Err(Failure::Redirect(format!(
                "it leads to http://{host}{port}, and plain HTTP is not spoken on behalf of a registry with TLS"
            )));
        }
        // A proxy looks up names by itself.
        if !is_own && self.only_public && public::is_inside(url) {
            return Err(Failure::Redirect(NotPublic.to_string()));
        }
        let agents = match is_own {
            true => &self.own,
            false => &self.other,
        };
        let Some(named) = self.proxies.to(url).map_err(Failure::Proxy)? else {
            return ask(&agents.direct).map_err(Failure::from);
        };
        let agent = agents
            .through
            .iter()
            .find(|(own, _)| Some(own) == named.proxy());
        let agent = agent.map_or(&agents.direct, |(_, agent)| agent);
        let refusal = |status| named.refusal(status).map(Failure::Proxy);
        match ask(agent) {
            // In a tunnel, the server says it, and not the proxy.
            Ok(answer) if url.scheme_str() == Some("http") => match answer.status() {
                status @ StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    refusal(status).map_or(Ok(answer), Err)
                }
                _ => Ok(answer),
            },
            Ok(answer) => Ok(answer),
            Err(error) => {
                Err(tunnel_status(&error)
                    .and_then(refusal)
                    .unwrap_or_else(|| Failure::Transport {
                        error,
                        proxy: Some(named.to_string()),
                    }))
            }
        }
    }
}

impl Agents {
    fn new<R: Resolver>(
        tls: &config::TlsConfig,
        plain: bool,
        proxies: &Proxies,
        resolver: fn() -> R,
    ) -> Result<Self, RegistryError> {
        let mut through: Vec<(Proxy, Agent)> = Vec::new();
        for proxy in proxies.all() {
            if through.iter().all(|(own, _)| own != proxy) {
                // Its own address may be any.
                let resolver = DefaultResolver::default();
                let agent = http::agent(tls, plain, Some(proxy), resolver)?;
                through.push((proxy.clone(), agent));
            }
        }
        Ok(Self {
            direct: http::agent(tls, plain, None, resolver())?,
            through,
        })
    }
}

/// What of a host's TLS counts for others too: whom we trust, but not that we trust everybody, nor who we are.
fn elsewhere(tls: &config::TlsConfig) -> config::TlsConfig {
    config::TlsConfig {
        ca_file: tls.ca_file.clone(),
        ..config::TlsConfig::default()
    }
}

fn parsed(url: &str) -> Result<Uri, Failure> {
    let error = |_| Failure::from(ureq::Error::BadUri(url.to_owned()));
    url.parse().map_err(error)
}

/// The status with which a proxy refused a tunnel. ureq tells it in words.
fn tunnel_status(error: &ureq::Error) -> Option<StatusCode> {
    let ureq::Error::ConnectProxyFailed(text) = error else {
        return None;
    };
    let number = text.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
}
