//! From the assignment and what is known of the local tasks to what the kernel should have.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_api::v1;
use netdp::{Backend, Desired, Endpoint, Gateway, Leg, Network, Node, Peer, Sandbox, Service};

use crate::ipam;
use crate::model::{Assignment, EndpointDef, NetworkDef, gwbridge_subnets};
use crate::record::Local;

/// IANA, and Docker's default.
const VXLAN_PORT: u16 = 4789;

/// All that a plan is made of: a cheap copy of what the node holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// This node; `None` before it is configured.
    pub config: Option<v1::NodeConfig>,
    /// What the agent said.
    pub assignment: Arc<Assignment>,
    /// The tasks that are or were here, by id.
    pub locals: BTreeMap<String, Arc<Local>>,
}

/// What the kernel should have, and which records it covers.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// For the data plane.
    pub desired: Arc<Desired>,
    /// Versions of the other nodes' records.
    pub nodes: BTreeMap<String, u64>,
    /// Versions and meaning of the endpoint records.
    pub endpoints: BTreeMap<String, Covered>,
    /// Id of the ingress network.
    pub ingress: Option<String>,
}

/// What an endpoint record became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Of the record.
    pub version: u64,
    /// Of the record.
    pub state: v1::EndpointState,
    /// Network id.
    pub network: String,
    /// Service id; empty without one.
    pub service: String,
    /// Whether the plan does with it all that its state says: an active backend may have to wait
    /// for its task or for its node.
    pub complete: bool,
}

/// Makes the plan.
#[must_use]
pub fn plan(view: &View) -> Plan {
    let Some(config) = &view.config else {
        return Plan::default();
    };
    let assignment = &view.assignment;
    let ingress = assignment.networks.values().find(|n| n.proto.ingress);
    let own = assignment.nodes.get(&config.node_id);
    if own.is_none() && view.locals.values().all(|local| !local.record.sandbox) {
        // Without a VTEP nothing can be built, and nothing asks for it yet.
        return Plan::default();
    }
    let node = Node {
        id: config.node_id.clone(),
        vteps: own.map(|node| node.vteps.clone()).unwrap_or_default(),
        vxlan_port: u16::try_from(config.data_path_port)
            .ok()
            .filter(|p| *p > 0)
            .unwrap_or(VXLAN_PORT),
        // Checked when the node was configured.
        gwbridge: gwbridge_subnets(config)
            .unwrap_or_default()
            .into_iter()
            .map(ipam::bridge_address)
            .collect(),
        ingress: ingress.and(own).and_then(|node| node.steering),
    };
    let mut desired = Desired {
        node: Some(node),
        ..Desired::default()
    };
    let mut nodes = BTreeMap::new();
    for (id, node) in assignment
        .nodes
        .iter()
        .filter(|(id, _)| **id != config.node_id)
    {
        let peer = Peer {
            vteps: node.vteps.clone(),
            ingress: node.steering,
        };
        desired.peers.insert(id.clone(), peer);
        // What cannot be reached is not applied.
        if own.is_none_or(|own| own.tunnel_is_v6() == node.tunnel_is_v6()) {
            nodes.insert(id.clone(), node.proto.version);
        }
    }
    for local in view.locals.values() {
        // A network that left the assignment stays as long as a task is in it.
        for network in &local.networks {
            if local.record.sandbox {
                desired
                    .networks
                    .insert(network.proto.id.clone(), network_of(network));
            }
        }
        if local.record.sandbox {
            desired
                .sandboxes
                .insert(local.def.proto.id.clone(), sandbox(local));
        }
    }
    for (id, network) in &assignment.networks {
        desired.networks.insert(id.clone(), network_of(network));
    }
    for (id, service) in &assignment.services {
        desired.services.insert(
            id.clone(),
            Service {
                name: service.proto.name.clone(),
                vips: service.vips.clone(),
                ports: service.ports.clone(),
                scheduler: service.scheduler,
            },
        );
    }
    let mut endpoints = BTreeMap::new();
    for (id, endpoint) in &assignment.endpoints {
        let (planned, covered) = endpoint_of(view, config, endpoint);
        endpoints.insert(id.clone(), covered);
        if let Some(planned) = planned {
            desired.endpoints.insert(id.clone(), planned);
        }
    }
    Plan {
        desired: Arc::new(desired),
        nodes,
        endpoints,
        ingress: ingress.map(|network| network.proto.id.clone()),
    }
}

fn network_of(network: &NetworkDef) -> Network {
    let proto = &network.proto;
    Network {
        name: if proto.name.is_empty() {
            proto.id.clone()
        } else {
            proto.name.clone()
        },
        segments: network.segments.clone(),
        ingress: proto.ingress,
        internal: proto.internal,
        mtu: (proto.mtu != 0).then_some(proto.mtu),
    }
}

