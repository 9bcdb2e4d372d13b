//! Answers. Each function takes the bytes after the generic netlink header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::destination::{
    Destination, DestinationEntry, DestinationId, Forward, Tunnel, TunnelFlags, TunnelKind,
};
use crate::error::DecodeError;
use crate::name::{Name, Scheduler};
use crate::service::{Family, Netmask, Protocol, Service, ServiceEntry, ServiceFlags, ServiceId};
use crate::stats::{Info, Stats, Timeouts};
use crate::sync::{SyncDaemon, SyncRole};
use crate::uapi::{
    cmd_attr, ctrl, daemon_attr, dest_attr, forward, info_attr, stats_attr, svc_attr, sync_state,
    tunnel_type,
};
use crate::wire::attr::{Attr, Attrs};

type Result<T> = std::result::Result<T, DecodeError>;

/// The number of the family, from the controller's answer.
pub(crate) fn family_id(content: &[u8]) -> Result<u16> {
    nest(content, ctrl::ATTR_FAMILY_ID, "family id")?.u16("family id")
}

/// A service.
pub(crate) fn service(content: &[u8]) -> Result<ServiceEntry> {
    let holder = nest(content, cmd_attr::SERVICE, "service")?;
    let mut family = None;
    let mut protocol = None;
    let mut address = None;
    let mut port = None;
    let mut mark = None;
    let mut scheduler = None;
    let mut persistence_engine = None;
    let mut flags = None;
    let mut timeout = None;
    let mut netmask = None;
    let mut stats = StatsOf::default();
    for attr in holder.nested("service") {
        let attr = attr?;
        match attr.kind {
            svc_attr::AF => family = Some(family_of(&attr, "service address family")?),
            svc_attr::PROTOCOL => protocol = Some(Protocol(attr.u16("service protocol")?)),
            svc_attr::ADDR => address = Some(attr.value),
            svc_attr::PORT => port = Some(attr.u16_be("service port")?),
            svc_attr::FWMARK => mark = Some(attr.u32("service mark")?),
            svc_attr::SCHED_NAME => {
                scheduler = Some(Scheduler::from(name(&attr, "scheduler name")?));
            }
            svc_attr::PE_NAME if !attr.text().is_empty() => {
                persistence_engine = Some(name(&attr, "persistence engine name")?);
            }
            svc_attr::FLAGS => flags = Some(service_flags(&attr)?),
            svc_attr::TIMEOUT => timeout = Some(attr.u32("service timeout")?),
            svc_attr::NETMASK => netmask = Some(attr.value),
            svc_attr::STATS => stats.narrow = Some(attr),
            svc_attr::STATS64 => stats.wide = Some(attr),
            _ => {}
        }
    }
    let family = required(family, "service address family")?;
    let id = match mark {
        Some(mark) => ServiceId::Mark {
            family,
            mark: NonZeroU32::new(mark).ok_or(DecodeError::Value {
                what: "service mark",
                value: 0,
            })?,
        },
        None => ServiceId::Address {
            protocol: required(protocol, "service protocol")?,
            address: address_of(
                family,
                required(address, "service address")?,
                "service address",
            )?,
            port: required(port, "service port")?,
        },
    };
    Ok(ServiceEntry {
        service: Service {
            id,
            scheduler: required(scheduler, "scheduler name")?,
            flags: required(flags, "service flags")?,
            timeout: required(timeout, "service timeout")?,
            netmask: netmask_of(family, required(netmask, "service netmask")?)?,
            persistence_engine,
        },
        stats: stats.read("service statistics")?,
    })
}

