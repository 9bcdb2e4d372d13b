//! What should be: plain data, handed in by the executor as a whole, compared by value.
//!
//! Nothing here speaks of containers. A task is a [`Sandbox`], a network namespace with legs; what
//! other tasks there are is a set of [`Endpoint`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The whole state that this node's kernel should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// This node; `None` before it is configured: then nothing else may be set.
    pub node: Option<Node>,
    /// The other nodes, by node id.
    pub peers: BTreeMap<String, Peer>,
    /// By network id. A network is built when a local sandbox has a leg in it, and the ingress
    /// network also when a service publishes a port.
    pub networks: BTreeMap<String, Network>,
    /// The local tasks' namespaces, by task id.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// All tasks' legs, local ones included, by endpoint id.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// By service id.
    pub services: BTreeMap<String, Service>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Id of this node, as the endpoints name it.
    pub id: String,
    /// Underlay addresses, at most one of each family; the first is used as the VXLAN source.
    pub vteps: Vec<IpAddr>,
    /// UDP destination port of VXLAN.
    pub vxlan_port: u16,
    /// Addresses of the gwbridge itself, each with the prefix length of its subnet.
    pub gwbridge: Vec<IpNet>,
    /// This node's ingress: `None` when the cluster has no ingress network.
    pub ingress: Option<Steering>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Underlay addresses that its VXLAN listens on, at most one of each family.
    pub vteps: Vec<IpAddr>,
    /// How replies are steered back to its ingress; `None`: it has none.
    pub ingress: Option<Steering>,
}

/// The identity of a node's ingress in the routing mesh: 28 bits, unique in the cluster.
///
/// From it follow the MAC of the ingress interface and the alias addresses that stand for the node
/// in the tasks' namespaces (`docs/networking.md`, reply steering).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steering(u32);

impl Steering {
    /// The largest id: 2^28 - 2, because 255.255.255.255 is the broadcast address.
    pub const MAX: u32 = (1 << 28) - 2;

    /// The id, if it is one: 1 to [`Steering::MAX`].
    #[must_use]
    pub fn new(id: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&id).then_some(Self(id))
    }

    /// The steering address: `240.0.0.0/4` with the id in the low 28 bits (RFC 1112, class E: never
    /// seen on a wire).
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from(0xf000_0000 | self.0)
    }

    /// MAC of the ingress interface: `02:4c` and the steering address.
    #[must_use]
    pub fn mac(self) -> Mac {
        let [a, b, c, d] = self.address().octets();
        Mac([0x02, 0x4c, a, b, c, d])
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The MAC of a task's leg: `02:42` and its IPv4 address, as Docker makes it.
    #[must_use]
    pub fn of_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is not six pairs of hexadecimal digits with colons between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address of the form 02:42:0a:00:00:05")]
pub struct MacParseError(String);

impl std::str::FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacParseError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(error)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            Err(error())
        } else {
            Ok(Self(octets))
        }
    }
}

/// An overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Name, for messages and the DNS (`<task>.<network>`).
    pub name: String,
    /// One broadcast domain for each VNI.
    pub segments: Vec<Segment>,
    /// The ingress network.
    pub ingress: bool,
    /// Gives no way out: its tasks get no leg on the gwbridge for its sake.
    pub internal: bool,
    /// MTU of its devices in bytes; `None`: from the underlay.
    pub mtu: Option<u32>,
}

/// A VNI and the subnets in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Of either family; not empty.
    pub subnets: Vec<IpNet>,
}

/// The network namespace of one local task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// Name of the task, for messages.
    pub name: String,
    /// Its legs in overlay networks, in the order of their interfaces.
    pub legs: Vec<Leg>,
    /// Its leg on the gwbridge: the way out.
    pub gateway: Option<Gateway>,
    /// Node ports that lead to this task alone; needs `gateway`.
    pub host_ports: Vec<Port>,
    /// Port on 127.0.0.11 where the task's DNS sockets are bound; `None`: no DNS.
    pub resolver: Option<u16>,
}

/// A task's leg in an overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Network id.
    pub network: String,
    /// Interface name in the task's namespace: `eth0`.
    pub ifname: String,
    /// With the subnet's prefix length, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// A task's leg on the gwbridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Interface name in the task's namespace.
    pub ifname: String,
    /// With the subnet's prefix length, one for each family of the gwbridge.
    pub addresses: Vec<IpNet>,
}

/// A transport protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// Number in the IP header (IANA protocol numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to a port of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// On the node.
    pub published: u16,
    /// In the task.
    pub target: u16,
}

