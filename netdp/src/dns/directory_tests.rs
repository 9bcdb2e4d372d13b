use std::collections::BTreeSet;

use super::*;
use crate::desired::{Endpoint, Mac, Network, Service};

fn network(name: &str, ingress: bool) -> Network {
    Network {
        name: name.into(),
        segments: Vec::new(),
        ingress,
        internal: false,
        mtu: None,
    }
}

fn service(name: &str, vips: &[(&str, &str)]) -> Service {
    Service {
        name: name.into(),
        vips: vips
            .iter()
            .map(|(n, ip)| ((*n).to_owned(), ip.parse().unwrap()))
            .collect(),
        ports: Vec::new(),
        scheduler: None,
    }
}

fn endpoint(
    network: &str,
    task: &str,
    service: &str,
    addresses: &[&str],
    backend: Backend,
) -> Endpoint {
    Endpoint {
        network: network.into(),
        node: "n1".into(),
        task: task.into(),
        task_name: format!("Task.{task}"),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        mac: Mac([2; 6]),
        service: Some(service.into()),
        aliases: BTreeSet::from([format!("{service}-Alias")]),
        task_aliases: BTreeSet::from([format!("own-{task}")]),
        backend,
    }
}

/// Two networks and ingress; `web` has VIPs on `app`, `db` is DNSRR, `idle` has no tasks.
pub(crate) fn cluster() -> Desired {
    let on = Backend::Enabled(1);
    let endpoints = [
        endpoint("id-app", "w1", "web", &["10.1.0.11", "fd01::11"], on),
        endpoint("id-app", "w2", "web", &["10.1.0.12"], on),
        endpoint("id-app", "w3", "web", &["10.1.0.13"], Backend::Draining),
        endpoint("id-app", "w4", "web", &["10.1.0.14"], Backend::Disabled),
        endpoint("id-back", "w1", "web", &["10.2.0.11"], on),
        endpoint("id-back", "d1", "db", &["10.2.0.21"], on),
        endpoint("id-back", "d2", "db", &["10.2.0.22"], on),
        endpoint("id-back", "d3", "db", &["10.2.0.23"], Backend::Draining),
        endpoint("id-app", "s1", "sick", &["10.1.0.31"], Backend::Disabled),
        endpoint("id-back", "s1", "sick", &["10.2.0.31"], on),
        endpoint("id-ingress", "w1", "web", &["10.0.0.11"], on),
        endpoint("id-unknown", "w1", "web", &["10.9.0.11"], on),
    ];
    Desired {
        networks: [
            ("id-app".to_owned(), network("App", false)),
            ("id-back".to_owned(), network("back.end", false)),
            ("id-ingress".to_owned(), network("ingress", true)),
        ]
        .into(),
        services: [
            (
                "web".to_owned(),
                service(
                    "Web",
                    &[
                        ("id-app", "10.1.0.2"),
                        ("id-app", "fd01::2"),
                        ("id-ingress", "10.0.0.2"),
                    ],
                ),
            ),
            ("db".to_owned(), service("db", &[])),
            (
                "idle".to_owned(),
                service(
                    "idle",
                    &[("id-app", "10.1.0.3"), ("id-unknown", "10.9.0.3")],
                ),
            ),
            ("sick".to_owned(), service("sick", &[])),
        ]
        .into(),
        endpoints: endpoints
            .into_iter()
            .enumerate()
            .map(|(i, e)| (format!("e{i}"), e))
            .collect(),
        ..Desired::default()
    }
}

/// All addresses as text, or `None` for a name that does not exist.
fn look(networks: &[&str], name: &str) -> Option<String> {
    let networks: Vec<String> = networks.iter().map(|id| (*id).to_owned()).collect();
    let directory = Directory::new(&cluster());
    let found = directory.addresses(&networks, name)?;
    let v4 = found.v4.iter().map(ToString::to_string);
    Some(
        v4.chain(found.v6.iter().map(ToString::to_string))
            .collect::<Vec<_>>()
            .join(" "),
    )
}