/// A destination of a service of the given family, which is the destination's own where the kernel
/// does not tell (before 3.18).
pub(crate) fn destination(content: &[u8], service: Family) -> Result<DestinationEntry> {
    let holder = nest(content, cmd_attr::DEST, "destination")?;
    let mut family = service;
    let mut address = None;
    let mut port = None;
    let mut method = None;
    let mut weight = None;
    let mut thresholds = (0, 0);
    let mut connections = (0, 0, 0);
    let mut tunnel = (tunnel_type::IPIP, 0, 0);
    let mut stats = StatsOf::default();
    for attr in holder.nested("destination") {
        let attr = attr?;
        match attr.kind {
            dest_attr::ADDR_FAMILY => family = family_of(&attr, "destination address family")?,
            dest_attr::ADDR => address = Some(attr.value),
            dest_attr::PORT => port = Some(attr.u16_be("destination port")?),
            dest_attr::FWD_METHOD => method = Some(attr.u32("forwarding method")?),
            dest_attr::WEIGHT => weight = Some(attr.u32("weight")?),
            dest_attr::U_THRESH => thresholds.0 = attr.u32("upper threshold")?,
            dest_attr::L_THRESH => thresholds.1 = attr.u32("lower threshold")?,
            dest_attr::ACTIVE_CONNS => connections.0 = attr.u32("active connections")?,
            dest_attr::INACT_CONNS => connections.1 = attr.u32("inactive connections")?,
            dest_attr::PERSIST_CONNS => connections.2 = attr.u32("persistent connections")?,
            dest_attr::TUN_TYPE => tunnel.0 = attr.u8("tunnel type")?,
            dest_attr::TUN_PORT => tunnel.1 = attr.u16_be("tunnel port")?,
            dest_attr::TUN_FLAGS => tunnel.2 = attr.u16("tunnel flags")?,
            dest_attr::STATS => stats.narrow = Some(attr),
            dest_attr::STATS64 => stats.wide = Some(attr),
            _ => {}
        }
    }
    let address = required(address, "destination address")?;
    Ok(DestinationEntry {
        destination: Destination {
            id: DestinationId {
                address: address_of(family, address, "destination address")?,
                port: required(port, "destination port")?,
            },
            forward: forward_of(required(method, "forwarding method")?, tunnel)?,
            weight: required(weight, "weight")?,
            upper_threshold: thresholds.0,
            lower_threshold: thresholds.1,
        },
        active_connections: connections.0,
        inactive_connections: connections.1,
        persistent_connections: connections.2,
        stats: stats.read("destination statistics")?,
    })
}

/// The time-outs of a namespace.
pub(crate) fn timeouts(content: &[u8]) -> Result<Timeouts> {
    let mut timeouts = Timeouts::default();
    for attr in Attrs::new(content, "time-outs") {
        let attr = attr?;
        match attr.kind {
            cmd_attr::TIMEOUT_TCP => timeouts.tcp = Some(attr.u32("TCP time-out")?),
            cmd_attr::TIMEOUT_TCP_FIN => timeouts.tcp_fin = Some(attr.u32("TCP FIN time-out")?),
            cmd_attr::TIMEOUT_UDP => timeouts.udp = Some(attr.u32("UDP time-out")?),
            _ => {}
        }
    }
    Ok(timeouts)
}

/// A synchronisation daemon.
pub(crate) fn sync_daemon(content: &[u8]) -> Result<SyncDaemon> {
    let holder = nest(content, cmd_attr::DAEMON, "synchronisation daemon")?;
    let mut role = None;
    let mut interface = None;
    let mut sync_id = None;
    let mut max_length = 0;
    let mut group = None;
    let mut port = 0;
    let mut ttl = 0;
    for attr in holder.nested("synchronisation daemon") {
        let attr = attr?;
        match attr.kind {
            daemon_attr::STATE => role = Some(sync_role(attr.u32("daemon state")?)?),
            daemon_attr::MCAST_IFN => interface = Some(name(&attr, "daemon interface")?),
            daemon_attr::SYNC_ID => {
                let value = attr.u32("daemon number")?;
                let what = "daemon number";
                let unknown = |_| DecodeError::Value {
                    what,
                    value: value.into(),
                };
                sync_id = Some(u8::try_from(value).map_err(unknown)?);
            }
            daemon_attr::SYNC_MAXLEN => max_length = attr.u16("daemon message length")?,
            daemon_attr::MCAST_GROUP => {
                group = Some(address_of(Family::V4, attr.value, "daemon group")?);
            }
            daemon_attr::MCAST_GROUP6 => {
                group = Some(address_of(Family::V6, attr.value, "daemon group")?);
            }
            daemon_attr::MCAST_PORT => port = attr.u16("daemon port")?,
            daemon_attr::MCAST_TTL => ttl = attr.u8("daemon time to live")?,
            _ => {}
        }
    }
    Ok(SyncDaemon {
        role: required(role, "daemon state")?,
        interface: required(interface, "daemon interface")?,
        sync_id: required(sync_id, "daemon number")?,
        max_length,
        group,
        port,
        ttl,
    })
}

fn sync_role(state: u32) -> Result<SyncRole> {
    match state {
        sync_state::MASTER => Ok(SyncRole::Master),
        sync_state::BACKUP => Ok(SyncRole::Backup),
        _ => Err(DecodeError::Value {
            what: "daemon state",
            value: state.into(),
        }),
    }
}

/// Facts about the kernel's IPVS.
pub(crate) fn info(content: &[u8]) -> Result<Info> {
    let [_, major, minor, patch] = nest(content, info_attr::VERSION, "version")?
        .u32("version")?
        .to_be_bytes();
    let size = nest(content, info_attr::CONN_TAB_SIZE, "connection table size")?;
    Ok(Info {
        version: (major, minor, patch),
        connection_table_size: size.u32("connection table size")?,
    })
}

