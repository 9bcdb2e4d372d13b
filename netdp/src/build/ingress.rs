//! What the ingress network's namespace has beside an overlay: the leg to the node, and routes that
//! keep both sides apart, whatever their addresses.

use std::net::IpAddr;

use super::balance::{self, Choice, Layout};
use super::ip::Ip;
use super::names;
use super::node::has_ingress;
use super::view::View;
use crate::conntrack::Pin;
use crate::desired::{Backend, Engine, Network, Port, Protocol, Scheduler};
use crate::namespace::{Link, LinkKind, Neighbour, PolicyRule, Route, Spec};
use crate::nft::{ChainKind, Expr, Hook, KeyType, Meta, Register, Table, Value, load, priority};

/// Routing table in which there is only the node.
const TO_NODE: u32 = 100;
const MAIN: u32 = 254;

/// Adds to the spec of the ingress network's overlay.
pub(super) fn extend(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network) {
    if !view.has_ingress() {
        return;
    }
    spec.links.push(Link {
        name: names::NODE_LEG.to_owned(),
        kind: LinkKind::VethEnd,
        mac: Some(names::LEG_MACS.1),
        mtu: Some(view.underlay.mtu),
        port: None,
        alias: "to the node".to_owned(),
    });
    // The bridge's own link-local address and neighbour discovery have no place here.
    spec.local_last = true;
    for ip in Ip::BOTH.into_iter().filter(|ip| has_ingress(view, *ip)) {
        routing(spec, network, ip);
        neighbours(spec, view, id, network, ip);
        for (service, _, port) in view.published() {
            for target in view.backends(service, id, ip.is_v6()) {
                if target.backend != Backend::Disabled {
                    // Flows that were refused for want of a backend are tracked, too.
                    if port.protocol == Protocol::Udp {
                        spec.pins.insert(Pin::UdpPort(port.published));
                    }
                    spec.pins.insert(Pin::Published(
                        port.protocol.number(),
                        port.published,
                        target.address,
                    ));
                }
                if target.flows_left {
                    spec.pins.insert(Pin::Left(target.address));
                }
            }
        }
        if view.engine == Engine::Nft {
            let table = table(view, id, ip);
            if !table.is_empty() {
                spec.tables.push(table);
            }
        }
    }
    if view.engine == Engine::Ipvs {
        ipvs_settings(spec);
    }
}

/// A client may have any address, even one of the ingress network's subnet, and still gets its
/// answers: what comes from the overlay goes to the node, what comes from the node to the overlay.
fn routing(spec: &mut Spec, network: &Network, ip: Ip) {
    let (node, own) = ip.leg();
    spec.addresses.push((names::NODE_LEG.to_owned(), own));
    spec.neighbours.push(Neighbour {
        link: names::NODE_LEG.to_owned(),
        address: node.addr(),
        mac: names::LEG_MACS.0,
    });
    for table in [TO_NODE, MAIN] {
        spec.routes.push(Route {
            destination: ip.any(),
            link: names::NODE_LEG.to_owned(),
            gateway: Some(node.addr()),
            onlink: false,
            table,
            local: false,
        });
    }
    let rule = |priority| PolicyRule {
        ipv6: ip.is_v6(),
        priority,
        from: None,
        iif: None,
        mark: None,
        table: TO_NODE,
    };
    for (priority, segment) in (10..).zip(&network.segments) {
        let bridge = names::bridge(segment.vni);
        for subnet in segment.subnets.iter().filter(|s| Ip::of(s.addr()) == ip) {
            spec.routes.push(Route {
                destination: subnet.trunc(),
                link: bridge.clone(),
                gateway: None,
                onlink: false,
                table: MAIN,
                local: false,
            });
        }
        spec.rules.push(PolicyRule {
            iif: Some(bridge),
            ..rule(priority)
        });
    }
    // Refusals, which we make ourselves.
    let own_host = ipnet::IpNet::new(own.addr(), if ip.is_v6() { 128 } else { 32 }).ok();
    spec.rules.push(PolicyRule {
        from: own_host,
        ..rule(9)
    });
    // Answers come by another way than that on which their destination lies.
    if ip.is_v6() {
        spec.sysctl(ip.sysctl("all", "forwarding"), "1");
        spec.sysctl(ip.sysctl("all", "accept_ra"), "0");
    } else {
        spec.sysctl("net/ipv4/ip_forward", "1");
        let links = network
            .segments
            .iter()
            .map(|segment| names::bridge(segment.vni));
        for link in links.chain(["all", "default", names::NODE_LEG].map(str::to_owned)) {
            spec.sysctl(ip.sysctl(&link, "rp_filter"), "0");
            spec.sysctl(ip.sysctl(&link, "send_redirects"), "0");
        }
    }
}

