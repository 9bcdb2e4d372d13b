//! The desired state with the questions that the builders ask of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;

use crate::desired::{
    Backend, Desired, Endpoint, Engine, Leg, Network, Node, Port, Protocol, Sandbox, Segment,
    Service,
};

/// What the underlay allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Underlay {
    /// Smallest MTU of the routes to all peers, by family of the outer packets; bytes.
    pub(crate) mtu: u32,
}

/// What is asked of the endpoints again and again, looked up once: each task balances the VIPs of
/// all services.
#[derive(Debug, Default)]
pub(crate) struct Index<'a> {
    /// By network and service, in the order of the endpoints' ids.
    backends: HashMap<&'a str, HashMap<&'a str, Vec<Candidate<'a>>>>,
    /// The first endpoint of a task on a network that is one of a service, by task and network.
    service: HashMap<&'a str, HashMap<&'a str, &'a str>>,
}

/// An endpoint of a service.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    /// It has been draining for long enough that answers of before have arrived.
    has_drained: bool,
}

impl<'a> Index<'a> {
    /// `has_drained` is asked with the endpoint's id.
    pub(crate) fn of(desired: &'a Desired, has_drained: impl Fn(&str) -> bool) -> Self {
        let mut index = Self::default();
        for (id, endpoint) in &desired.endpoints {
            let network = endpoint.network.as_str();
            if let Some(service) = endpoint.service.as_deref() {
                let services = index.backends.entry(network).or_default();
                services.entry(service).or_default().push(Candidate {
                    endpoint,
                    has_drained: has_drained(id),
                });
                let networks = index.service.entry(&endpoint.task).or_default();
                networks.entry(network).or_insert(service);
            }
        }
        index
    }
}

/// One address of a backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) backend: Backend,
    /// Whether its flows of UDP go elsewhere. They have no end that could be waited for, and the next datagram
    /// of each would be lost when the backend stops.
    pub(crate) flows_left: bool,
}

/// Those of one service, of one family.
fn targets(endpoints: &[Candidate<'_>], ipv6: bool) -> impl Iterator<Item = Target> {
    let another = endpoints.iter().any(|candidate| {
        matches!(candidate.endpoint.backend, Backend::Enabled(_))
            && of_family(candidate.endpoint, ipv6).next().is_some()
    });
    endpoints.iter().flat_map(move |candidate| {
        let backend = candidate.endpoint.backend;
        let flows_left = backend == Backend::Draining && candidate.has_drained && another;
        of_family(candidate.endpoint, ipv6).map(move |address| Target {
            address,
            backend,
            flows_left,
        })
    })
}

fn of_family(endpoint: &Endpoint, ipv6: bool) -> impl Iterator<Item = IpAddr> {
    let addresses = endpoint.addresses.iter().copied();
    addresses.filter(move |address| address.is_ipv6() == ipv6)
}

/// Everything that a spec is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    /// Of `desired`.
    pub(crate) index: &'a Index<'a>,
    pub(crate) node: &'a Node,
    pub(crate) engine: Engine,
    pub(crate) run_dir: &'a Path,
    /// Name of the gwbridge's device.
    pub(crate) gwbridge: &'a str,
    pub(crate) underlay: &'a Underlay,
    /// Inode of each task's namespace.
    pub(crate) inodes: &'a BTreeMap<String, u64>,
    /// Published ports that somebody else on this node has.
    pub(crate) taken: &'a BTreeSet<(Protocol, u16)>,
}

impl<'a> View<'a> {
    /// Source of our VXLAN packets.
    pub(crate) fn vtep(&self) -> Option<IpAddr> {
        self.node.vteps.first().copied()
    }

    /// The address of `node` that our VXLAN sends to: of the same family as ours.
    pub(crate) fn vtep_of(&self, node: &str) -> Option<IpAddr> {
        let ours = self.vtep()?;
        let peer = self.desired.peers.get(node)?;
        peer.vteps
            .iter()
            .copied()
            .find(|vtep| vtep.is_ipv6() == ours.is_ipv6())
    }

    /// A task's port in an overlay's bridge.
    pub(crate) fn overlay_port(&self, task: &str) -> String {
        super::names::overlay_port(task, self.inodes.get(task).copied().unwrap_or(0))
    }

    /// A task's port in the gwbridge.
    pub(crate) fn gateway_port(&self, task: &str) -> String {
        super::names::gateway_port(task, self.inodes.get(task).copied().unwrap_or(0))
    }

