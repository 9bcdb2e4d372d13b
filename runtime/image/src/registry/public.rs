//! Which addresses anybody may have us ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// Finds only addresses that are public, so that whoever writes an image cannot have the node ask what only the
/// node can reach. It looks at what is connected to, so a name that means another address the next time
/// is no way around it.
#[derive(Debug, Default)]
pub(super) struct Public(DefaultResolver);

/// No address of the host may be asked.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host's address is not public: an image may name only public hosts, or its registry's, for its \
     layers"
)]
pub(super) struct NotPublic;

impl Resolver for Public {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut public = self.empty();
        for address in self.0.resolve(uri, config, timeout)?.iter() {
            if is_public(address.ip()) {
                public.push(*address);
            }
        }
        match public.is_empty() {
            true => Err(Error::Other(Box::new(NotPublic))),
            false => Ok(public),
        }
    }
}

/// Whether a host is an address, and not a public one.
pub(super) fn is_inside(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(|address| !is_public(address))
}

/// IANA's registries of special-purpose addresses (RFC 6890), as far as something may listen there.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match v4_in(address) {
            Some(inner) => is_public_v4(inner),
            None => !(is_special_v6(address) || address.is_unspecified() || address.is_loopback()),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64; // RFC 6598
    !(first == 0
        || first >= 224
        || is_shared
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local())
}

/// Of an address that stands for one of IPv4: mapped (RFC 4291), or translated (RFC 6052).
fn v4_in(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let translated = || match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    address.to_ipv4_mapped().or_else(translated)
}

/// Local to a link or a site (RFC 4291, RFC 4193), or for many.
fn is_special_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    first & 0xffc0 == 0xfe80
        || first & 0xffc0 == 0xfec0
        || first & 0xfe00 == 0xfc00
        || first >= 0xff00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_node_can_reach_is_not_public() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!is_public(inside.parse().expect(inside)), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(outside.parse().expect(outside)), "{outside}");
        }
        let is_inside = |url: &str| is_inside(&url.parse().expect(url));
        assert!(is_inside("http://127.0.0.1:8000/x") && is_inside("https://[::1]/x"));
        assert!(!is_inside("http://localhost/x") && !is_inside("https://1.1.1.1/x"));
    }
}
