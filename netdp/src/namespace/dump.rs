//! What the kernel has, in the words of the spec.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::spec::{Destination, PolicyRule, Route};
use crate::desired::Mac;
use crate::netlink::{NetlinkError, RouteSocket};

/// `rtm_protocol` and `FRA_PROTOCOL` of what is ours; not in the kernel's list of known ones
/// (`linux/rtnetlink.h`).
pub(crate) const PROTOCOL: u8 = 0x4c;

/// A link as the kernel has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoundLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// It sends what it is given; see [`super::settle`].
    pub(crate) running: bool,
    pub(crate) master: Option<u32>,
    pub(crate) vxlan: Option<FoundVxlan>,
    pub(crate) port: Option<FoundPort>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundVxlan {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: Option<IpAddr>,
    pub(crate) learning: bool,
    pub(crate) proxy: bool,
}

/// Settings of a bridge port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FoundPort {
    pub(crate) isolated: bool,
    pub(crate) learning: bool,
    pub(crate) flood: bool,
}

/// All links, by name.
pub(crate) fn links(socket: &mut RouteSocket) -> Result<BTreeMap<String, FoundLink>, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = socket.dump(&request)?;
    let links = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(read_link(link)),
        _ => None,
    });
    Ok(links.map(|link| (link.name.clone(), link)).collect())
}

pub(crate) fn read_link(message: LinkMessage) -> FoundLink {
    let mut link = FoundLink {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        ..FoundLink::default()
    };
    let mut unknown = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::OperState(state) => unknown = state == State::Unknown,
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::LinkInfo(infos) => read_info(&mut link, infos),
            _ => {}
        }
    }
    // Of a link whose carrier the kernel has never taken notice of it says that it is running. A VXLAN
    // device stays like that, and sends.
    link.running &= !unknown || link.vxlan.is_some();
    link
}

fn read_info(link: &mut FoundLink, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Data(InfoData::Vxlan(options)) => {
                let mut vxlan = FoundVxlan::default();
                for option in options {
                    match option {
                        InfoVxlan::Id(vni) => vxlan.vni = vni,
                        InfoVxlan::Port(port) => vxlan.port = port,
                        InfoVxlan::Local(local) => vxlan.local = Some(local.into()),
                        InfoVxlan::Local6(local) => vxlan.local = Some(local.into()),
                        InfoVxlan::Learning(learning) => vxlan.learning = learning,
                        InfoVxlan::Proxy(proxy) => vxlan.proxy = proxy,
                        _ => {}
                    }
                }
                link.vxlan = Some(vxlan);
            }
            LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
                let mut port = FoundPort::default();
                for option in options {
                    match option {
                        InfoBridgePort::Isolated(isolated) => port.isolated = isolated,
                        InfoBridgePort::Learning(learning) => port.learning = learning,
                        InfoBridgePort::UnicastFlood(flood) => port.flood = flood,
                        _ => {}
                    }
                }
                link.port = Some(port);
            }
            _ => {}
        }
    }
}

/// Addresses by link index; link-local IPv6 ones, which the kernel makes, left out.
pub(crate) fn addresses(socket: &mut RouteSocket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = socket.dump(&request)?;
    Ok(found.into_iter().filter_map(read_address).collect())
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    // On a link without a peer both are the same; IPv6 has no IFA_LOCAL.
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(local),
            AddressAttribute::Address(other) => address = address.or(Some(other)),
            _ => {}
        }
    }
    let address = address?;
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    let net = IpNet::new(address, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

/// Permanent neighbour entries: link index, address, MAC.
pub(crate) fn neighbours(
    socket: &mut RouteSocket,
) -> Result<Vec<(u32, IpAddr, Option<Mac>)>, NetlinkError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let found = socket.dump(&request)?;
    let entries = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewNeighbour(entry)
            if entry.header.state == NeighbourState::Permanent
                && matches!(
                    entry.header.family,
                    AddressFamily::Inet | AddressFamily::Inet6
                ) =>
        {
            let address = destination(&entry)?;
            Some((entry.header.ifindex, address, mac(&entry)))
        }
        _ => None,
    });
    Ok(entries.collect())
}

