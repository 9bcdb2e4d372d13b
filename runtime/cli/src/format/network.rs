//! Networks, services, and what the other nodes hold.

use std::collections::BTreeMap;

use fairlead_api::v1;

use super::mirror::{choice, mirror};
use super::value::{Address, Cidr, Port};

mirror! {
    /// An overlay network.
    pub struct Network = v1::Network {
        /// Unique in the cluster: 1 to 64 of a-z, A-Z, 0-9, `_`, `.`, `-`.
        id: String = id,
        /// Name for people.
        name: String = name,
        /// Its subnets, of either family.
        subnets: Vec<Subnet> = subnets,
    } optional {
        /// Whether its tasks have no way out but to other tasks.
        internal: bool = internal,
        /// Whether this is the ingress network; at most one is.
        ingress: bool = ingress,
        /// Whether packets between nodes are encrypted.
        encrypted: bool = encrypted,
        /// Largest packet in bytes. 0: from the underlay.
        mtu: u32 = mtu,
        /// Labels of the network.
        labels: BTreeMap<String, String> = labels,
        /// Options of the network driver.
        driver_options: BTreeMap<String, String> = driver_options,
    }
}

mirror! {
    /// One subnet of a network.
    pub struct Subnet = v1::Subnet {
        /// Its range, such as 10.1.0.0/24.
        cidr: Cidr = cidr,
        /// Its VXLAN network: 4096 to 16777215. Subnets that share one share the broadcast domain.
        vni: u32 = vni,
    } optional {
        /// An address that is kept free; nothing answers there.
        gateway: Option<GatewayAddress> = gateway,
    }
}

/// An address that the contract writes as an empty text when there is none.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct GatewayAddress(pub Address);

impl super::mirror::Mirror<String> for Option<GatewayAddress> {
    fn into_proto(self) -> String {
        self.map(|gateway| gateway.0.0).unwrap_or_default()
    }
    fn from_proto(proto: String) -> Self {
        (!proto.is_empty()).then_some(GatewayAddress(Address(proto)))
    }
}

mirror! {
    /// A service: a name, an address and ports that stand for several tasks.
    pub struct Service = v1::Service {
        /// Unique in the cluster: 1 to 64 of a-z, A-Z, 0-9, `_`, `.`, `-`.
        id: String = id,
        /// Its name, in DNS too.
        name: String = name,
    } optional {
        /// What its name resolves to.
        endpoint_mode: EndpointMode = endpoint_mode,
        /// Its address on each network.
        virtual_ips: Vec<VirtualIp> = virtual_ips,
        /// Its ports on every node.
        ports: Vec<ServicePort> = ports,
        /// `fairlead.scheduler`: rr (default), wrr, lc, wlc, sh, mh (ipvs); random, source (nft).
        labels: BTreeMap<String, String> = labels,
    }
}

choice! {
    /// What the name of a service resolves to.
    pub enum EndpointMode = v1::EndpointMode {
        /// Its virtual address.
        #[default]
        Vip = Vip,
        /// The addresses of its tasks.
        Dnsrr = Dnsrr,
    }
}

mirror! {
    /// Address of a service on one network.
    pub struct VirtualIp = v1::VirtualIp {
        /// The network.
        network_id: String = network_id,
        /// Without prefix length.
        address: Address = address,
    } optional {}
}

mirror! {
    /// A port of a service.
    pub struct ServicePort = v1::PortConfig {
        /// The port of each node.
        published: Port = published_port,
        /// The port in the tasks.
        target: Port = target_port,
    } optional {
        /// The protocol.
        protocol: Protocol = protocol,
        /// Where it is published; ports in host mode belong to the task's `hostPorts`.
        mode: PublishMode = publish_mode,
        /// A name for people.
        name: String = name,
    }
}

choice! {
    /// Protocol of a port.
    pub enum Protocol = v1::Protocol {
        /// TCP.
        #[default]
        Tcp = Tcp,
        /// UDP.
        Udp = Udp,
        /// SCTP.
        Sctp = Sctp,
    }
}

choice! {
    /// Where a port is published.
    pub enum PublishMode = v1::PublishMode {
        /// On every node, balanced over all tasks.
        #[default]
        Ingress = Ingress,
        /// On the node of each task, for that task.
        Host = Host,
    }
}

mirror! {
    /// A node of the cluster; the receiving node is one of them.
    pub struct NodeRecord = v1::NodeRecord {
        /// The node's id.
        id: String = id,
        /// Only grows.
        version: u64 = version,
        /// Underlay addresses that VXLAN packets go to, at most one of each family.
        vteps: Vec<Address> = vteps,
    } optional {
        /// What runs there.
        kind: NodeKind = kind,
        /// Its addresses on the ingress network.
        ingress_addresses: Vec<Address> = ingress_addresses,
        /// Unique in the cluster: 1 to 268435454.
        steering_id: u32 = steering_id,
        /// The version of the receiving node's own record that this node has applied. Backends on
        /// this node are used only once that is the current one. When it is left out, what the
        /// receiving node already holds is kept.
        acknowledged_version: u64 = acknowledged_version,
    }
}

choice! {
    /// What runs on a node.
    pub enum NodeKind = v1::NodeKind {
        /// This executor.
        #[default]
        Fairlead = Fairlead,
        /// Docker Engine.
        Docker = Docker,
    }
}

mirror! {
    /// One task on one network: reachability, backend and names.
    pub struct EndpointRecord = v1::EndpointRecord {
        /// Unique in the cluster.
        id: String = id,
        /// Only grows.
        version: u64 = version,
        /// The network.
        network_id: String = network_id,
        /// The task.
        task_id: String = task_id,
        /// The node where the task runs.
        node_id: String = node_id,
        /// Without prefix length, at most one of each family.
        addresses: Vec<Address> = addresses,
    } optional {
        /// Whether it is reachable, and a backend.
        state: EndpointState = state,
        /// The container's name, for DNS.
        task_name: String = task_name,
        /// The service; empty for a task of none.
        service_id: String = service_id,
        /// Default: 02:42 and the IPv4 address.
        mac: String = mac,
        /// Aliases of the service on this network.
        aliases: Vec<String> = aliases,
        /// Names of the task alone.
        task_aliases: Vec<String> = task_aliases,
        /// For weighted schedulers. 0 is taken as 1.
        weight: u32 = weight,
    }
}

choice! {
    /// State of an endpoint.
    pub enum EndpointState = v1::EndpointState {
        /// Reachable, and a backend of its service.
        #[default]
        Active = Active,
        /// Reachable; gets no new connections.
        Draining = Draining,
        /// As if the record did not exist; the version stays known.
        Gone = Gone,
    }
}

impl EndpointState {
    /// The word for it.
    pub fn word(self) -> String {
        match self {
            Self::Active => "active".into(),
            Self::Draining => "draining".into(),
            Self::Gone => "gone".into(),
            Self::Unknown(0) => "unspecified".into(),
            Self::Unknown(number) => format!("state {number}"),
        }
    }
}