fn sandbox(local: &Local) -> Sandbox {
    let legs: Vec<Leg> = local
        .def
        .legs
        .iter()
        .enumerate()
        .map(|(i, leg)| Leg {
            network: leg.network.clone(),
            ifname: format!("eth{i}"),
            addresses: leg.addresses.clone(),
            mac: leg.mac,
        })
        .collect();
    let gateway = (!local.gateway.is_empty()).then(|| Gateway {
        ifname: format!("eth{}", legs.len()),
        addresses: local.gateway.clone(),
    });
    // Like a backend, a port leads only to a task that runs.
    let ports = gateway.is_some() && is_serving(local);
    Sandbox {
        name: local.def.name(),
        legs,
        gateway,
        host_ports: if ports {
            local.host_ports.clone()
        } else {
            Vec::new()
        },
        resolver: Some(netdp::dns::PORT),
    }
}

/// Whether connections may be sent to the task.
fn is_serving(local: &Local) -> bool {
    local.state() == v1::TaskState::Running && !local.record.stopping
}

/// Whether the task needs a leg on the gwbridge: everything that is not on internal networks alone,
/// and whatever the ingress network leads to.
#[must_use]
pub fn needs_gateway<'a>(networks: impl IntoIterator<Item = &'a NetworkDef>, ports: bool) -> bool {
    let mut any = false;
    let mut open = false;
    for network in networks {
        any = true;
        open |= network.proto.ingress || !network.proto.internal;
    }
    open || !any || ports
}

fn endpoint_of(
    view: &View,
    config: &v1::NodeConfig,
    endpoint: &EndpointDef,
) -> (Option<Endpoint>, Covered) {
    let record = &endpoint.proto;
    let service = (!record.service_id.is_empty()).then(|| record.service_id.clone());
    let mut covered = Covered {
        version: record.version,
        state: endpoint.state,
        network: record.network_id.clone(),
        service: record.service_id.clone(),
        complete: true,
    };
    if !endpoint.exists() {
        return (None, covered);
    }
    let local = record.node_id == config.node_id;
    let has_leg = || {
        view.locals
            .get(&record.task_id)
            .is_some_and(|local| local.record.sandbox)
    };
    if local && !has_leg() {
        // Not there yet, or not any more: nothing is reachable.
        covered.complete = endpoint.state == v1::EndpointState::Draining;
        return (None, covered);
    }
    let (backend, waits) = backend(view, config, endpoint);
    covered.complete = waits.is_none();
    let planned = Endpoint {
        network: record.network_id.clone(),
        node: record.node_id.clone(),
        task: record.task_id.clone(),
        task_name: if record.task_name.is_empty() {
            record.task_id.clone()
        } else {
            record.task_name.clone()
        },
        addresses: endpoint.addresses.clone(),
        mac: endpoint.mac,
        service,
        aliases: record.aliases.iter().cloned().collect(),
        task_aliases: record.task_aliases.iter().cloned().collect(),
        backend,
    };
    (Some(planned), covered)
}

/// The endpoint's part in the balancing, and why it has to wait where it has to.
#[must_use]
pub fn backend(
    view: &View,
    config: &v1::NodeConfig,
    endpoint: &EndpointDef,
) -> (Backend, Option<String>) {
    let record = &endpoint.proto;
    let enabled = Backend::Enabled(u16::try_from(record.weight.max(1)).unwrap_or(u16::MAX));
    let waits = match endpoint.state {
        v1::EndpointState::Gone | v1::EndpointState::Unspecified => {
            return (Backend::Disabled, Some("gone".into()));
        }
        v1::EndpointState::Draining => return (Backend::Draining, None),
        v1::EndpointState::Active if record.node_id == config.node_id => {
            match view.locals.get(&record.task_id) {
                None => Some("its task is not on this node".to_owned()),
                Some(local) if is_serving(local) => None,
                // What is established lives through the grace period.
                Some(local) if local.record.stopping => {
                    return (
                        Backend::Draining,
                        Some("its task is being stopped".to_owned()),
                    );
                }
                Some(local) => Some(format!("its task is {}", state_name(local.state()))),
            }
        }
        v1::EndpointState::Active => {
            let nodes = &view.assignment.nodes;
            let (own, other) = (nodes.get(&config.node_id), nodes.get(&record.node_id));
            if let (Some(own), Some(other)) = (own, other)
                && own.tunnel_is_v6() != other.tunnel_is_v6()
            {
                let reason = format!(
                    "the first VTEPs of node {} and of this node are of different IP versions: no tunnel \
                     joins them",
                    record.node_id
                );
                return (Backend::Disabled, Some(reason));
            }
            let wanted = own.map_or(0, |n| n.answers_since);
            let acknowledged = other.map_or(0, |n| n.proto.acknowledged_version);
            let reason = || {
                format!(
                    "node {} has acknowledged version {acknowledged} of this node's record, not {wanted}: \
                     it could not answer yet",
                    record.node_id
                )
            };
            match acknowledged {
                0 if wanted > 0 => Some(reason()),
                // It was in use under an earlier record: what is established may live on.
                _ if acknowledged < wanted => return (Backend::Paused, Some(reason())),
                _ => None,
            }
        }
    };
    match waits {
        None => (enabled, None),
        Some(reason) => (Backend::Disabled, Some(reason)),
    }
}

/// `running`, as people say it.
#[must_use]
pub fn state_name(state: v1::TaskState) -> String {
    state
        .as_str_name()
        .trim_start_matches("TASK_STATE_")
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
