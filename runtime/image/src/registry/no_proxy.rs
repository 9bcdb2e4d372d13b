//! Hosts that no proxy leads to: the words of `NO_PROXY`, as Go reads them (`golang.org/x/net/http/httpproxy`).

use std::net::IpAddr;

/// The entries that could be understood. The others are left out, as every program does it.
#[derive(Debug, Default)]
pub(super) struct Exceptions(Vec<Entry>);

#[derive(Debug)]
enum Entry {
    /// `*`.
    All,
    /// Addresses that begin with so many bits of this one.
    Network(IpAddr, u32),
    Address(IpAddr, Option<u16>),
    /// Names that end with this, a dot before it included.
    Below(String, Option<u16>),
    /// This name, and those below it.
    Domain(String, Option<u16>),
}

impl Exceptions {
    /// A list with commas between its entries.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(Entry::parse).collect())
    }

    /// Whether nothing but a direct connection leads to a host. `host` is a name or an address without
    /// brackets, in small letters.
    pub(super) fn have(&self, host: &str, port: u16) -> bool {
        let address = address(host);
        self.0.iter().any(|entry| entry.has(host, address, port))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((base, bits)) = text.split_once('/') {
            // What is no network is no name either.
            return network(base, bits);
        }
        let (host, port) = split(&text)?;
        if let Some(address) = address(host) {
            return Some(Self::Address(address, port));
        }
        // `*.example.com` is another word for `.example.com`.
        let host = match host.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => rest,
            _ => host,
        };
        match host.strip_prefix('.') {
            Some("") => None,
            Some(_) => Some(Self::Below(host.to_owned(), port)),
            None if host.is_empty() => None,
            None => Some(Self::Domain(host.to_owned(), port)),
        }
    }

    fn has(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Network(base, bits) => address.is_some_and(|a| begins(a, *base, *bits)),
            Self::Address(own, wanted) => address == Some(*own) && is_port(wanted),
            Self::Below(end, wanted) => host.ends_with(end.as_str()) && is_port(wanted),
            Self::Domain(name, wanted) => {
                let before = host.strip_suffix(name.as_str());
                before.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) && is_port(wanted)
            }
        }
    }
}

/// IPv4 addresses in IPv6's clothes (`::ffff:10.0.0.1`) are IPv4 addresses.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|found: IpAddr| found.to_canonical())
}

fn network(base: &str, bits: &str) -> Option<Entry> {
    let base: IpAddr = base.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    (bits <= width(base)).then_some(Entry::Network(base, bits))
}

/// Whether the first bits of two addresses of one kind are the same.
fn begins(address: IpAddr, base: IpAddr, bits: u32) -> bool {
    let value = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let behind = width(base) - bits;
    let differ = value(address) ^ value(base);
    address.is_ipv4() == base.is_ipv4() && differ.checked_shr(behind).unwrap_or(0) == 0
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`, or an IPv6 address as it is. `None` for a port that
/// is none.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, ""),
            Some(parts) => parts,
            None => (text, ""),
        },
    };
    match port {
        "" => Some((host, None)),
        port => Some((host, Some(port.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_mean_what_they_mean_to_go() {
        for (list, host, port, expected) in [
            // Names: itself and what is below it.
            ("corp.example", "corp.example", 443, true),
            ("corp.example", "registry.corp.example", 443, true),
            ("corp.example", "a.b.corp.example", 443, true),
            ("corp.example", "mycorp.example", 443, false),
            ("corp.example", "corp.example.com", 443, false),
            ("corp.example", "example", 443, false),
            ("CORP.example", "corp.example", 443, true),
            // With a dot, only what is below it.
            (".corp.example", "registry.corp.example", 443, true),
            (".corp.example", "corp.example", 443, false),
            (".corp.example", "mycorp.example", 443, false),
            ("*.corp.example", "registry.corp.example", 443, true),
            ("*.corp.example", "corp.example", 443, false),
            ("*corp.example", "mycorp.example", 443, false),
            // Ports.
            ("corp.example:5000", "corp.example", 5000, true),
            ("corp.example:5000", "r.corp.example", 5000, true),
            ("corp.example:5000", "corp.example", 443, false),
            (".corp.example:5000", "r.corp.example", 5000, true),
            (".corp.example:5000", "r.corp.example", 80, false),
            ("corp.example:", "corp.example", 80, true),
            // Addresses.
            ("10.0.0.7", "10.0.0.7", 443, true),
            ("10.0.0.7", "10.0.0.70", 443, false),
            ("10.0.0.7:5000", "10.0.0.7", 5000, true),
            ("10.0.0.7:5000", "10.0.0.7", 443, false),
            ("10.0.0.7", "::ffff:10.0.0.7", 443, true),
            ("fd00::1", "fd00::1", 443, true),
            ("fd00:0:0::1", "fd00::1", 443, true),
            ("[fd00::1]", "fd00::1", 443, true),
            ("[fd00::1]:5000", "fd00::1", 5000, true),
            ("[fd00::1]:5000", "fd00::1", 443, false),
            ("fd00::1", "fd00::2", 443, false),
            // Networks.
            ("10.0.0.0/8", "10.9.8.7", 443, true),
            ("10.0.0.0/8", "11.9.8.7", 443, false),
            ("10.1.2.3/8", "10.9.8.7", 443, true),
            ("10.0.0.0/9", "10.128.0.1", 443, false),
            ("10.0.0.7/32", "10.0.0.7", 443, true),
            ("10.0.0.7/32", "10.0.0.6", 443, false),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("0.0.0.0/0", "fd00::1", 443, false),
            ("::/0", "8.8.8.8", 443, false),
            ("::/0", "fd00::1", 443, true),
            ("fd00::/8", "fdab::1", 443, true),
            ("fd00::/8", "fe80::1", 443, false),
            ("2001:db8::/33", "2001:db8:8000::1", 443, false),
            ("10.0.0.0/8", "::ffff:10.0.0.7", 443, true),
            ("10.0.0.0/8", "ten.example", 443, false),
            // Everything.
            ("*", "registry.example", 443, true),
            ("*", "10.0.0.7", 443, true),
            ("a.example, * ", "registry.example", 443, true),
            // Lists, with spaces.
            (" a.example , b.example ", "a.example", 443, true),
            (" a.example , b.example ", "b.example", 443, true),
            (" a.example , 10.0.0.0/8 ", "10.1.1.1", 443, true),
            ("a.example\t,\nb.example", "b.example", 443, true),
            // What is none of these.
            ("", "registry.example", 443, false),
            (" , ,", "registry.example", 443, false),
            (".", "registry.example", 443, false),
            (":443", "registry.example", 443, false),
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.0/x", "10.0.0.1", 443, false),
            ("registry.example/x", "registry.example", 443, false),
            ("registry.example:x", "registry.example", 443, false),
            ("[fd00::1", "fd00::1", 443, false),
        ] {
            let exceptions = Exceptions::parse(list);
            assert_eq!(
                exceptions.have(host, port),
                expected,
                "{list}: {host}:{port}"
            );
        }
    }
}
