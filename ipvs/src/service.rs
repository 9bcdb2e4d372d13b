//! Services: what IPVS balances.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::ops::{BitOr, BitOrAssign};

use crate::name::{Name, Scheduler};
use crate::stats::Stats;
use crate::uapi::svc_flag;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) fn to_wire(self) -> u16 {
        match self {
            Self::V4 => libc::AF_INET as u16,
            Self::V6 => libc::AF_INET6 as u16,
        }
    }

    pub(crate) fn from_wire(value: u16) -> Option<Self> {
        match i32::from(value) {
            libc::AF_INET => Some(Self::V4),
            libc::AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A transport protocol, by its IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u16);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(libc::IPPROTO_TCP as u16);
    /// UDP.
    pub const UDP: Self = Self(libc::IPPROTO_UDP as u16);
    /// SCTP.
    pub const SCTP: Self = Self(libc::IPPROTO_SCTP as u16);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.pad("TCP"),
            Self::UDP => f.pad("UDP"),
            Self::SCTP => f.pad("SCTP"),
            Self(other) => f.pad(&other.to_string()),
        }
    }
}

/// What tells one service of a namespace from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceId {
    /// Packets of a protocol to an address and port.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address.
        address: IpAddr,
        /// Virtual port. 0 stands for every port, which the kernel honours only for services with
        /// [`ServiceFlags::PERSISTENT`].
        port: u16,
    },
    /// Packets that carry a firewall mark, whatever their protocol and port.
    Mark {
        /// Family of the packets; a mark can have one service per family.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
    },
}

impl ServiceId {
    /// A TCP service.
    pub fn tcp(address: impl Into<IpAddr>, port: u16) -> Self {
        Self::Address {
            protocol: Protocol::TCP,
            address: address.into(),
            port,
        }
    }

    /// A UDP service.
    pub fn udp(address: impl Into<IpAddr>, port: u16) -> Self {
        Self::Address {
            protocol: Protocol::UDP,
            address: address.into(),
            port,
        }
    }

    /// An SCTP service.
    pub fn sctp(address: impl Into<IpAddr>, port: u16) -> Self {
        Self::Address {
            protocol: Protocol::SCTP,
            address: address.into(),
            port,
        }
    }

    /// A mark service.
    pub fn mark(family: Family, mark: NonZeroU32) -> Self {
        Self::Mark { family, mark }
    }

    /// The family of the packets that the service takes.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// In the words of `ipvsadm`: `TCP 10.0.0.1:80`, `UDP [fd00::1]:53`, `FWM 7`, `FWM 7 IPv6`.
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                address: IpAddr::V4(address),
                port,
            } => {
                write!(f, "{protocol} {address}:{port}")
            }
            Self::Address {
                protocol,
                address: IpAddr::V6(address),
                port,
            } => {
                write!(f, "{protocol} [{address}]:{port}")
            }
            Self::Mark {
                family: Family::V4,
                mark,
            } => write!(f, "FWM {mark}"),
            Self::Mark {
                family: Family::V6,
                mark,
            } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// Sorts services by mark, family, protocol, address and port. `ipvsadm` does so as well, but subtracts
/// addresses and marks as signed numbers, which puts those that are 2^31 or more apart the wrong
/// way round.
pub(crate) fn in_listing_order(id: &ServiceId) -> (u32, Family, ServiceId) {
    let mark = match id {
        ServiceId::Address { .. } => 0,
        ServiceId::Mark { mark, .. } => mark.get(),
    };
    (mark, id.family(), *id)
}

