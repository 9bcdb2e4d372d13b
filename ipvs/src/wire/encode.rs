//! Requests.

use std::fmt;
use std::net::IpAddr;

use crate::destination::{Destination, DestinationId, Forward, Tunnel, TunnelKind};
use crate::operation::Operation;
use crate::service::{Netmask, Service, ServiceId};
use crate::stats::Timeouts;
use crate::sync::{SyncDaemon, SyncRole};
use crate::uapi::{
    FAMILY_NAME, FAMILY_VERSION, cmd, cmd_attr, ctrl, daemon_attr, dest_attr, forward, svc_attr,
    sync_state, tunnel_type,
};
use crate::wire::attr;
use crate::wire::message::{self, Want};

/// Something to ask, beside the operations.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Query {
    Services,
    Service(ServiceId),
    Destinations(ServiceId),
    Timeouts,
    SyncDaemons,
    Info,
}

impl Query {
    /// Appends the request.
    pub(crate) fn put(&self, buf: &mut Vec<u8>, family: u16, sequence: u32) {
        let (command, want) = match self {
            Self::Services => (cmd::GET_SERVICE, Want::All),
            Self::Service(_) => (cmd::GET_SERVICE, Want::One),
            Self::Destinations(_) => (cmd::GET_DEST, Want::All),
            Self::Timeouts => (cmd::GET_CONFIG, Want::One),
            Self::SyncDaemons => (cmd::GET_DAEMON, Want::All),
            Self::Info => (cmd::GET_INFO, Want::One),
        };
        message::put(
            buf,
            (family, FAMILY_VERSION, command),
            want,
            sequence,
            |buf| match self {
                Self::Service(id) | Self::Destinations(id) => {
                    attr::put_nested(buf, cmd_attr::SERVICE, |buf| put_service_id(buf, id));
                }
                Self::Services | Self::Timeouts | Self::SyncDaemons | Self::Info => {}
            },
        );
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services => f.write_str("list the services"),
            Self::Service(id) => write!(f, "read service {id}"),
            Self::Destinations(id) => write!(f, "list the destinations of service {id}"),
            Self::Timeouts => f.write_str("read the time-outs"),
            Self::SyncDaemons => f.write_str("list the synchronisation daemons"),
            Self::Info => f.write_str("read the version"),
        }
    }
}

/// Appends the question for the family's number. The kernel loads the module when it lacks.
pub(crate) fn put_family_query(buf: &mut Vec<u8>, sequence: u32) {
    let command = (ctrl::ID, ctrl::VERSION, ctrl::CMD_GETFAMILY);
    message::put(buf, command, Want::One, sequence, |buf| {
        attr::put_str(buf, ctrl::ATTR_FAMILY_NAME, FAMILY_NAME);
    });
}

/// Appends the request of an operation.
pub(crate) fn put_operation(buf: &mut Vec<u8>, family: u16, sequence: u32, operation: &Operation) {
    use Operation as Op;
    let command = match operation {
        Op::AddService(_) => cmd::NEW_SERVICE,
        Op::SetService(_) => cmd::SET_SERVICE,
        Op::DeleteService(_) => cmd::DEL_SERVICE,
        Op::AddDestination(..) => cmd::NEW_DEST,
        Op::SetDestination(..) => cmd::SET_DEST,
        Op::DeleteDestination(..) => cmd::DEL_DEST,
        Op::ZeroService(_) | Op::ZeroAll => cmd::ZERO,
        Op::Flush => cmd::FLUSH,
        Op::SetTimeouts(_) => cmd::SET_CONFIG,
        Op::StartSync(_) => cmd::NEW_DAEMON,
        Op::StopSync(_) => cmd::DEL_DAEMON,
    };
    let head = (family, FAMILY_VERSION, command);
    message::put(buf, head, Want::Ack, sequence, |buf| match operation {
        Op::AddService(service) | Op::SetService(service) => {
            attr::put_nested(buf, cmd_attr::SERVICE, |buf| put_service(buf, service));
        }
        Op::DeleteService(id) | Op::ZeroService(id) => {
            attr::put_nested(buf, cmd_attr::SERVICE, |buf| put_service_id(buf, id));
        }
        Op::AddDestination(id, destination) | Op::SetDestination(id, destination) => {
            attr::put_nested(buf, cmd_attr::SERVICE, |buf| put_service_id(buf, id));
            attr::put_nested(buf, cmd_attr::DEST, |buf| put_destination(buf, destination));
        }
        Op::DeleteDestination(id, destination) => {
            attr::put_nested(buf, cmd_attr::SERVICE, |buf| put_service_id(buf, id));
            attr::put_nested(buf, cmd_attr::DEST, |buf| {
                put_destination_id(buf, destination)
            });
        }
        Op::SetTimeouts(timeouts) => put_timeouts(buf, timeouts),
        Op::StartSync(daemon) => {
            attr::put_nested(buf, cmd_attr::DAEMON, |buf| put_sync_daemon(buf, daemon));
        }
        Op::StopSync(role) => {
            attr::put_nested(buf, cmd_attr::DAEMON, |buf| put_sync_role(buf, *role));
        }
        Op::ZeroAll | Op::Flush => {}
    });
}

