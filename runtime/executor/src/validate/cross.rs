//! What the objects of an assignment say about each other, and what a change may do to what is
//! already held.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_api::v1;
use ipnet::IpNet;
use netdp::{Engine, Mac, Port, Protocol};

use super::network::SCHEDULER_LABEL;
use super::violations::{At, Violations};
use crate::model::{Assignment, EndpointDef, NetworkDef, NodeDef, TaskDef, gwbridge_subnets};
use crate::plan::needs_gateway;
use crate::record::Local;

/// Everything that needs more than one object. `held` is the assignment that `new` follows, `locals` the
/// tasks that are here.
pub fn check(
    v: &mut Violations,
    new: &Assignment,
    held: &Assignment,
    locals: &BTreeMap<String, Arc<Local>>,
    config: &v1::NodeConfig,
    engine: Engine,
) {
    networks(v, new);
    nodes(v, new);
    services(v, new, engine);
    tasks(v, new, config);
    endpoints(v, new, config);
    addresses(v, new);
    macs(v, new);
    history(v, new, held);
    leaving(v, new, held, locals);
}

fn networks(v: &mut Violations, new: &Assignment) {
    let mut vnis: HashMap<u32, &str> = HashMap::new();
    let mut ingress: Option<&str> = None;
    for (id, network) in &new.networks {
        let at = At::Object("networks", id);
        for segment in &network.segments {
            if let Some(other) = vnis.insert(segment.vni, id) {
                let reason = format!("VNI {} belongs to network {other:?} already", segment.vni);
                v.add(at.field("subnets"), reason);
            }
        }
        if network.proto.ingress
            && let Some(other) = ingress.replace(id)
        {
            v.add(
                at.field("ingress"),
                format!("network {other:?} is the ingress network already"),
            );
        }
    }
}

fn nodes(v: &mut Violations, new: &Assignment) {
    let mut steering = HashMap::new();
    let mut vteps = HashMap::new();
    let network = new.networks.values().find(|n| n.proto.ingress);
    for (id, node) in &new.nodes {
        let at = At::Object("nodes", id);
        if let Some(steer) = node.steering
            && let Some(other) = steering.insert(steer, id)
        {
            v.add(
                at.field("steering_id"),
                format!("node {other:?} has the same"),
            );
        }
        for vtep in &node.vteps {
            if let Some(other) = vteps.insert(*vtep, id) {
                v.add(at.field("vteps"), format!("node {other:?} has {vtep} too"));
            }
        }
        for address in &node.ingress_addresses {
            if let Some(Err(reason)) = network.map(|network| place(network, *address)) {
                v.add(at.field("ingress_addresses"), reason);
            }
        }
    }
}

fn services(v: &mut Violations, new: &Assignment, engine: Engine) {
    let mut published: HashMap<(Protocol, u16), String> = HashMap::new();
    let mut take = |v: &mut Violations, at: At<'_>, port: &Port, holder: String| {
        if port.published == 0 {
            return;
        }
        if let Some(other) = published.insert((port.protocol, port.published), holder) {
            v.add(
                at,
                format!(
                    "{}/{} is published by {other} already",
                    port.published, port.protocol
                ),
            );
        }
    };
    for (id, service) in &new.services {
        let at = At::Object("services", id);
        for (i, port) in service.ports.iter().enumerate() {
            take(
                v,
                at.field("ports").index(i).field("published_port"),
                port,
                format!("service {id:?}"),
            );
        }
        for (i, (network, address)) in service.vips.iter().enumerate() {
            let list = at.field("virtual_ips");
            let at = list.index(i);
            match new.networks.get(network) {
                None => v.add(at.field("network_id"), missing("network", network)),
                Some(network) => {
                    if let Err(reason) = place(network, *address) {
                        v.add(at.field("address"), reason);
                    }
                }
            }
        }
        if let Some(scheduler) = service.scheduler.filter(|s| !engine.supports(*s)) {
            v.add(
                at.field("labels").key(SCHEDULER_LABEL),
                format!(
                    "the engine of this node, {}, has no scheduler {}",
                    engine.name(),
                    scheduler.name()
                ),
            );
        }
    }
    for (id, task) in new.tasks.iter().filter(|(_, task)| task.is_wanted()) {
        let at = At::Object("tasks", id);
        for (i, port) in task.host_ports.iter().enumerate() {
            let at = at.field("host_ports");
            take(
                v,
                at.index(i).field("published_port"),
                port,
                format!("task {id:?}"),
            );
        }
    }
}

