//! A task's namespace: addresses, the way out, VIPs, published ports, the way to its DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::balance::{self, Choice, Layout};
use super::ip::{Ip, ethertype_is, protocol_is};
use super::view::View;
use super::{gwbridge, steering};
use crate::conntrack::Pin;
use crate::desired::{Backend, Leg, Sandbox};
use crate::namespace::{Link, LinkKind, Route, Spec};
use crate::nft::{
    ChainKind, Expr, Family, Hook, Register, Rule, Set, Table, Value, Verdict, load, priority, rule,
};

const MAIN: u32 = 254;
/// Where every task asks for names.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS_PORT: u16 = 53;

/// A task's namespace.
pub(crate) fn task(view: &View<'_>, id: &str, sandbox: &Sandbox) -> Spec {
    let mut spec = Spec {
        loopback: true,
        ..Spec::default()
    };
    for leg in &sandbox.legs {
        overlay_leg(&mut spec, view, leg);
    }
    if sandbox.gateway.is_some() {
        way_out(&mut spec, view, sandbox);
    }
    let ingress = sandbox
        .legs
        .iter()
        .find(|leg| view.is_ingress(&leg.network));
    let service = view.service_of(id).map(|(_, service)| service);
    let mut devices = Table::new(Family::Netdev);
    if let Some(leg) = ingress {
        steering::routing(&mut spec, leg, service);
        steering::on_device(&mut devices, leg, service);
    }
    if let Some(port) = sandbox.resolver {
        resolver(&mut devices, port);
    }
    if !devices.is_empty() {
        spec.tables.push(devices);
    }
    for ip in Ip::BOTH {
        let mut table = Table::new(ip.family());
        virtual_addresses(&mut spec, &mut table, view, sandbox, ip);
        if let Some(leg) = ingress {
            let legs = sandbox.legs.iter().flat_map(|leg| &leg.addresses);
            let gateway = sandbox
                .gateway
                .iter()
                .flat_map(|gateway| &gateway.addresses);
            let sources: Vec<_> = legs
                .chain(gateway)
                .copied()
                .filter(|a| Ip::of(a.addr()) == ip)
                .collect();
            steering::translate(&mut table, ip, leg, service, &sources);
        }
        if !table.is_empty() {
            spec.tables.push(table);
        }
    }
    spec
}

fn overlay_leg(spec: &mut Spec, view: &View<'_>, leg: &Leg) {
    let mtu = view
        .desired
        .networks
        .get(&leg.network)
        .map(|network| view.mtu(network));
    spec.links.push(Link {
        name: leg.ifname.clone(),
        kind: LinkKind::VethEnd,
        mac: Some(leg.mac),
        mtu,
        port: None,
        alias: format!("network {}", leg.network),
    });
    addresses(spec, &leg.ifname, &leg.addresses);
}

fn addresses(spec: &mut Spec, ifname: &str, addresses: &[ipnet::IpNet]) {
    let ipv6 = addresses.iter().any(|address| address.addr().is_ipv6());
    // No address that nobody asked for: without IPv6 there not even a link-local one.
    spec.optional_sysctl(
        Ip::V6.sysctl(ifname, "disable_ipv6"),
        if ipv6 { "0" } else { "1" },
    );
    if ipv6 {
        spec.optional_sysctl(Ip::V6.sysctl(ifname, "accept_ra"), "0");
    }
    for address in addresses {
        spec.addresses.push((ifname.to_owned(), *address));
    }
}

fn way_out(spec: &mut Spec, view: &View<'_>, sandbox: &Sandbox) {
    let Some(gateway) = &sandbox.gateway else {
        return;
    };
    spec.links.push(Link {
        name: gateway.ifname.clone(),
        kind: LinkKind::VethEnd,
        mac: gwbridge::leg_mac(gateway),
        mtu: Some(view.underlay.mtu),
        port: None,
        alias: "way out".to_owned(),
    });
    addresses(spec, &gateway.ifname, &gateway.addresses);
    for address in &view.node.gwbridge {
        let ip = Ip::of(address.addr());
        if gateway.addresses.iter().any(|own| Ip::of(own.addr()) == ip) {
            spec.routes.push(Route {
                destination: ip.any(),
                link: gateway.ifname.clone(),
                gateway: Some(address.addr()),
                onlink: false,
                table: MAIN,
                local: false,
            });
        }
    }
}