/// Forwarding entries that somebody set: link index, MAC, where to. The bridge's entries for the
/// MACs of its own ports, which are permanent, are left out.
pub(crate) fn fdb(socket: &mut RouteSocket) -> Result<Vec<(u32, Mac, Destination)>, NetlinkError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    let found = socket.dump(&RouteNetlinkMessage::GetNeighbour(request))?;
    let entries = found.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else {
            return None;
        };
        let index = entry.header.ifindex;
        let mac = mac(&entry)?;
        match destination(&entry) {
            Some(vtep) => Some((index, mac, Destination::Vtep(vtep))),
            None if entry.header.flags.contains(NeighbourFlags::Controller)
                || entry
                    .attributes
                    .iter()
                    .any(|a| matches!(a, NeighbourAttribute::Controller(_))) =>
            {
                // Static is NOARP; anything else on a port that does not learn is nobody's.
                (entry.header.state != NeighbourState::Permanent).then_some((
                    index,
                    mac,
                    Destination::Port,
                ))
            }
            None => None,
        }
    });
    Ok(entries.collect())
}

fn mac(entry: &NeighbourMessage) -> Option<Mac> {
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => {
                Some(Mac(mac.as_slice().try_into().ok()?))
            }
            _ => None,
        })
}

fn destination(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some((*address).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some((*address).into())
            }
            // A forwarding entry does not say which family its VTEP has; its length does.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|b| Ipv4Addr::from(b).into());
                let v6 =
                    || <[u8; 16]>::try_from(bytes.as_slice()).map(|b| Ipv6Addr::from(b).into());
                v4.or_else(|_| v6()).ok()
            }
            _ => None,
        })
}

/// Routes that are ours. The link is given by its index.
pub(crate) fn routes(
    socket: &mut RouteSocket,
    links: &BTreeMap<u32, String>,
) -> Result<Vec<(Route, RouteMessage)>, NetlinkError> {
    let mut ours = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        for message in socket.dump(&RouteNetlinkMessage::GetRoute(request))? {
            if let RouteNetlinkMessage::NewRoute(message) = message
                && u8::from(message.header.protocol) == PROTOCOL
                && let Some(route) = read_route(&message, links)
            {
                ours.push((route, message));
            }
        }
    }
    Ok(ours)
}

fn read_route(message: &RouteMessage, links: &BTreeMap<u32, String>) -> Option<Route> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut route = Route {
        destination: IpNet::new(any, header.destination_prefix_length).ok()?,
        link: String::new(),
        gateway: None,
        onlink: header
            .flags
            .contains(netlink_packet_route::route::RouteFlags::Onlink),
        table: header.table.into(),
        local: header.kind == RouteType::Local,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => {
                route.destination =
                    IpNet::new(address(destination)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Oif(index) => route.link = links.get(index)?.clone(),
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    Some(route)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Policy rules: ours, and those that look up the local table.
pub(crate) struct FoundRules {
    pub(crate) ours: Vec<(PolicyRule, RuleMessage)>,
    /// Family is IPv6, priority.
    pub(crate) local: Vec<(bool, u32)>,
}

pub(crate) fn rules(socket: &mut RouteSocket) -> Result<FoundRules, NetlinkError> {
    let mut found = FoundRules {
        ours: Vec::new(),
        local: Vec::new(),
    };
    for (ipv6, family) in [(false, AddressFamily::Inet), (true, AddressFamily::Inet6)] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        for message in socket.dump(&RouteNetlinkMessage::GetRule(request))? {
            let RouteNetlinkMessage::NewRule(message) = message else {
                continue;
            };
            let mut protocol = 0;
            let mut rule = PolicyRule {
                ipv6,
                priority: 0,
                from: None,
                iif: None,
                mark: None,
                table: message.header.table.into(),
            };
            for attribute in &message.attributes {
                match attribute {
                    RuleAttribute::Priority(priority) => rule.priority = *priority,
                    RuleAttribute::Source(source) => {
                        rule.from = IpNet::new(*source, message.header.src_len).ok();
                    }
                    RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                    RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                    RuleAttribute::Table(table) => rule.table = *table,
                    RuleAttribute::Protocol(value) => protocol = u8::from(*value),
                    _ => {}
                }
            }
            if protocol == PROTOCOL {
                found.ours.push((rule, message));
            } else if rule.table == 255 && rule.from.is_none() && rule.iif.is_none() {
                found.local.push((ipv6, rule.priority));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_the_kernel_has_not_looked_at_does_not_run() {
        let vxlan = LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vxlan(Vec::new()))]);
        for (state, more, running) in [
            (State::Unknown, None, false),
            (State::Up, None, true),
            (State::Unknown, Some(vxlan), true),
        ] {
            let mut message = LinkMessage::default();
            message.header.flags = LinkFlags::Up | LinkFlags::Running;
            message.attributes.extend(more);
            message.attributes.push(LinkAttribute::OperState(state));
            assert_eq!(read_link(message).running, running, "{state:?}");
        }
    }
}
