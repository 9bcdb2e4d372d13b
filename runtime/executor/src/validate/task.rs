//! One task, looked at alone. What cannot be done yet is refused here by name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_api::v1;
use ipnet::IpNet;

use super::container::check_container;
use super::network::{check_mac, check_port, show, unknown};
use super::violations::{At, Violations, check_id, check_name, is_unicast};
use crate::model::{LegDef, TaskDef};

/// Checks a task.
pub fn task(v: &mut Violations, proto: &v1::Task) -> Option<TaskDef> {
    let before = v.len();
    let at = At::Object("tasks", &proto.id);
    check_id(v, at.field("id"), &proto.id);
    if !proto.name.is_empty() {
        check_name(v, at.field("name"), &proto.name);
    }
    match v1::TaskState::try_from(proto.desired_state) {
        Ok(
            v1::TaskState::Ready
            | v1::TaskState::Running
            | v1::TaskState::Complete
            | v1::TaskState::Shutdown
            | v1::TaskState::Remove,
        ) => {}
        Ok(state) => v.add(
            at.field("desired_state"),
            format!(
                "{} cannot be asked for: READY, RUNNING, COMPLETE, SHUTDOWN, REMOVE",
                state.as_str_name()
            ),
        ),
        Err(_) => v.add(at.field("desired_state"), unknown(proto.desired_state)),
    }
    let stop_signal = match &proto.container {
        Some(container) => check_container(v, at.field("container"), container),
        None => {
            v.add(at.field("container"), "missing");
            None
        }
    };
    if let Some(resources) = &proto.resources {
        check_resources(v, at.field("resources"), resources);
    }
    if let Some(driver) = &proto.log_driver {
        check_log_driver(v, at.field("log_driver"), driver);
    }
    v.unsupported(
        at.field("assigned_generic_resources"),
        !proto.assigned_generic_resources.is_empty(),
    );
    v.unsupported(at.field("volumes"), !proto.volumes.is_empty());
    let legs = check_legs(v, at.field("networks"), &proto.networks);
    let mut host_ports: Vec<netdp::Port> = Vec::new();
    for (i, port) in proto.host_ports.iter().enumerate() {
        let list = at.field("host_ports");
        let at = list.index(i);
        let Some(port) = check_port(v, at, port, v1::PublishMode::Host) else {
            continue;
        };
        let same = |p: &netdp::Port| p.protocol == port.protocol && p.published == port.published;
        if port.published != 0 && host_ports.iter().any(same) {
            v.add(
                at.field("published_port"),
                format!("{} is published twice", show(&port)),
            );
        }
        host_ports.push(port);
    }
    (v.len() == before).then(|| TaskDef {
        proto: proto.clone(),
        legs,
        host_ports,
        stop_signal,
    })
}

fn check_legs(v: &mut Violations, at: At<'_>, networks: &[v1::NetworkAttachment]) -> Vec<LegDef> {
    let mut joined = BTreeSet::new();
    let mut legs = Vec::new();
    for (i, attachment) in networks.iter().enumerate() {
        let at = at.index(i);
        check_id(v, at.field("network_id"), &attachment.network_id);
        if !joined.insert(&attachment.network_id) {
            v.add(at.field("network_id"), "joined twice");
        }
        v.unsupported(
            at.field("driver_options"),
            !attachment.driver_options.is_empty(),
        );
        for (i, alias) in attachment.aliases.iter().enumerate() {
            check_name(v, at.field("aliases").index(i), alias);
        }
        if attachment.addresses.is_empty() {
            v.add(at.field("addresses"), "at least one is needed");
            continue;
        }
        let mut addresses: Vec<IpNet> = Vec::new();
        for (i, text) in attachment.addresses.iter().enumerate() {
            let list = at.field("addresses");
            let at = list.index(i);
            // IpNet also reads an address without a prefix length: that is not what is meant here.
            match text.parse::<IpNet>() {
                Ok(net) if !is_unicast(net.addr()) => {
                    v.add(at, format!("{} is not the address of one host", net.addr()));
                }
                Ok(net)
                    if addresses
                        .iter()
                        .any(|a| a.addr().is_ipv4() == net.addr().is_ipv4()) =>
                {
                    v.add(at, "a second address of the same family");
                }
                Ok(net) => {
                    if let Some(other) = overlapping(&legs, &attachment.network_id, net) {
                        let reason = format!(
                            "its subnet overlaps that of network {:?}, which the task has joined too: no route \
                             would tell them apart",
                            other.network
                        );
                        v.add(at, reason);
                    }
                    addresses.push(net);
                }
                Err(_) => v.add(
                    at,
                    format!("{text:?} is no address of the form 10.1.0.5/24"),
                ),
            }
        }
        if addresses.is_empty() {
            continue;
        }
        let plain: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        if let Some(mac) = check_mac(v, at.field("mac"), &attachment.mac, plain) {
            legs.push(LegDef {
                network: attachment.network_id.clone(),
                addresses,
                mac,
            });
        }
    }
    legs
}

