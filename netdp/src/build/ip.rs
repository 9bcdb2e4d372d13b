//! What differs between IPv4 and IPv6 in rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::nft::{Expr, Family, KeyType, Meta, Register, load};

/// EtherTypes, network order (IEEE 802 numbers).
pub(super) const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// ICMP for IPv6, as a protocol number (RFC 4443).
pub(super) const ICMPV6: u8 = 58;

/// UDP, as a protocol number (RFC 768).
pub(super) const UDP: u8 = 17;

/// One of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

/// Aliases of IPv6: a unique local prefix of 96 bits (RFC 4193, chosen once), the steering address
/// below it.
const ALIAS_PREFIX_V6: [u16; 6] = [0xfd4c, 0x6661, 0x6972, 0x6c65, 0x6164, 0];

impl Ip {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv6() {
            Self::V6
        } else {
            Self::V4
        }
    }

    pub(super) fn is_v6(self) -> bool {
        self == Self::V6
    }

    pub(super) fn family(self) -> Family {
        if self.is_v6() {
            Family::Ipv6
        } else {
            Family::Ipv4
        }
    }

    pub(super) fn key(self) -> KeyType {
        if self.is_v6() {
            KeyType::Ipv6
        } else {
            KeyType::Ipv4
        }
    }

    pub(super) fn ethertype(self) -> [u8; 2] {
        if self.is_v6() {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        }
    }

    /// Registers (of four bytes) that an address takes.
    pub(super) fn registers(self) -> u8 {
        if self.is_v6() { 4 } else { 1 }
    }

    pub(super) fn source_offset(self) -> u32 {
        if self.is_v6() { 8 } else { 12 }
    }

    pub(super) fn destination_offset(self) -> u32 {
        if self.is_v6() { 24 } else { 16 }
    }

    pub(super) fn length(self) -> u32 {
        if self.is_v6() { 16 } else { 4 }
    }

    pub(super) fn source(self, to: Register) -> Expr {
        load::network(self.source_offset(), self.length(), to)
    }

    pub(super) fn destination(self, to: Register) -> Expr {
        load::network(self.destination_offset(), self.length(), to)
    }

    /// Goes on only for destinations in `net`.
    pub(super) fn destination_in(self, net: IpNet) -> Vec<Expr> {
        self.in_net(self.destination_offset(), net)
    }

    /// Goes on only for sources in `net`.
    pub(super) fn source_in(self, net: IpNet) -> Vec<Expr> {
        self.in_net(self.source_offset(), net)
    }

    fn in_net(self, offset: u32, net: IpNet) -> Vec<Expr> {
        let register = Register(0);
        let net = net.trunc();
        let mut expressions = vec![load::network(offset, self.length(), register)];
        let full = u8::try_from(self.length() * 8).unwrap_or(u8::MAX);
        if net.prefix_len() < full {
            let mask = octets(net.netmask());
            expressions.push(Expr::bitwise(register, &mask, &vec![0; mask.len()]));
        }
        expressions.push(Expr::equals(register, &octets(net.network())));
        expressions
    }

    /// All aliases.
    pub(super) fn aliases(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4).into(),
            Self::V6 => Ipv6Net::new_assert(Self::alias_v6([0; 4]), 96).into(),
        }
    }

    /// Leading bytes of every IPv6 alias.
    pub(super) fn alias_prefix_v6() -> [u8; 12] {
        let mut prefix = [0; 12];
        prefix.copy_from_slice(&Self::alias_v6([0; 4]).octets()[..12]);
        prefix
    }

    fn alias_v6(low: [u8; 4]) -> Ipv6Addr {
        let mut octets = [0; 16];
        for (pair, word) in octets.chunks_exact_mut(2).zip(ALIAS_PREFIX_V6) {
            pair.copy_from_slice(&word.to_be_bytes());
        }
        octets[12..].copy_from_slice(&low);
        octets.into()
    }

    /// The two ends of the leg between node and ingress: the node's, the ingress'.
    pub(super) fn leg(self) -> (IpNet, IpNet) {
        match self {
            Self::V4 => {
                let end = |last| Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 8, last), 30).into();
                (end(1), end(2))
            }
            Self::V6 => {
                let end = |last| {
                    let address =
                        Ipv6Addr::new(0xfd4c, 0x6661, 0x6972, 0x6c65, 0x6164, 0x8, 0, last);
                    Ipv6Net::new_assert(address, 126).into()
                };
                (end(1), end(2))
            }
        }
    }

    /// A next hop that exists only as a neighbour entry: everything routed to it is on its way to
    /// some node's ingress.
    pub(super) fn steering_gateway(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(169, 254, 77, 1).into(),
            Self::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x4c, 0, 1).into(),
        }
    }

    pub(super) fn any(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::default().into(),
            Self::V6 => Ipv6Net::default().into(),
        }
    }

    /// The loopback network.
    pub(super) fn loopback(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Self::V6 => Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
        }
    }

    /// Directory of its settings.
    pub(super) fn sysctl(self, link: &str, name: &str) -> String {
        let protocol = if self.is_v6() { "ipv6" } else { "ipv4" };
        format!("net/{protocol}/conf/{link}/{name}")
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Goes on only for packets of this kind (EtherType). Where a chain sees all frames.
pub(super) fn ethertype_is(ethertype: [u8; 2]) -> Vec<Expr> {
    vec![
        Expr::meta(Meta::Protocol, Register(0)),
        Expr::equals(Register(0), &ethertype),
    ]
}

/// Goes on only for packets of this transport protocol.
pub(super) fn protocol_is(number: u8) -> Vec<Expr> {
    vec![
        Expr::meta(Meta::L4Proto, Register(0)),
        Expr::equals(Register(0), &[number]),
    ]
}

/// Goes on only for packets to this port; of which transport protocol has been asked before.
pub(super) fn destination_port(port: u16) -> Vec<Expr> {
    vec![
        load::destination_port(Register(0)),
        Expr::equals(Register(0), &port.to_be_bytes()),
    ]
}

/// An interface name as registers hold it.
fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// Goes on only for packets that came in by this link.
pub(super) fn came_by(link: &str) -> Vec<Expr> {
    vec![
        Expr::meta(Meta::IifName, Register(0)),
        Expr::equals(Register(0), &name_bytes(link)),
    ]
}

/// Goes on only for packets that go out by this link.
pub(super) fn goes_by(link: &str) -> Vec<Expr> {
    vec![
        Expr::meta(Meta::OifName, Register(0)),
        Expr::equals(Register(0), &name_bytes(link)),
    ]
}

/// Goes on only for packets that go out by another link.
pub(super) fn goes_by_other(link: &str) -> Vec<Expr> {
    vec![
        Expr::meta(Meta::OifName, Register(0)),
        Expr::differs(Register(0), &name_bytes(link)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_lies_in_its_prefix_and_no_leg_does() {
        let alias = IpAddr::from(Ip::alias_v6([0xf1, 2, 3, 4]));
        assert_eq!(alias.to_string(), "fd4c:6661:6972:6c65:6164:0:f102:304");
        assert!(Ip::V6.aliases().contains(&alias));
        for ip in Ip::BOTH {
            assert!(!ip.aliases().contains(&ip.leg().0.addr()));
        }
    }
}
