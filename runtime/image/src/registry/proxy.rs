//! Which proxy leads to a URL, by the variables that Docker and most programs know.
//!
//! They are read as Go reads them (`golang.org/x/net/http/httpproxy`). `ALL_PROXY`, which Go does not
//! know and curl does, counts where the variable of the URL's scheme is not set.

use std::{env, net::IpAddr, num::NonZeroU16};

use ureq::{
    Proxy, ProxyProtocol,
    http::{StatusCode, Uri, uri::Scheme},
};

use super::no_proxy::Exceptions;

/// The proxies of an environment.
pub(super) struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    exceptions: Exceptions,
}

/// A variable that is set, and the proxy that it names, if it does.
pub(super) struct Named {
    variable: &'static str,
    proxy: Option<Proxy>,
}

/// Why a proxy does not lead anywhere. What it says has no credentials in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyError {
    /// The text of the variable is not shown: there may be a password in it.
    #[error(
        "{0} of the environment names no proxy that can be used; write http://PROXY:PORT or \
         http://USER:PASSWORD@PROXY:PORT (https:// where the proxy itself speaks TLS; there is no SOCKS), \
         with %XX for special characters in user and password"
    )]
    Value(&'static str),
    #[error(
        "{proxy} does not know us (status 407); {variable} takes its user and password: http://USER:PASSWORD@PROXY:PORT"
    )]
    Unknown {
        proxy: String,
        variable: &'static str,
    },
    #[error(
        "{proxy} does not lead there (status {status}); allow it there, or name the host in NO_PROXY"
    )]
    Refused { proxy: String, status: u16 },
}

impl Proxies {
    /// Of this process.
    pub(super) fn of_environment() -> Self {
        Self::new(|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// Of the variables that `get` knows. Empty ones are not set.
    fn new(get: impl Fn(&str) -> Option<String>) -> Self {
        let set = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let text = get(name)?.trim().to_owned();
                (!text.is_empty()).then_some((*name, text))
            })
        };
        let named = |names| {
            let (variable, text) = set(names)?;
            let proxy = proxy(&text);
            Some(Named { variable, proxy })
        };
        let exceptions = set(&["NO_PROXY", "no_proxy"]);
        Self {
            http: named(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            https: named(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            exceptions: exceptions
                .map_or_else(Exceptions::default, |(_, text)| Exceptions::parse(&text)),
        }
    }

    /// Those that are named, one of them perhaps twice.
    pub(super) fn all(&self) -> impl Iterator<Item = &Proxy> {
        let named = self.http.iter().chain(&self.https);
        named.filter_map(Named::proxy)
    }

    /// The proxy that leads to `url`; `None` is a direct connection. The machine itself is never
    /// asked through a proxy.
    pub(super) fn to(&self, url: &Uri) -> Result<Option<&Named>, ProxyError> {
        let (named, usual) = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => (&self.https, 443),
            Some(scheme) if *scheme == Scheme::HTTP => (&self.http, 80),
            _ => return Ok(None),
        };
        let (Some(named), Some(host)) = (named, url.host()) else {
            return Ok(None);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.to_ascii_lowercase();
        if is_loopback(&host) || self.exceptions.have(&host, url.port_u16().unwrap_or(usual)) {
            return Ok(None);
        }
        match named.proxy {
            Some(_) => Ok(Some(named)),
            None => Err(ProxyError::Value(named.variable)),
        }
    }
}

impl Named {
    /// What [`Proxies::to`] returns has one.
    pub(super) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// What a status says that comes from the proxy itself, and that another attempt does not change.
    pub(super) fn refusal(&self, status: StatusCode) -> Option<ProxyError> {
        let proxy = self.to_string();
        match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some(ProxyError::Unknown {
                proxy,
                variable: self.variable,
            }),
            status if status.is_client_error() => Some(ProxyError::Refused {
                proxy,
                status: status.as_u16(),
            }),
            _ => None,
        }
    }
}

