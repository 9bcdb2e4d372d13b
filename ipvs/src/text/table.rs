//! Tables as `ipvsadm -Ln` shows them.

use std::fmt;
use std::net::SocketAddr;

use super::write::scheduler_flags;
use crate::destination::{DestinationEntry, Forward, TunnelFlags, TunnelKind};
use crate::plan::PoolEntry;
use crate::service::{
    Family, Netmask, Protocol, Service, ServiceFlags, ServiceId, in_listing_order,
};
use crate::stats::{Info, Stats};

/// From which count on counts are told in which unit.
const UNITS: [(u64, u64, char); 4] = [
    (100_000_000_000_000, 1_000_000_000_000, 'T'),
    (100_000_000_000, 1_000_000_000, 'G'),
    (1_000_000_000, 1_000_000, 'M'),
    (100_000_000, 1_000, 'K'),
];

/// The two lines above a list of connections, each of which is a
/// [`Connection`](crate::Connection) as text: `ipvsadm -Lnc`.
pub const CONNECTIONS_HEAD: &str = "IPVS connection entries\n\
    pro expire state       source             virtual            destination\n";

/// What a table tells of each service and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Columns {
    /// Settings and connections: `ipvsadm -Ln`.
    #[default]
    Connections,
    /// Counters: `--stats`.
    Stats,
    /// Counts per second: `--rate`.
    Rates,
    /// Thresholds: `--thresholds`.
    Thresholds,
    /// Clients bound by persistence: `--persistent-conn`.
    Persistence,
    /// Settings, connections and tunnels: `--tun-info`.
    Tunnels,
}

/// Services and destinations as `ipvsadm -Ln` shows them.
///
/// ```no_run
/// use ipvs::{Client, text::{Columns, Table}};
///
/// # fn main() -> Result<(), ipvs::IpvsError> {
/// let mut client = Client::open()?;
/// let (info, entries) = (client.info()?, client.pool_entries()?);
/// print!("{}", Table::new(&entries).version(info).columns(Columns::Stats).exact(true));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    info: Option<Info>,
    pools: &'a [PoolEntry],
    columns: Columns,
    exact: bool,
}

impl<'a> Table<'a> {
    /// A table of the settings and connections, as `ipvsadm` shows a single service.
    pub fn new(pools: &'a [PoolEntry]) -> Self {
        Self {
            info: None,
            pools,
            columns: Columns::default(),
            exact: false,
        }
    }

    /// Begins with the version, as `ipvsadm` does when it shows all services.
    pub fn version(self, info: Info) -> Self {
        let info = Some(info);
        Self { info, ..self }
    }

