//! Writing commands.

use std::net::SocketAddr;

use crate::destination::{Destination, Forward, Tunnel, TunnelFlags, TunnelKind};
use crate::name::Scheduler;
use crate::operation::Operation;
use crate::plan::Pool;
use crate::service::{
    Family, Netmask, Protocol, Service, ServiceFlags, ServiceId, in_listing_order,
};
use crate::sync::SyncDaemon;

/// Services and their destinations as `ipvsadm -Sn` writes them, sorted by mark, family, protocol,
/// address and port.
///
/// ```
/// use ipvs::{Destination, DestinationId, Forward, Pool, Scheduler, Service, ServiceId, text};
///
/// let backend = DestinationId::new([10, 0, 1, 1], 8080);
/// let pools = [Pool {
///     service: Service::new(ServiceId::tcp([10, 0, 0, 1], 80), Scheduler::WLC),
///     destinations: vec![Destination::new(backend, Forward::Masquerade)],
/// }];
/// let saved = text::save(&pools);
/// assert_eq!(
///     saved,
///     "-A -t 10.0.0.1:80 -s wlc\n-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 1\n"
/// );
/// assert_eq!(text::parse_pools(&saved).unwrap(), pools);
/// ```
pub fn save(pools: &[Pool]) -> String {
    let mut pools: Vec<&Pool> = pools.iter().collect();
    pools.sort_by_key(|pool| in_listing_order(&pool.service.id));
    let mut text = String::new();
    for pool in pools {
        let id = pool.service.id;
        text += &command(&Operation::AddService(pool.service));
        text.push('\n');
        let mut destinations: Vec<&Destination> = pool.destinations.iter().collect();
        destinations.sort_by_key(|destination| destination.id);
        for destination in destinations {
            text += &command(&Operation::AddDestination(id, *destination));
            text.push('\n');
        }
    }
    text
}

/// An operation as options of `ipvsadm`.
///
/// Where `ipvsadm` has no word for something ([`Forward::Local`], [`Forward::Bypass`], protocols
/// other than TCP, UDP and SCTP) the nearest is written.
pub fn command(operation: &Operation) -> String {
    match operation {
        Operation::AddService(service) => format!("-A {}", service_options(service)),
        Operation::SetService(service) => format!("-E {}", service_options(service)),
        Operation::DeleteService(id) => format!("-D {}", service_id(id)),
        Operation::AddDestination(id, destination) => {
            format!("-a {} {}", service_id(id), destination_options(destination))
        }
        Operation::SetDestination(id, destination) => {
            format!("-e {} {}", service_id(id), destination_options(destination))
        }
        Operation::DeleteDestination(id, destination) => {
            format!("-d {} -r {destination}", service_id(id))
        }
        Operation::ZeroService(id) => format!("-Z {}", service_id(id)),
        Operation::ZeroAll => "-Z".to_owned(),
        Operation::Flush => "-C".to_owned(),
        Operation::SetTimeouts(timeouts) => {
            let [tcp, tcp_fin, udp] =
                [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(Option::unwrap_or_default);
            format!("--set {tcp} {tcp_fin} {udp}")
        }
        Operation::StartSync(daemon) => start_daemon(daemon),
        Operation::StopSync(role) => format!("--stop-daemon {role}"),
    }
}

/// What tells a service from others, as options.
fn service_id(id: &ServiceId) -> String {
    match id {
        ServiceId::Mark { family, mark } => match family {
            Family::V4 => format!("-f {mark}"),
            Family::V6 => format!("-f {mark} -6"),
        },
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            let option = match *protocol {
                Protocol::UDP => "-u",
                Protocol::SCTP => "--sctp-service",
                _ => "-t",
            };
            format!("{option} {}", SocketAddr::new(*address, *port))
        }
    }
}

fn service_options(service: &Service) -> String {
    let mut text = format!("{} -s {}", service_id(&service.id), service.scheduler);
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        text += &format!(" -p {}", service.timeout);
    }
    if service.netmask != Netmask::host(service.id.family()) {
        text += &format!(" -M {}", service.netmask);
    }
    if let Some(engine) = service.persistence_engine {
        text += &format!(" --pe {engine}");
    }
    if service.flags.contains(ServiceFlags::ONE_PACKET) {
        text += " -o";
    }
    let flags = scheduler_flags(service);
    if !flags.is_empty() {
        text += &format!(" -b {flags}");
    }
    text
}

/// A service's scheduler flags by the names that its scheduler has for them, separated by commas.
pub fn scheduler_flags(service: &Service) -> String {
    let names = match service.scheduler {
        Scheduler::SH => ["sh-fallback", "sh-port", "flag-3"],
        Scheduler::MH => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let flags = [
        ServiceFlags::SCHED1,
        ServiceFlags::SCHED2,
        ServiceFlags::SCHED3,
    ];
    let set: Vec<&str> = (names.into_iter().zip(flags))
        .filter(|(_, flag)| service.flags.contains(*flag))
        .map(|(name, _)| name)
        .collect();
    set.join(",")
}

fn destination_options(destination: &Destination) -> String {
    let method = match destination.forward {
        Forward::Masquerade => "-m",
        Forward::Tunnel(_) => "-i",
        Forward::Route | Forward::Local | Forward::Bypass => "-g",
    };
    let mut text = format!("-r {} {method} -w {}", destination.id, destination.weight);
    if let Forward::Tunnel(tunnel) = destination.forward {
        text += &tunnel_options(&tunnel);
    }
    if destination.upper_threshold > 0 {
        text += &format!(" -x {}", destination.upper_threshold);
    }
    if destination.lower_threshold > 0 {
        text += &format!(" -y {}", destination.lower_threshold);
    }
    text
}

fn tunnel_options(tunnel: &Tunnel) -> String {
    let checksum = match tunnel.flags {
        TunnelFlags::NONE => "--tun-nocsum",
        TunnelFlags::CHECKSUM => "--tun-csum",
        _ => "--tun-remcsum",
    };
    match tunnel.kind {
        TunnelKind::Ipip | TunnelKind::Other(_) => " --tun-type ipip".to_owned(),
        TunnelKind::Gue => format!(" --tun-type gue --tun-port {} {checksum}", tunnel.port),
        TunnelKind::Gre if tunnel.flags.contains(TunnelFlags::CHECKSUM) => {
            " --tun-type gre --tun-csum".to_owned()
        }
        TunnelKind::Gre => " --tun-type gre --tun-nocsum".to_owned(),
    }
}

fn start_daemon(daemon: &SyncDaemon) -> String {
    let mut text = format!(
        "--start-daemon {} --mcast-interface {} --syncid {}",
        daemon.role, daemon.interface, daemon.sync_id
    );
    if daemon.max_length > 0 {
        text += &format!(" --sync-maxlen {}", daemon.max_length);
    }
    if let Some(group) = daemon.group {
        text += &format!(" --mcast-group {group}");
    }
    if daemon.port > 0 {
        text += &format!(" --mcast-port {}", daemon.port);
    }
    if daemon.ttl > 0 {
        text += &format!(" --mcast-ttl {}", daemon.ttl);
    }
    text
}
