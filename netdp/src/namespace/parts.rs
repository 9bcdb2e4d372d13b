//! Messages about addresses, neighbours, forwarding entries, routes and rules.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::dump::PROTOCOL;
use super::spec::{Destination, FdbEntry, Neighbour, PolicyRule, Route};

pub(super) fn family(ipv6: bool) -> AddressFamily {
    if ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    family(address.is_ipv6())
}

/// An address, usable at once: duplicate address detection would only delay it, and what is
/// unique the cluster decides.
pub(super) fn address(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(super) fn neighbour(index: u32, entry: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(entry.address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::Destination(entry.address.into()));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message
}

pub(super) fn fdb(index: u32, entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Noarp;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    match entry.destination {
        Destination::Port => message.header.flags = NeighbourFlags::Controller,
        Destination::Vtep(vtep) => {
            message.header.flags = NeighbourFlags::Own;
            // Permanent in the VXLAN's table: static entries there do not age either, but only
            // these are never touched by the driver.
            message.header.state = NeighbourState::Permanent;
            message
                .attributes
                .push(NeighbourAttribute::Destination(vtep.into()));
        }
    }
    message
}

pub(super) fn route(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(route.destination.addr());
    header.destination_prefix_length = route.destination.prefix_len();
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.table = u8::try_from(route.table).unwrap_or(0);
    header.kind = if route.local {
        RouteType::Local
    } else {
        RouteType::Unicast
    };
    header.scope = match (route.local, route.gateway) {
        (true, _) => RouteScope::Host,
        (false, None) => RouteScope::Link,
        (false, Some(_)) => RouteScope::Universe,
    };
    if route.destination.addr().is_ipv6() {
        header.scope = RouteScope::Universe;
    }
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.addr().into()));
    }
    attributes.push(RouteAttribute::Oif(index));
    if let Some(gateway) = route.gateway {
        attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    attributes.push(RouteAttribute::Table(route.table));
    message
}

pub(super) fn rule(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.ipv6);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        message.attributes.push(RuleAttribute::Source(from.addr()));
    }
    if let Some(iif) = &rule.iif {
        message.attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    if let Some(mark) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark));
        // Without a mask the kernel compares the whole mark only if the mark is not zero.
        message.attributes.push(RuleAttribute::FwMask(u32::MAX));
    }
    message
}

/// The kernel's own rule for the local table, at another place.
pub(super) fn local_rule(ipv6: bool, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(ipv6);
    message.header.action = RuleAction::ToTable;
    message.header.table = 255;
    message.attributes.push(RuleAttribute::Priority(priority));
    message.attributes.push(RuleAttribute::Table(255));
    message
        .attributes
        .push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    message
}