/// One task's leg in one network, anywhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Network id.
    pub network: String,
    /// Id of the node where it is: this node's id for a local one.
    pub node: String,
    /// Task id; a local endpoint belongs to the sandbox of that id.
    pub task: String,
    /// Name of the task, for the DNS.
    pub task_name: String,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Ethernet address of the leg.
    pub mac: Mac,
    /// The service it serves, by id.
    pub service: Option<String>,
    /// Names of the service on this network.
    pub aliases: BTreeSet<String>,
    /// Names of the task alone on this network.
    pub task_aliases: BTreeSet<String>,
    /// Its part in the balancing.
    pub backend: Backend,
}

/// Whether an endpoint gets connections through VIPs and published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Gets new connections, by this weight (1 to 65535).
    Enabled(u16),
    /// Keeps its connections until it ends, gets no new ones. Once it has drained for a second, its flows of
    /// UDP go to another backend where there is one.
    Draining,
    /// Keeps its connections and its flows, gets no new ones for a while.
    Paused,
    /// Gets none: its task does not run yet, or its node could not answer yet.
    Disabled,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name, for the DNS.
    pub name: String,
    /// Network id and address; none in endpoint mode DNSRR.
    pub vips: Vec<(String, IpAddr)>,
    /// Ports published through the mesh.
    pub ports: Vec<Port>,
    /// How backends are chosen; `None`: as the engine does best.
    pub scheduler: Option<Scheduler>,
}

/// How the next backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Round robin (`ipvs`).
    RoundRobin,
    /// Weighted round robin (`ipvs`).
    WeightedRoundRobin,
    /// Least connections (`ipvs`).
    LeastConnections,
    /// Weighted least connections (`ipvs`).
    WeightedLeastConnections,
    /// By the client's address: `sh` on `ipvs`, a hash on `nft`.
    SourceHash,
    /// Maglev hashing (`ipvs`).
    Maglev,
    /// At random (`nft`).
    Random,
}

impl std::str::FromStr for Scheduler {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "rr" => Self::RoundRobin,
            "wrr" => Self::WeightedRoundRobin,
            "lc" => Self::LeastConnections,
            "wlc" => Self::WeightedLeastConnections,
            "sh" | "source" => Self::SourceHash,
            "mh" => Self::Maglev,
            "random" => Self::Random,
            _ => {
                return Err(format!(
                    "{name:?} is no scheduler: rr, wrr, lc, wlc, sh, mh (engine ipvs), random, source (engine nft)"
                ));
            }
        })
    }
}

impl Scheduler {
    /// Its name: IPVS's where IPVS has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnections => "lc",
            Self::WeightedLeastConnections => "wlc",
            Self::SourceHash => "sh",
            Self::Maglev => "mh",
            Self::Random => "random",
        }
    }
}

/// A load-balancer implementation for published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The kernel's IP virtual server.
    Ipvs,
    /// nftables maps.
    Nft,
}

impl Engine {
    /// `ipvs` or `nft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Nft => "nft",
        }
    }

    /// What it uses where nobody chose: round robin, or at random.
    #[must_use]
    pub fn default_scheduler(self) -> Scheduler {
        match self {
            Self::Ipvs => Scheduler::RoundRobin,
            Self::Nft => Scheduler::Random,
        }
    }

    /// Whether it can do this.
    #[must_use]
    pub fn supports(self, scheduler: Scheduler) -> bool {
        match self {
            Self::Ipvs => scheduler != Scheduler::Random,
            Self::Nft => matches!(scheduler, Scheduler::Random | Scheduler::SourceHash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_gives_mac_and_address() {
        let steering = Steering::new(1).unwrap();
        assert_eq!(steering.address(), Ipv4Addr::new(240, 0, 0, 1));
        assert_eq!(steering.mac().to_string(), "02:4c:f0:00:00:01");
        let last = Steering::new(Steering::MAX).unwrap();
        assert_eq!(last.address(), Ipv4Addr::new(255, 255, 255, 254));
        assert_eq!(Steering::new(0), None);
        assert_eq!(Steering::new(Steering::MAX + 1), None);
    }

    #[test]
    fn macs_parse_strictly() {
        let mac: Mac = "02:42:0a:00:00:05".parse().unwrap();
        assert_eq!(mac, Mac::of_ipv4(Ipv4Addr::new(10, 0, 0, 5)));
        for bad in [
            "",
            "02:42:0a:00:00",
            "02:42:0a:00:00:05:06",
            "2:42:0a:00:00:05",
            "02-42-0a-00-00-05",
            "02:42:0a:00:00:0g",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