/// A leg of the task in another network, of which the subnet has addresses in common with this one.
fn overlapping<'a>(legs: &'a [LegDef], network: &str, net: IpNet) -> Option<&'a LegDef> {
    let overlaps = |other: &IpNet| other.contains(&net.trunc()) || net.contains(&other.trunc());
    let mut others = legs.iter().filter(|leg| leg.network != network);
    others.find(|leg| leg.addresses.iter().any(overlaps))
}

fn check_resources(v: &mut Violations, at: At<'_>, resources: &v1::ResourceRequirements) {
    for (name, part) in [
        ("limits", &resources.limits),
        ("reservations", &resources.reservations),
    ] {
        let Some(part) = part else { continue };
        let at = at.field(name);
        if part.nano_cpus < 0 {
            v.add(
                at.field("nano_cpus"),
                format!("{} is negative", part.nano_cpus),
            );
        }
        // 1 ms of each 100 ms is the least that the kernel's quota takes.
        if (1..10_000_000).contains(&part.nano_cpus) && name == "limits" {
            v.add(
                at.field("nano_cpus"),
                "less than a hundredth of a CPU (10000000)",
            );
        }
        if part.memory_bytes < 0 {
            v.add(
                at.field("memory_bytes"),
                format!("{} is negative", part.memory_bytes),
            );
        }
        if part.storage_bytes < 0 {
            v.add(
                at.field("storage_bytes"),
                format!("{} is negative", part.storage_bytes),
            );
        } else if part.storage_bytes > 0 && name == "reservations" {
            v.add(at.field("storage_bytes"), "can be limited, not reserved");
        }
        v.unsupported(at.field("generic"), !part.generic.is_empty());
    }
    let memory = |part: &Option<v1::Resources>| part.as_ref().map_or(0, |r| r.memory_bytes);
    let (limit, reserved) = (memory(&resources.limits), memory(&resources.reservations));
    if limit > 0 && reserved > limit {
        v.add(
            at.field("reservations").field("memory_bytes"),
            "more than the limit",
        );
    }
    if let Some(swap) = resources.swap_bytes {
        if swap < -1 {
            v.add(at.field("swap_bytes"), format!("{swap} is not -1 or more"));
        } else if limit == 0 {
            v.add(at.field("swap_bytes"), "needs limits.memory_bytes");
        }
    }
    if let Some(swappiness) = resources.memory_swappiness
        && !(0..=100).contains(&swappiness)
    {
        v.add(
            at.field("memory_swappiness"),
            format!("{swappiness} is not in 0 to 100"),
        );
    }
}

fn check_log_driver(v: &mut Violations, at: At<'_>, driver: &v1::LogDriver) {
    if !matches!(driver.name.as_str(), "" | "json-file") {
        v.add(
            at.field("name"),
            format!("{:?} is not supported: json-file", driver.name),
        );
        return;
    }
    let options = at.field("options");
    for (key, value) in &driver.options {
        let at = options.key(key);
        match key.as_str() {
            "max-size" if parse_size(value).is_none_or(|size| size == 0) => {
                v.add(at, format!("{value:?} is no size such as 500k, 10m, 1g"));
            }
            "max-file" if value.parse::<u32>().is_ok_and(|n| (1..=1000).contains(&n)) => {}
            "max-file" => v.add(at, format!("{value:?} is not in 1 to 1000")),
            "max-size" => {}
            _ => v.add(
                at,
                "no option of json-file that is supported: max-size, max-file",
            ),
        }
    }
}

/// `10m`: bytes, with k, m, g for powers of 1024, as Docker has it.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        b'b' | b'B' => (&text[..text.len() - 1], 0),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        for bad in ["", "m", "-1", "1.5m", "10mb", "+1", "99999999999999g"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
