//! `inspect`, `network inspect` and `service inspect`: everything about one object.

use fairlead_api::v1::Kind;

use super::list::{join, service_port, yes_no};
use crate::error::CliError;
use crate::output::object::{Object, ServiceObject, objects};
use crate::output::table::Table;
use crate::output::{detail, print, print_json};
use crate::socket::Daemon;

/// The kinds by name.
const KINDS: [(&str, Kind); 5] = [
    ("task", Kind::Task),
    ("network", Kind::Network),
    ("service", Kind::Service),
    ("node", Kind::Node),
    ("endpoint", Kind::Endpoint),
];

/// Prints every object that `[KIND] NAME` means.
pub async fn run(daemon: &mut Daemon, words: &[String], json: bool) -> Result<(), CliError> {
    let (kind, name) = match words {
        [kind, name] => (kind.as_str(), name),
        [name] => ("object", name),
        _ => return Err(CliError::Usage("inspect takes [KIND] NAME".to_owned())),
    };
    let known = KINDS.iter().find(|(word, _)| *word == kind);
    let (word, kind) = match (known, words.len()) {
        (Some(known), _) => *known,
        (None, 1) => ("object", Kind::Unspecified),
        (None, _) => {
            return Err(CliError::Usage(format!(
                "`{kind}` is no kind: task, network, service, node or endpoint"
            )));
        }
    };
    let found = find(daemon, word, kind, name).await?;
    if json {
        print_json(&found)
    } else {
        print(&details(&found)?)
    }
}

/// Prints a network.
pub async fn network(daemon: &mut Daemon, name: &str, json: bool) -> Result<(), CliError> {
    let found = find(daemon, "network", Kind::Network, name).await?;
    if json {
        print_json(&found)
    } else {
        print(&details(&found)?)
    }
}

/// Prints a service; for people with a table of its backends.
pub async fn service(daemon: &mut Daemon, name: &str, json: bool) -> Result<(), CliError> {
    let found = find(daemon, "service", Kind::Service, name).await?;
    if json {
        return print_json(&found);
    }
    for object in &found {
        if let Object::Service(service) = object {
            print(&service_page(service))?;
        }
    }
    Ok(())
}

async fn find(
    daemon: &mut Daemon,
    word: &'static str,
    kind: Kind,
    name: &str,
) -> Result<Vec<Object>, CliError> {
    if name.is_empty() {
        return Err(CliError::Usage("the name is empty".to_owned()));
    }
    let found = objects(daemon.inspect(kind, name).await?);
    if found.is_empty() {
        return Err(CliError::NotFound {
            kind: word,
            name: name.to_owned(),
        });
    }
    Ok(found)
}

fn details(objects: &[Object]) -> Result<String, CliError> {
    let pages = objects.iter().map(|object| {
        serde_json::to_value(object)
            .map(|value| detail::render(&value))
            .map_err(CliError::from)
    });
    Ok(pages.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn service_page(service: &ServiceObject) -> String {
    let spec = &service.spec;
    let vip =
        |vip: &crate::format::network::VirtualIp| format!("{} ({})", vip.address.0, vip.network_id);
    let mut text = String::new();
    for (name, value) in [
        ("id", service.id.clone()),
        ("name", service.name.clone()),
        ("VIPs", join(&spec.virtual_ips, vip)),
        ("ports", join(&spec.ports, service_port)),
        ("engine", service.engine.clone()),
        ("scheduler", service.scheduler.clone()),
    ] {
        text += format!("{:<11}{value}", format!("{name}:")).trim_end();
        text.push('\n');
    }
    for error in &service.errors {
        text += &format!("error:     {}\n", error.replace(char::is_control, " "));
    }
    let mut table = Table::new(&[
        "NETWORK",
        "ENDPOINT",
        "TASK",
        "NODE",
        "ADDRESSES",
        "STATE",
        "ENABLED",
        "REASON",
    ]);
    for backend in &service.backends {
        table.row([
            backend.network_id.clone(),
            backend.endpoint_id.clone(),
            backend.task_id.clone(),
            backend.node_id.clone(),
            join(&backend.addresses, Clone::clone),
            backend.state.word(),
            yes_no(backend.enabled),
            backend.reason.clone(),
        ]);
    }
    text + "\n" + &table.render()
}
