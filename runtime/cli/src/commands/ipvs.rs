//! `ipvs`: the kernel's load balancer, by the library that the data plane uses.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use fairlead_api::v1::Kind;
use ipvs::text::{self, Columns, Table};
use ipvs::{BatchError, Client, ConnectionError, ConnectionTable, Operation, ServiceId, plan};
use serde_json::Value;

use crate::args::{IpvsColumns, IpvsCommand, IpvsLsArgs, IpvsPlace, IpvsRestoreArgs, IpvsService};
use crate::error::CliError;
use crate::output::{ipvs as object, print, print_json, progress};
use crate::socket::Daemon;

/// Does what the command says.
pub async fn run(sockets: &[PathBuf], command: &IpvsCommand, json: bool) -> Result<(), CliError> {
    let place = Place::find(sockets, command.place()).await?;
    match command {
        IpvsCommand::Ls(args) => list(&place, args, json),
        IpvsCommand::Save(_) => {
            let pools = place.told(place.client()?.pools())?;
            print(&text::save(&pools))
        }
        IpvsCommand::Restore(args) => restore(&place, args),
        IpvsCommand::Zero(args) => {
            let client = &mut place.client()?;
            place.told(match service_id(&args.service)? {
                Some(id) => client.zero_service(id),
                None => client.zero(),
            })
        }
    }
}

/// A network namespace.
struct Place {
    /// None for that of this process.
    namespace: Option<File>,
    name: String,
}