fn tasks(v: &mut Violations, new: &Assignment, config: &v1::NodeConfig) {
    if !new.tasks.is_empty() && !new.nodes.contains_key(&config.node_id) {
        let at = At::Object("nodes", &config.node_id);
        v.add(at, "the record of this node is missing: it names the VTEP");
    }
    // Checked before, as part of the configuration.
    let gwbridge = gwbridge_subnets(config).unwrap_or_default();
    for (id, task) in &new.tasks {
        let at = At::Object("tasks", id);
        gateway(v, at, new, task, &gwbridge);
        for (i, leg) in task.legs.iter().enumerate() {
            let list = at.field("networks");
            let at = list.index(i);
            let Some(network) = new.networks.get(&leg.network) else {
                v.add(at.field("network_id"), missing("network", &leg.network));
                continue;
            };
            for (i, address) in leg.addresses.iter().enumerate() {
                let at = at.field("addresses");
                match place(network, address.addr()) {
                    Err(reason) => v.add(at.index(i), reason),
                    Ok(net) if net.prefix_len() != address.prefix_len() => v.add(
                        at.index(i),
                        format!(
                            "{address}: the prefix length of {net} is {}",
                            net.prefix_len()
                        ),
                    ),
                    Ok(_) => {}
                }
            }
        }
    }
}

/// The subnet of the network that the address is in; why it cannot be an interface's there.
fn place(network: &NetworkDef, address: IpAddr) -> Result<IpNet, String> {
    let id = &network.proto.id;
    let net = network
        .subnet_of(address)
        .ok_or_else(|| format!("{address} is in no subnet of network {id:?}"))?;
    // Of IPv6 as well: the first address is that of any router.
    if address == net.network() {
        return Err(format!("{address} is the address of {net} itself"));
    }
    if address.is_ipv4() && address == net.broadcast() {
        return Err(format!("{address} is the broadcast address of {net}"));
    }
    Ok(net)
}

/// A task's way out must not lead into one of its networks: its address on the gwbridge, which this node
/// chooses, would be another one's there.
fn gateway(v: &mut Violations, at: At<'_>, new: &Assignment, task: &TaskDef, gwbridge: &[IpNet]) {
    let joined = |network: &String| new.networks.get(network).map(|network| &**network);
    let networks = task.legs.iter().filter_map(|leg| joined(&leg.network));
    if !task.is_wanted() || !needs_gateway(networks, !task.host_ports.is_empty()) {
        return;
    }
    for (i, leg) in task.legs.iter().enumerate() {
        let subnets = joined(&leg.network)
            .into_iter()
            .flat_map(NetworkDef::subnets);
        for net in subnets {
            let overlaps = |other: &&IpNet| other.contains(net) || net.contains(*other);
            if let Some(other) = gwbridge.iter().find(overlaps) {
                let reason = format!(
                    "{net} of network {:?} overlaps {other} of the gwbridge, which the task needs for its way \
                     out: choose another subnet for one of them (gwbridge_subnets of the node)",
                    leg.network
                );
                let list = at.field("networks");
                v.add(list.index(i).field("network_id"), reason);
            }
        }
    }
}

fn endpoints(v: &mut Violations, new: &Assignment, config: &v1::NodeConfig) {
    for (id, endpoint) in new.endpoints.iter().filter(|(_, e)| e.exists()) {
        let at = At::Object("endpoints", id);
        let record = &endpoint.proto;
        if !new.nodes.contains_key(&record.node_id) && !new.tasks.contains_key(&record.task_id) {
            v.add(at.field("node_id"), missing("node", &record.node_id));
        }
        if !record.service_id.is_empty() && !new.services.contains_key(&record.service_id) {
            v.add(
                at.field("service_id"),
                missing("service", &record.service_id),
            );
        }
        let Some(network) = new.networks.get(&record.network_id) else {
            v.add(
                at.field("network_id"),
                missing("network", &record.network_id),
            );
            continue;
        };
        for (i, address) in endpoint.addresses.iter().enumerate() {
            if let Err(reason) = place(network, *address) {
                v.add(at.field("addresses").index(i), reason);
            }
        }
        if let Some(task) = new.tasks.get(&record.task_id) {
            matches_task(v, at, endpoint, task, config);
        }
    }
}

