//! Connections that netfilter holds on to: flushed when what they lead to is gone.
//!
//! A connection-tracking entry outlives the rule that made it. A flow of UDP that keeps sending
//! would go to a removed backend for ever, or, begun before its port was published, never reach
//! one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Message, NLM_F_DUMP, NetlinkError, Socket};
use crate::nft::{Attributes, NftSocket, find};

/// What an entry may be pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pin {
    /// A UDP port of this namespace that leads somewhere: entries to that port are flushed when it comes, and
    /// when it goes.
    UdpPort(u16),
    /// A backend of a port that the ingress balances, after the transport protocol's number: entries to
    /// the port whose answers come from the backend.
    Published(u8, u16, IpAddr),
    /// A published port of a task and the target port that it leads to, as connection tracking sees them, after
    /// the transport protocol's number.
    Steered(u8, u16, u16),
    /// The same of TCP where the port is written over before connection tracking sees it.
    Rewritten(u16, u16),
    /// A backend that flows of UDP have left: they are flushed when this comes.
    Left(IpAddr),
    /// A backend of a VIP: entries to the VIP whose answers come from the backend.
    VipBackend(IpAddr, IpAddr),
    /// The same, of a backend of a VIP.
    LeftVip(IpAddr, IpAddr),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UdpPort(port) => write!(f, "udp {port}"),
            Self::Published(protocol, port, backend) => {
                write!(f, "published {protocol} {port} {backend}")
            }
            Self::Steered(protocol, port, target) => {
                write!(f, "steered {protocol} {port} {target}")
            }
            Self::Rewritten(port, target) => write!(f, "rewritten {port} {target}"),
            Self::Left(backend) => write!(f, "left {backend}"),
            Self::VipBackend(vip, backend) => write!(f, "vip {vip} {backend}"),
            Self::LeftVip(vip, backend) => write!(f, "left-vip {vip} {backend}"),
        }
    }
}

