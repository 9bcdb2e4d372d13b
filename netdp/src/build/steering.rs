//! Reply steering by alias, in the task's namespace.
//!
//! A balanced packet tells by its source MAC (`02:4c` and a steering address) which node's ingress
//! delivered it. Coming in, its destination is rewritten to the alias of that node, by copying the
//! MAC's last four bytes into the address: no map, so that the rules do not grow with the cluster.
//! The server's socket has the alias as its local address; so its answers carry it as source, are
//! routed back out of the same leg by it, and going out get the node's MAC as destination, by the
//! same copy in the other direction, and the task's real address as source. Stateless, and no mark.
//!
//! It bears the port as published; here that is led to the target port, and answers back.

use ipnet::IpNet;

use super::ip::{ETHERTYPE_ARP, ICMPV6, Ip, UDP, ethertype_is, octets, protocol_is};
use crate::conntrack::Pin;
use crate::desired::{Leg, Mac, Port, Protocol, Service};
use crate::namespace::{Neighbour, PolicyRule, Route, Spec};
use crate::nft::{
    ChainKind, CtKey, Direction, Expr, Hook, KeyType, Meta, Register, Rule, Set, Table, Value,
    Verdict, load, priority, rule,
};

/// Routing table in which everything goes to some node's ingress.
const TO_INGRESS: u32 = 100;
const LOCAL_TABLE: u32 = 255;
/// Mark of UDP answers that are routed by it; never leaves the namespace.
const MARK: u32 = 0x4c;
/// First bytes of every ingress MAC.
const INGRESS_MAC: [u8; 2] = [0x02, 0x4c];
/// Bytes 4 to 6 of an Ethernet destination, and of a source.
const MAC_TAIL_DESTINATION: u32 = 2;
const MAC_TAIL_SOURCE: u32 = 8;

/// Where the checksum of TCP is (RFC 9293).
const TCP_CHECKSUM: u32 = 16;

/// How packets to a published port get to its target port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They have it already.
    Same,
    /// The port is written over, in both directions.
    Rewritten,
    /// Connection tracking translates.
    Tracked,
}

impl Way {
    /// Writing over costs less and needs no memory, but an answer must tell from its port alone which one it
    /// has to get: so of several published ports with one target the first of the list can have
    /// it, and none whose target is itself the number of a published one.
    fn of(port: Port, service: &Service) -> Self {
        let mut others = service.ports.iter();
        match port.protocol {
            // A server that is bound to any address answers from another one than the alias.
            Protocol::Udp => Self::Tracked,
            _ if port.published == port.target => Self::Same,
            // Its checksum covers the ports in another way than TCP's.
            Protocol::Sctp => Self::Tracked,
            Protocol::Tcp => {
                let first = others
                    .clone()
                    .find(|other| (other.protocol, other.target) == (port.protocol, port.target));
                let is_published = others
                    .any(|other| (other.protocol, other.published) == (port.protocol, port.target));
                if first == Some(&port) && !is_published {
                    Self::Rewritten
                } else {
                    Self::Tracked
                }
            }
        }
    }
}

/// The service's ports and how they are led.
fn ways(service: Option<&Service>) -> impl Iterator<Item = (Port, Way)> {
    service.into_iter().flat_map(|service| {
        let ports = service.ports.iter();
        ports.map(|port| (*port, Way::of(*port, service)))
    })
}

/// Addresses of one protocol that steering needs.
fn own(leg: &Leg, ip: Ip) -> Option<IpNet> {
    leg.addresses
        .iter()
        .copied()
        .find(|address| Ip::of(address.addr()) == ip)
}

