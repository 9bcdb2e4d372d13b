//! What this node holds: the assignment, parsed and checked, each object behind an [`Arc`] so that
//! a changed set shares all that did not change with the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_api::v1;
use ipnet::IpNet;
use netdp::{Mac, Port, Protocol, Scheduler, Segment, Steering};

/// All that the agent said should be.
#[derive(Debug, Clone, Default)]
pub struct Assignment {
    /// Name of this state; empty before the first.
    pub results_in: String,
    /// Tasks of this node, by id.
    pub tasks: BTreeMap<String, Arc<TaskDef>>,
    /// By id.
    pub networks: BTreeMap<String, Arc<NetworkDef>>,
    /// By id.
    pub services: BTreeMap<String, Arc<ServiceDef>>,
    /// Nodes of the cluster, this one included, by id.
    pub nodes: BTreeMap<String, Arc<NodeDef>>,
    /// By id.
    pub endpoints: BTreeMap<String, Arc<EndpointDef>>,
}

/// A task and what its specification means here.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDef {
    /// As received.
    pub proto: v1::Task,
    /// Legs, in the order of their interfaces.
    pub legs: Vec<LegDef>,
    /// Ports of the node that lead to this task; `published` 0: any free one.
    pub host_ports: Vec<Port>,
    /// Signal that asks it to stop; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<i32>,
}

/// A task's leg in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegDef {
    /// Network id.
    pub network: String,
    /// With prefix length, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkDef {
    /// As received.
    pub proto: v1::Network,
    /// Subnets by VNI.
    pub segments: Vec<Segment>,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceDef {
    /// As received.
    pub proto: v1::Service,
    /// Network id and address.
    pub vips: Vec<(String, IpAddr)>,
    /// Ports published through the mesh.
    pub ports: Vec<Port>,
    /// How backends are chosen; `None`: nobody chose.
    pub scheduler: Option<Scheduler>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeDef {
    /// As received.
    pub proto: v1::NodeRecord,
    /// Underlay addresses.
    pub vteps: Vec<IpAddr>,
    /// Its addresses on the ingress network.
    pub ingress_addresses: Vec<IpAddr>,
    /// Its ingress, if it has one.
    pub steering: Option<Steering>,
    /// Version since which the others answer this node's clients as they do now: a record that only
    /// got a higher version asks nothing new of them.
    pub answers_since: u64,
}

/// One task on one network.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointDef {
    /// As received.
    pub proto: v1::EndpointRecord,
    /// Never unspecified.
    pub state: v1::EndpointState,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Ethernet address of the leg.
    pub mac: Mac,
}

impl TaskDef {
    /// The container specification. Validation refuses a task without one.
    #[must_use]
    pub fn container(&self) -> &v1::ContainerSpec {
        static EMPTY: std::sync::LazyLock<v1::ContainerSpec> =
            std::sync::LazyLock::new(v1::ContainerSpec::default);
        self.proto.container.as_ref().unwrap_or(&EMPTY)
    }

    /// Name of the container, and its name in the DNS.
    #[must_use]
    pub fn name(&self) -> String {
        let task = &self.proto;
        if !task.name.is_empty() {
            task.name.clone()
        } else if task.service_name.is_empty() {
            task.id.clone()
        } else {
            format!("{}.{}.{}", task.service_name, task.slot, task.id)
        }
    }

    /// The state that the agent wants.
    #[must_use]
    pub fn desired(&self) -> v1::TaskState {
        self.proto.desired_state()
    }

    /// Whether it is meant to hold its addresses and ports.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.desired() < v1::TaskState::Shutdown
    }
}

impl NetworkDef {
    /// The prefix length of the subnet that the address is in.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        self.subnets().find(|net| net.contains(&address)).copied()
    }

    /// All subnets.
    pub fn subnets(&self) -> impl Iterator<Item = &IpNet> {
        self.segments.iter().flat_map(|segment| &segment.subnets)
    }
}

impl NodeDef {
    /// The family of its tunnels: that of its first VTEP.
    #[must_use]
    pub fn tunnel_is_v6(&self) -> Option<bool> {
        self.vteps.first().map(IpAddr::is_ipv6)
    }

    /// Whether replies find this node in the same way by either record: all that another node
    /// programs of it.
    #[must_use]
    pub fn answers_as(&self, other: &Self) -> bool {
        let sorted = |addresses: &[IpAddr]| BTreeSet::from_iter(addresses.iter().copied());
        self.proto.kind == other.proto.kind
            && self.steering == other.steering
            // The first one is the tunnel's.
            && self.vteps == other.vteps
            && sorted(&self.ingress_addresses) == sorted(&other.ingress_addresses)
    }
}

impl EndpointDef {
    /// Whether anything of it is in the kernel.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state != v1::EndpointState::Gone
    }
}

/// A protocol, as the contract numbers it.
#[must_use]
pub fn protocol_number(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    }
}

/// Subnets of the gwbridge: as configured, else Docker's default.
///
/// # Errors
/// When one is no CIDR: only before validation.
pub fn gwbridge_subnets(config: &v1::NodeConfig) -> Result<Vec<IpNet>, ipnet::AddrParseError> {
    const DEFAULT: &str = "172.18.0.0/16";
    if config.gwbridge_subnets.is_empty() {
        return Ok(vec![DEFAULT.parse()?]);
    }
    config
        .gwbridge_subnets
        .iter()
        .map(|text| text.parse())
        .collect()
}
