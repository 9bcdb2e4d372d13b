//! The node's own namespace: gwbridge, the leg to the ingress, and one table.

use std::net::IpAddr;

use super::ip::{Ip, UDP, destination_port, goes_by, octets, protocol_is};
use super::view::View;
use super::{guard, gwbridge, names};
use crate::conntrack::Pin;
use crate::desired::Protocol;
use crate::namespace::{Link, LinkKind, Neighbour, Spec, VethPeer};
use crate::nft::{
    ChainKind, Expr, Family, Guard, HOOK_FORWARD, HOOK_INPUT, Hook, KeyType, Meta, Register, Rule,
    Set, Table, Value, Verdict, load, priority, rule,
};

/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// The node's own namespace.
pub(crate) fn node(view: &View<'_>) -> Spec {
    let mut spec = Spec {
        shared: true,
        ..Spec::default()
    };
    // A node without anything to do has nothing of ours.
    if !view.is_in_use() {
        return spec;
    }
    gwbridge::devices(&mut spec, view);
    spec.sysctl("net/ipv4/ip_forward", "1");
    if has(view, Ip::V6) {
        spec.sysctl(Ip::V6.sysctl("all", "forwarding"), "1");
    }
    if view.has_ingress() {
        ingress_leg(&mut spec, view);
    }
    let devices = guard::gateway_ports(view);
    if !devices.is_empty() {
        spec.tables.push(devices);
    }
    for ip in Ip::BOTH {
        let table = table(view, ip, &mut spec);
        if !table.is_empty() {
            spec.tables.push(table);
        }
    }
    spec.guards = guards(view);
    spec
}

/// Whether the node speaks this protocol with its tasks.
fn has(view: &View<'_>, ip: Ip) -> bool {
    view.node
        .gwbridge
        .iter()
        .any(|address| Ip::of(address.addr()) == ip)
        || has_ingress(view, ip)
}

/// Whether the ingress network has subnets of this protocol.
pub(super) fn has_ingress(view: &View<'_>, ip: Ip) -> bool {
    let subnets = view
        .ingress_network()
        .into_iter()
        .flat_map(|(_, network)| &network.segments);
    let mut subnets = subnets.flat_map(|segment| &segment.subnets);
    view.has_ingress() && subnets.any(|subnet| Ip::of(subnet.addr()) == ip)
}

fn ingress_leg(spec: &mut Spec, view: &View<'_>) {
    let Some((ingress, _)) = view.ingress_network() else {
        return;
    };
    let leg = names::INGRESS_LEG;
    spec.links.push(Link {
        name: leg.to_owned(),
        kind: LinkKind::Veth(VethPeer {
            netns: names::netns_of_network(view.run_dir, ingress),
            name: names::NODE_LEG.to_owned(),
            mac: Some(names::LEG_MACS.1),
        }),
        mac: Some(names::LEG_MACS.0),
        mtu: Some(view.underlay.mtu),
        port: None,
        alias: "to the ingress network".to_owned(),
    });
    // From loopback to a published port.
    spec.sysctl(Ip::V4.sysctl(leg, "route_localnet"), "1");
    spec.optional_sysctl(Ip::V6.sysctl(leg, "accept_ra"), "0");
    for ip in Ip::BOTH.into_iter().filter(|ip| has_ingress(view, *ip)) {
        spec.addresses.push((leg.to_owned(), ip.leg().0));
        spec.neighbours.push(Neighbour {
            link: leg.to_owned(),
            address: ip.leg().1.addr(),
            mac: names::LEG_MACS.1,
        });
    }
}

fn table(view: &View<'_>, ip: Ip, spec: &mut Spec) -> Table {
    let mut table = Table::new(ip.family());
    let untracked = vec![rule(
        "tunnels need no connection tracking",
        [
            protocol_is(UDP),
            destination_port(view.node.vxlan_port),
            vec![Expr::notrack()],
        ]
        .concat(),
    )];
    let tunnels = view.node.vteps.iter().any(|vtep| Ip::of(*vtep) == ip);
    if tunnels {
        table.base(
            "untracked-in",
            ChainKind::Filter,
            Hook::Prerouting,
            priority::RAW,
            untracked.clone(),
        );
        table.base(
            "untracked-out",
            ChainKind::Filter,
            Hook::Output,
            priority::RAW,
            untracked,
        );
    }
    if !has(view, ip) {
        return table;
    }
    let rules = published(view, ip, &mut table, spec);
    // A packet from ::1 cannot leave by another device: it meets the port that nobody listens on,
    // and is refused.
    let own_rules = if ip.is_v6() {
        let elsewhere = vec![
            ip.destination(Register(0)),
            Expr::differs(Register(0), &octets(ip.loopback().addr())),
        ];
        rules
            .iter()
            .map(|rule| rule.clone().after(elsewhere.clone()))
            .collect()
    } else {
        rules.clone()
    };
    table.base(
        "published-in",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
        rules,
    );
    table.base(
        "published-out",
        ChainKind::Nat,
        Hook::Output,
        priority::DSTNAT,
        own_rules,
    );
    let mut source = ingress_source(view, ip);
    source.extend(gwbridge::source_nat(view, ip));
    table.base(
        "source",
        ChainKind::Nat,
        Hook::Postrouting,
        priority::SRCNAT,
        source,
    );
    table.base(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        priority::FILTER,
        gwbridge::forward(view),
    );
    if has_ingress(view, ip) {
        table.base(
            "input",
            ChainKind::Filter,
            Hook::Input,
            priority::FILTER,
            vec![gwbridge::from_ingress()],
        );
    }
    table
}