/// Routes, rules and settings of the ingress leg.
pub(super) fn routing(spec: &mut Spec, leg: &Leg, service: Option<&Service>) {
    spec.local_last = true;
    let mut ports = ways(service);
    if ports.any(|(port, way)| port.protocol == Protocol::Tcp && way == Way::Tracked) {
        // Two connections of one client port to ports that lead to one target: connection tracking
        // gives the second another client port, but only after the kernel has looked for a socket
        // early and found that of the first. Kernels before 6.7 do not look again.
        spec.sysctl("net/ipv4/tcp_early_demux", "0");
    }
    for ip in Ip::BOTH {
        if own(leg, ip).is_none() {
            continue;
        }
        let gateway = ip.steering_gateway();
        spec.routes.push(Route {
            destination: ip.aliases(),
            link: leg.ifname.clone(),
            gateway: None,
            onlink: false,
            table: LOCAL_TABLE,
            local: true,
        });
        spec.routes.push(Route {
            destination: ip.any(),
            link: leg.ifname.clone(),
            gateway: Some(gateway),
            onlink: true,
            table: TO_INGRESS,
            local: false,
        });
        // The last four bytes are written over on the way out.
        let mac = Mac([INGRESS_MAC[0], INGRESS_MAC[1], 0, 0, 0, 0]);
        spec.neighbours.push(Neighbour {
            link: leg.ifname.clone(),
            address: gateway,
            mac,
        });
        let rule = |priority| PolicyRule {
            ipv6: ip.is_v6(),
            priority,
            from: None,
            iif: None,
            mark: None,
            table: TO_INGRESS,
        };
        spec.rules.push(PolicyRule {
            from: Some(ip.aliases()),
            ..rule(10)
        });
        spec.rules.push(PolicyRule {
            mark: Some(MARK),
            ..rule(11)
        });
    }
    // Clients have any address, even one that this namespace would reach another way, or its own.
    for link in ["all", &leg.ifname] {
        spec.sysctl(Ip::V4.sysctl(link, "rp_filter"), "0");
    }
    spec.sysctl(Ip::V4.sysctl(&leg.ifname, "accept_local"), "1");
    // An ICMP error about a balanced packet names the task's address, not the alias that the socket
    // has: TCP finds out by itself that a path is narrower (RFC 4821), for both protocols.
    spec.sysctl("net/ipv4/tcp_mtu_probing", "1");
    // A connection that was tracked in another way than its port is led now would be sent elsewhere.
    for (port, way) in ways(service) {
        spec.pins.insert(match way {
            Way::Rewritten => Pin::Rewritten(port.published, port.target),
            Way::Same | Way::Tracked => {
                Pin::Steered(port.protocol.number(), port.published, port.target)
            }
        });
    }
}

/// The stateless part, on the leg's device.
pub(super) fn on_device(table: &mut Table, leg: &Leg, service: Option<&Service>) {
    let mut ports = Set::new("ports", &[KeyType::L4Proto, KeyType::Port]);
    let mut targets = Set::map("targets", &[KeyType::Port], &[KeyType::Port]);
    let mut published = Set::map("published", &[KeyType::Port], &[KeyType::Port]);
    let mut rewritten = false;
    for (port, way) in ways(service) {
        let (from, to) = (Value::Port(port.published), Value::Port(port.target));
        if way == Way::Rewritten {
            rewritten = true;
            targets.insert_value(&[from], &[to]);
            published.insert_value(&[to], &[from]);
        } else {
            ports.insert(&[Value::L4Proto(port.protocol.number()), from]);
        }
    }
    table.sets.push(ports);
    if rewritten {
        table.sets.push(targets);
        table.sets.push(published);
    }
    let accept = || Expr::verdict(&Verdict::Accept);
    let drop = || Expr::verdict(&Verdict::Drop);
    let mut incoming = Vec::new();
    let mut outgoing = Vec::new();
    for ip in Ip::BOTH {
        let Some(own) = own(leg, ip) else {
            continue;
        };
        let own = octets(own.addr());
        if rewritten {
            incoming.push(rule("balanced: to the target port of that alias", {
                let mut expressions = to_own(ip, &own);
                expressions.extend(from_ingress());
                expressions.extend(rewrite_port("targets", load::destination_port, 2));
                expressions.extend(write_alias(ip));
                expressions.push(accept());
                expressions
            }));
            outgoing.push(rule("answers: from the published port", {
                let mut expressions = ethertype_is(ip.ethertype());
                expressions.extend(ip.source_in(ip.aliases()));
                expressions.extend(rewrite_port("published", load::source_port, 0));
                expressions
            }));
        }
        incoming.push(rule("balanced: to the alias of the node that sent it", {
            let mut expressions = to_own(ip, &own);
            expressions.extend(from_ingress());
            expressions.push(Expr::meta(Meta::L4Proto, Register(0)));
            expressions.push(load::destination_port(Register(1)));
            expressions.push(Expr::in_set("ports", Register(0), false));
            expressions.extend(write_alias(ip));
            expressions.push(accept());
            expressions
        }));
        incoming.push(rule("balanced: the rest of what came in fragments", {
            let mut expressions = to_own(ip, &own);
            expressions.extend(from_ingress());
            expressions.extend(is_later_fragment(ip));
            expressions.extend(write_alias(ip));
            expressions.push(accept());
            expressions
        }));
        for kind in icmp_errors(ip) {
            incoming.push(rule("errors of balanced connections", {
                let mut expressions = to_own(ip, &own);
                expressions.extend(from_ingress());
                expressions.extend(protocol_is(icmp(ip)));
                expressions.push(load::transport(0, 1, Register(0)));
                expressions.push(Expr::equals(Register(0), &[*kind]));
                expressions.push(accept());
                expressions
            }));
        }
        outgoing.push(rule("answers: to the node that the alias stands for", {
            let mut expressions = ethertype_is(ip.ethertype());
            expressions.extend(ip.source_in(ip.aliases()));
            let tail = ip.source_offset() + ip.length() - 4;
            expressions.push(load::network(tail, 4, Register(0)));
            expressions.push(Expr::write_link(MAC_TAIL_DESTINATION, 4, Register(0)));
            expressions.push(Expr::immediate(Register(0), &own));
            expressions.push(write_address(ip, ip.source_offset()));
            expressions.push(accept());
            expressions
        }));
    }
    for direction in [&mut incoming, &mut outgoing] {
        let mut arp = ethertype_is(ETHERTYPE_ARP);
        arp.push(accept());
        direction.push(rule("address resolution", arp));
        for kind in [135, 136] {
            direction.push(rule("neighbour discovery", discovery(kind)));
        }
        direction.push(rule("nothing else", vec![drop()]));
    }
    let device = &leg.ifname;
    table.base(
        "in",
        ChainKind::Filter,
        Hook::Ingress(device.clone()),
        priority::FILTER,
        incoming,
    );
    table.base(
        "out",
        ChainKind::Filter,
        Hook::Egress(device.clone()),
        priority::FILTER,
        outgoing,
    );
}

