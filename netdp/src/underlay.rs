//! What carries the tunnels: its MTU, and whether our VTEP is there.

use std::net::IpAddr;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::build::Underlay;
use crate::desired::{Node, Peer};
use crate::error::NetdpError;
use crate::netlink::{NetlinkError, RouteSocket};

/// Asks the node's routing for the way to each peer. Without peers, the link that has our VTEP
/// counts.
pub(crate) fn probe<'a>(
    socket: &mut RouteSocket,
    node: &Node,
    peers: impl Iterator<Item = &'a Peer>,
) -> Result<Underlay, NetdpError> {
    let vtep = *node.vteps.first().ok_or_else(|| {
        NetdpError::Unsatisfiable(format!(
            "node {} has no VTEP: its node record lists none",
            node.id
        ))
    })?;
    let failed = |what: String| {
        move |source| NetdpError::Netlink {
            action: what,
            source,
        }
    };
    let index = link_of(socket, vtep)
        .map_err(failed(format!("look for the link of VTEP {vtep}")))?
        .ok_or(NetdpError::NoSuchVtep(vtep))?;
    let mut mtu = mtu_of(socket, index).map_err(failed(format!("ask for link {index}")))?;
    for peer in peers {
        let remote = peer
            .vteps
            .iter()
            .copied()
            .find(|v| v.is_ipv6() == vtep.is_ipv6());
        // No way there now: it does not limit the others.
        if let Some(path) = remote.and_then(|remote| path_mtu(socket, remote).ok()) {
            mtu = mtu.min(path);
        }
    }
    // Loopback's is one more than a veth can have (ETH_MAX_MTU).
    Ok(Underlay {
        mtu: mtu.min(0xffff),
    })
}

/// Index of the link that has the address.
fn link_of(socket: &mut RouteSocket, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let addresses = crate::namespace::addresses(socket)?;
    Ok(addresses
        .into_iter()
        .find(|(_, net)| net.addr() == address)
        .map(|(index, _)| index))
}

fn path_mtu(socket: &mut RouteSocket, to: IpAddr) -> Result<u32, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = if to.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    request.header.destination_prefix_length = if to.is_ipv6() { 128 } else { 32 };
    request
        .attributes
        .push(RouteAttribute::Destination(to.into()));
    let RouteNetlinkMessage::NewRoute(route) =
        socket.get(&RouteNetlinkMessage::GetRoute(request))?
    else {
        return Err(NetlinkError::malformed("no route"));
    };
    let mut link = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                if let Some(mtu) = mtu {
                    return Ok(mtu);
                }
            }
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    let link = link.ok_or_else(|| NetlinkError::malformed("a route without a link"))?;
    mtu_of(socket, link)
}

fn mtu_of(socket: &mut RouteSocket, index: u32) -> Result<u32, NetlinkError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let RouteNetlinkMessage::NewLink(link) = socket.get(&RouteNetlinkMessage::GetLink(request))?
    else {
        return Err(NetlinkError::malformed("no link"));
    };
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
        .ok_or_else(|| NetlinkError::malformed("a link without MTU"))
}
