//! Reading commands: from lines to operations.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::line::{Line, name};
use super::options::{Command, Key};
use super::problem::{ParseError, Problem};
use super::value::{endpoint, kernel_name, mark, netmask, number, scheduler_flags};
use crate::destination::{Destination, DestinationId, Forward, Tunnel, TunnelFlags, TunnelKind};
use crate::name::{Name, Scheduler};
use crate::operation::Operation;
use crate::plan::Pool;
use crate::service::{Family, Protocol, Service, ServiceFlags, ServiceId};
use crate::stats::Timeouts;
use crate::sync::{SyncDaemon, SyncRole};

/// The longest time-out that `ipvsadm` takes, in seconds: 31 days.
const MAX_TIMEOUT: u32 = 86_400 * 31;
/// The longest persistence that the kernel can count, in seconds; `ipvsadm` takes 31 days.
const MAX_PERSISTENCE: u32 = 4_294_967;
/// How long `-p` without a value keeps a client's destination, in seconds
/// (`IPVS_SVC_PERSISTENT_TIMEOUT`).
const PERSISTENT_TIMEOUT: u32 = 360;
/// The interface of a synchronisation daemon for which none is named.
const INTERFACE: &str = "eth0";

/// Reads commands, one per line, as `ipvsadm -R` does: the output of `ipvsadm -Sn`, and all else
/// that changes something. Addresses and ports must be numbers.
///
/// # Errors
///
/// The first line that cannot be read, with its number.
pub fn parse(text: &str) -> Result<Vec<Operation>, ParseError> {
    operations(text)
        .map(|item| item.map(|(_, _, operation)| operation))
        .collect()
}

/// The same, with the number of each operation's line.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_lines(text: &str) -> Result<Vec<(usize, Operation)>, ParseError> {
    operations(text)
        .map(|item| item.map(|(line, _, operation)| (line, operation)))
        .collect()
}

/// Reads a saved table: services (`-A`) and the servers (`-a`) behind them.
///
/// # Errors
///
/// As [`parse`], and for other commands, servers of services that were not added before, and what
/// is added twice.
pub fn parse_pools(text: &str) -> Result<Vec<Pool>, ParseError> {
    let mut pools: Vec<Pool> = Vec::new();
    let mut places: HashMap<ServiceId, usize> = HashMap::new();
    let mut servers = HashSet::new();
    for item in operations(text) {
        let (line, command, operation) = item?;
        let at = |problem| ParseError { line, problem };
        match operation {
            Operation::AddService(service) => {
                if places.insert(service.id, pools.len()).is_some() {
                    let object = format!("service {}", service.id);
                    return Err(at(Problem::Duplicate { object }));
                }
                pools.push(Pool {
                    service,
                    destinations: Vec::new(),
                });
            }
            Operation::AddDestination(service, destination) => {
                let pool = places.get(&service).and_then(|place| pools.get_mut(*place));
                let pool = pool.ok_or_else(|| at(Problem::NoService { service }))?;
                if !servers.insert((service, destination.id)) {
                    let object = format!("server {} of service {service}", destination.id);
                    return Err(at(Problem::Duplicate { object }));
                }
                pool.destinations.push(destination);
            }
            _ => return Err(at(Problem::NotSaved { command })),
        }
    }
    Ok(pools)
}

/// The commands of a text, with their line's number and their name.
fn operations(text: &str) -> impl Iterator<Item = Result<(usize, String, Operation), ParseError>> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let read = || {
            let Some(line) = Line::read(line)? else {
                return Ok(None);
            };
            let operation = operation(&line)?;
            Ok(Some((number, line.command_text, operation)))
        };
        read()
            .map_err(|problem| ParseError {
                line: number,
                problem,
            })
            .transpose()
    })
}

fn operation(line: &Line<'_>) -> Result<Operation, Problem> {
    if line.command != Command::SetTimeouts
        && let Some(word) = line.rest.first()
    {
        return Err(Problem::Unexpected {
            word: (*word).to_owned(),
        });
    }
    Ok(match line.command {
        Command::AddService => Operation::AddService(service(line)?),
        Command::EditService => Operation::SetService(service(line)?),
        Command::DeleteService => Operation::DeleteService(needed_service_id(line)?),
        Command::Clear => Operation::Flush,
        Command::Zero => service_id(line)?.map_or(Operation::ZeroAll, Operation::ZeroService),
        Command::AddServer => {
            let (service, destination) = server(line)?;
            Operation::AddDestination(service, destination)
        }
        Command::EditServer => {
            let (service, destination) = server(line)?;
            Operation::SetDestination(service, destination)
        }
        Command::DeleteServer => {
            let service = needed_service_id(line)?;
            Operation::DeleteDestination(service, server_id(line, &service)?)
        }
        Command::SetTimeouts => Operation::SetTimeouts(timeouts(line)?),
        Command::StartDaemon => Operation::StartSync(daemon(line)?),
        Command::StopDaemon => Operation::StopSync(role(line)?),
        Command::Passive => {
            return Err(Problem::Passive {
                option: line.command_text.clone(),
            });
        }
    })
}