/// Flags of a service (`IP_VS_SVC_F_*`).
///
/// The three scheduler flags mean what the service's scheduler makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A client keeps its destination for [`Service::timeout`] seconds.
    pub const PERSISTENT: Self = Self(svc_flag::PERSISTENT);
    /// Each packet is scheduled on its own (UDP).
    pub const ONE_PACKET: Self = Self(svc_flag::ONEPACKET);
    /// Scheduler `sh`: when the hashed destination is unavailable, take another.
    pub const SH_FALLBACK: Self = Self(svc_flag::SCHED1);
    /// Scheduler `sh`: the source port is part of the hash.
    pub const SH_PORT: Self = Self(svc_flag::SCHED2);
    /// Scheduler `mh`: when the hashed destination is unavailable, take another.
    pub const MH_FALLBACK: Self = Self(svc_flag::SCHED1);
    /// Scheduler `mh`: the source port is part of the hash.
    pub const MH_PORT: Self = Self(svc_flag::SCHED2);
    /// First scheduler flag, whatever the scheduler.
    pub const SCHED1: Self = Self(svc_flag::SCHED1);
    /// Second scheduler flag, whatever the scheduler.
    pub const SCHED2: Self = Self(svc_flag::SCHED2);
    /// Third scheduler flag; no scheduler in the kernel uses it yet.
    pub const SCHED3: Self = Self(svc_flag::SCHED3);

    /// Flags from their bits. The bit by which the kernel marks services in its table is dropped.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !svc_flag::HASHED)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without those of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for ServiceFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ServiceFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How much of a client's address counts for persistence: clients that are equal under it share a
/// destination. The variant must be that of the service's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Netmask {
    /// IPv4, a mask.
    V4(Ipv4Addr),
    /// IPv6, a prefix length, 1 to 128.
    V6(u8),
}

impl Netmask {
    /// The family whose addresses it is for.
    pub fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// Every address counts for itself.
    pub fn host(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }
}

/// A mask, or a prefix length.
impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(mask) => write!(f, "{mask}"),
            Self::V6(prefix) => write!(f, "{prefix}"),
        }
    }
}

/// A service and its settings.
///
/// ```
/// use ipvs::{Scheduler, Service, ServiceFlags, ServiceId};
/// use std::net::Ipv4Addr;
///
/// let id = ServiceId::tcp(Ipv4Addr::new(10, 0, 0, 1), 80);
/// let plain = Service::new(id, Scheduler::RR);
/// let sticky = Service { flags: ServiceFlags::PERSISTENT, timeout: 300, ..plain };
/// assert_eq!(sticky.scheduler.as_str(), "rr");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Service {
    /// Which service this is.
    pub id: ServiceId,
    /// How destinations are picked. A service without one (which only the name `none` gives)
    /// takes no new connections.
    pub scheduler: Scheduler,
    /// Flags.
    pub flags: ServiceFlags,
    /// How long a client keeps its destination, in seconds; counts only with
    /// [`ServiceFlags::PERSISTENT`]. Not more than 4,294,967: beyond, the kernel's own count of
    /// ticks overflows without a word. `ipvsadm` takes 31 days, 2,678,400, at most.
    pub timeout: u32,
    /// Which clients share a destination; counts only with [`ServiceFlags::PERSISTENT`].
    pub netmask: Netmask,
    /// What a client is told by instead of its address (the kernel has `sip`, module
    /// `ip_vs_pe_sip`).
    pub persistence_engine: Option<Name>,
}

impl Service {
    /// A service without flags.
    pub fn new(id: ServiceId, scheduler: Scheduler) -> Self {
        Self {
            id,
            scheduler,
            flags: ServiceFlags::NONE,
            timeout: 0,
            netmask: Netmask::host(id.family()),
            persistence_engine: None,
        }
    }
}

/// A service as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceEntry {
    /// The service.
    pub service: Service,
    /// Its counters.
    pub stats: Stats,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn is_written_in_the_words_of_ipvsadm() {
        let mark = NonZeroU32::new(7).unwrap();
        let text = |id: ServiceId| id.to_string();
        assert_eq!(text(ServiceId::tcp([10, 0, 0, 1], 80)), "TCP 10.0.0.1:80");
        assert_eq!(
            text(ServiceId::udp(Ipv6Addr::LOCALHOST, 53)),
            "UDP [::1]:53"
        );
        assert_eq!(text(ServiceId::mark(Family::V4, mark)), "FWM 7");
        assert_eq!(text(ServiceId::mark(Family::V6, mark)), "FWM 7 IPv6");
    }

    #[test]
    fn the_kernels_own_flag_is_no_setting() {
        let flags = ServiceFlags::from_bits(0x3);
        assert_eq!(flags, ServiceFlags::PERSISTENT);
        assert!((flags | ServiceFlags::SH_PORT).contains(ServiceFlags::SH_PORT));
        assert!(!flags.contains(ServiceFlags::SH_PORT));
    }
}