#[test]
fn every_kind_of_name_has_its_addresses() {
    for (network, name, expected) in [
        // Service and alias: VIPs, where it has some.
        ("id-app", "web", Some("10.1.0.2 fd01::2")),
        ("id-app", "web-alias", Some("10.1.0.2 fd01::2")),
        // The same service on a network without VIP, and DNSRR: enabled backends.
        ("id-back", "web", Some("10.2.0.11")),
        ("id-back", "db", Some("10.2.0.21 10.2.0.22")),
        ("id-back", "db-alias", Some("10.2.0.21 10.2.0.22")),
        // All tasks of a service: enabled ones only.
        ("id-app", "tasks.web", Some("10.1.0.11 10.1.0.12 fd01::11")),
        (
            "id-app",
            "tasks.web-alias",
            Some("10.1.0.11 10.1.0.12 fd01::11"),
        ),
        ("id-back", "tasks.db", Some("10.2.0.21 10.2.0.22")),
        // One task: in every state.
        ("id-app", "task.w1", Some("10.1.0.11 fd01::11")),
        ("id-app", "task.w3", Some("10.1.0.13")),
        ("id-app", "task.w4", Some("10.1.0.14")),
        ("id-app", "own-w3", Some("10.1.0.13")),
        // A service without tasks keeps its VIP, and its name for them.
        ("id-app", "idle", Some("10.1.0.3")),
        ("id-app", "tasks.idle", Some("")),
        // One whose tasks are not ready exists without addresses.
        ("id-app", "sick", Some("")),
        ("id-app", "tasks.sick", Some("")),
        // With the network's name, which may have dots of its own.
        ("id-app", "web.app", Some("10.1.0.2 fd01::2")),
        (
            "id-app",
            "tasks.web.app",
            Some("10.1.0.11 10.1.0.12 fd01::11"),
        ),
        ("id-back", "task.d1.back.end", Some("10.2.0.21")),
        // Not there.
        ("id-app", "db", None),
        ("id-app", "db.back.end", None),
        ("id-app", "web.back.end", None),
        ("id-app", "app", None),
        ("id-app", ".app", None),
        ("id-app", "webapp", None),
        ("id-app", "", None),
        ("id-ingress", "web", None),
        ("id-ingress", "task.w1", None),
        ("id-unknown", "web", None),
    ] {
        assert_eq!(
            look(&[network], name).as_deref(),
            expected,
            "{name} on {network}"
        );
    }
}

#[test]
fn the_first_network_with_an_address_wins() {
    assert_eq!(
        look(&["id-app", "id-back"], "task.w1").unwrap(),
        "10.1.0.11 fd01::11"
    );
    assert_eq!(
        look(&["id-back", "id-app"], "task.w1").unwrap(),
        "10.2.0.11"
    );
    assert_eq!(
        look(&["id-app", "id-back"], "db").unwrap(),
        "10.2.0.21 10.2.0.22"
    );
    assert_eq!(look(&["id-app", "id-back"], "sick").unwrap(), "10.2.0.31");
    // The network's name chooses, whatever the order.
    assert_eq!(
        look(&["id-app", "id-back"], "task.w1.back.end").unwrap(),
        "10.2.0.11"
    );
}

#[test]
fn owners_of_one_name_share_it() {
    let mut desired = cluster();
    for endpoint in desired.endpoints.values_mut() {
        endpoint.aliases.insert("shared".into());
    }
    let directory = Directory::new(&desired);
    let found = directory.addresses(&["id-back".into()], "shared").unwrap();
    let all: Vec<String> = found.v4.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["10.2.0.11", "10.2.0.21", "10.2.0.22", "10.2.0.31"]);
}

#[test]
fn addresses_lead_back_to_names() {
    let directory = Directory::new(&cluster());
    let reverse = |network: &str, address: &str| {
        directory
            .reverse(&[network.to_owned()], address.parse().unwrap())
            .map(Name::to_ascii)
    };
    assert_eq!(
        reverse("id-app", "10.1.0.11").as_deref(),
        Some("Task.w1.App.")
    );
    assert_eq!(
        reverse("id-app", "fd01::11").as_deref(),
        Some("Task.w1.App.")
    );
    assert_eq!(
        reverse("id-back", "10.2.0.23").as_deref(),
        Some("Task.d3.back.end.")
    );
    assert_eq!(reverse("id-app", "10.1.0.2").as_deref(), Some("Web.App."));
    assert_eq!(reverse("id-app", "fd01::2").as_deref(), Some("Web.App."));
    assert_eq!(reverse("id-app", "10.2.0.21"), None);
    assert_eq!(reverse("id-ingress", "10.0.0.11"), None);
}

#[test]
fn names_that_no_message_can_carry_do_no_harm() {
    let mut desired = cluster();
    let endpoint = desired.endpoints.get_mut("e0").unwrap();
    endpoint.task_name = "x".repeat(300);
    endpoint.task_aliases = BTreeSet::from([String::new(), "..".into(), "ü".into()]);
    let directory = Directory::new(&desired);
    let networks = ["id-app".to_owned()];
    assert_eq!(
        directory.reverse(&networks, "10.1.0.11".parse().unwrap()),
        None
    );
    assert_eq!(directory.addresses(&networks, ""), None);
    assert!(directory.addresses(&networks, "web").is_some());
}