/// Queries to port 53 reach our sockets on another port, so that a task may bind port 53 itself.
/// Both ways the port is written over where the packet comes out of the loopback device: nothing
/// else that the task sends or gets passes there.
fn resolver(table: &mut Table, port: u16) {
    /// Where the checksum is (RFC 768, RFC 9293), by protocol number.
    const PROTOCOLS: [(u8, u32); 2] = [(17, 6), (6, 16)];
    const SOURCE: u32 = 0;
    const DESTINATION: u32 = 2;
    let host = ipnet::Ipv4Net::new_assert(RESOLVER, 32).into();
    let rewrite = |number, checksum, offset, from: u16, to: u16| {
        let mut expressions = protocol_is(number);
        expressions.push(if offset == DESTINATION {
            load::destination_port(Register(0))
        } else {
            load::source_port(Register(0))
        });
        expressions.push(Expr::equals(Register(0), &from.to_be_bytes()));
        expressions.push(Expr::immediate(Register(0), &to.to_be_bytes()));
        expressions.push(Expr::write_port(offset, checksum, Register(0)));
        rule("names", expressions)
    };
    let queries =
        PROTOCOLS.map(|(number, checksum)| rewrite(number, checksum, DESTINATION, DNS_PORT, port));
    let answers =
        PROTOCOLS.map(|(number, checksum)| rewrite(number, checksum, SOURCE, port, DNS_PORT));
    table.chain("to-resolver", queries.to_vec());
    table.chain("from-resolver", answers.to_vec());
    let goto = |matches: Vec<Expr>, chain: &str| {
        let mut expressions = ethertype_is(Ip::V4.ethertype());
        expressions.extend(matches);
        expressions.push(Expr::verdict(&Verdict::Goto(chain.to_owned())));
        rule("names", expressions)
    };
    let rules = vec![
        goto(Ip::V4.destination_in(host), "to-resolver"),
        goto(Ip::V4.source_in(host), "from-resolver"),
    ];
    let hook = Hook::Ingress("lo".to_owned());
    table.base("names", ChainKind::Filter, hook, priority::FILTER, rules);
}

/// VIPs are balanced where the connection starts: here.
fn virtual_addresses(
    spec: &mut Spec,
    table: &mut Table,
    view: &View<'_>,
    sandbox: &Sandbox,
    ip: Ip,
) {
    let mut choices = Vec::new();
    let mut refused = BTreeSet::new();
    for leg in sandbox
        .legs
        .iter()
        .filter(|leg| !view.is_ingress(&leg.network))
    {
        for (id, service) in &view.desired.services {
            let vips = service
                .vips
                .iter()
                .filter(|(network, _)| *network == leg.network);
            for (_, vip) in vips.filter(|(_, vip)| Ip::of(*vip) == ip) {
                let mut backends = Vec::new();
                for target in view.backends(id, &leg.network, ip.is_v6()) {
                    let address = target.address;
                    if matches!(target.backend, Backend::Enabled(_)) {
                        backends.push(vec![Value::Address(address)]);
                    }
                    if target.backend != Backend::Disabled {
                        spec.pins.insert(Pin::VipBackend(*vip, address));
                    }
                    if target.flows_left {
                        spec.pins.insert(Pin::LeftVip(*vip, address));
                    }
                }
                if backends.is_empty() {
                    refused.insert(*vip);
                }
                let key = vec![Value::Address(*vip)];
                choices.push(Choice {
                    key,
                    backends,
                    scheduler: service.scheduler,
                });
            }
        }
    }
    let layout = Layout {
        ip,
        key: vec![ip.key()],
        load: vec![ip.destination(Register(0))],
        slot: Register(ip.registers()),
    };
    let rules = balance::add(table, &layout, &choices);
    table.base(
        "vips",
        ChainKind::Nat,
        Hook::Output,
        priority::DSTNAT,
        rules,
    );
    let rules = refusals(table, ip, &refused);
    table.base(
        "refuse",
        ChainKind::Filter,
        Hook::Output,
        priority::FILTER,
        rules,
    );
}

/// A VIP without backends answers at once that it has none.
fn refusals(table: &mut Table, ip: Ip, vips: &BTreeSet<IpAddr>) -> Vec<Rule> {
    if vips.is_empty() {
        return Vec::new();
    }
    let mut set = Set::new("without-backends", &[ip.key()]);
    for vip in vips {
        set.insert(&[Value::Address(*vip)]);
    }
    table.sets.push(set);
    let matches = || {
        vec![
            ip.destination(Register(0)),
            Expr::in_set("without-backends", Register(0), false),
        ]
    };
    vec![
        rule(
            "no backend",
            [matches(), protocol_is(6), vec![Expr::reject_tcp()]].concat(),
        ),
        rule(
            "no backend",
            [matches(), vec![Expr::reject_port_unreachable(ip.is_v6())]].concat(),
        ),
    ]
}
