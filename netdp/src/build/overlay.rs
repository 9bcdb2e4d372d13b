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
        let port = names::overlay_port(task);
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

/// A task may not lie: what comes in by its port bears its own MAC and its own addresses.
fn port_guard(view: &View<'_>, id: &str) -> Table {
    let mut table = Table::new(Family::Bridge, TABLE);
    let mut ports = Set::new("ports", &[KeyType::IfName]);
    let mut macs = Set::new("macs", &[KeyType::IfName, KeyType::Ether]);
    let mut v4 = Set::new("addresses", &[KeyType::IfName, KeyType::Ipv4]);
    let mut v6 = Set::new("addresses6", &[KeyType::IfName, KeyType::Ipv6]);
    for (task, _, leg) in view.legs(id) {
        let port = names::overlay_port(task);
        let name = Value::IfName(&port);
        ports.insert(&[name]);
        macs.insert(&[name, Value::Ether(leg.mac.0)]);
        for address in &leg.addresses {
            let set = if address.addr().is_ipv6() {
                &mut v6
            } else {
                &mut v4
            };
            set.insert(&[name, Value::Address(address.addr())]);
        }
    }
    if ports.is_empty() {
        return table;
    }
    table.sets = vec![ports, macs, v4, v6];
    let drop = || Expr::verdict(&Verdict::Drop);
    let name = || Expr::meta(Meta::IifName, Register(0));
    // The name fills four registers; the second part of a key follows.
    let second = Register(4);
    let of = |ethertype: [u8; 2]| {
        [
            Expr::meta(Meta::Protocol, Register(0)),
            Expr::equals(Register(0), &ethertype),
        ]
    };
    let lies = |comment, ethertype, load: Expr, set| -> Rule {
        let mut expressions = of(ethertype).to_vec();
        expressions.extend([name(), load, Expr::in_set(set, Register(0), true), drop()]);
        rule(comment, expressions)
    };
    let v4_source = load::network(Ip::V4.source_offset(), 4, second);
    // Sender's protocol address in an ARP packet for IPv4 over Ethernet (RFC 826).
    let arp_source = load::network(14, 4, second);
    let v6_source = load::network(Ip::V6.source_offset(), 16, second);
    let rules = vec![
        rule(
            "only the tasks' ports are guarded",
            vec![
                name(),
                Expr::in_set("ports", Register(0), true),
                Expr::verdict(&Verdict::Accept),
            ],
        ),
        rule(
            "another's MAC",
            vec![
                name(),
                load::link_source(second),
                Expr::in_set("macs", Register(0), true),
                drop(),
            ],
        ),
        lies(
            "another's address",
            Ip::V4.ethertype(),
            v4_source,
            "addresses",
        ),
        lies(
            "another's address in ARP",
            ETHERTYPE_ARP,
            arp_source,
            "addresses",
        ),
        rule(
            "link-local and unspecified sources are for neighbour discovery",
            {
                let mut expressions = of(Ip::V6.ethertype()).to_vec();
                expressions.extend([
                    load::network(Ip::V6.source_offset(), 2, Register(0)),
                    Expr::bitwise(Register(0), &[0xff, 0xc0], &[0, 0]),
                    Expr::equals(Register(0), &[0xfe, 0x80]),
                    Expr::verdict(&Verdict::Accept),
                ]);
                expressions
            },
        ),
        rule("", {
            let mut expressions = of(Ip::V6.ethertype()).to_vec();
            expressions.extend([
                load::network(Ip::V6.source_offset(), 16, Register(0)),
                Expr::equals(Register(0), &[0; 16]),
                Expr::verdict(&Verdict::Accept),
            ]);
            expressions
        }),
        lies(
            "another's address",
            Ip::V6.ethertype(),
            v6_source,
            "addresses6",
        ),
        neither(&[Ip::V4.ethertype(), Ip::V6.ethertype(), ETHERTYPE_ARP]),
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

/// Drops every other EtherType: nothing else belongs on an overlay.
fn neither(ethertypes: &[[u8; 2]]) -> Rule {
    let mut expressions = vec![Expr::meta(Meta::Protocol, Register(0))];
    expressions.extend(
        ethertypes
            .iter()
            .map(|kind| Expr::differs(Register(0), kind)),
    );
    expressions.push(Expr::verdict(&Verdict::Drop));
    rule("neither IP nor ARP", expressions)
}
