//! One host by HTTP: TLS, time-outs, and what an answer's status means.

use std::{
    fs,
    path::Path,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use ureq::{
    Agent, Body, Proxy, ProxyProtocol,
    http::{Response, StatusCode, Uri, header},
    tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig},
    unversioned::resolver::Resolver,
};

use super::{RegistryError, client::Failure, config, forward::Connect, public::NotPublic};

/// Until a connection is there, TLS included.
const CONNECT: Duration = Duration::from_secs(30);
/// Silence after which a connection counts as lost.
const SILENCE: Duration = Duration::from_secs(30);
/// Of an answer that is only read for its message.
const MAX_MESSAGE: u64 = 16 << 10;

/// Makes what talks to one host, directly or through a proxy. It follows no redirects: see
/// [`Client`](super::client::Client).
pub(super) fn agent(
    tls: &config::TlsConfig,
    plain: bool,
    proxy: Option<&Proxy>,
    resolver: impl Resolver,
) -> Result<Agent, RegistryError> {
    let mut builder = TlsConfig::builder().disable_verification(tls.insecure_skip_verify);
    let is_tls_proxy = proxy.is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
    if !plain || is_tls_proxy {
        let mut roots = system_roots().to_vec();
        if let Some(path) = &tls.ca_file {
            roots.extend(certificates("CA certificates", path)?);
        }
        builder = builder.root_certs(RootCerts::new_with_certs(&roots));
        builder = builder.client_cert(match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates("client certificate", cert)?;
                Some(ClientCert::new_with_certs(&chain, key_of(key)?))
            }
            (None, None) => None,
            _ => {
                let reason = "cert_file and key_file belong together".to_owned();
                return Err(RegistryError::Config(reason));
            }
        });
    }
    let tls = builder.build();
    let config = |proxy: Option<&Proxy>| {
        Agent::config_builder()
            .proxy(proxy.cloned())
            .http_status_as_error(false)
            .https_only(!plain)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("fairlead/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(256 << 10)
            .max_idle_connections_per_host(8)
            .tls_config(tls.clone())
            .build()
    };
    let connect = Connect::new(config(None));
    Ok(Agent::with_parts(config(proxy), connect, resolver))
}

/// Whether both have one scheme, host and port (RFC 6454, section 4).
pub(super) fn is_same_server(url: &str, other: &Uri) -> bool {
    let url: Option<Uri> = url.parse().ok();
    match url.as_ref().map(server) {
        Some(own @ (Some(_), Some(_), Some(_))) => own == server(other),
        _ => false,
    }
}

fn server(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let usual = match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let host = uri.host().map(str::to_ascii_lowercase);
    (uri.scheme_str(), host, uri.port_u16().or(usual))
}

/// The system's authorities. None at all is no error here: no certificate will be trusted then, and
/// that error names the host.
fn system_roots() -> &'static [Certificate<'static>] {
    static ROOTS: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
        }
        let certs = found.certs.iter();
        certs
            .map(|der| Certificate::from_der(der).to_owned())
            .collect()
    })
}

fn pem(what: &'static str, path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let refuse = |reason: String| RegistryError::File {
        what,
        path: path.to_owned(),
        reason,
    };
    let text = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    ureq::tls::parse_pem(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse(error.to_string()))
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let found: Vec<_> = pem(what, path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(RegistryError::File {
            what,
            path: path.to_owned(),
            reason: "there is no certificate in it".into(),
        });
    }
    Ok(found)
}

fn key_of(path: &Path) -> Result<ureq::tls::PrivateKey<'static>, RegistryError> {
    let what = "key of the client certificate";
    pem(what, path)?
        .into_iter()
        .find_map(|item| match item {
            PemItem::PrivateKey(key) => Some(key),
            _ => None,
        })
        .ok_or_else(|| RegistryError::File {
            what,
            path: path.to_owned(),
            reason: "there is no private key in it".into(),
        })
}