    /// Picks what is told.
    pub fn columns(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    /// Whether counters are written in full, instead of in thousands (`K`), millions (`M`) and so
    /// on once they are long.
    pub fn exact(self, exact: bool) -> Self {
        Self { exact, ..self }
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(info) = self.info {
            let (major, minor, patch) = info.version;
            let size = info.connection_table_size;
            writeln!(
                f,
                "IP Virtual Server version {major}.{minor}.{patch} (size={size})"
            )?;
        }
        let title = "Prot LocalAddress:Port";
        let counters = |f: &mut fmt::Formatter<'_>, [a, b, c, d, e]: [&str; 5]| {
            writeln!(f, "{title:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}")
        };
        let second = "  -> RemoteAddress:Port";
        match self.columns {
            Columns::Connections => {
                writeln!(f, "{title} Scheduler Flags")?;
                writeln!(f, "{second:<33} Forward Weight ActiveConn InActConn")
            }
            Columns::Tunnels => {
                writeln!(f, "{title} Scheduler Flags")?;
                writeln!(
                    f,
                    "{second:<33} Forward TunnelInfo    Weight ActiveConn InActConn"
                )
            }
            Columns::Stats => {
                counters(f, ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"])?;
                writeln!(f, "{second}")
            }
            Columns::Rates => {
                counters(f, ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"])?;
                writeln!(f, "{second}")
            }
            Columns::Thresholds => {
                writeln!(
                    f,
                    "{title:<33} {:<10} {:<10} {:<10} {:<10}",
                    "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
                )?;
                writeln!(f, "{second}")
            }
            Columns::Persistence => {
                writeln!(
                    f,
                    "{title:<33} {:<9} {:<11} {:<10} {:<10}",
                    "Weight", "PersistConn", "ActiveConn", "InActConn"
                )?;
                writeln!(f, "{second}")
            }
        }
    }

    fn service(&self, f: &mut fmt::Formatter<'_>, entry: &PoolEntry) -> fmt::Result {
        let service = &entry.service.service;
        let name = service_name(&service.id);
        match self.columns {
            Columns::Stats => {
                write!(f, "{name:<33}")?;
                self.counters(f, &totals(&entry.service.stats))?;
            }
            Columns::Rates => {
                write!(f, "{name:<33}")?;
                self.counters(f, &rates(&entry.service.stats))?;
            }
            _ => {
                write!(f, "{name} {}", service.scheduler)?;
                service_settings(f, service)?;
            }
        }
        writeln!(f)
    }

    fn destination(&self, f: &mut fmt::Formatter<'_>, entry: &DestinationEntry) -> fmt::Result {
        let destination = &entry.destination;
        let (active, inactive) = (entry.active_connections, entry.inactive_connections);
        write!(f, "  -> {:<28}", destination.id.to_string())?;
        match self.columns {
            Columns::Stats => {
                self.counters(f, &totals(&entry.stats))?;
            }
            Columns::Rates => {
                let [connections, packets_in, packets_out, bytes @ ..] = rates(&entry.stats);
                write!(f, " {connections:>8} {packets_in:>8} {packets_out:>8}")?;
                self.counters(f, &bytes)?;
            }
            Columns::Thresholds => {
                let (upper, lower) = (destination.upper_threshold, destination.lower_threshold);
                write!(f, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")?;
            }
            Columns::Persistence => {
                let (weight, bound) = (destination.weight, entry.persistent_connections);
                write!(f, " {weight:<9} {bound:<11} {active:<10} {inactive:<10}")?;
            }
            Columns::Connections => {
                let (forward, weight) = (destination.forward, destination.weight);
                write!(f, " {forward:<7} {weight:<6} {active:<10} {inactive:<10}")?;
            }
            Columns::Tunnels => {
                let (forward, weight) = (destination.forward, destination.weight);
                let tunnel = tunnel_info(&destination.forward);
                write!(
                    f,
                    " {forward:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
                )?;
            }
        }
        writeln!(f)
    }

    /// Numbers in columns of nine characters, of which those that grow too long push the rest.
    fn counters(&self, f: &mut fmt::Formatter<'_>, values: &[u64]) -> fmt::Result {
        for &value in values {
            if self.exact {
                let digits = value.to_string();
                let width = if digits.len() <= 8 {
                    9
                } else {
                    digits.len() + 1
                };
                write!(f, "{digits:>width$}")?;
            } else {
                match UNITS.iter().find(|(from, ..)| value >= *from) {
                    Some((_, unit, letter)) => write!(f, "{:>8}{letter}", value / unit)?,
                    None => write!(f, "{value:>9}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        let mut pools: Vec<&PoolEntry> = self.pools.iter().collect();
        pools.sort_by_key(|pool| in_listing_order(&pool.service.service.id));
        for pool in pools {
            self.service(f, pool)?;
            let mut destinations: Vec<&DestinationEntry> = pool.destinations.iter().collect();
            destinations.sort_by_key(|entry| entry.destination.id);
            for entry in destinations {
                self.destination(f, entry)?;
            }
        }
        Ok(())
    }
}

fn totals(stats: &Stats) -> [u64; 5] {
    [
        stats.connections,
        stats.packets_in,
        stats.packets_out,
        stats.bytes_in,
        stats.bytes_out,
    ]
}

fn rates(stats: &Stats) -> [u64; 5] {
    [
        stats.connections_per_second,
        stats.packets_in_per_second,
        stats.packets_out_per_second,
        stats.bytes_in_per_second,
        stats.bytes_out_per_second,
    ]
}

fn service_name(id: &ServiceId) -> String {
    match id {
        ServiceId::Mark { family, mark } => match family {
            Family::V4 => format!("FWM  {mark}"),
            Family::V6 => format!("FWM  {mark} IPv6"),
        },
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            let protocol = match *protocol {
                Protocol::TCP | Protocol::UDP | Protocol::SCTP => protocol.to_string(),
                _ => "?".to_owned(),
            };
            format!("{protocol:<4} {}", SocketAddr::new(*address, *port))
        }
    }
}

fn service_settings(f: &mut fmt::Formatter<'_>, service: &Service) -> fmt::Result {
    let flags = scheduler_flags(service);
    if !flags.is_empty() {
        write!(f, " ({flags})")?;
    }
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        write!(f, " persistent {}", service.timeout)?;
        if service.netmask != Netmask::host(service.id.family()) {
            write!(f, " mask {}", service.netmask)?;
        }
        if let Some(engine) = service.persistence_engine {
            write!(f, " pe {engine}")?;
        }
    }
    if service.flags.contains(ServiceFlags::ONE_PACKET) {
        f.write_str(" ops")?;
    }
    Ok(())
}

/// A destination's tunnel as `ipvsadm -Ln --tun-info` writes it: `ipip`, `gue:6080:+c`, `gre:-c`, or
/// `n/a` for other forwarding methods.
pub fn tunnel_info(forward: &Forward) -> String {
    let Forward::Tunnel(tunnel) = forward else {
        return "n/a".to_owned();
    };
    let checksum = match tunnel.flags {
        TunnelFlags::NONE => "-c",
        TunnelFlags::CHECKSUM => "+c",
        _ => "r+c",
    };
    match tunnel.kind {
        TunnelKind::Ipip => "ipip".to_owned(),
        TunnelKind::Gue => format!("gue:{}:{checksum}", tunnel.port),
        TunnelKind::Gre => format!("gre:{checksum}"),
        TunnelKind::Other(number) => format!("{number}"),
    }
}