/// Every endpoint's MAC is known: nothing is ever asked on this bridge.
fn neighbours(spec: &mut Spec, view: &View<'_>, id: &str, network: &Network, ip: Ip) {
    let remote = view.remote_endpoints(id).flat_map(|endpoint| {
        endpoint
            .addresses
            .iter()
            .map(|address| (*address, endpoint.mac))
    });
    let local = view.legs(id).flat_map(|(_, _, leg)| {
        leg.addresses
            .iter()
            .map(|address| (address.addr(), leg.mac))
    });
    for (address, mac) in remote
        .chain(local)
        .filter(|(address, _)| Ip::of(*address) == ip)
    {
        if let Some(vni) = super::view::segment_of_address(network, address) {
            spec.neighbours.push(Neighbour {
                link: names::bridge(vni),
                address,
                mac,
            });
        }
    }
}

/// One published port and where it leads.
#[derive(Debug)]
pub(crate) struct VirtualService {
    /// Id of the service that publishes the port.
    pub(crate) service: String,
    /// Address and published port, as the node sends it.
    pub(crate) address: IpAddr,
    pub(crate) port: Port,
    pub(crate) scheduler: Option<Scheduler>,
    /// Address and weight; weight 0 drains. They get the published port, and lead it to the target port
    /// themselves: so it is of no account to a port and its connections which others the service has.
    pub(crate) backends: Vec<(IpAddr, u16)>,
}

/// The published ports, as a load balancer sees them. A service without backends is left out: what
/// nobody listens on is refused by the kernel at once.
pub(crate) fn virtual_services(view: &View<'_>) -> Vec<VirtualService> {
    let Some((ingress, _)) = view.ingress_network() else {
        return Vec::new();
    };
    if !view.has_ingress() {
        return Vec::new();
    }
    let mut services = Vec::new();
    for ip in Ip::BOTH.into_iter().filter(|ip| has_ingress(view, *ip)) {
        for (id, service, port) in view.published() {
            let backends: Vec<_> = view
                .backends(id, ingress, ip.is_v6())
                .filter(|target| !target.flows_left || port.protocol != Protocol::Udp)
                .filter_map(|target| match target.backend {
                    Backend::Enabled(weight) => Some((target.address, weight)),
                    Backend::Draining | Backend::Paused => Some((target.address, 0)),
                    Backend::Disabled => None,
                })
                .collect();
            if !backends.is_empty() {
                services.push(VirtualService {
                    service: id.to_owned(),
                    address: ip.leg().1.addr(),
                    port,
                    scheduler: service.scheduler,
                    backends,
                });
            }
        }
    }
    services
}

/// The table of engine `nft`.
fn table(view: &View<'_>, _ingress: &str, ip: Ip) -> Table {
    let mut table = Table::new(ip.family());
    let services = virtual_services(view);
    let choices: Vec<Choice> = services
        .iter()
        .filter(|service| Ip::of(service.address) == ip)
        .map(|service| Choice {
            key: vec![
                Value::L4Proto(service.port.protocol.number()),
                Value::Port(service.port.published),
            ],
            backends: service
                .backends
                .iter()
                .filter(|(_, weight)| *weight > 0)
                .map(|(address, _)| vec![Value::Address(*address)])
                .collect(),
            scheduler: service.scheduler,
        })
        .collect();
    let layout = Layout {
        ip,
        key: vec![KeyType::L4Proto, KeyType::Port],
        load: vec![
            Expr::meta(Meta::L4Proto, Register(0)),
            load::destination_port(Register(1)),
        ],
        slot: Register(2),
    };
    let dispatch = balance::add(&mut table, &layout, &choices);
    // Only what the node sent to the leg's address: a published port is no business of tasks.
    let own = ip.leg().1;
    let own = ipnet::IpNet::new(own.addr(), if ip.is_v6() { 128 } else { 32 }).unwrap_or(own);
    let rules = dispatch
        .into_iter()
        .map(|rule| rule.after(ip.destination_in(own)))
        .collect();
    table.base(
        "balance",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
        rules,
    );
    table
}

/// Connections of a removed destination end at the next packet; a client port that is used again
/// is balanced again.
fn ipvs_settings(spec: &mut Spec) {
    for (name, value) in [
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "1"),
        ("conn_reuse_mode", "1"),
        ("conntrack", "0"),
    ] {
        spec.optional_sysctl(format!("net/ipv4/vs/{name}"), value);
    }
}

/// Protocol of IPVS for one of ours.
pub(crate) fn ipvs_protocol(protocol: Protocol) -> ipvs::Protocol {
    match protocol {
        Protocol::Tcp => ipvs::Protocol::TCP,
        Protocol::Udp => ipvs::Protocol::UDP,
        Protocol::Sctp => ipvs::Protocol::SCTP,
    }
}
