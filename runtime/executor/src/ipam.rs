//! Addresses on the gwbridge: this node's own affair, so this node gives them out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The bridge's own address: the first usable one of the subnet.
#[must_use]
pub fn bridge_address(subnet: IpNet) -> IpNet {
    with_prefix(nth(subnet, 1), subnet)
}

/// The next free address after the one given out last, so that one that was just given back rests
/// as long as possible: connections of its former holder may still be remembered.
///
/// `None` when the subnet is full.
#[must_use]
pub fn allocate(subnet: IpNet, used: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpNet> {
    let (first, end) = range(subnet);
    let start = last
        .filter(|last| subnet.contains(last))
        .map(|last| number(last) - number(subnet.network()) + 1)
        .filter(|n| (first..end).contains(n))
        .unwrap_or(first);
    (start..end)
        .chain(first..start)
        // One more than are used is surely free: a subnet of 2^64 is never walked.
        .take(used.len() + 1)
        .map(|n| nth(subnet, n))
        .find(|address| !used.contains(address))
        .map(|address| with_prefix(address, subnet))
}

/// Offsets of the tasks' addresses: without network and bridge, and in IPv4 without broadcast.
fn range(subnet: IpNet) -> (u128, u128) {
    let bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
    // A subnet of 2^127 and more has room enough below 2^64.
    let size = 1u128 << bits.min(64);
    let end = if subnet.addr().is_ipv4() {
        size - 1
    } else {
        size
    };
    (2, end)
}

fn nth(subnet: IpNet, n: u128) -> IpAddr {
    match subnet.network() {
        // Below 2^32 by the range.
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4).wrapping_add(n as u32)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).wrapping_add(n)).into()),
    }
}

fn number(address: impl Into<IpAddr>) -> u128 {
    match address.into() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn with_prefix(address: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new_assert(address, subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_small_subnet_is_used_up_and_no_further() {
        let subnet = net("10.9.0.0/29");
        assert_eq!(bridge_address(subnet), net("10.9.0.1/29"));
        let mut used = BTreeSet::new();
        let mut last = None;
        for expected in 2..=6 {
            let address = allocate(subnet, &used, last).unwrap();
            assert_eq!(address, net(&format!("10.9.0.{expected}/29")));
            last = Some(address.addr());
            used.insert(address.addr());
        }
        assert_eq!(allocate(subnet, &used, last), None);
        used.remove(&"10.9.0.4".parse().unwrap());
        assert_eq!(allocate(subnet, &used, last), Some(net("10.9.0.4/29")));
    }

    #[test]
    fn an_address_given_back_rests() {
        let subnet = net("10.9.0.0/24");
        let last = Some("10.9.0.2".parse().unwrap());
        assert_eq!(
            allocate(subnet, &BTreeSet::new(), last),
            Some(net("10.9.0.3/24"))
        );
    }

    #[test]
    fn ipv6_and_a_last_address_of_another_subnet() {
        let subnet = net("fd00:9::/64");
        assert_eq!(bridge_address(subnet), net("fd00:9::1/64"));
        let last = Some("10.9.0.2".parse().unwrap());
        assert_eq!(
            allocate(subnet, &BTreeSet::new(), last),
            Some(net("fd00:9::2/64"))
        );
    }
}