fn nest<'a>(content: &'a [u8], kind: u16, what: &'static str) -> Result<Attr<'a>> {
    for attr in Attrs::new(content, what) {
        let attr = attr?;
        if attr.kind == kind {
            return Ok(attr);
        }
    }
    Err(DecodeError::Missing { what })
}

fn required<T>(value: Option<T>, what: &'static str) -> Result<T> {
    value.ok_or(DecodeError::Missing { what })
}

fn family_of(attr: &Attr<'_>, what: &'static str) -> Result<Family> {
    let value = attr.u16(what)?;
    Family::from_wire(value).ok_or(DecodeError::Value {
        what,
        value: value.into(),
    })
}

fn name(attr: &Attr<'_>, what: &'static str) -> Result<Name> {
    Name::from_bytes(attr.text()).ok_or(DecodeError::Name { what })
}

/// An address in a field that is large enough for the other family too.
fn address_of(family: Family, bytes: &[u8], what: &'static str) -> Result<IpAddr> {
    let short = DecodeError::Length {
        what,
        actual: bytes.len(),
    };
    match family {
        Family::V4 => match bytes.first_chunk::<4>() {
            Some(octets) => Ok(Ipv4Addr::from(*octets).into()),
            None => Err(short),
        },
        Family::V6 => match bytes.first_chunk::<16>() {
            Some(octets) => Ok(Ipv6Addr::from(*octets).into()),
            None => Err(short),
        },
    }
}

fn service_flags(attr: &Attr<'_>) -> Result<ServiceFlags> {
    match attr.value.first_chunk::<4>() {
        Some(bits) if attr.value.len() == 8 => {
            Ok(ServiceFlags::from_bits(u32::from_ne_bytes(*bits)))
        }
        _ => Err(DecodeError::Length {
            what: "service flags",
            actual: attr.value.len(),
        }),
    }
}

/// IPv4: a mask in network order. IPv6: a prefix length in host order.
fn netmask_of(family: Family, bytes: &[u8]) -> Result<Netmask> {
    let what = "service netmask";
    let bytes: [u8; 4] = bytes.try_into().map_err(|_| DecodeError::Length {
        what,
        actual: bytes.len(),
    })?;
    match family {
        Family::V4 => Ok(Netmask::V4(Ipv4Addr::from(bytes))),
        Family::V6 => {
            let prefix = u32::from_ne_bytes(bytes);
            match u8::try_from(prefix) {
                Ok(prefix) if prefix <= 128 => Ok(Netmask::V6(prefix)),
                _ => Err(DecodeError::Value {
                    what,
                    value: prefix.into(),
                }),
            }
        }
    }
}

fn forward_of(method: u32, (kind, port, flags): (u8, u16, u16)) -> Result<Forward> {
    Ok(match method & forward::MASK {
        forward::MASQ => Forward::Masquerade,
        forward::LOCALNODE => Forward::Local,
        forward::DROUTE => Forward::Route,
        forward::BYPASS => Forward::Bypass,
        forward::TUNNEL => Forward::Tunnel(Tunnel {
            kind: match kind {
                tunnel_type::IPIP => TunnelKind::Ipip,
                tunnel_type::GUE => TunnelKind::Gue,
                tunnel_type::GRE => TunnelKind::Gre,
                other => TunnelKind::Other(other),
            },
            port,
            flags: TunnelFlags::from_bits(flags),
        }),
        other => {
            return Err(DecodeError::Value {
                what: "forwarding method",
                value: other.into(),
            });
        }
    })
}

/// The two forms in which the kernel sends the same counters.
#[derive(Default)]
struct StatsOf<'a> {
    narrow: Option<Attr<'a>>,
    wide: Option<Attr<'a>>,
}

impl StatsOf<'_> {
    fn read(&self, what: &'static str) -> Result<Stats> {
        let mut stats = Stats {
            wide: self.wide.is_some(),
            ..Stats::default()
        };
        let holder = required(self.wide.or(self.narrow), what)?;
        for attr in holder.nested(what) {
            let attr = attr?;
            let field = match attr.kind {
                stats_attr::CONNS => &mut stats.connections,
                stats_attr::INPKTS => &mut stats.packets_in,
                stats_attr::OUTPKTS => &mut stats.packets_out,
                stats_attr::INBYTES => &mut stats.bytes_in,
                stats_attr::OUTBYTES => &mut stats.bytes_out,
                stats_attr::CPS => &mut stats.connections_per_second,
                stats_attr::INPPS => &mut stats.packets_in_per_second,
                stats_attr::OUTPPS => &mut stats.packets_out_per_second,
                stats_attr::INBPS => &mut stats.bytes_in_per_second,
                stats_attr::OUTBPS => &mut stats.bytes_out_per_second,
                _ => continue,
            };
            *field = attr.u32_or_u64(what)?;
        }
        Ok(stats)
    }
}