fn to_own(ip: Ip, own: &[u8]) -> Vec<Expr> {
    let mut expressions = ethertype_is(ip.ethertype());
    expressions.push(ip.destination(Register(0)));
    expressions.push(Expr::equals(Register(0), own));
    expressions
}

fn from_ingress() -> Vec<Expr> {
    vec![
        load::link(6, 2, Register(0)),
        Expr::equals(Register(0), &INGRESS_MAC),
    ]
}

/// A fragment without the header of the transport protocol. This hook is before they are put together; alone,
/// or behind a first one that was dropped, they are nothing.
fn is_later_fragment(ip: Ip) -> Vec<Expr> {
    /// The offset in units of eight bytes, below three flags (RFC 791).
    const OFFSET_V4: [u8; 2] = [0x1f, 0xff];
    /// Above three bits of another use (RFC 8200, 4.5).
    const OFFSET_V6: [u8; 2] = [0xff, 0xf8];
    const FRAGMENT_HEADER: u8 = 44;
    let (read, mask) = match ip {
        Ip::V4 => (load::network(6, 2, Register(0)), OFFSET_V4),
        Ip::V6 => (
            Expr::ipv6_extension(FRAGMENT_HEADER, 2, Register(0)),
            OFFSET_V6,
        ),
    };
    vec![
        read,
        Expr::bitwise(Register(0), &mask, &[0; 2]),
        Expr::differs(Register(0), &[0; 2]),
    ]
}

/// A port of TCP becomes what the map has for it; goes on only when there is something.
fn rewrite_port(map: &str, read: fn(Register) -> Expr, offset: u32) -> Vec<Expr> {
    let mut expressions = protocol_is(Protocol::Tcp.number());
    expressions.push(read(Register(0)));
    expressions.push(Expr::map(map, Register(0), Register(1)));
    expressions.push(Expr::write_port(offset, TCP_CHECKSUM, Register(1)));
    expressions
}

/// The sender's steering address becomes (the end of) the destination.
fn write_alias(ip: Ip) -> Vec<Expr> {
    let mut expressions = Vec::new();
    let mut offset = ip.destination_offset();
    if ip.is_v6() {
        let prefix = Ip::alias_prefix_v6();
        expressions.push(Expr::immediate(Register(0), &prefix));
        expressions.push(Expr::write_ipv6_address(offset, 12, Register(0)));
        offset += 12;
    }
    expressions.push(load::link(MAC_TAIL_SOURCE, 4, Register(0)));
    expressions.push(match ip {
        Ip::V4 => Expr::write_ipv4_address(offset, Register(0)),
        Ip::V6 => Expr::write_ipv6_address(offset, 4, Register(0)),
    });
    expressions
}

fn write_address(ip: Ip, offset: u32) -> Expr {
    match ip {
        Ip::V4 => Expr::write_ipv4_address(offset, Register(0)),
        Ip::V6 => Expr::write_ipv6_address(offset, 16, Register(0)),
    }
}

fn icmp(ip: Ip) -> u8 {
    if ip.is_v6() { ICMPV6 } else { 1 }
}

/// Types of errors (RFC 792: destination unreachable, time exceeded, parameter problem; RFC 4443:
/// all below 128, of which these are defined).
fn icmp_errors(ip: Ip) -> &'static [u8] {
    if ip.is_v6() {
        &[1, 2, 3, 4]
    } else {
        &[3, 11, 12]
    }
}

