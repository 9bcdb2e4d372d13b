//! The gwbridge: the tasks' way out, and the isolation between them.

use ipnet::IpNet;

use super::ip::{Ip, came_by, goes_by, goes_by_other};
use super::names;
use super::view::View;
use crate::desired::{Gateway, Mac};
use crate::namespace::{Destination, FdbEntry, Link, LinkKind, Neighbour, Port, Spec, VethPeer};
use crate::nft::{CtKey, Expr, Register, Rule, Verdict, rule};

/// Bits of `ct state` and `ct status` (`linux/netfilter/nf_conntrack_common.h`); host order.
const ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
const STATUS_DNAT: u32 = 1 << 5;

/// The bridge and its ports.
pub(super) fn devices(spec: &mut Spec, view: &View<'_>) {
    let bridge = view.gwbridge;
    spec.links.push(Link {
        name: bridge.to_owned(),
        kind: LinkKind::Bridge,
        mac: gateway_mac(&view.node.gwbridge),
        mtu: None,
        port: None,
        alias: "way out for tasks".to_owned(),
    });
    for address in &view.node.gwbridge {
        spec.addresses.push((bridge.to_owned(), *address));
    }
    // From loopback to a task's host-mode port.
    spec.sysctl(Ip::V4.sysctl(bridge, "route_localnet"), "1");
    // No task is a router of this node's.
    spec.optional_sysctl(Ip::V6.sysctl(bridge, "accept_ra"), "0");
    for (id, sandbox) in &view.desired.sandboxes {
        let Some(gateway) = &sandbox.gateway else {
            continue;
        };
        let port = view.gateway_port(id);
        // Ports do not flood what is for others: the bridge must know who is where.
        if let Some(mac) = leg_mac(gateway) {
            let destination = Destination::Port;
            for address in &gateway.addresses {
                spec.neighbours.push(Neighbour {
                    link: bridge.to_owned(),
                    address: address.addr(),
                    mac,
                });
            }
            spec.fdb.push(FdbEntry {
                link: port.clone(),
                mac,
                destination,
            });
        }
        spec.links.push(Link {
            name: port,
            kind: LinkKind::Veth(VethPeer {
                netns: names::netns_of_task(view.run_dir, id),
                name: gateway.ifname.clone(),
                mac: leg_mac(gateway),
            }),
            mac: None,
            mtu: Some(view.underlay.mtu),
            port: Some(Port {
                bridge: bridge.to_owned(),
                isolated: true,
            }),
            alias: format!("task {}", sandbox.name),
        });
    }
}

/// The bridge's own MAC is fixed: else it would be that of a port, and change with the tasks.
fn gateway_mac(addresses: &[IpNet]) -> Option<Mac> {
    addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(Mac::of_ipv4(address.addr())),
        IpNet::V6(_) => None,
    })
}

/// MAC of a task's leg on the gwbridge.
pub(super) fn leg_mac(gateway: &Gateway) -> Option<Mac> {
    gateway_mac(&gateway.addresses)
}

/// Rules of the forward hook.
pub(super) fn forward(view: &View<'_>) -> Vec<Rule> {
    let bridge = view.gwbridge;
    let mut rules = vec![
        rule(
            "answers to tasks",
            [
                goes_by(bridge),
                ct(CtKey::State, ESTABLISHED_OR_RELATED, true),
                vec![Expr::verdict(&Verdict::Return)],
            ]
            .concat(),
        ),
        rule(
            "published ports",
            [
                goes_by(bridge),
                ct(CtKey::Status, STATUS_DNAT, true),
                vec![Expr::verdict(&Verdict::Return)],
            ]
            .concat(),
        ),
        rule(
            "tasks are not reached by their gateway address",
            [goes_by(bridge), vec![Expr::verdict(&Verdict::Drop)]].concat(),
        ),
    ];
    if view.has_ingress() {
        // From outside only what was balanced: the leg's addresses are nobody's business.
        rules.push(rule(
            "the ingress is reached by published ports only",
            [
                goes_by(names::INGRESS_LEG),
                ct(CtKey::State, ESTABLISHED_OR_RELATED, false),
                ct(CtKey::Status, STATUS_DNAT, false),
                vec![Expr::verdict(&Verdict::Drop)],
            ]
            .concat(),
        ));
        rules.push(from_ingress());
    }
    rules
}

/// From the ingress come answers, and errors about them. A task can send by its leg whatever it
/// likes to whomever it likes: as a connection of its own it ends here.
pub(super) fn from_ingress() -> Rule {
    rule(
        "from the ingress come answers only",
        [
            came_by(names::INGRESS_LEG),
            ct(CtKey::State, ESTABLISHED_OR_RELATED, false),
            vec![Expr::verdict(&Verdict::Drop)],
        ]
        .concat(),
    )
}

/// Goes on only when one of the bits is set (or none).
fn ct(key: CtKey, bits: u32, set: bool) -> Vec<Expr> {
    let register = Register(0);
    let zero = 0u32.to_ne_bytes();
    let compare = if set {
        Expr::differs(register, &zero)
    } else {
        Expr::equals(register, &zero)
    };
    vec![
        Expr::ct(key, None, register),
        Expr::bitwise(register, &bits.to_ne_bytes(), &zero),
        compare,
    ]
}

/// Rules of the source NAT hook.
pub(super) fn source_nat(view: &View<'_>, ip: Ip) -> Vec<Rule> {
    let bridge = view.gwbridge;
    let mut rules = Vec::new();
    for address in view.node.gwbridge.iter().filter(|a| Ip::of(a.addr()) == ip) {
        rules.push(rule(
            "tasks go out by the node's address",
            [
                ip.source_in(*address),
                goes_by_other(bridge),
                vec![Expr::masquerade()],
            ]
            .concat(),
        ));
        // Back to another task through a host-mode port: the answer must come this way too.
        rules.push(rule(
            "from task to task through the node",
            [came_by(bridge), goes_by(bridge), vec![Expr::masquerade()]].concat(),
        ));
        rules.push(rule(
            "from loopback to a task",
            [
                ip.source_in(ip.loopback()),
                goes_by(bridge),
                vec![Expr::masquerade()],
            ]
            .concat(),
        ));
    }
    rules
}
