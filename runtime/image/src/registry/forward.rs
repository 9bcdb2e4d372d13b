//! Plain HTTP through a proxy, which is asked for the whole URL (RFC 9112, section 3.2.2).
//!
//! ureq itself makes a tunnel (`CONNECT`) for every URL, and proxies commonly allow tunnels to port 443
//! alone. So what it sends is changed on its way: its request line, and who we are for the proxy.

use std::{fmt, mem};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ureq::{
    Error, Proxy,
    config::Config,
    http::Uri,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
    },
};

/// Connects as ureq does, but for plain HTTP through a proxy.
#[derive(Debug)]
pub(super) struct Connect {
    ureq: DefaultConnector,
    /// How the proxy itself is connected to.
    direct: Config,
}

impl Connect {
    /// `direct` is the agent's configuration without a proxy.
    pub(super) fn new(direct: Config) -> Self {
        Self {
            ureq: DefaultConnector::new(),
            direct,
        }
    }
}

impl Connector<()> for Connect {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let proxy = details.config.proxy().filter(|_| !details.needs_tls());
        let Some(proxy) = proxy else {
            return self.ureq.connect(details, chained);
        };
        let timeout = details.timeout;
        let addresses = details
            .resolver
            .resolve(proxy.uri(), &self.direct, timeout)?;
        let proxy_details = ConnectionDetails {
            uri: proxy.uri(),
            addrs: addresses,
            config: &self.direct,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let to_proxy = (details.run_connector)(&proxy_details)?;
        Ok(Some(Box::new(Forward {
            to_proxy,
            change: Change::new(details.uri, proxy),
            is_begin: true,
        })))
    }
}

/// A connection to a proxy, for one server behind it.
struct Forward {
    to_proxy: Box<dyn Transport>,
    change: Change,
    /// What is sent next is the begin of a request.
    is_begin: bool,
}

/// What a proxy has to be told beyond what the server is told.
struct Change {
    /// `http://host:port`.
    server: String,
    /// A header line with its end, or nothing.
    header: String,
}

impl Change {
    fn new(url: &Uri, proxy: &Proxy) -> Self {
        let host = url.host().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}"));
        let known = proxy.username().is_some() || proxy.password().is_some();
        let pair = format!(
            "{}:{}",
            proxy.username().unwrap_or_default(),
            proxy.password().unwrap_or_default()
        );
        let header = format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair));
        Self {
            server: format!("http://{host}{}", port.unwrap_or_default()),
            header: if known { header } else { String::new() },
        }
    }

    /// The begin of a request, of which at least the first line is there.
    fn apply(&self, request: &[u8]) -> Vec<u8> {
        let mut changed = Vec::with_capacity(request.len() + self.server.len() + self.header.len());
        let target = request.iter().position(|byte| *byte == b' ');
        let line = request.windows(2).position(|pair| pair == b"\r\n");
        match (target, line) {
            (Some(target), Some(line)) if target < line => {
                changed.extend_from_slice(&request[..=target]);
                changed.extend_from_slice(self.server.as_bytes());
                changed.extend_from_slice(&request[target + 1..line + 2]);
                changed.extend_from_slice(self.header.as_bytes());
                changed.extend_from_slice(&request[line + 2..]);
            }
            _ => changed.extend_from_slice(request),
        }
        changed
    }
}

impl Transport for Forward {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.to_proxy.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !mem::take(&mut self.is_begin) {
            return self.to_proxy.transmit_output(amount, timeout);
        }
        let request = self
            .change
            .apply(&self.to_proxy.buffers().output()[..amount]);
        let mut rest = &request[..];
        while !rest.is_empty() {
            let output = self.to_proxy.buffers().output();
            let (now, later) = rest.split_at(rest.len().min(output.len()));
            output[..now.len()].copy_from_slice(now);
            self.to_proxy.transmit_output(now.len(), timeout)?;
            rest = later;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // Who waits for an answer has sent all of the request.
        self.is_begin = true;
        self.to_proxy.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.to_proxy.is_open()
    }
}

/// Without credentials.
impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("server", &self.change.server)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_asked_for_the_whole_url() {
        let change = |url: &str, proxy: &str, request: &str| {
            let proxy = Proxy::new(proxy).expect("a proxy");
            let change = Change::new(&url.parse().expect("a URL"), &proxy);
            String::from_utf8(change.apply(request.as_bytes())).expect("text")
        };
        let request = "GET /v2/?a=b HTTP/1.1\r\nhost: r:5000\r\n\r\n";
        assert_eq!(
            change("http://r:5000/v2/?a=b", "http://proxy", request),
            "GET http://r:5000/v2/?a=b HTTP/1.1\r\nhost: r:5000\r\n\r\n"
        );
        assert_eq!(
            change(
                "http://me@[fd00::1]/v2/",
                "http://me:pass%3Aword@proxy",
                request
            ),
            "GET http://[fd00::1]/v2/?a=b HTTP/1.1\r\n\
             Proxy-Authorization: Basic bWU6cGFzczp3b3Jk\r\nhost: r:5000\r\n\r\n"
        );
        for odd in ["", "GET", "\r\n x"] {
            assert_eq!(change("http://r", "http://me:x@proxy", odd), odd);
        }
    }
}
