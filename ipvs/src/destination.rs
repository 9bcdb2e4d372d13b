//! Destinations: where a service's connections go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::BitOr;

use crate::service::Family;
use crate::stats::Stats;

/// What tells one destination of a service from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId {
    /// Address; its family may differ from the service's only with [`Forward::Tunnel`].
    pub address: IpAddr,
    /// Port. Masquerading rewrites a packet's port to it; the other methods leave it alone. 0 keeps
    /// the client's port, which makes sense for mark services and services on every port.
    pub port: u16,
}

impl DestinationId {
    /// A destination at an address and port.
    pub fn new(address: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            address: address.into(),
            port,
        }
    }

    /// The family of the address.
    pub fn family(&self) -> Family {
        Family::of(&self.address)
    }
}

impl From<SocketAddr> for DestinationId {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip(), address.port())
    }
}

impl fmt::Display for DestinationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// How packets get to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Destination address and port are rewritten; replies must come back through this namespace.
    Masquerade,
    /// The destination is this machine.
    Local,
    /// Packets are wrapped; the destination answers the client directly.
    Tunnel(Tunnel),
    /// Only the next hop changes; the destination owns the virtual address and answers the client
    /// directly.
    Route,
    /// The original destination, for transparent caches. The kernel makes these itself.
    Bypass,
}

/// As `ipvsadm` writes it: `Masq`, `Local`, `Tunnel`, `Route`.
impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Masquerade => "Masq",
            Self::Local => "Local",
            Self::Tunnel(_) => "Tunnel",
            Self::Route => "Route",
            Self::Bypass => "Bypass",
        })
    }
}

/// The wrapping of [`Forward::Tunnel`]. Kernels before 5.2 know only IPIP and ignore the rest
/// (GRE came with 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// What packets are wrapped in.
    pub kind: TunnelKind,
    /// UDP port of a GUE tunnel, which must not be 0; 0 for the others.
    pub port: u16,
    /// Checksums.
    pub flags: TunnelFlags,
}

impl Tunnel {
    /// IP in IP.
    pub const IPIP: Self = Self {
        kind: TunnelKind::Ipip,
        port: 0,
        flags: TunnelFlags::NONE,
    };
    /// GRE without checksum.
    pub const GRE: Self = Self {
        kind: TunnelKind::Gre,
        port: 0,
        flags: TunnelFlags::NONE,
    };

    /// Generic UDP encapsulation to a port, without checksum.
    pub const fn gue(port: u16) -> Self {
        Self {
            kind: TunnelKind::Gue,
            port,
            flags: TunnelFlags::NONE,
        }
    }
}

/// What packets are wrapped in (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TunnelKind {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
    /// One that a later kernel knows, by its number.
    Other(u8),
}

/// Checksums of a tunnel (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TunnelFlags(u16);

impl TunnelFlags {
    /// No checksum.
    pub const NONE: Self = Self(0);
    /// The outer header has a checksum.
    pub const CHECKSUM: Self = Self(1);
    /// Remote checksum offload (GUE).
    pub const REMOTE_CHECKSUM: Self = Self(2);

    /// Flags from their bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for TunnelFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A destination and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Which destination this is.
    pub id: DestinationId,
    /// How packets get there.
    pub forward: Forward,
    /// Share of new connections for schedulers that weigh, at most `i32::MAX`. 0 takes no new
    /// connections and keeps the established ones, whatever the scheduler: this is how to drain.
    pub weight: u32,
    /// With this many connections or more no new ones are given; 0 is no limit.
    pub upper_threshold: u32,
    /// Once over the upper threshold, new ones are given again below this many connections; not
    /// above the upper threshold. 0 lets the kernel pick three quarters of it.
    pub lower_threshold: u32,
}

impl Destination {
    /// A destination of weight 1 without thresholds.
    pub fn new(id: DestinationId, forward: Forward) -> Self {
        Self {
            id,
            forward,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }
}

/// A destination as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationEntry {
    /// The destination.
    pub destination: Destination,
    /// Established connections.
    pub active_connections: u32,
    /// Connections in any other state.
    pub inactive_connections: u32,
    /// Clients that are bound to the destination by persistence.
    pub persistent_connections: u32,
    /// Its counters.
    pub stats: Stats,
}