impl Pin {
    /// From what it is displayed as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["udp", port] => Some(Self::UdpPort(port.parse().ok()?)),
            ["published", protocol, port, backend] => Some(Self::Published(
                protocol.parse().ok()?,
                port.parse().ok()?,
                backend.parse().ok()?,
            )),
            ["steered", protocol, port, target] => Some(Self::Steered(
                protocol.parse().ok()?,
                port.parse().ok()?,
                target.parse().ok()?,
            )),
            ["rewritten", port, target] => {
                Some(Self::Rewritten(port.parse().ok()?, target.parse().ok()?))
            }
            ["left", backend] => Some(Self::Left(backend.parse().ok()?)),
            ["vip", vip, backend] => {
                Some(Self::VipBackend(vip.parse().ok()?, backend.parse().ok()?))
            }
            ["left-vip", vip, backend] => {
                Some(Self::LeftVip(vip.parse().ok()?, backend.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// `NFNL_SUBSYS_CTNETLINK`, and its messages.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Debug, Default, PartialEq, Eq)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// Pins whose entries are to be flushed when a namespace goes from one set to another.
pub(crate) fn changed(old: &BTreeSet<Pin>, new: &BTreeSet<Pin>) -> BTreeSet<Pin> {
    let is_left = |pin: &&Pin| matches!(pin, Pin::Left(_) | Pin::LeftVip(..));
    let came = new
        .difference(old)
        .filter(|pin| matches!(pin, Pin::UdpPort(_)) || is_left(pin));
    let gone = old.difference(new).filter(|pin| !is_left(pin));
    gone.chain(came).copied().collect()
}

impl NftSocket {
    /// Deletes every entry of these pins; how many.
    pub(crate) fn flush(&mut self, pins: &BTreeSet<Pin>) -> Result<usize, NetlinkError> {
        let socket: &mut Socket = self.socket();
        let mut doomed = Vec::new();
        let request = Message {
            kind: SUBSYSTEM << 8 | GET,
            flags: NLM_F_DUMP,
            payload: vec![0; 4],
        };
        socket.dump(&request, |_, reply| {
            let (Some(family), Some(attributes)) = (reply.first(), reply.get(4..)) else {
                return Ok(());
            };
            let (Some(original), Some(answer)) = (
                find(attributes, TUPLE_ORIGINAL),
                find(attributes, TUPLE_REPLY),
            ) else {
                return Ok(());
            };
            let (to, from) = (tuple(original), tuple(answer));
            if pins.iter().any(|pin| pin.holds(&to, &from)) {
                let mut payload =
                    Attributes::after(&[*family, 0, 0, 0]).bytes(TUPLE_ORIGINAL | NESTED, original);
                // A later entry with the same tuple is not meant.
                if let Some(id) = find(attributes, ID) {
                    payload = payload.bytes(ID, id);
                }
                let kind = SUBSYSTEM << 8 | DELETE;
                doomed.push(Message {
                    kind,
                    flags: 0,
                    payload: payload.finish(),
                });
            }
            Ok(())
        })?;
        let count = doomed.len();
        for answer in socket.batch(&doomed)? {
            match answer {
                Err(error) if error.errno() != libc::ENOENT => return Err(error),
                _ => {}
            }
        }
        Ok(count)
    }
}

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

impl Pin {
    fn holds(self, original: &Tuple, reply: &Tuple) -> bool {
        match self {
            Self::UdpPort(port) => original.protocol == UDP && original.destination_port == port,
            Self::Published(protocol, port, backend) => {
                original.protocol == protocol
                    && original.destination_port == port
                    && reply.source == Some(backend)
            }
            Self::Steered(protocol, port, target) => {
                original.protocol == protocol
                    && original.destination_port == port
                    && reply.source_port == target
            }
            Self::Rewritten(_, target) => Self::Steered(TCP, target, target).holds(original, reply),
            Self::Left(backend) => original.protocol == UDP && reply.source == Some(backend),
            Self::VipBackend(vip, backend) => {
                original.destination == Some(vip) && reply.source == Some(backend)
            }
            Self::LeftVip(vip, backend) => {
                original.protocol == UDP && Self::VipBackend(vip, backend).holds(original, reply)
            }
        }
    }
}

fn tuple(attributes: &[u8]) -> Tuple {
    let ip = find(attributes, 1).unwrap_or_default();
    let protocol = find(attributes, 2).unwrap_or_default();
    let v4 = |kind| {
        let octets: [u8; 4] = find(ip, kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let v6 = |kind| {
        let octets: [u8; 16] = find(ip, kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let port = |kind| {
        let bytes = find(protocol, kind).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    Tuple {
        source: v4(1).or_else(|| v6(3)),
        destination: v4(2).or_else(|| v6(4)),
        protocol: find(protocol, 1)
            .and_then(|b| b.first().copied())
            .unwrap_or(0),
        source_port: port(2),
        destination_port: port(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_flushed_when_it_comes_and_a_backend_when_it_goes() {
        let backend = Pin::Published(UDP, 53, IpAddr::from([10, 0, 0, 1]));
        let with = BTreeSet::from([Pin::UdpPort(53), backend]);
        assert_eq!(
            changed(&BTreeSet::new(), &with),
            BTreeSet::from([Pin::UdpPort(53)])
        );
        assert_eq!(changed(&with, &BTreeSet::new()), with);
        assert_eq!(changed(&with, &with), BTreeSet::new());
        let left = BTreeSet::from([Pin::UdpPort(53), backend, Pin::Left([10, 0, 0, 1].into())]);
        let come = BTreeSet::from([Pin::Left([10, 0, 0, 1].into())]);
        assert_eq!(changed(&with, &left), come);
        assert_eq!(changed(&left, &with), BTreeSet::new());
    }

    #[test]
    fn pins_look_at_both_directions() {
        let vip = IpAddr::from([10, 1, 0, 2]);
        let backend = IpAddr::from([10, 1, 0, 5]);
        let to = Tuple {
            destination: Some(vip),
            protocol: 6,
            destination_port: 80,
            ..Tuple::default()
        };
        let from = Tuple {
            source: Some(backend),
            source_port: 8000,
            ..Tuple::default()
        };
        assert!(Pin::VipBackend(vip, backend).holds(&to, &from));
        for (pin, held) in [
            (Pin::Published(6, 80, backend), true),
            (Pin::Published(UDP, 80, backend), false),
            (Pin::Published(6, 81, backend), false),
            (Pin::Published(6, 80, vip), false),
            (Pin::Steered(6, 80, 8000), true),
            (Pin::Steered(UDP, 80, 8000), false),
            (Pin::Steered(6, 81, 8000), false),
            (Pin::Steered(6, 80, 8001), false),
            (Pin::Rewritten(80, 8000), false),
        ] {
            assert_eq!(pin.holds(&to, &from), held, "{pin}");
        }
        assert!(!Pin::VipBackend(backend, vip).holds(&to, &from));
        let udp = Tuple {
            protocol: UDP,
            destination: Some(vip),
            destination_port: 80,
            ..Tuple::default()
        };
        for pin in [
            Pin::UdpPort(80),
            Pin::Left(backend),
            Pin::LeftVip(vip, backend),
        ] {
            assert!(!pin.holds(&to, &from), "{pin}, TCP");
            assert!(pin.holds(&udp, &from), "{pin}");
        }
    }
}
