//! The namespace of an overlay network: bridges, VXLAN devices, the tasks' ports.

use std::collections::BTreeSet;

use super::ip::{ETHERTYPE_ARP, Ip};
use super::view::{View, segment_of, segment_of_address};
use super::{ingress, names};
use crate::desired::{Mac, Network};
use crate::namespace::{Destination, FdbEntry, Link, LinkKind, Neighbour, Port, Spec, VethPeer};
use crate::nft::{
    ChainKind, Expr, Family, Hook, KeyType, Meta, Register, Rule, Set, TABLE, Table, Value,
    Verdict, load, priority, rule,
};

/// An overlay network's namespace; for the ingress network with what only that has.
pub(crate) fn overlay(view: &View<'_>, id: &str, network: &Network) -> Spec {
    let mut spec = Spec {
        ours: true,
        ..Spec::default()
    };
    let mtu = view.mtu(network);
    // No packet is delivered here: bridged traffic needs no addresses, firewall or IPv6.
    spec.optional_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    spec.optional_sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
    spec.optional_sysctl("net/bridge/bridge-nf-call-arptables", "0");
    // IPv6 must be on for the VXLAN device to answer neighbour discovery, but no device here needs
    // an address of its own.
    spec.optional_sysctl(Ip::V6.sysctl("all", "addr_gen_mode"), "1");
    spec.optional_sysctl(Ip::V6.sysctl("default", "addr_gen_mode"), "1");
    for segment in &network.segments {
        let bridge = names::bridge(segment.vni);
        let steering = if network.ingress {
            view.node.ingress
        } else {
            None
        };
        spec.links.push(Link {
            name: bridge.clone(),
            kind: LinkKind::Bridge,
            mac: steering.map(|steering| steering.mac()),
            mtu: Some(mtu),
            port: None,
            alias: format!("network {}", network.name),
        });
        if let Some(local) = view.vtep() {
            let kind = LinkKind::Vxlan {
                vni: segment.vni,
                port: view.node.vxlan_port,
                local,
            };
            spec.links.push(Link {
                name: names::vxlan(segment.vni),
                kind,
                mac: None,
                mtu: Some(mtu),
                port: Some(Port {
                    bridge,
                    isolated: false,
                }),
                alias: format!("network {}, VNI {}", network.name, segment.vni),
            });
        }
    }
    local_legs(&mut spec, view, id, network, mtu);
    remote_endpoints(&mut spec, view, id, network);
    if network.ingress {
        ingress::extend(&mut spec, view, id, network);
    }
    let guard = port_guard(view, id);
    if !guard.is_empty() {
        spec.tables.push(guard);
    }
    spec
}

fn local_legs(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network, mtu: u32) {
    for (task, sandbox, leg) in view.legs(id) {
        let Some(segment) = segment_of(network, leg) else {
            continue;
        };
        let port = view.overlay_port(task);
        spec.links.push(Link {
            name: port.clone(),
            kind: LinkKind::Veth(VethPeer {
                netns: names::netns_of_task(view.run_dir, task),
                name: leg.ifname.clone(),
                mac: Some(leg.mac),
            }),
            mac: None,
            mtu: Some(mtu),
            port: Some(Port {
                bridge: names::bridge(segment.vni),
                isolated: false,
            }),
            alias: format!("task {}", sandbox.name),
        });
        spec.fdb.push(FdbEntry {
            link: port,
            mac: leg.mac,
            destination: Destination::Port,
        });
    }
}

fn remote_endpoints(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network) {
    let mut macs: BTreeSet<(u32, Mac, std::net::IpAddr)> = BTreeSet::new();
    for endpoint in view.remote_endpoints(id) {
        // A node that is not known, or has no address of our family, cannot be reached.
        let Some(vtep) = view.vtep_of(&endpoint.node) else {
            continue;
        };
        for address in &endpoint.addresses {
            let Some(vni) = segment_of_address(network, *address) else {
                continue;
            };
            macs.insert((vni, endpoint.mac, vtep));
            spec.neighbours.push(Neighbour {
                link: names::vxlan(vni),
                address: *address,
                mac: endpoint.mac,
            });
        }
    }
    if network.ingress {
        for (node, peer) in &view.desired.peers {
            if let (Some(steering), Some(vtep)) = (peer.ingress, view.vtep_of(node)) {
                let segments = network.segments.iter();
                macs.extend(segments.map(|segment| (segment.vni, steering.mac(), vtep)));
            }
        }
    }
    for (vni, mac, vtep) in macs {
        let link = names::vxlan(vni);
        for destination in [Destination::Port, Destination::Vtep(vtep)] {
            spec.fdb.push(FdbEntry {
                link: link.clone(),
                mac,
                destination,
            });
        }
    }
}

