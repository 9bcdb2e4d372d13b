//! Messages about links.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::dump::{FoundLink, FoundPort};
use super::spec::{Link, LinkKind, Port, VethPeer};
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, Request};

/// Prefix of the alias of every link that is ours.
pub(crate) const OWNER: &str = "fairlead: ";

/// A message that makes `link`, up and in its bridge, in one go. `netns`: place it there instead of
/// in the socket's namespace. `peer`: the far end's namespace, for a veth.
pub(super) fn create(
    link: &Link,
    bridge: Option<u32>,
    netns: Option<BorrowedFd<'_>>,
    peer: Option<BorrowedFd<'_>>,
) -> LinkMessage {
    let mut message = named(&link.name);
    set_up(&mut message);
    if let Some(mac) = link.mac {
        message
            .attributes
            .push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = link.mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(bridge) = bridge {
        message.attributes.push(LinkAttribute::Controller(bridge));
    }
    if let Some(netns) = netns {
        message
            .attributes
            .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    let info = match &link.kind {
        LinkKind::Bridge => vec![
            LinkInfo::Kind(InfoKind::Bridge),
            // Groups are not learned: nothing of ours speaks IGMP or MLD across the bridge.
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ],
        LinkKind::Vxlan { vni, port, local } => {
            vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(vxlan(*vni, *port, *local)),
            ]
        }
        LinkKind::Veth(end) => {
            let far = far_end(end, link.mtu, peer);
            vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]
        }
        LinkKind::VethEnd => Vec::new(),
    };
    if !info.is_empty() {
        message.attributes.push(LinkAttribute::LinkInfo(info));
    }
    message
}

/// A request that makes a link, to see whether the kernel can.
pub(crate) fn probe_link(link: &Link) -> Request {
    Request {
        action: "create",
        object: format!("link {}", link.name),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        message: RouteNetlinkMessage::NewLink(create(link, None, None, None)),
        accept: &[],
    }
}

fn vxlan(vni: u32, port: u16, local: IpAddr) -> InfoData {
    let mut options = vec![
        InfoVxlan::Id(vni),
        InfoVxlan::Port(port),
        InfoVxlan::Learning(false),
        // Answers ARP and neighbour discovery from its own table: no broadcast ever leaves.
        InfoVxlan::Proxy(true),
    ];
    match local {
        IpAddr::V4(local) => options.push(InfoVxlan::Local(local)),
        IpAddr::V6(local) => {
            options.push(InfoVxlan::Local6(local));
            // A peer may leave the outer UDP checksum out (RFC 6935).
            options.push(InfoVxlan::UDPZeroCsumRX(true));
        }
    }
    InfoData::Vxlan(options)
}

fn far_end(end: &VethPeer, mtu: Option<u32>, netns: Option<BorrowedFd<'_>>) -> LinkMessage {
    // Not up: a veth cannot be before it knows its peer. The far namespace's spec brings it up.
    let mut message = named(&end.name);
    if let Some(mac) = end.mac {
        message
            .attributes
            .push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(netns) = netns {
        message
            .attributes
            .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    message
}

/// The settings of a port of ours: nothing is learned, unknown destinations are not flooded.
pub(super) fn port_of(port: &Port) -> FoundPort {
    FoundPort {
        isolated: port.isolated,
        learning: false,
        flood: false,
    }
}

/// Messages that lead an existing link to what it should be; none when it is. The alias, which
/// cannot be given at creation by every kernel, comes this way too.
pub(super) fn adjust(link: &Link, found: &FoundLink, bridge: Option<u32>) -> Vec<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = found.index;
    let mut differs = !found.up;
    set_up(&mut message);
    if let Some(mac) = link.mac.filter(|mac| found.mac != Some(*mac)) {
        message
            .attributes
            .push(LinkAttribute::Address(mac.0.to_vec()));
        differs = true;
    }
    if let Some(mtu) = link.mtu.filter(|mtu| found.mtu != *mtu) {
        message.attributes.push(LinkAttribute::Mtu(mtu));
        differs = true;
    }
    if let Some(bridge) = bridge.filter(|bridge| found.master != Some(*bridge)) {
        message.attributes.push(LinkAttribute::Controller(bridge));
        differs = true;
    }
    let alias = alias(link);
    if found.alias != alias {
        message.attributes.push(LinkAttribute::IfAlias(alias));
        differs = true;
    }
    let mut messages = Vec::new();
    if differs {
        messages.push(message);
    }
    // A port's settings belong to its membership: a port that just came has the defaults.
    let same_bridge = bridge.is_none() || found.master == bridge;
    if let Some(port) = &link.port
        && !(same_bridge && found.port == Some(port_of(port)))
    {
        let FoundPort {
            isolated,
            learning,
            flood,
        } = port_of(port);
        let mut message = LinkMessage::default();
        message.header.index = found.index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::Isolated(isolated),
                InfoBridgePort::Learning(learning),
                InfoBridgePort::UnicastFlood(flood),
            ])),
        ]));
        messages.push(message);
    }
    messages
}

/// Whether an existing link can only be brought to the spec by making it anew.
pub(super) fn must_recreate(link: &Link, found: &FoundLink) -> bool {
    let LinkKind::Vxlan { vni, port, local } = link.kind else {
        return false;
    };
    found.vxlan.as_ref().is_none_or(|vxlan| {
        vxlan.vni != vni
            || vxlan.port != port
            || vxlan.local != Some(local)
            || vxlan.learning
            || !vxlan.proxy
    })
}

pub(super) fn alias(link: &Link) -> String {
    format!("{OWNER}{}", link.alias)
}

pub(super) fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}
