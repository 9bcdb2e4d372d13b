//! A task may not lie: what comes in by its port bears its own MAC and its own addresses.
//!
//! One chain for each port, on the ingress of its device. What comes from elsewhere pays nothing,
//! and what a task sends is compared with constants instead of being looked up in a set.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::ip::{ETHERTYPE_ARP, Ip, UDP, destination_port, ethertype_is, octets, protocol_is};
use super::view::View;
use super::{gwbridge, ip};
use crate::desired::Mac;
use crate::nft::{
    ChainKind, Expr, Family, Hook, Register, Rule, Table, Verdict, load, priority, rule,
};

/// Where an ARP packet for IPv4 over Ethernet has the sender's protocol address (RFC 826).
const ARP_SENDER: u32 = 14;
/// ICMPv6 types (RFC 4861), and where an advertisement has the address that it is about.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const TARGET: u32 = 8;

/// The guard of all local ports of a network.
pub(super) fn overlay_ports(view: &View<'_>, network: &str) -> Table {
    let mut table = Table::new(Family::Netdev);
    for (task, _, leg) in view.legs(network) {
        let rules = rules(Some(leg.mac), &leg.addresses);
        port(&mut table, &view.overlay_port(task), rules);
    }
    table
}

/// The guard of all ports of the gwbridge. The node answers there for its loopback addresses too,
/// because a connection from there may leave to a task: none may come from one. And a tunnel's packet that
/// a task makes would be a frame of any network, from anybody: nodes know each other by that port alone.
pub(super) fn gateway_ports(view: &View<'_>) -> Table {
    let mut table = Table::new(Family::Netdev);
    for (id, sandbox) in &view.desired.sandboxes {
        let Some(gateway) = &sandbox.gateway else {
            continue;
        };
        let mut to_loopback = ethertype_is(Ip::V4.ethertype());
        to_loopback.extend(Ip::V4.destination_in(Ip::V4.loopback()));
        to_loopback.push(Expr::verdict(&Verdict::Drop));
        let mut tunnel = protocol_is(UDP);
        tunnel.extend(destination_port(view.node.vxlan_port));
        tunnel.push(Expr::verdict(&Verdict::Drop));
        let mut all = vec![
            rule("the node's loopback is its own", to_loopback),
            rule("tunnels are the nodes' own", tunnel),
        ];
        all.extend(rules(gwbridge::leg_mac(gateway), &gateway.addresses));
        port(&mut table, &view.gateway_port(id), all);
    }
    table
}

fn port(table: &mut Table, device: &str, rules: Vec<Rule>) {
    let hook = Hook::Ingress(device.to_owned());
    table.base(device, ChainKind::Filter, hook, priority::FILTER, rules);
}

fn rules(mac: Option<Mac>, addresses: &[IpNet]) -> Vec<Rule> {
    let own = |comment, ethertype, source: Vec<Expr>| {
        let mut expressions = ethertype_is(ethertype);
        expressions.extend(source);
        if let Some(mac) = mac {
            expressions.push(load::link_source(Register(0)));
            expressions.push(Expr::equals(Register(0), &mac.0));
        }
        expressions.push(Expr::verdict(&Verdict::Accept));
        rule(comment, expressions)
    };
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let addresses = || addresses.iter().map(|address| address.addr());
    let of = |ip: Ip| addresses().filter(move |address| Ip::of(*address) == ip);
    let mut rules = Vec::new();

    for address in of(Ip::V4) {
        let source = Ip::V4.source_in(address.into());
        rules.push(own("its own address", Ip::V4.ethertype(), source));
    }
    for address in of(Ip::V4) {
        let source = vec![
            load::network(ARP_SENDER, Ip::V4.length(), Register(0)),
            Expr::equals(Register(0), &octets(address)),
        ];
        rules.push(own("address resolution", ETHERTYPE_ARP, source));
    }

    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        let mut expressions = icmpv6_is(kind);
        expressions.push(Expr::verdict(&Verdict::Drop));
        rules.push(rule("it is no router", expressions));
    }
    // It speaks for no address but its own: the target of an advertisement is looked at as the
    // sender of an ARP packet is.
    let mut foreign = icmpv6_is(NEIGHBOUR_ADVERTISEMENT);
    for net in of(Ip::V6).map(IpNet::from).chain([link_local.into()]) {
        foreign.extend(target_differs(net));
    }
    foreign.push(Expr::verdict(&Verdict::Drop));
    rules.push(rule("another's address", foreign));
    for address in of(Ip::V6) {
        let source = Ip::V6.source_in(address.into());
        rules.push(own("its own address", Ip::V6.ethertype(), source));
    }
    // Neighbour discovery comes before an address, or beside it.
    for net in [
        link_local.into(),
        IpAddr::from(Ipv6Addr::UNSPECIFIED).into(),
    ] {
        let source = Ip::V6.source_in(net);
        rules.push(own("link-local or no source", Ip::V6.ethertype(), source));
    }

    let drop = vec![Expr::verdict(&Verdict::Drop)];
    rules.push(rule("another's, or neither IP nor ARP", drop));
    rules
}

fn icmpv6_is(kind: u8) -> Vec<Expr> {
    let mut expressions = ethertype_is(Ip::V6.ethertype());
    expressions.extend(protocol_is(ip::ICMPV6));
    expressions.push(load::transport(0, 1, Register(0)));
    expressions.push(Expr::equals(Register(0), &[kind]));
    expressions
}

/// Goes on only when the target is not in `net`.
fn target_differs(net: IpNet) -> Vec<Expr> {
    let mut expressions = vec![load::transport(TARGET, Ip::V6.length(), Register(0))];
    let mask = octets(net.netmask());
    expressions.push(Expr::bitwise(Register(0), &mask, &vec![0; mask.len()]));
    expressions.push(Expr::differs(Register(0), &octets(net.network())));
    expressions
}
