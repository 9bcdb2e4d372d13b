//! Lists services and destinations as `ipvsadm -Ln` does.
//!
//! `cargo run --example list` shows the current network namespace, `cargo run --example list --
//! /run/netns/NAME` another one. Needs root.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;

use ipvs::{Client, Family, Netmask, Service, ServiceFlags, ServiceId};

fn main() -> Result<(), Box<dyn Error>> {
    let mut client = match std::env::args_os().nth(1) {
        Some(path) => Client::open_in(File::open(path)?.as_fd())?,
        None => Client::open()?,
    };
    let info = client.info()?;
    let (major, minor, patch) = info.version;
    println!(
        "IP Virtual Server version {major}.{minor}.{patch} (size={})",
        info.connection_table_size
    );
    println!("Prot LocalAddress:Port Scheduler Flags");
    println!("  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn");
    let mut services = client.services()?;
    services.sort_by_key(|entry| order(&entry.service.id));
    for entry in services {
        println!("{}", heading(&entry.service));
        for entry in client.destinations(&entry.service.id)? {
            println!(
                "  -> {:<28} {:<7} {:<6} {:<10} {:<10}",
                entry.destination.id.to_string(),
                entry.destination.forward,
                entry.destination.weight,
                entry.active_connections,
                entry.inactive_connections
            );
        }
    }
    Ok(())
}

/// Marks last, then by family, protocol, address and port: the derived order of the parts.
fn order(id: &ServiceId) -> (u32, Family, ServiceId) {
    let mark = match id {
        ServiceId::Address { .. } => 0,
        ServiceId::Mark { mark, .. } => mark.get(),
    };
    (mark, id.family(), *id)
}

fn heading(service: &Service) -> String {
    let id = service.id.to_string();
    // The first word, protocol or `FWM`, is a column.
    let (kind, rest) = id.split_once(' ').unwrap_or((&id, ""));
    let mut line = format!("{kind:<4} {rest} {}", service.scheduler);
    let mut options = Vec::new();
    let hashed = service.scheduler.as_str();
    if service.flags.contains(ServiceFlags::SH_FALLBACK) {
        options.push(format!("{hashed}-fallback"));
    }
    if service.flags.contains(ServiceFlags::SH_PORT) {
        options.push(format!("{hashed}-port"));
    }
    if !options.is_empty() {
        line += &format!(" ({})", options.join(","));
    }
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        line += &format!(" persistent {}", service.timeout);
        if service.netmask != Netmask::host(service.id.family()) {
            line += &match service.netmask {
                Netmask::V4(mask) => format!(" mask {mask}"),
                Netmask::V6(prefix) => format!(" mask {prefix}"),
            };
        }
    }
    if let Some(engine) = service.persistence_engine {
        line += &format!(" pe {engine}");
    }
    if service.flags.contains(ServiceFlags::ONE_PACKET) {
        line += " ops";
    }
    line
}