/// A record of a task that is assigned here says the same as the task itself.
fn matches_task(
    v: &mut Violations,
    at: At<'_>,
    endpoint: &EndpointDef,
    task: &TaskDef,
    config: &v1::NodeConfig,
) {
    let record = &endpoint.proto;
    if record.node_id != config.node_id {
        let reason = format!(
            "task {:?} is assigned to this node, {:?}",
            record.task_id, config.node_id
        );
        v.add(at.field("node_id"), reason);
        return;
    }
    let Some(leg) = task
        .legs
        .iter()
        .find(|leg| leg.network == record.network_id)
    else {
        v.add(
            at.field("network_id"),
            format!("task {:?} does not join it", record.task_id),
        );
        return;
    };
    let mut ours: Vec<IpAddr> = leg.addresses.iter().map(IpNet::addr).collect();
    let mut theirs = endpoint.addresses.clone();
    ours.sort_unstable();
    theirs.sort_unstable();
    if ours != theirs {
        let reason = format!(
            "task {:?} has {ours:?} there, not {theirs:?}",
            record.task_id
        );
        v.add(at.field("addresses"), reason);
    }
    if leg.mac != endpoint.mac {
        let reason = format!(
            "task {:?} has {} there, not {}",
            record.task_id, leg.mac, endpoint.mac
        );
        v.add(at.field("mac"), reason);
    }
}

/// One address, one holder, in each network.
fn addresses(v: &mut Violations, new: &Assignment) {
    // The holder is a task, whose leg and whose record may both name the address, or something else.
    let mut taken: HashMap<(&str, IpAddr), String> = HashMap::new();
    let mut take = |v: &mut Violations, at: At<'_>, network, address, holder: String| match taken
        .get(&(network, address))
    {
        Some(other) if *other != holder => {
            v.add(
                at,
                format!("{address} belongs to {other} on this network already"),
            );
        }
        Some(_) => {}
        None => {
            taken.insert((network, address), holder);
        }
    };
    for (id, service) in &new.services {
        let at = At::Object("services", id);
        for (i, (network, address)) in service.vips.iter().enumerate() {
            let list = at.field("virtual_ips");
            take(
                v,
                list.index(i),
                network,
                *address,
                format!("service {id:?}"),
            );
        }
    }
    if let Some(ingress) = new.networks.values().find(|n| n.proto.ingress) {
        for (id, node) in &new.nodes {
            let at = At::Object("nodes", id);
            for address in &node.ingress_addresses {
                let at = at.field("ingress_addresses");
                take(v, at, &ingress.proto.id, *address, format!("node {id:?}"));
            }
        }
    }
    for (id, task) in new.tasks.iter().filter(|(_, task)| task.is_wanted()) {
        let at = At::Object("tasks", id);
        for (i, leg) in task.legs.iter().enumerate() {
            let list = at.field("networks");
            for address in &leg.addresses {
                let at = list.index(i);
                take(
                    v,
                    at.field("addresses"),
                    &leg.network,
                    address.addr(),
                    format!("task {id:?}"),
                );
            }
        }
    }
    let mut records: HashMap<(&str, &str), &str> = HashMap::new();
    for (id, endpoint) in new.endpoints.iter().filter(|(_, e)| e.exists()) {
        let at = At::Object("endpoints", id);
        let record = &endpoint.proto;
        if let Some(other) = records.insert((&record.task_id, &record.network_id), id) {
            v.add(
                at,
                format!("endpoint {other:?} is the same task's on the same network already"),
            );
        }
        for address in &endpoint.addresses {
            let holder = format!("task {:?}", record.task_id);
            take(
                v,
                at.field("addresses"),
                &record.network_id,
                *address,
                holder,
            );
        }
    }
}