impl Place {
    async fn find(sockets: &[PathBuf], asked: &IpvsPlace) -> Result<Self, CliError> {
        let (path, name) = match (&asked.netns, &asked.network) {
            (Some(netns), _) => {
                let plain = netns.components().count() == 1 && !netns.as_os_str().is_empty();
                let path = match plain && netns.is_relative() {
                    true => PathBuf::from("/run/netns").join(netns),
                    false => netns.clone(),
                };
                (path, format!("network namespace {}", netns.display()))
            }
            (None, Some(network)) => {
                let mut daemon = Daemon::connect_one(sockets).await?;
                (
                    netns_of(&mut daemon, network).await?,
                    format!("network {network}"),
                )
            }
            (None, None) => {
                return Ok(Self {
                    namespace: None,
                    name: "this network namespace".to_owned(),
                });
            }
        };
        match File::open(&path) {
            Ok(file) => Ok(Self {
                namespace: Some(file),
                name,
            }),
            Err(error) => Err(CliError::Ipvs {
                place: name,
                reason: format!("cannot open {}: {error}", path.display()),
            }),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }

    fn client(&self) -> Result<Client, CliError> {
        self.told(self.fd().map_or_else(Client::open, Client::open_in))
    }

    /// An error of the kernel's, with the place.
    fn told<T, E: Display>(&self, result: Result<T, E>) -> Result<T, CliError> {
        result.map_err(|error| self.error(&error))
    }

    fn error(&self, reason: &impl Display) -> CliError {
        CliError::Ipvs {
            place: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

async fn netns_of(daemon: &mut Daemon, network: &str) -> Result<PathBuf, CliError> {
    let found = daemon.inspect(Kind::Network, network).await?.networks;
    match &found[..] {
        [] => Err(CliError::NotFound {
            kind: "network",
            name: network.to_owned(),
        }),
        [view] if view.netns.is_empty() => Err(CliError::Usage(format!(
            "network `{network}` is not active: no task of this node has joined it, so there is \
             nothing of it in the kernel"
        ))),
        [view] => Ok(PathBuf::from(&view.netns)),
        _ => Err(CliError::Usage(format!(
            "more than one network is called `{network}`; give more of the id"
        ))),
    }
}

/// The service that is meant, if one is.
fn service_id(service: &IpvsService) -> Result<Option<ServiceId>, CliError> {
    let given = [
        ("-t", &service.id.tcp),
        ("-u", &service.id.udp),
        ("--sctp-service", &service.id.sctp),
        ("-f", &service.id.mark),
    ];
    let given = given
        .into_iter()
        .find_map(|(option, value)| Some((option, value.as_ref()?)));
    let Some((option, value)) = given else {
        return Ok(None);
    };
    let family = if service.ipv6 { " -6" } else { "" };
    match text::parse(&format!("-Z {option} {value}{family}")) {
        Ok(operations) => Ok(operations.first().and_then(Operation::service)),
        Err(error) => Err(CliError::Usage(error.problem.to_string())),
    }
}

fn list(place: &Place, args: &IpvsLsArgs, json: bool) -> Result<(), CliError> {
    let mut client = place.client()?;
    let columns = match args.columns {
        IpvsColumns {
            connections: true, ..
        } => return list_connections(place, json),
        IpvsColumns { timeout: true, .. } => return list_timeouts(place, &mut client, json),
        IpvsColumns { daemon: true, .. } => return list_daemons(place, &mut client, json),
        IpvsColumns { stats: true, .. } => Columns::Stats,
        IpvsColumns { rate: true, .. } => Columns::Rates,
        IpvsColumns {
            thresholds: true, ..
        } => Columns::Thresholds,
        IpvsColumns {
            persistent_conn: true,
            ..
        } => Columns::Persistence,
        IpvsColumns { tun_info: true, .. } => Columns::Tunnels,
        _ => Columns::Connections,
    };
    // A single service comes without the version, as `ipvsadm` shows it.
    let (version, entries) = match service_id(&args.service)? {
        None => {
            let info = place.told(client.info())?;
            (Some(info), place.told(client.pool_entries())?)
        }
        Some(id) => (None, vec![place.told(client.pool_entry(&id))?]),
    };
    if json {
        let services: Vec<Value> = entries.iter().map(object::pool).collect();
        return print_json(&services);
    }
    let table = Table::new(&entries).columns(columns).exact(args.exact);
    let table = version.map_or(table, |info| table.version(info));
    print(&table.to_string())
}

fn list_timeouts(place: &Place, client: &mut Client, json: bool) -> Result<(), CliError> {
    let timeouts = place.told(client.timeouts())?;
    match json {
        true => print_json(&object::timeouts(&timeouts)),
        false => print(&format!("{timeouts}\n")),
    }
}

fn list_daemons(place: &Place, client: &mut Client, json: bool) -> Result<(), CliError> {
    let daemons = place.told(client.sync_daemons())?;
    if json {
        let daemons: Vec<Value> = daemons.iter().map(object::daemon).collect();
        return print_json(&daemons);
    }
    print(
        &daemons
            .iter()
            .map(|daemon| format!("{daemon}\n"))
            .collect::<String>(),
    )
}

fn list_connections(place: &Place, json: bool) -> Result<(), CliError> {
    let opened = place
        .fd()
        .map_or_else(ConnectionTable::open, ConnectionTable::open_in);
    let mut table = place.told(opened)?;
    let connections = place.told(table.read())?;
    // One odd line does not hide the others: it is told, and the next one follows.
    let readable = connections.filter_map(|connection| match connection {
        Err(error @ ConnectionError::Line { .. }) => {
            progress(&format!("fairlead: {error}"));
            None
        }
        other => Some(other),
    });
    if json {
        let listed: Result<Vec<Value>, _> = readable
            .map(|connection| connection.map(object::connection))
            .collect();
        return print_json(&place.told(listed)?);
    }
    // A table may have millions of them: printed as they are read.
    let mut page = text::CONNECTIONS_HEAD.to_owned();
    for connection in readable {
        page += &format!("{}\n", place.told(connection)?);
        if page.len() > 32 * 1024 {
            print(&page)?;
            page.clear();
        }
    }
    print(&page)
}

fn restore(place: &Place, args: &IpvsRestoreArgs) -> Result<(), CliError> {
    let (origin, read) = match &args.input {
        Some(path) if path.as_os_str() != "-" => {
            (path.display().to_string(), std::fs::read_to_string(path))
        }
        _ => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            ("standard input".to_owned(), read.map(|_| text))
        }
    };
    let wrong = |error: &dyn Display| CliError::Document(format!("{origin}: {error}"));
    let text = read.map_err(|error| wrong(&error))?;
    // Before the kernel is asked: what cannot be read changes nothing.
    if args.replace {
        let desired = text::parse_pools(&text).map_err(|error| wrong(&error))?;
        let mut client = place.client()?;
        let operations = plan(&place.told(client.pools())?, &desired);
        return applied(place, client.apply(&operations), |_| String::new());
    }
    let lines = text::parse_lines(&text).map_err(|error| wrong(&error))?;
    let operations: Vec<Operation> = lines.iter().map(|(_, operation)| *operation).collect();
    let result = place.client()?.apply(&operations);
    applied(place, result, |index| format!("line {}: ", lines[index].0))
}

/// Tells of each operation that failed.
fn applied(
    place: &Place,
    result: Result<(), BatchError>,
    origin: impl Fn(usize) -> String,
) -> Result<(), CliError> {
    let Err(error) = result else {
        return Ok(());
    };
    let mut reason = format!(
        "{} of {} operations failed",
        error.failures.len(),
        error.total
    );
    for failure in &error.failures {
        reason += &format!("\n  {}{failure}", origin(failure.index));
    }
    Err(place.error(&reason))
}