fn missing(line: &Line<'_>, option: &'static str) -> Problem {
    Problem::Missing {
        option,
        command: line.command_text.clone(),
    }
}

const SERVICES: &[Key] = &[Key::Tcp, Key::Udp, Key::Sctp, Key::Mark];

fn needed_service_id(line: &Line<'_>) -> Result<ServiceId, Problem> {
    service_id(line)?.ok_or_else(|| missing(line, "a service: -t, -u, --sctp-service or -f"))
}

fn service_id(line: &Line<'_>) -> Result<Option<ServiceId>, Problem> {
    line.at_most_one(SERVICES)?;
    let v6 = line.has(Key::V6);
    let Some((spec, _)) = line.first_of(SERVICES) else {
        return match v6 {
            true => Err(missing(line, "-f, to which -6 belongs")),
            false => Ok(None),
        };
    };
    let protocol = match spec.key {
        Key::Tcp => Protocol::TCP,
        Key::Udp => Protocol::UDP,
        Key::Sctp => Protocol::SCTP,
        _ => {
            let mark = line.value(Key::Mark, mark)?;
            let family = if v6 { Family::V6 } else { Family::V4 };
            return Ok(mark.map(|mark| ServiceId::Mark { family, mark }));
        }
    };
    if v6 {
        return Err(Problem::Conflict {
            option: "-6".to_owned(),
            with: name(spec),
        });
    }
    let endpoint = line.value(spec.key, endpoint)?;
    Ok(endpoint.map(|(address, port)| ServiceId::Address {
        protocol,
        address,
        port: port.unwrap_or(0),
    }))
}

fn service(line: &Line<'_>) -> Result<Service, Problem> {
    let id = needed_service_id(line)?;
    let mut service = Service::new(id, Scheduler::WLC);
    if let Some(scheduler) = line.value(Key::Scheduler, kernel_name)? {
        service.scheduler = Scheduler::from(scheduler);
    }
    let scheduler = service.scheduler;
    if let Some(flags) = line.value(Key::SchedulerFlags, |text| scheduler_flags(text, scheduler))? {
        service.flags |= flags;
    }
    if line.has(Key::Persistent) {
        service.flags |= ServiceFlags::PERSISTENT;
        let expected = "a time from 1 to 4294967 seconds";
        let timeout = line.value(Key::Persistent, number(1, MAX_PERSISTENCE, expected))?;
        service.timeout = timeout.unwrap_or(PERSISTENT_TIMEOUT);
    }
    if let Some(netmask) = line.value(Key::Netmask, |text| netmask(text, id.family()))? {
        service.netmask = netmask;
    }
    service.persistence_engine = line.value(Key::Engine, kernel_name)?;
    if line.has(Key::OnePacket) {
        service.flags |= ServiceFlags::ONE_PACKET;
    }
    if let ServiceId::Address { protocol, port, .. } = id {
        if port == 0 && !service.flags.contains(ServiceFlags::PERSISTENT) {
            return Err(Problem::AnyPort);
        }
        if service.flags.contains(ServiceFlags::ONE_PACKET) && protocol != Protocol::UDP {
            return Err(Problem::OnePacket);
        }
    }
    Ok(service)
}

fn server_id(line: &Line<'_>, service: &ServiceId) -> Result<DestinationId, Problem> {
    let endpoint = line.value(Key::Server, endpoint)?;
    let (address, port) = endpoint.ok_or_else(|| missing(line, "a server: -r"))?;
    // Without a port it is the service's. (For `ipvsadm` it always is, but for masquerading.)
    let port = port.unwrap_or(match service {
        ServiceId::Address { port, .. } => *port,
        ServiceId::Mark { .. } => 0,
    });
    Ok(DestinationId { address, port })
}

fn server(line: &Line<'_>) -> Result<(ServiceId, Destination), Problem> {
    let service = needed_service_id(line)?;
    let id = server_id(line, &service)?;
    let forward = forward(line)?;
    if id.family() != service.family() && !matches!(forward, Forward::Tunnel(_)) {
        return Err(Problem::MixedFamilies);
    }
    let mut destination = Destination::new(id, forward);
    let signed = i32::MAX.unsigned_abs();
    let expected = "a number from 0 to 2147483647";
    if let Some(weight) = line.value(Key::Weight, number(0, signed, expected))? {
        destination.weight = weight;
    }
    if let Some(threshold) = line.value(Key::Upper, number(0, signed, expected))? {
        destination.upper_threshold = threshold;
    }
    if let Some(threshold) = line.value(Key::Lower, number(0, signed, expected))? {
        destination.lower_threshold = threshold;
    }
    Ok((service, destination))
}