/// Without credentials.
impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.proxy {
            Some(proxy) => write!(f, "the proxy {}:{}", proxy.host(), proxy.port()),
            None => write!(f, "the proxy of {}", self.variable),
        }
    }
}

/// A URL, or `host[:port]` with or without credentials before it, which is `http`.
fn proxy(text: &str) -> Option<Proxy> {
    let with_scheme = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let proxy = Proxy::new(&with_scheme).ok()?;
    let known = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    let host = proxy.host();
    let authority = proxy.uri().authority()?.as_str();
    let address = authority.rsplit('@').next()?;
    // The parser takes any text for a port.
    let is_port = match address.strip_prefix(host)? {
        "" => true,
        rest => rest.strip_prefix(':')?.parse::<NonZeroU16>().is_ok(),
    };
    // Behind the host there is nothing: a `/`, `?` or `#` belongs into a password, as %XX.
    let path = proxy.uri().path_and_query();
    let is_end = matches!(path.map_or("", |path| path.as_str()), "" | "/") && !text.contains('#');
    (known && is_port && is_end && !host.is_empty()).then_some(proxy)
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `host:port` of the proxy that leads to a URL in an environment.
    fn to(environment: &[(&str, &str)], url: &str) -> Result<Option<String>, ProxyError> {
        let get = |name: &str| {
            let found = environment.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxies = Proxies::new(get);
        let found = proxies.to(&url.parse().expect(url))?;
        Ok(found.map(|named| {
            let proxy = named.proxy().expect("a proxy");
            format!("{}:{}", proxy.host(), proxy.port())
        }))
    }

    #[test]
    fn the_variable_of_the_scheme_counts() {
        let http = ("HTTP_PROXY", "http://plain:3128");
        let https = ("HTTPS_PROXY", "http://tls:3129");
        let all = ("ALL_PROXY", "http://all:3130");
        let (lower, lower_https) = (
            ("http_proxy", "http://small:1"),
            ("https_proxy", "http://small:2"),
        );
        let (plain_url, tls_url) = ("http://r.example/v2/", "https://r.example/v2/");
        for (environment, url, expected) in [
            (&[][..], plain_url, None),
            (&[], tls_url, None),
            (&[http], plain_url, Some("plain:3128")),
            (&[http], tls_url, None),
            (&[https], plain_url, None),
            (&[https], tls_url, Some("tls:3129")),
            (&[http, https], plain_url, Some("plain:3128")),
            (&[http, https], tls_url, Some("tls:3129")),
            // The capital one first.
            (&[lower, http], plain_url, Some("plain:3128")),
            (&[lower], plain_url, Some("small:1")),
            (&[lower_https, https], tls_url, Some("tls:3129")),
            (&[lower_https], tls_url, Some("small:2")),
            // What is empty is not set.
            (&[("HTTP_PROXY", ""), lower], plain_url, Some("small:1")),
            (&[("HTTP_PROXY", " ")], plain_url, None),
            // The last resort.
            (&[all], plain_url, Some("all:3130")),
            (&[all], tls_url, Some("all:3130")),
            (&[all, lower], plain_url, Some("small:1")),
            (&[all, http], tls_url, Some("all:3130")),
            (&[("all_proxy", "all:1")], tls_url, Some("all:1")),
        ] {
            let found = to(environment, url).expect("good variables");
            assert_eq!(found.as_deref(), expected, "{environment:?}: {url}");
        }
    }

    #[test]
    fn no_proxy_leads_to_the_machine_itself_or_to_what_is_excepted() {
        for (except, url, expected) in [
            ("", "http://r.example", true),
            ("", "http://localhost", false),
            ("", "http://LOCALHOST:5000", false),
            ("", "http://127.0.0.1:5000", false),
            ("", "http://127.1.2.3", false),
            ("", "http://[::1]:5000", false),
            ("", "http://[::ffff:127.0.0.1]", false),
            ("", "http://localhost.example", true),
            ("", "http://10.0.0.7", true),
            ("example", "http://R.example", false),
            ("r.example:80", "http://r.example/", false),
            ("r.example:80", "http://r.example:8080/", true),
            ("10.0.0.0/8", "http://10.0.0.7:5000/", false),
            ("fd00::/8", "http://[fd00::7]:5000/", false),
            ("*", "http://anything", false),
        ] {
            let environment = [("HTTP_PROXY", "proxy:3128"), ("NO_PROXY", except)];
            let found = to(&environment, url).expect("good variables");
            assert_eq!(found.is_some(), expected, "{except}: {url}");
        }
        let environment = |name| [("HTTPS_PROXY", "proxy"), (name, "r.example")];
        for name in ["NO_PROXY", "no_proxy"] {
            assert_eq!(to(&environment(name), "https://r.example:443"), Ok(None));
        }
        let both = [
            ("HTTPS_PROXY", "proxy"),
            ("NO_PROXY", "a.example"),
            ("no_proxy", "r.example"),
        ];
        assert!(matches!(to(&both, "https://r.example"), Ok(Some(_))));
    }

    #[test]
    fn a_proxy_is_named_by_a_url_or_by_its_host() {
        for (text, expected) in [
            ("http://proxy:3128", "proxy:3128"),
            ("http://proxy:3128/", "proxy:3128"),
            ("HTTP://proxy", "proxy:80"),
            ("https://proxy", "proxy:443"),
            ("proxy", "proxy:80"),
            ("proxy:3128", "proxy:3128"),
            (" proxy:3128 ", "proxy:3128"),
            ("me:secret@proxy:3128", "proxy:3128"),
            ("10.0.0.1:3128", "10.0.0.1:3128"),
            ("http://[fd00::1]:3128", "[fd00::1]:3128"),
        ] {
            let found = to(&[("HTTPS_PROXY", text)], "https://r.example");
            assert_eq!(found, Ok(Some(expected.to_owned())), "{text}");
        }
        for text in [
            "http://",
            "http://me:secret@",
            "http://me:secret@proxy:port",
            "http://me:secret@proxy:0",
            "http://me:secret@proxy:70000",
            "http://me:secret/@proxy:3128",
            "http://me:secret#@proxy:3128",
            "http://me:secret?@proxy:3128",
            "http://me:secret%@proxy with a space",
            "http://me:%ff@proxy",
            "ftp://me:secret@proxy",
            "socks5://me:secret@proxy:1080",
            "http://me:secret@proxy/path",
            "-://secret",
        ] {
            let error = to(&[("https_proxy", text)], "https://r.example").expect_err(text);
            assert_eq!(error, ProxyError::Value("https_proxy"));
            let shown = error.to_string();
            assert!(
                shown.starts_with("https_proxy of the environment"),
                "{shown}"
            );
            assert!(!shown.contains("secret"), "{shown}");
            // It is in nobody else's way.
            assert_eq!(to(&[("https_proxy", text)], "http://r.example"), Ok(None));
            assert_eq!(to(&[("https_proxy", text)], "https://localhost"), Ok(None));
        }
    }

    #[test]
    fn credentials_are_for_the_proxy_alone() {
        let text = "http://me:p%40ss%3Aword@proxy:3128";
        let proxies = Proxies::new(|name| (name == "HTTP_PROXY").then(|| text.to_owned()));
        let url = "http://r.example".parse().expect("a URL");
        let named = proxies.to(&url).expect("good").expect("a proxy");
        let proxy = named.proxy().expect("a proxy");
        assert_eq!(
            (proxy.username(), proxy.password()),
            (Some("me"), Some("p@ss:word"))
        );
        let unknown = named.refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let refused = named.refusal(StatusCode::FORBIDDEN);
        for error in [unknown, refused] {
            let shown = error.expect("an error").to_string();
            assert!(
                shown.starts_with("the proxy proxy:3128 does not"),
                "{shown}"
            );
            assert!(
                !shown.contains("p%40ss") && !shown.contains("p@ss"),
                "{shown}"
            );
        }
        // These may come to an end by themselves.
        assert_eq!(named.refusal(StatusCode::BAD_GATEWAY), None);
    }
}
