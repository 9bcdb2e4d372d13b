//! What should be in a namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::conntrack::Pin;
use crate::desired::Mac;
use crate::nft::{Guard, Table};

/// Everything of ours in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) links: Vec<Link>,
    /// Link and address.
    pub(crate) addresses: Vec<(String, IpNet)>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) fdb: Vec<FdbEntry>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<PolicyRule>,
    /// Path below `/proc/sys`, and value. Absent files are passed over when `optional`.
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) tables: Vec<Table>,
    /// Our rules in other people's chains; only the node's own namespace has other people.
    pub(crate) guards: Vec<Guard>,
    /// Where connections are pinned to: those of a pin that goes are flushed from conntrack.
    pub(crate) pins: BTreeSet<Pin>,
    /// Whether the local table is looked up after our rules instead of before all others.
    pub(crate) local_last: bool,
    /// The namespace is ours alone: whatever its links have that is not in the spec is removed.
    pub(crate) ours: bool,
    /// The namespace is the node's own: other people have firewalls there.
    pub(crate) shared: bool,
    /// Loopback is brought up.
    pub(crate) loopback: bool,
}

/// A kernel setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) path: String,
    pub(crate) value: &'static str,
    /// Not every kernel has it, or its module is not loaded.
    pub(crate) optional: bool,
}

impl Sysctl {
    /// Whether it exists only while a link exists.
    pub(crate) fn is_of_a_link(&self) -> bool {
        let mut parts = self
            .path
            .split('/')
            .skip_while(|part| *part != "conf")
            .skip(1);
        parts
            .next()
            .is_some_and(|link| link != "all" && link != "default")
    }
}

impl Spec {
    pub(crate) fn has_link(&self, name: &str) -> bool {
        self.links.iter().any(|link| link.name == name)
    }

    pub(crate) fn sysctl(&mut self, path: impl Into<String>, value: &'static str) {
        self.sysctls.push(Sysctl {
            path: path.into(),
            value,
            optional: false,
        });
    }

    pub(crate) fn optional_sysctl(&mut self, path: impl Into<String>, value: &'static str) {
        self.sysctls.push(Sysctl {
            path: path.into(),
            value,
            optional: true,
        });
    }
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) kind: LinkKind,
    pub(crate) mac: Option<Mac>,
    /// Bytes; `None`: the kernel's default.
    pub(crate) mtu: Option<u32>,
    /// The bridge that it is a port of.
    pub(crate) port: Option<Port>,
    /// What it is for: kept in the kernel as the alias, by which it is known as ours.
    pub(crate) alias: String,
}

/// A link's place in a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) bridge: String,
    /// Reaches only ports that are not isolated.
    pub(crate) isolated: bool,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Bridge,
    /// Made by a request on the node's socket, so that its tunnel socket stays in the node's
    /// namespace.
    Vxlan {
        vni: u32,
        port: u16,
        /// Source of the outer packets.
        local: IpAddr,
    },
    Veth(VethPeer),
    /// The other end of a veth that is made from its peer's namespace.
    VethEnd,
}

/// The far end of a veth, in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VethPeer {
    pub(crate) netns: PathBuf,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
}

/// A permanent neighbour (ARP, ND) entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    pub(crate) link: String,
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

/// A static forwarding entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FdbEntry {
    pub(crate) link: String,
    pub(crate) mac: Mac,
    pub(crate) destination: Destination,
}

/// Which table a forwarding entry is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Destination {
    /// The bridge's: behind this port.
    Port,
    /// The VXLAN device's: at this VTEP.
    Vtep(IpAddr),
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) link: String,
    pub(crate) gateway: Option<IpAddr>,
    /// The gateway need not be in a subnet of the link.
    pub(crate) onlink: bool,
    /// Routing table: 254 main, 255 local.
    pub(crate) table: u32,
    /// Deliver here instead of forwarding.
    pub(crate) local: bool,
}

/// A policy routing rule of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyRule {
    pub(crate) ipv6: bool,
    pub(crate) priority: u32,
    pub(crate) from: Option<IpNet>,
    pub(crate) iif: Option<String>,
    pub(crate) mark: Option<u32>,
    pub(crate) table: u32,
}