/// A task may not lie: what comes in by its port bears its own MAC and its own addresses. One look
/// into a set decides about an IP or ARP packet.
fn port_guard(view: &View<'_>, id: &str) -> Table {
    let mut table = Table::new(Family::Bridge, TABLE);
    let mut ports = Set::new("ports", &[KeyType::IfName]);
    let mut macs = Set::new("macs", &[KeyType::IfName, KeyType::Ether]);
    let mut v4 = Set::new("senders", &[KeyType::IfName, KeyType::Ether, KeyType::Ipv4]);
    let mut v6 = Set::new(
        "senders6",
        &[KeyType::IfName, KeyType::Ether, KeyType::Ipv6],
    );
    for (task, _, leg) in view.legs(id) {
        let port = view.overlay_port(task);
        let (name, mac) = (Value::IfName(&port), Value::Ether(leg.mac.0));
        ports.insert(&[name]);
        macs.insert(&[name, mac]);
        for address in &leg.addresses {
            let set = if address.addr().is_ipv6() {
                &mut v6
            } else {
                &mut v4
            };
            set.insert(&[name, mac, Value::Address(address.addr())]);
        }
    }
    if ports.is_empty() {
        return table;
    }
    table.sets = vec![ports, macs, v4, v6];
    let accept = || Expr::verdict(&Verdict::Accept);
    // The name fills four registers, the MAC two; the address follows.
    let (name, mac, address) = (Register(0), Register(4), Register(6));
    let of = |ethertype: [u8; 2]| {
        vec![
            Expr::meta(Meta::Protocol, name),
            Expr::equals(name, &ethertype),
        ]
    };
    let sender = |comment, ethertype, source: Expr, set| -> Rule {
        let mut expressions = of(ethertype);
        expressions.extend([
            Expr::meta(Meta::IifName, name),
            load::link_source(mac),
            source,
        ]);
        expressions.extend([Expr::in_set(set, name, false), accept()]);
        rule(comment, expressions)
    };
    // For neighbour discovery: with the task's own MAC, but before or beside its own address.
    let discovery = |compare: Vec<Expr>| -> Rule {
        let mut expressions = of(Ip::V6.ethertype());
        expressions.extend(compare);
        expressions.extend([Expr::meta(Meta::IifName, name), load::link_source(mac)]);
        expressions.extend([Expr::in_set("macs", name, false), accept()]);
        rule("link-local or no source", expressions)
    };
    let v6_source = |length| load::network(Ip::V6.source_offset(), length, name);
    // Sender's protocol address in an ARP packet for IPv4 over Ethernet (RFC 826).
    let arp_source = load::network(14, 4, address);
    let rules = vec![
        rule(
            "only the tasks' ports are guarded",
            vec![
                Expr::meta(Meta::IifName, name),
                Expr::in_set("ports", name, true),
                accept(),
            ],
        ),
        sender(
            "IPv4",
            Ip::V4.ethertype(),
            Ip::V4.source(address),
            "senders",
        ),
        sender("ARP", ETHERTYPE_ARP, arp_source, "senders"),
        sender(
            "IPv6",
            Ip::V6.ethertype(),
            Ip::V6.source(address),
            "senders6",
        ),
        discovery(vec![
            v6_source(2),
            Expr::bitwise(name, &[0xff, 0xc0], &[0, 0]),
            Expr::equals(name, &[0xfe, 0x80]),
        ]),
        discovery(vec![v6_source(16), Expr::equals(name, &[0; 16])]),
        rule(
            "another's, or neither IP nor ARP",
            vec![Expr::verdict(&Verdict::Drop)],
        ),
    ];
    table.base(
        "senders",
        ChainKind::Filter,
        Hook::Prerouting,
        priority::RAW,
        rules,
    );
    table
}