fn forward(line: &Line<'_>) -> Result<Forward, Problem> {
    line.at_most_one(&[Key::Masquerade, Key::Tunnel, Key::Route])?;
    let checksums = [
        Key::TunnelNoChecksum,
        Key::TunnelChecksum,
        Key::TunnelRemoteChecksum,
    ];
    if !line.has(Key::Tunnel) {
        let mut of_tunnels = vec![Key::TunnelType, Key::TunnelPort];
        of_tunnels.extend(checksums);
        return match line.first_of(&of_tunnels) {
            Some(_) => Err(missing(line, "-i, to which the options of tunnels belong")),
            None if line.has(Key::Masquerade) => Ok(Forward::Masquerade),
            None => Ok(Forward::Route),
        };
    }
    line.at_most_one(&checksums)?;
    let kind = line.value(Key::TunnelType, |text| match text {
        "ipip" => Ok(TunnelKind::Ipip),
        "gue" => Ok(TunnelKind::Gue),
        "gre" => Ok(TunnelKind::Gre),
        _ => Err("ipip, gue or gre"),
    })?;
    let kind = kind.unwrap_or(TunnelKind::Ipip);
    let refused: &[Key] = match kind {
        TunnelKind::Ipip | TunnelKind::Other(_) => &[
            Key::TunnelPort,
            Key::TunnelNoChecksum,
            Key::TunnelChecksum,
            Key::TunnelRemoteChecksum,
        ],
        TunnelKind::Gue => &[],
        TunnelKind::Gre => &[Key::TunnelPort, Key::TunnelRemoteChecksum],
    };
    if let Some((spec, _)) = line.first_of(refused) {
        return Err(Problem::Conflict {
            option: name(spec),
            with: "this type of tunnel".to_owned(),
        });
    }
    let expected = "a port from 1 to 65535";
    let port = line.value(Key::TunnelPort, number(1, u16::MAX, expected))?;
    if kind == TunnelKind::Gue && port.is_none() {
        return Err(missing(line, "--tun-port for a tunnel of type gue"));
    }
    let flags = if line.has(Key::TunnelChecksum) {
        TunnelFlags::CHECKSUM
    } else if line.has(Key::TunnelRemoteChecksum) {
        TunnelFlags::REMOTE_CHECKSUM
    } else {
        TunnelFlags::NONE
    };
    Ok(Forward::Tunnel(Tunnel {
        kind,
        port: port.unwrap_or(0),
        flags,
    }))
}

fn timeouts(line: &Line<'_>) -> Result<Timeouts, Problem> {
    let [tcp, tcp_fin, udp] = line.rest[..] else {
        return Err(missing(line, "three times: TCP, TCP after FIN, UDP"));
    };
    let read = |value: &str| {
        let seconds = value.parse().ok().filter(|seconds| *seconds <= MAX_TIMEOUT);
        seconds.map(Some).ok_or_else(|| Problem::BadValue {
            option: line.command_text.clone(),
            value: value.to_owned(),
            expected: "a time from 0 (which leaves it as it is) to 2678400 seconds",
        })
    };
    Ok(Timeouts {
        tcp: read(tcp)?,
        tcp_fin: read(tcp_fin)?,
        udp: read(udp)?,
    })
}

fn role(line: &Line<'_>) -> Result<SyncRole, Problem> {
    match line.command_value.unwrap_or_default() {
        "master" => Ok(SyncRole::Master),
        "backup" => Ok(SyncRole::Backup),
        other => Err(Problem::BadValue {
            option: line.command_text.clone(),
            value: other.to_owned(),
            expected: "master or backup",
        }),
    }
}

fn daemon(line: &Line<'_>) -> Result<SyncDaemon, Problem> {
    let role = role(line)?;
    let interface = match line.value(Key::Interface, kernel_name)? {
        Some(interface) => interface,
        None => Name::constant(INTERFACE),
    };
    let mut daemon = SyncDaemon::new(role, interface);
    let byte = "a number from 0 to 255";
    let one = "a number from 1 to 65535";
    if let Some(sync_id) = line.value(Key::SyncId, number(0, u8::MAX, byte))? {
        daemon.sync_id = sync_id;
    }
    if let Some(length) = line.value(Key::SyncLength, number(1, u16::MAX, one))? {
        daemon.max_length = length;
    }
    daemon.group = line.value(Key::Group, |text| {
        let group: Option<IpAddr> = text.parse().ok();
        let expected = "a multicast address";
        group.filter(IpAddr::is_multicast).ok_or(expected)
    })?;
    if let Some(port) = line.value(Key::Port, number(1, u16::MAX, one))? {
        daemon.port = port;
    }
    let hops = "a number from 1 to 255";
    if let Some(ttl) = line.value(Key::Ttl, number(1, u8::MAX, hops))? {
        daemon.ttl = ttl;
    }
    Ok(daemon)
}
