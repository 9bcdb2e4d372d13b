//! The kernel's IPVS for programs.

use ipvs::{
    Connection, Destination, DestinationEntry, Forward, PoolEntry, Service, ServiceEntry,
    ServiceFlags, ServiceId, Stats, SyncDaemon, Timeouts, text,
};
use serde_json::{Value, json};

/// A service with its destinations.
pub fn pool(entry: &PoolEntry) -> Value {
    let ServiceEntry { service, stats, .. } = &entry.service;
    let mut object = json!({
        "scheduler": service.scheduler.to_string(),
        "scheduler_flags": text::scheduler_flags(service),
        "one_packet": service.flags.contains(ServiceFlags::ONE_PACKET),
        "persistent": persistence(service),
        "stats": counters(stats),
        "destinations": entry.destinations.iter().map(destination).collect::<Vec<_>>(),
    });
    match service.id {
        ServiceId::Mark { family, mark } => {
            object["mark"] = mark.get().into();
            object["family"] = family.to_string().into();
        }
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            object["protocol"] = protocol.to_string().into();
            object["address"] = address.to_string().into();
            object["port"] = port.into();
        }
    }
    object
}

fn persistence(service: &Service) -> Value {
    if !service.flags.contains(ServiceFlags::PERSISTENT) {
        return Value::Null;
    }
    json!({
        "seconds": service.timeout,
        "netmask": service.netmask.to_string(),
        "engine": service.persistence_engine.map(|engine| engine.to_string()),
    })
}

fn destination(entry: &DestinationEntry) -> Value {
    let Destination {
        id,
        forward,
        weight,
        upper_threshold,
        lower_threshold,
    } = entry.destination;
    let tunnel = match forward {
        Forward::Tunnel(_) => text::tunnel_info(&forward).into(),
        _ => Value::Null,
    };
    json!({
        "address": id.address.to_string(),
        "port": id.port,
        "forward": forward.to_string(),
        "tunnel": tunnel,
        "weight": weight,
        "upper_threshold": upper_threshold,
        "lower_threshold": lower_threshold,
        "active_connections": entry.active_connections,
        "inactive_connections": entry.inactive_connections,
        "persistent_connections": entry.persistent_connections,
        "stats": counters(&entry.stats),
    })
}

fn counters(stats: &Stats) -> Value {
    json!({
        "connections": stats.connections,
        "packets_in": stats.packets_in,
        "packets_out": stats.packets_out,
        "bytes_in": stats.bytes_in,
        "bytes_out": stats.bytes_out,
        "connections_per_second": stats.connections_per_second,
        "packets_in_per_second": stats.packets_in_per_second,
        "packets_out_per_second": stats.packets_out_per_second,
        "bytes_in_per_second": stats.bytes_in_per_second,
        "bytes_out_per_second": stats.bytes_out_per_second,
    })
}

/// A connection.
pub fn connection(connection: Connection) -> Value {
    json!({
        "protocol": connection.protocol.to_string(),
        "client": connection.client.to_string(),
        "virtual": connection.virtual_address.to_string(),
        "destination": connection.destination.to_string(),
        "state": connection.state.to_string(),
        "expires_seconds": connection.expires,
        "template": connection.is_template(),
        "persistence": connection.persistence.map(|p| json!({
            "engine": p.engine.to_string(), "data": p.data,
        })),
    })
}

/// The time-outs, in seconds.
pub fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "tcp": timeouts.tcp,
        "tcp_fin": timeouts.tcp_fin,
        "udp": timeouts.udp,
    })
}

/// A synchronisation daemon.
pub fn daemon(daemon: &SyncDaemon) -> Value {
    json!({
        "role": daemon.role.to_string(),
        "interface": daemon.interface.to_string(),
        "sync_id": daemon.sync_id,
        "max_length": daemon.max_length,
        "group": daemon.group,
        "port": daemon.port,
        "ttl": daemon.ttl,
    })
}
