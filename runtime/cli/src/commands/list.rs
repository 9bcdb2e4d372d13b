//! `ps` and the `ls` commands: one row per object.

use fairlead_api::v1::Kind;

use crate::error::CliError;
use crate::format::network::{EndpointMode, NodeKind, Protocol, PublishMode, ServicePort};
use crate::format::task::HostPort;
use crate::output::object::{Object, TaskObject, objects};
use crate::output::table::{Table, id};
use crate::output::time::{ago, now};
use crate::output::{print, print_json};
use crate::socket::Daemon;

/// Prints every object of a kind.
pub async fn list(
    daemon: &mut Daemon,
    kind: Kind,
    no_trunc: bool,
    json: bool,
) -> Result<(), CliError> {
    let objects = objects(daemon.inspect(kind, "").await?);
    if json {
        return print_json(&objects);
    }
    let mut table = Table::new(headings(kind));
    for object in &objects {
        row(&mut table, object, no_trunc);
    }
    print(&table.render())
}

fn headings(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Task => &[
            "ID",
            "NAME",
            "STATE",
            "DESIRED",
            "SINCE",
            "ADDRESSES",
            "PORTS",
            "PID",
            "EXIT",
            "ERROR",
        ],
        Kind::Network => &[
            "ID", "NAME", "VNI", "SUBNETS", "MTU", "OPTIONS", "ACTIVE", "LOCAL", "REMOTE",
        ],
        Kind::Service => &[
            "ID",
            "NAME",
            "MODE",
            "VIPS",
            "PORTS",
            "BACKENDS",
            "ENGINE",
            "SCHEDULER",
        ],
        Kind::Node => &[
            "ID",
            "VERSION",
            "KIND",
            "VTEPS",
            "INGRESS",
            "STEERING",
            "ACKNOWLEDGED",
        ],
        Kind::Endpoint => &[
            "ID",
            "VERSION",
            "STATE",
            "NETWORK",
            "TASK",
            "SERVICE",
            "NODE",
            "ADDRESSES",
        ],
        Kind::Unspecified => &[],
    }
}

fn row(table: &mut Table, object: &Object, no_trunc: bool) {
    let id = |text: &str| id(text, no_trunc);
    match object {
        Object::Task(task) => table.row([
            id(&task.id),
            task.name.clone(),
            state(task),
            task.desired_state.word(),
            ago(task.since_nanos, now()),
            task_addresses(task),
            join(&task.ports, host_port),
            if task.pid == 0 {
                String::new()
            } else {
                task.pid.to_string()
            },
            exit(task),
            task.error.clone(),
        ]),
        Object::Network(network) => {
            let spec = &network.spec;
            let options = [
                ("ingress", spec.ingress),
                ("internal", spec.internal),
                ("encrypted", spec.encrypted),
            ];
            let options: Vec<_> = options.iter().filter(|(_, on)| *on).collect();
            table.row([
                id(&network.id),
                network.name.clone(),
                join(&spec.subnets, |subnet| subnet.vni.to_string()),
                join(&spec.subnets, |subnet| subnet.cidr.0.clone()),
                if network.mtu == 0 {
                    String::new()
                } else {
                    network.mtu.to_string()
                },
                join(&options, |(name, _)| (*name).to_owned()),
                yes_no(network.active),
                network.local_endpoints.to_string(),
                network.remote_endpoints.to_string(),
            ]);
        }
        Object::Service(service) => {
            let enabled = service
                .backends
                .iter()
                .filter(|backend| backend.enabled)
                .count();
            table.row([
                id(&service.id),
                service.name.clone(),
                match service.spec.endpoint_mode {
                    EndpointMode::Vip => "vip".into(),
                    EndpointMode::Dnsrr => "dnsrr".into(),
                    EndpointMode::Unknown(number) => number.to_string(),
                },
                join(&service.spec.virtual_ips, |vip| vip.address.0.clone()),
                join(&service.spec.ports, service_port),
                format!("{enabled}/{}", service.backends.len()),
                service.engine.clone(),
                service.scheduler.clone(),
            ]);
        }
        Object::Node(node) => table.row([
            id(&node.id),
            node.spec.version.to_string(),
            match node.spec.kind {
                NodeKind::Fairlead => "fairlead".into(),
                NodeKind::Docker => "docker".into(),
                NodeKind::Unknown(number) => number.to_string(),
            },
            join(&node.spec.vteps, |address| address.0.clone()),
            join(&node.spec.ingress_addresses, |address| address.0.clone()),
            node.spec.steering_id.to_string(),
            node.spec.acknowledged_version.to_string(),
        ]),
        Object::Endpoint(endpoint) => {
            let spec = &endpoint.spec;
            table.row([
                id(&endpoint.id),
                spec.version.to_string(),
                spec.state.word(),
                id(&spec.network_id),
                id(&spec.task_id),
                id(&spec.service_id),
                id(&spec.node_id),
                join(&spec.addresses, |address| address.0.clone()),
            ]);
        }
    }
}

/// Values with commas between them.
pub fn join<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The word for a truth value.
pub fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// `8080->80/tcp`, as people know it.
pub fn service_port(port: &ServicePort) -> String {
    let mode = match port.mode {
        PublishMode::Ingress => "",
        PublishMode::Host => " (host)",
        PublishMode::Unknown(_) => " (unknown mode)",
    };
    format!(
        "{}->{}/{}{mode}",
        port.published.0,
        port.target.0,
        protocol(port.protocol)
    )
}

fn host_port(port: &HostPort) -> String {
    format!(
        "{}->{}/{}",
        port.published.0,
        port.target.0,
        protocol(port.protocol)
    )
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Unknown(_) => "unknown",
    }
}

/// The task's addresses on its networks, without prefix length.
fn task_addresses(task: &TaskObject) -> String {
    let addresses = task
        .spec
        .networks
        .iter()
        .flat_map(|network| &network.addresses);
    let bare = addresses.map(|cidr| cidr.0.split('/').next().unwrap_or_default());
    bare.collect::<Vec<_>>().join(",")
}

/// As `docker ps`: with its health, as long as it is there to have any.
fn state(task: &TaskObject) -> String {
    let word = task.state.word();
    match &task.health {
        Some(health) if task.pid != 0 => format!("{word} ({})", health.state),
        _ => word,
    }
}

fn exit(task: &TaskObject) -> String {
    match task.exit_code {
        Some(code) if task.oom_killed => format!("{code} (out of memory)"),
        Some(code) => code.to_string(),
        None => String::new(),
    }
}