/// Neighbour solicitation or advertisement (RFC 4861).
fn discovery(kind: u8) -> Vec<Expr> {
    let mut expressions = ethertype_is(Ip::V6.ethertype());
    expressions.extend(protocol_is(ICMPV6));
    expressions.push(load::transport(0, 1, Register(0)));
    expressions.push(Expr::equals(Register(0), &[kind]));
    expressions.push(Expr::verdict(&Verdict::Accept));
    expressions
}

/// UDP, and ports that cannot be written over, need the help of connection tracking.
///
/// A UDP server bound to any address answers from the one that its routes choose for the client: so
/// UDP is sent to that address, and its answers are routed by a mark and translated back to the
/// alias. `sources` are the task's addresses with their subnets, the one of the default route last.
pub(super) fn translate(
    table: &mut Table,
    ip: Ip,
    leg: &Leg,
    service: Option<&Service>,
    sources: &[IpNet],
) {
    let Some(service) = service.filter(|_| own(leg, ip).is_some()) else {
        return;
    };
    let family = ip.family() as u8;
    let target = Register(4);
    let mut translations: Vec<Rule> = Vec::new();
    for (port, way) in ways(Some(service)) {
        let matches = || {
            let mut expressions = ip.destination_in(ip.aliases());
            expressions.extend(protocol_is(port.protocol.number()));
            expressions.push(load::destination_port(Register(0)));
            expressions.push(Expr::equals(Register(0), &port.published.to_be_bytes()));
            expressions.push(Expr::immediate(target, &port.target.to_be_bytes()));
            expressions
        };
        if port.protocol == Protocol::Udp {
            let last = sources.len().saturating_sub(1);
            for (index, source) in sources.iter().enumerate() {
                let mut expressions = matches();
                if index < last {
                    expressions.extend(ip.source_in(*source));
                }
                expressions.push(Expr::immediate(Register(0), &octets(source.addr())));
                expressions.push(Expr::dnat(family, Register(0), Some(target)));
                translations.push(rule(
                    "to the address that the answer will have",
                    expressions,
                ));
            }
        } else if way == Way::Tracked {
            let mut expressions = matches();
            expressions.push(Expr::dnat_port(family, target));
            translations.push(rule("to the target port", expressions));
        }
    }
    if translations.is_empty() {
        return;
    }
    table.base(
        "steered",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
        translations,
    );
    if !service
        .ports
        .iter()
        .any(|port| port.protocol == Protocol::Udp)
    {
        return;
    }
    let (key, length) = match ip {
        Ip::V4 => (CtKey::DestinationIp, 4),
        Ip::V6 => (CtKey::DestinationIp6, 16),
    };
    let aliases = ip.aliases();
    let answers = vec![
        Expr::ct(CtKey::Direction, None, Register(0)),
        Expr::equals(Register(0), &[Direction::Reply as u8]),
        Expr::ct(key, Some(Direction::Original), Register(0)),
        Expr::bitwise(Register(0), &octets(aliases.netmask()), &vec![0; length]),
        Expr::equals(Register(0), &octets(aliases.network())),
        Expr::immediate(Register(0), &MARK.to_ne_bytes()),
        Expr::set_meta(Meta::Mark, Register(0)),
    ];
    let answers = [protocol_is(UDP), answers].concat();
    table.base(
        "answers",
        ChainKind::Route,
        Hook::Output,
        priority::MANGLE,
        vec![rule("UDP answers to the ingress", answers)],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_published_port_or_is_tracked() {
        let port = |protocol, published, target| Port {
            protocol,
            published,
            target,
        };
        let tcp = |published, target| port(Protocol::Tcp, published, target);
        let udp = |published, target| port(Protocol::Udp, published, target);
        let sctp = |published, target| port(Protocol::Sctp, published, target);
        let led = |ports: &[Port]| -> Vec<Way> {
            let service = Service {
                name: "web".into(),
                vips: Vec::new(),
                ports: ports.to_vec(),
                scheduler: None,
            };
            ways(Some(&service)).map(|(_, way)| way).collect()
        };
        use Way::{Rewritten, Same, Tracked};
        assert_eq!(
            led(&[tcp(8080, 80), tcp(8081, 80), tcp(8443, 443)]),
            [Rewritten, Tracked, Rewritten]
        );
        assert_eq!(led(&[tcp(8081, 80), tcp(80, 80)]), [Tracked, Same]);
        assert_eq!(
            led(&[tcp(8080, 80), tcp(8081, 80), tcp(9000, 8081)]),
            [Rewritten, Tracked, Tracked]
        );
        assert_eq!(led(&[tcp(8080, 80), udp(80, 80)]), [Rewritten, Tracked]);
        assert_eq!(led(&[sctp(80, 80), sctp(8080, 80)]), [Same, Tracked]);
    }
}
