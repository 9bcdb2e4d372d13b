//! Networks, services, node records and endpoint records, each looked at alone.

use std::net::IpAddr;

use fairlead_api::v1;
use ipnet::IpNet;
use netdp::{Mac, Protocol, Segment, Steering};

use super::violations::{
    At, Violations, check_address, check_addresses, check_id, check_name, is_unicast,
};
use crate::model::{EndpointDef, NetworkDef, NodeDef, ServiceDef};

/// The label of a service that chooses its scheduler.
pub const SCHEDULER_LABEL: &str = "fairlead.scheduler";

const VNI: std::ops::RangeInclusive<u32> = 4096..=16_777_215;

/// Checks a network.
pub fn network(v: &mut Violations, proto: &v1::Network) -> Option<NetworkDef> {
    let before = v.len();
    let at = At::Object("networks", &proto.id);
    check_id(v, at.field("id"), &proto.id);
    if !proto.name.is_empty() {
        check_name(v, at.field("name"), &proto.name);
    }
    v.unsupported(at.field("encrypted"), proto.encrypted);
    v.unsupported(at.field("driver_options"), !proto.driver_options.is_empty());
    if proto.ingress && proto.internal {
        v.add(
            at.field("internal"),
            "the ingress network cannot be internal",
        );
    }
    if proto.mtu != 0 && !(576..=65_535).contains(&proto.mtu) {
        v.add(
            at.field("mtu"),
            format!("{} is not 0 or 576 to 65535", proto.mtu),
        );
    }
    if proto.subnets.is_empty() {
        v.add(at.field("subnets"), "at least one is needed");
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut all: Vec<IpNet> = Vec::new();
    for (i, subnet) in proto.subnets.iter().enumerate() {
        let list = at.field("subnets");
        let at = list.index(i);
        if !VNI.contains(&subnet.vni) {
            v.add(
                at.field("vni"),
                format!("{} is not in 4096 to 16777215", subnet.vni),
            );
        }
        let Some(net) = check_subnet(v, at.field("cidr"), &subnet.cidr) else {
            continue;
        };
        if proto.mtu != 0 && proto.mtu < 1280 && net.addr().is_ipv6() {
            v.add(at.field("cidr"), "IPv6 needs an MTU of at least 1280");
        }
        if !subnet.gateway.is_empty()
            && let Some(gateway) = check_address(v, at.field("gateway"), &subnet.gateway)
            && !net.contains(&gateway)
        {
            v.add(at.field("gateway"), format!("{gateway} is not in {net}"));
        }
        if let Some(other) = all.iter().find(|o| o.contains(&net) || net.contains(*o)) {
            v.add(
                at.field("cidr"),
                format!("{net} overlaps {other} of the same network"),
            );
        }
        all.push(net);
        match segments.iter_mut().find(|s| s.vni == subnet.vni) {
            Some(segment) => segment.subnets.push(net),
            None => segments.push(Segment {
                vni: subnet.vni,
                subnets: vec![net],
            }),
        }
    }
    (v.len() == before).then(|| NetworkDef {
        proto: proto.clone(),
        segments,
    })
}

/// A subnet in CIDR form whose hosts can be tasks; else a violation.
pub fn check_subnet(v: &mut Violations, at: At<'_>, text: &str) -> Option<IpNet> {
    let Ok(net) = text.parse::<IpNet>() else {
        v.add(
            at,
            format!("{text:?} is no subnet of the form 10.1.0.0/24 or fd00:1::/64"),
        );
        return None;
    };
    if net != net.trunc() {
        v.add(at, format!("{net} has host bits set: {}", net.trunc()));
        return None;
    }
    if net.max_prefix_len() - net.prefix_len() < 2 {
        v.add(at, format!("{net} has no room for tasks"));
        return None;
    }
    if !is_unicast(net.addr()) || (net.addr().is_ipv4() && net.prefix_len() < 4) {
        v.add(
            at,
            format!("{net} is reserved and cannot be a subnet of tasks"),
        );
        return None;
    }
    Some(net)
}

/// Checks a service.
pub fn service(v: &mut Violations, proto: &v1::Service) -> Option<ServiceDef> {
    let before = v.len();
    let at = At::Object("services", &proto.id);
    check_id(v, at.field("id"), &proto.id);
    check_name(v, at.field("name"), &proto.name);
    match v1::EndpointMode::try_from(proto.endpoint_mode) {
        Ok(v1::EndpointMode::Vip) => {}
        Ok(v1::EndpointMode::Dnsrr) => {
            if !proto.virtual_ips.is_empty() {
                v.add(
                    at.field("virtual_ips"),
                    "a service in endpoint mode DNSRR has none",
                );
            }
            if !proto.ports.is_empty() {
                v.add(
                    at.field("ports"),
                    "a service in endpoint mode DNSRR publishes no ports",
                );
            }
        }
        Err(_) => v.add(at.field("endpoint_mode"), unknown(proto.endpoint_mode)),
    }
    let mut vips: Vec<(String, IpAddr)> = Vec::new();
    for (i, vip) in proto.virtual_ips.iter().enumerate() {
        let list = at.field("virtual_ips");
        let at = list.index(i);
        let Some(address) = check_address(v, at.field("address"), &vip.address) else {
            continue;
        };
        let second = |(network, other): &(String, IpAddr)| {
            *network == vip.network_id && other.is_ipv4() == address.is_ipv4()
        };
        if vips.iter().any(second) {
            v.add(
                at.field("address"),
                "a second VIP of the same family on the same network",
            );
        }
        vips.push((vip.network_id.clone(), address));
    }
    let mut ports: Vec<netdp::Port> = Vec::new();
    for (i, proto) in proto.ports.iter().enumerate() {
        let list = at.field("ports");
        let at = list.index(i);
        if proto.published_port == 0 {
            v.add(
                at.field("published_port"),
                "0 is not allowed here: the agent chooses the port",
            );
        }
        let Some(port) = check_port(v, at, proto, v1::PublishMode::Ingress) else {
            continue;
        };
        let same = |p: &netdp::Port| p.protocol == port.protocol && p.published == port.published;
        if port.published != 0 && ports.iter().any(same) {
            v.add(
                at.field("published_port"),
                format!("{} is published twice", show(&port)),
            );
        }
        ports.push(port);
    }
    let scheduler = match proto.labels.get(SCHEDULER_LABEL).map(|name| name.parse()) {
        None => None,
        Some(Ok(scheduler)) => Some(scheduler),
        Some(Err(reason)) => {
            let reason: String = reason;
            v.add(at.field("labels").key(SCHEDULER_LABEL), reason);
            None
        }
    };
    (v.len() == before).then(|| ServiceDef {
        proto: proto.clone(),
        vips,
        ports,
        scheduler,
    })
}

/// A published port; `published` may be 0.
pub fn check_port(
    v: &mut Violations,
    at: At<'_>,
    proto: &v1::PortConfig,
    mode: v1::PublishMode,
) -> Option<netdp::Port> {
    let before = v.len();
    let protocol = match v1::Protocol::try_from(proto.protocol) {
        Ok(v1::Protocol::Tcp) => Protocol::Tcp,
        Ok(v1::Protocol::Udp) => Protocol::Udp,
        Ok(v1::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            v.add(at.field("protocol"), unknown(proto.protocol));
            return None;
        }
    };
    if proto.publish_mode != mode as i32 {
        let where_to = match mode {
            v1::PublishMode::Ingress => "ports in host mode belong to the task: host_ports",
            v1::PublishMode::Host => "ports in ingress mode belong to the service: ports",
        };
        v.add(at.field("publish_mode"), where_to);
    }
    let target = u16::try_from(proto.target_port).ok().filter(|p| *p > 0);
    if target.is_none() {
        v.add(
            at.field("target_port"),
            format!("{} is not in 1 to 65535", proto.target_port),
        );
    }
    let published = u16::try_from(proto.published_port).ok();
    if published.is_none() {
        v.add(
            at.field("published_port"),
            format!("{} is not in 1 to 65535", proto.published_port),
        );
    }
    match (target, published, v.len() == before) {
        (Some(target), Some(published), true) => Some(netdp::Port {
            protocol,
            published,
            target,
        }),
        _ => None,
    }
}

/// Checks the record of a node.
pub fn node(v: &mut Violations, proto: &v1::NodeRecord) -> Option<NodeDef> {
    let before = v.len();
    let at = At::Object("nodes", &proto.id);
    check_id(v, at.field("id"), &proto.id);
    check_version(v, at, proto.version);
    match v1::NodeKind::try_from(proto.kind) {
        Ok(v1::NodeKind::Fairlead) => {}
        Ok(v1::NodeKind::Docker) => v.add(at.field("kind"), "docker nodes are not supported yet"),
        Err(_) => v.add(at.field("kind"), unknown(proto.kind)),
    }
    if proto.vteps.is_empty() {
        v.add(at.field("vteps"), "at least one is needed");
    }
    let vteps = check_addresses(v, at.field("vteps"), &proto.vteps);
    let ingress = check_addresses(v, at.field("ingress_addresses"), &proto.ingress_addresses);
    let steering = Steering::new(proto.steering_id);
    if steering.is_none() && proto.steering_id != 0 {
        v.add(
            at.field("steering_id"),
            format!("{} is not in 1 to {}", proto.steering_id, Steering::MAX),
        );
    }
    (v.len() == before).then(|| NodeDef {
        proto: proto.clone(),
        vteps,
        ingress_addresses: ingress,
        steering,
        answers_since: proto.version,
    })
}

/// Checks the record of an endpoint.
pub fn endpoint(v: &mut Violations, proto: &v1::EndpointRecord) -> Option<EndpointDef> {
    let before = v.len();
    let at = At::Object("endpoints", &proto.id);
    check_id(v, at.field("id"), &proto.id);
    check_version(v, at, proto.version);
    let state = match v1::EndpointState::try_from(proto.state) {
        Ok(v1::EndpointState::Unspecified) | Err(_) => {
            v.add(at.field("state"), "one of ACTIVE, DRAINING, GONE is needed");
            return None;
        }
        Ok(state) => state,
    };
    if state == v1::EndpointState::Gone {
        // As if it did not exist: nothing else of it counts.
        return (v.len() == before).then(|| EndpointDef {
            proto: proto.clone(),
            state,
            addresses: Vec::new(),
            mac: Mac([0; 6]),
        });
    }
    check_id(v, at.field("task_id"), &proto.task_id);
    if !proto.task_name.is_empty() {
        check_name(v, at.field("task_name"), &proto.task_name);
    }
    if proto.addresses.is_empty() {
        v.add(at.field("addresses"), "at least one is needed");
    }
    let addresses = check_addresses(v, at.field("addresses"), &proto.addresses);
    let mac = check_mac(v, at.field("mac"), &proto.mac, addresses.iter().copied());
    for (i, alias) in proto.aliases.iter().enumerate() {
        check_name(v, at.field("aliases").index(i), alias);
    }
    for (i, alias) in proto.task_aliases.iter().enumerate() {
        check_name(v, at.field("task_aliases").index(i), alias);
    }
    if proto.weight > 65_535 {
        v.add(
            at.field("weight"),
            format!("{} is not in 1 to 65535", proto.weight),
        );
    }
    let mac = mac?;
    (v.len() == before).then(|| EndpointDef {
        proto: proto.clone(),
        state,
        addresses,
        mac,
    })
}

/// The MAC of a leg: as written, else from its IPv4 address.
pub fn check_mac(
    v: &mut Violations,
    at: At<'_>,
    text: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Option<Mac> {
    if text.is_empty() {
        let v4 = addresses.into_iter().find_map(|a| match a {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        if v4.is_none() {
            v.add(at, "needed where there is no IPv4 address to make it from");
        }
        return v4.map(Mac::of_ipv4);
    }
    match text.parse::<Mac>() {
        Ok(mac) if mac.0[0] & 1 != 0 || mac.0 == [0; 6] => {
            v.add(at, format!("{mac} is not the address of one interface"));
            None
        }
        Ok(mac) if mac.0[..2] == [0x02, 0x4c] => {
            v.add(
                at,
                format!("{mac}: MACs that begin with 02:4c stand for nodes' ingresses"),
            );
            None
        }
        Ok(mac) => Some(mac),
        Err(error) => {
            v.add(at, error.to_string());
            None
        }
    }
}

fn check_version(v: &mut Violations, at: At<'_>, version: u64) {
    if version == 0 {
        v.add(at.field("version"), "0 is no version: they begin at 1");
    }
}

/// Why a number is refused that no value of an enum has.
pub fn unknown(value: i32) -> String {
    format!("{value} is no value of this enum")
}

/// A published port, as people write it.
pub fn show(port: &netdp::Port) -> String {
    format!("{}/{}", port.published, port.protocol)
}