/// One MAC, one holder, in each network: a bridge sends to one place only.
fn macs(v: &mut Violations, new: &Assignment) {
    let mut taken: HashMap<(&str, Mac), &str> = HashMap::new();
    let mut take = |v: &mut Violations, at: At<'_>, network, mac, task| {
        let holder = *taken.entry((network, mac)).or_insert(task);
        if holder != task {
            let reason = format!("{mac} belongs to task {holder:?} on this network already");
            v.add(at.field("mac"), reason);
        }
    };
    for (id, task) in new.tasks.iter().filter(|(_, task)| task.is_wanted()) {
        let list = At::Object("tasks", id);
        let list = list.field("networks");
        for (i, leg) in task.legs.iter().enumerate() {
            take(v, list.index(i), &leg.network, leg.mac, id);
        }
    }
    for (id, endpoint) in new.endpoints.iter().filter(|(_, e)| e.exists()) {
        let record = &endpoint.proto;
        let at = At::Object("endpoints", id);
        take(v, at, &record.network_id, endpoint.mac, &record.task_id);
    }
}

/// What grows must not shrink, and what is in use must not become something else.
fn history(v: &mut Violations, new: &Assignment, held: &Assignment) {
    for (id, node, old) in both(&new.nodes, &held.nodes) {
        let at = At::Object("nodes", id);
        version(
            v,
            at,
            node.proto.version,
            old.proto.version,
            content(node) != content(old),
        );
    }
    for (id, endpoint, old) in both(&new.endpoints, &held.endpoints) {
        let at = At::Object("endpoints", id);
        let changed = endpoint.proto != old.proto;
        version(v, at, endpoint.proto.version, old.proto.version, changed);
    }
    for (id, task, old) in both(&new.tasks, &held.tasks) {
        let at = At::Object("tasks", id);
        if task.desired() < old.desired() {
            let reason = format!(
                "{} after {}: it never decreases",
                task.desired().as_str_name(),
                old.desired().as_str_name()
            );
            v.add(at.field("desired_state"), reason);
        }
        let mut same = old.proto.clone();
        same.desired_state = task.proto.desired_state;
        if same != task.proto {
            v.add(
                at,
                "only desired_state of a task can change: another definition is another task",
            );
        }
    }
    for (id, network, old) in both(&new.networks, &held.networks) {
        let at = At::Object("networks", id);
        let used = held
            .tasks
            .values()
            .any(|t| t.legs.iter().any(|leg| leg.network == *id));
        if used && !is_same(network, old) {
            v.add(
                at,
                "subnets, VNIs and ingress cannot change while a task here has joined it",
            );
        }
    }
}

/// A task that has left the assignment keeps its networks through its grace period.
fn leaving(
    v: &mut Violations,
    new: &Assignment,
    held: &Assignment,
    locals: &BTreeMap<String, Arc<Local>>,
) {
    let gone = |id: &String| !held.tasks.contains_key(id);
    for (id, local) in locals.iter().filter(|(id, l)| l.record.sandbox && gone(id)) {
        for joined in &local.networks {
            let network = new.networks.get(&joined.proto.id);
            if network.is_some_and(|network| !is_same(network, joined)) {
                let reason = format!(
                    "subnets, VNIs and ingress cannot change before task {id:?}, which has joined it and is \
                     being stopped, is gone"
                );
                v.add(At::Object("networks", &joined.proto.id), reason);
            }
        }
    }
}

/// Whether a task that is in the one is in the other.
fn is_same(network: &NetworkDef, other: &NetworkDef) -> bool {
    network.segments == other.segments && network.proto.ingress == other.proto.ingress
}

/// A node's record without what is only between that node and this one.
fn content(node: &NodeDef) -> v1::NodeRecord {
    v1::NodeRecord {
        acknowledged_version: 0,
        ..node.proto.clone()
    }
}

fn version(v: &mut Violations, at: At<'_>, new: u64, old: u64, changed: bool) {
    if new < old {
        v.add(
            at.field("version"),
            format!("{new} is older than {old}, which is held"),
        );
    } else if new == old && changed {
        v.add(
            at.field("version"),
            format!("{new} is held with another content: a change needs a higher one"),
        );
    }
}

fn both<'a, T>(
    new: &'a BTreeMap<String, Arc<T>>,
    held: &'a BTreeMap<String, Arc<T>>,
) -> impl Iterator<Item = (&'a String, &'a T, &'a T)> {
    new.iter().filter_map(|(id, object)| {
        let old = held.get(id)?;
        // An object that this set did not touch is shared with the one before.
        (!Arc::ptr_eq(object, old)).then_some((id, &**object, &**old))
    })
}

fn missing(kind: &str, id: &str) -> String {
    if id.is_empty() {
        "missing".to_owned()
    } else {
        format!("there is no {kind} {id:?} in the set")
    }
}