/// Rules that send published ports where they lead; the same for packets from outside and for the
/// node's own.
fn published(view: &View<'_>, ip: Ip, table: &mut Table, spec: &mut Spec) -> Vec<Rule> {
    let key = [KeyType::L4Proto, KeyType::Port];
    let mut rules = Vec::new();
    let is_local = [
        Expr::fib_destination_type(Register(4)),
        Expr::equals(Register(4), &LOCAL.to_ne_bytes()),
    ];
    let load = [
        Expr::meta(Meta::L4Proto, Register(0)),
        load::destination_port(Register(1)),
    ];

    if has_ingress(view, ip) {
        let mut mesh = Set::new("mesh", &key);
        for (_, _, port) in view.published() {
            mesh.insert(&[
                Value::L4Proto(port.protocol.number()),
                Value::Port(port.published),
            ]);
            pin_udp(spec, port.protocol, port.published);
        }
        if !mesh.is_empty() {
            let to = octets(ip.leg().1.addr());
            let mut expressions = load.to_vec();
            expressions.push(Expr::in_set("mesh", Register(0), false));
            expressions.extend(is_local.clone());
            expressions.push(Expr::immediate(Register(0), &to));
            expressions.push(Expr::dnat(ip.family() as u8, Register(0), None));
            rules.push(rule("ports of the routing mesh", expressions));
            table.sets.push(mesh);
        }
    }

    let mut host = Set::map("host", &key, &[ip.key(), KeyType::Port]);
    for sandbox in view.desired.sandboxes.values() {
        let gateway = sandbox
            .gateway
            .iter()
            .flat_map(|gateway| &gateway.addresses);
        let Some(address) = gateway.map(|a| a.addr()).find(|a| Ip::of(*a) == ip) else {
            continue;
        };
        for port in &sandbox.host_ports {
            let key = [
                Value::L4Proto(port.protocol.number()),
                Value::Port(port.published),
            ];
            host.insert_value(&key, &[Value::Address(address), Value::Port(port.target)]);
            pin_udp(spec, port.protocol, port.published);
        }
    }
    if !host.is_empty() {
        let address = Register(8);
        let port = Register(8 + ip.registers());
        let mut expressions = load.to_vec();
        expressions.push(Expr::map("host", Register(0), address));
        expressions.extend(is_local);
        expressions.push(Expr::dnat(ip.family() as u8, address, Some(port)));
        rules.push(rule("ports of single tasks", expressions));
        table.sets.push(host);
    }
    rules
}

/// A flow of UDP from before the port was published, or after, must not stay where it was.
fn pin_udp(spec: &mut Spec, protocol: Protocol, port: u16) {
    if protocol == Protocol::Udp {
        spec.pins.insert(Pin::UdpPort(port));
    }
}

/// Sources that are not unique in the cluster reach the mesh by this node's address: loopback, and
/// the tasks' addresses on the gwbridge, which repeat on every node.
fn ingress_source(view: &View<'_>, ip: Ip) -> Vec<Rule> {
    if !has_ingress(view, ip) {
        return Vec::new();
    }
    let own: Option<IpAddr> = view
        .node
        .vteps
        .iter()
        .copied()
        .find(|vtep| Ip::of(*vtep) == ip);
    let translate = || match own {
        Some(address) => vec![
            Expr::immediate(Register(0), &octets(address)),
            Expr::snat(ip.family() as u8, Register(0)),
        ],
        None => vec![Expr::masquerade()],
    };
    let gateways = view
        .node
        .gwbridge
        .iter()
        .copied()
        .filter(|a| Ip::of(a.addr()) == ip);
    let sources = gateways.chain([ip.loopback()]);
    let rules = sources.map(|net| {
        let expressions = [goes_by(names::INGRESS_LEG), ip.source_in(net), translate()].concat();
        rule("sources that repeat on every node", expressions)
    });
    rules.collect()
}

/// What must pass the node's other firewalls: what goes through our own devices, which our own
/// table guards, and the tunnel. A rule with another comment is another rule.
fn guards(view: &View<'_>) -> Vec<Guard> {
    let accept = || vec![Expr::verdict(&Verdict::Accept)];
    let mut guards = Vec::new();
    for ip in Ip::BOTH {
        let family: Family = ip.family();
        let mut forward = Vec::new();
        let mut input = Vec::new();
        if view.node.vteps.iter().any(|vtep| Ip::of(*vtep) == ip) {
            let expressions = [
                protocol_is(UDP),
                destination_port(view.node.vxlan_port),
                accept(),
            ]
            .concat();
            let comment = format!("fairlead: tunnel, UDP port {}", view.node.vxlan_port);
            input.push(rule(comment, expressions));
        }
        if has(view, ip) {
            let devices = [view.gwbridge, names::INGRESS_LEG];
            let devices = devices
                .into_iter()
                .take(if has_ingress(view, ip) { 2 } else { 1 });
            for device in devices {
                let comes = [super::ip::came_by(device), accept()].concat();
                forward.push(rule(format!("fairlead: from {device}"), comes));
                let goes = [goes_by(device), accept()].concat();
                forward.push(rule(format!("fairlead: to {device}"), goes));
            }
        }
        if has_ingress(view, ip) {
            let comes = [super::ip::came_by(names::INGRESS_LEG), accept()].concat();
            let comment = format!("fairlead: answers by {}", names::INGRESS_LEG);
            input.push(rule(comment, comes));
        }
        guards.push(Guard {
            family,
            hook: HOOK_FORWARD,
            rules: forward,
        });
        guards.push(Guard {
            family,
            hook: HOOK_INPUT,
            rules: input,
        });
    }
    guards.retain(|guard| !guard.rules.is_empty());
    guards
}