/// `union nf_inet_addr`: always 16 bytes, of which IPv4 uses the first four.
fn put_address(buf: &mut Vec<u8>, kind: u16, address: &IpAddr) {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    attr::put(buf, kind, &bytes);
}

fn put_service_id(buf: &mut Vec<u8>, id: &ServiceId) {
    attr::put_u16(buf, svc_attr::AF, id.family().to_wire());
    match id {
        ServiceId::Mark { mark, .. } => attr::put_u32(buf, svc_attr::FWMARK, mark.get()),
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            attr::put_u16(buf, svc_attr::PROTOCOL, protocol.0);
            put_address(buf, svc_attr::ADDR, address);
            attr::put_u16_be(buf, svc_attr::PORT, *port);
        }
    }
}

fn put_service(buf: &mut Vec<u8>, service: &Service) {
    put_service_id(buf, &service.id);
    attr::put_str(buf, svc_attr::SCHED_NAME, service.scheduler.as_str());
    if let Some(engine) = &service.persistence_engine {
        attr::put_str(buf, svc_attr::PE_NAME, engine.as_str());
    }
    // `struct ip_vs_flags`: the flags, and which of them to take over, which is all of them.
    let mut flags = [0xff; 8];
    flags[..4].copy_from_slice(&service.flags.bits().to_ne_bytes());
    attr::put(buf, svc_attr::FLAGS, &flags);
    attr::put_u32(buf, svc_attr::TIMEOUT, service.timeout);
    match service.netmask {
        Netmask::V4(mask) => attr::put(buf, svc_attr::NETMASK, &mask.octets()),
        Netmask::V6(prefix) => attr::put_u32(buf, svc_attr::NETMASK, prefix.into()),
    }
}

fn put_destination_id(buf: &mut Vec<u8>, id: &DestinationId) {
    attr::put_u16(buf, dest_attr::ADDR_FAMILY, id.family().to_wire());
    put_address(buf, dest_attr::ADDR, &id.address);
    attr::put_u16_be(buf, dest_attr::PORT, id.port);
}

fn put_destination(buf: &mut Vec<u8>, destination: &Destination) {
    put_destination_id(buf, &destination.id);
    let method = match destination.forward {
        Forward::Masquerade => forward::MASQ,
        Forward::Local => forward::LOCALNODE,
        Forward::Tunnel(_) => forward::TUNNEL,
        Forward::Route => forward::DROUTE,
        Forward::Bypass => forward::BYPASS,
    };
    attr::put_u32(buf, dest_attr::FWD_METHOD, method);
    attr::put_u32(buf, dest_attr::WEIGHT, destination.weight);
    // The kernel reads absent as IPIP, and kernels before 5.2 know no other.
    if let Forward::Tunnel(tunnel) = destination.forward
        && tunnel != Tunnel::IPIP
    {
        let kind = match tunnel.kind {
            TunnelKind::Ipip => tunnel_type::IPIP,
            TunnelKind::Gue => tunnel_type::GUE,
            TunnelKind::Gre => tunnel_type::GRE,
            TunnelKind::Other(number) => number,
        };
        attr::put_u8(buf, dest_attr::TUN_TYPE, kind);
        attr::put_u16_be(buf, dest_attr::TUN_PORT, tunnel.port);
        attr::put_u16(buf, dest_attr::TUN_FLAGS, tunnel.flags.bits());
    }
    attr::put_u32(buf, dest_attr::U_THRESH, destination.upper_threshold);
    attr::put_u32(buf, dest_attr::L_THRESH, destination.lower_threshold);
}

fn put_timeouts(buf: &mut Vec<u8>, timeouts: &Timeouts) {
    for (kind, value) in [
        (cmd_attr::TIMEOUT_TCP, timeouts.tcp),
        (cmd_attr::TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (cmd_attr::TIMEOUT_UDP, timeouts.udp),
    ] {
        if let Some(value) = value {
            attr::put_u32(buf, kind, value);
        }
    }
}

fn put_sync_role(buf: &mut Vec<u8>, role: SyncRole) {
    let state = match role {
        SyncRole::Master => sync_state::MASTER,
        SyncRole::Backup => sync_state::BACKUP,
    };
    attr::put_u32(buf, daemon_attr::STATE, state);
}

fn put_sync_daemon(buf: &mut Vec<u8>, daemon: &SyncDaemon) {
    put_sync_role(buf, daemon.role);
    attr::put_str(buf, daemon_attr::MCAST_IFN, daemon.interface.as_str());
    attr::put_u32(buf, daemon_attr::SYNC_ID, daemon.sync_id.into());
    if daemon.max_length > 0 {
        attr::put_u16(buf, daemon_attr::SYNC_MAXLEN, daemon.max_length);
    }
    // Unlike the ports of services, in host order.
    if daemon.port > 0 {
        attr::put_u16(buf, daemon_attr::MCAST_PORT, daemon.port);
    }
    if daemon.ttl > 0 {
        attr::put_u8(buf, daemon_attr::MCAST_TTL, daemon.ttl);
    }
    match daemon.group {
        Some(IpAddr::V4(group)) => attr::put(buf, daemon_attr::MCAST_GROUP, &group.octets()),
        Some(IpAddr::V6(group)) => attr::put(buf, daemon_attr::MCAST_GROUP6, &group.octets()),
        None => {}
    }
}