    /// MTU of the devices of a network, bytes.
    pub(crate) fn mtu(&self, network: &Network) -> u32 {
        const OUTER_V4: u32 = 50;
        const OUTER_V6: u32 = 70;
        let outer = if self.vtep().is_some_and(|vtep| vtep.is_ipv6()) {
            OUTER_V6
        } else {
            OUTER_V4
        };
        network
            .mtu
            .unwrap_or_else(|| self.underlay.mtu.saturating_sub(outer))
    }

    /// The ingress network.
    pub(crate) fn ingress_network(&self) -> Option<(&'a str, &'a Network)> {
        let desired: &'a Desired = self.desired;
        desired
            .networks
            .iter()
            .find(|(_, n)| n.ingress)
            .map(|(id, n)| (id.as_str(), n))
    }

    pub(crate) fn is_ingress(&self, network: &str) -> bool {
        self.ingress_network().is_some_and(|(id, _)| id == network)
    }

    /// Whether this node takes part in the mesh: it has an identity there, and there is something
    /// to publish or to serve.
    pub(crate) fn has_ingress(&self) -> bool {
        self.node.ingress.is_some()
            && self
                .ingress_network()
                .is_some_and(|(id, _)| self.is_needed(id))
    }

    /// Whether this node has any task, or takes part in the mesh.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.desired.sandboxes.is_empty() || self.has_ingress()
    }

    /// Whether a network is to be in this node's kernel.
    pub(crate) fn is_needed(&self, network: &str) -> bool {
        self.desired
            .sandboxes
            .values()
            .any(|s| s.legs.iter().any(|leg| leg.network == network))
            || self.is_ingress(network)
                && self
                    .desired
                    .services
                    .values()
                    .any(|service| !service.ports.is_empty())
    }

    /// Local legs in a network, with their task's id.
    pub(crate) fn legs(
        &self,
        network: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Sandbox, &'a Leg)> {
        let desired: &'a Desired = self.desired;
        desired.sandboxes.iter().flat_map(move |(id, sandbox)| {
            let legs = sandbox
                .legs
                .iter()
                .filter(move |leg| leg.network == network);
            legs.map(move |leg| (id.as_str(), sandbox, leg))
        })
    }

    /// Endpoints of a network on other nodes.
    pub(crate) fn remote_endpoints(&self, network: &str) -> impl Iterator<Item = &'a Endpoint> {
        let desired: &'a Desired = self.desired;
        let here = &self.node.id;
        desired
            .endpoints
            .values()
            .filter(move |endpoint| endpoint.network == network && endpoint.node != *here)
    }

    /// Ports that a service publishes through the mesh on this node.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&'a str, &'a Service, Port)> {
        let desired: &'a Desired = self.desired;
        let taken = self.taken;
        desired.services.iter().flat_map(move |(id, service)| {
            let free = service.ports.iter().copied();
            let free = free.filter(move |p| !taken.contains(&(p.protocol, p.published)));
            free.map(move |port| (id.as_str(), service, port))
        })
    }

    /// Backends of a service on a network, of one family.
    pub(crate) fn backends(
        &self,
        service: &str,
        network: &str,
        ipv6: bool,
    ) -> impl Iterator<Item = Target> {
        let services = self.index.backends.get(network);
        let endpoints = services.and_then(|services| services.get(service));
        targets(endpoints.map_or(&[], Vec::as_slice), ipv6)
    }

    /// The service that a local task serves on the ingress network.
    pub(crate) fn service_of(&self, task: &str) -> Option<(&'a str, &'a Service)> {
        let (ingress, _) = self.ingress_network()?;
        let id = self.index.service.get(task)?.get(ingress)?;
        let desired: &'a Desired = self.desired;
        desired.services.get(*id).map(|service| (*id, service))
    }
}

/// The segment of a network that an address lies in.
pub(super) fn segment_of(network: &Network, leg: &Leg) -> Option<Segment> {
    let first = leg.addresses.first()?.addr();
    network
        .segments
        .iter()
        .find(|segment| segment.subnets.iter().any(|subnet| subnet.contains(&first)))
        .cloned()
}

/// The segment of a network that an endpoint's address lies in.
pub(super) fn segment_of_address(network: &Network, address: IpAddr) -> Option<u32> {
    let segment = network.segments.iter().find(|segment| {
        segment
            .subnets
            .iter()
            .any(|subnet| subnet.contains(&address))
    })?;
    Some(segment.vni)
}