/// Why there was no answer, for who asked for `url`.
pub(super) fn transport(url: &str, failure: &Failure) -> RegistryError {
    let url = url.to_owned();
    let (error, proxy) = match failure {
        Failure::Proxy(reason) => {
            let reason = reason.to_string();
            return RegistryError::Proxy { url, reason };
        }
        Failure::Redirect(reason) => {
            let reason = reason.clone();
            return RegistryError::Answer { url, reason };
        }
        Failure::Transport { error, proxy } => (error, proxy),
    };
    if let ureq::Error::Other(error) = error
        && error.is::<NotPublic>()
    {
        let reason = error.to_string();
        return RegistryError::Answer { url, reason };
    }
    let way = proxy.as_ref().map(|proxy| format!("through {proxy}: "));
    let way = way.unwrap_or_default();
    if speaks_no_tls(error) {
        let reason = "it does not speak TLS; plain HTTP is for the machine itself, and for registries \
                      with `insecure_skip_verify`";
        return RegistryError::Answer {
            url,
            reason: format!("{way}{reason}"),
        };
    }
    let reason = format!("{way}{error}");
    // Errors of rustls come through the reader's error type, as text.
    match reason.contains("invalid peer certificate") || reason.contains("received fatal alert") {
        true => RegistryError::Trust { url, reason },
        false => RegistryError::Transport { url, reason },
    }
}

/// Whether this says that the other side does not speak TLS at all.
pub(super) fn speaks_no_tls(error: &ureq::Error) -> bool {
    let text = match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::Tls(text) => (*text).to_owned(),
        _ => return false,
    };
    text.contains("InvalidMessage") || text.contains("corrupt message")
}

/// An answer with a good status, or what the bad one means.
pub(super) fn checked(url: &str, answer: Response<Body>) -> Result<Response<Body>, RegistryError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
    let message = message(answer);
    let (url, code) = (url.to_owned(), status.as_u16());
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
            url,
            status: code,
            message,
        },
        StatusCode::NOT_FOUND => RegistryError::NotFound { url, message },
        _ => RegistryError::Status {
            url,
            status: code,
            message,
            retry_after,
        },
    })
}

/// What a registry says of an error (distribution-spec, section "Error Codes"), on one line and
/// without control characters: it ends in logs and on terminals.
fn message(answer: Response<Body>) -> String {
    let body = answer.into_body().into_with_config().limit(MAX_MESSAGE);
    let Ok(text) = body.read_to_string() else {
        return String::new();
    };
    message_of(&text)
}

/// For tests and fuzzers.
#[cfg(any(test, fuzzing))]
pub(super) fn read_text(text: &str) {
    assert!(!message_of(text).contains(char::is_control));
    let _ = retry_after(text, SystemTime::UNIX_EPOCH);
    let _ = ureq::tls::parse_pem(text.as_bytes()).count();
}

fn message_of(text: &str) -> String {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return String::new();
    };
    let errors = json.get("errors").and_then(|errors| errors.as_array());
    let errors = errors.map_or(&[][..], Vec::as_slice);
    let texts = errors.iter().filter_map(|error| {
        let part = |name| error.get(name).and_then(|v| v.as_str());
        part("message")
            .filter(|text| !text.is_empty())
            .or(part("code"))
    });
    let joined = texts.collect::<Vec<_>>().join("; ");
    joined
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect()
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let same = |one: &str, other: &str| {
            let other = other.parse().expect("a URI");
            is_same_server(one, &other)
        };
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(same("http://a:5000/x", "http://a:5000/"));
        for other in [
            "https://a:5001/x",
            "https://a/x",
            "http://a:5000/x",
            "https://b:5000/x",
        ] {
            assert!(!same("https://a:5000/x", other), "{other}");
        }
        assert!(!same("/x", "/x") && !same("", "https://a/"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let seconds = |value| retry_after(value, now).map(|d| d.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:40:37 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }

    #[test]
    fn messages_are_those_of_the_registry() {
        let text = r#"{"errors":[{"code":"DENIED","message":"requested access\u001b[31m denied"},{"code":"X"}]}"#;
        assert_eq!(message_of(text), "requested access[31m denied; X");
        for odd in ["", "<html>", "{}", r#"{"errors":3}"#, r#"{"errors":[1]}"#] {
            assert_eq!(message_of(odd), "");
        }
    }
}
