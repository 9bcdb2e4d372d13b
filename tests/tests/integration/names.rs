//! DNS, as a task sees it.

use std::fs;
use std::net::Ipv4Addr;

use fairlead_tests::dns::Upstream;
use fairlead_tests::witness::see;
use fairlead_tests::{Cluster, Node, wait_for};
use serde_json::json;

fn resolves(node: &Node, task: &str, name: &str) -> Vec<String> {
    node.task_resolves(task, name)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sorted<const N: usize>(mut addresses: [String; N]) -> Vec<String> {
    addresses.sort();
    addresses.into()
}

#[test]
fn names_of_services_tasks_and_the_outside() {
    let mut cluster = Cluster::new("names", 2);
    for node in cluster.nodes() {
        fs::write(
            node.resolv_conf(),
            "nameserver 192.0.2.100\nsearch corp.test\n",
        )
        .expect("resolv.conf");
    }
    let _upstream = Upstream::start(&cluster.client(), Ipv4Addr::new(203, 0, 113, 7));
    cluster.service("web");
    cluster.replicas("web", &[1, 2]);
    for task in ["web-1", "web-2"] {
        cluster
            .spec_of(task)
            .endpoint
            .insert("aliases".to_owned(), json!(["www"]));
    }
    let own = cluster.spec_of("web-2");
    own.endpoint
        .insert("taskAliases".to_owned(), json!(["second"]));
    cluster.task("asker", 1);
    cluster.network("other", "10.2.0", "fd02", 4098);
    cluster.task_on("stranger", 1, &["other"]);
    cluster.deploy();

    let node = cluster.node(1);
    let vips = sorted(cluster.vips("web"));
    let address = |task: &str| cluster.address(task, "app");
    for name in ["web", "www", "WEB"] {
        assert_eq!(resolves(node, "asker", name), vips, "{name}");
    }
    let all: Vec<String> = resolves(node, "asker", "tasks.web");
    for task in ["web-1", "web-2"] {
        assert!(all.contains(&address(task)), "{all:?}");
    }
    assert_eq!(all.len(), 4, "{all:?}");
    for (name, task) in [
        ("web-1", "web-1"),
        ("web-2", "web-2"),
        ("second", "web-2"),
        ("asker", "asker"),
    ] {
        let found = resolves(node, "asker", name);
        assert!(found.contains(&address(task)), "{name}: {found:?}");
    }
    assert_eq!(resolves(node, "asker", "www.example.test"), ["203.0.113.7"]);
    // Another's resolver, and over TCP as well.
    let netns = node.task_netns("asker");
    let vip = &cluster.vips("web")[0];
    let dig = |query: &str| {
        see(
            &netns,
            &format!("dig +time=20 +tries=1 +short @127.0.0.11 {query}"),
        )
        .trim()
        .to_owned()
    };
    assert_eq!(&dig("web"), vip);
    assert_eq!(&dig("+tcp web"), vip);
    assert_eq!(dig(&format!("-x {}", address("web-1"))), "web-1.app.");
    // A task sees the names of its own networks only, and the outside does not hear the others.
    let stranger = node.task_resolves("stranger", "web-1");
    assert!(
        !stranger
            .clone()
            .unwrap_or_default()
            .contains(&address("web-1")),
        "{stranger:?}"
    );
    // What leaves is forgotten.
    cluster.remove_task("web-2");
    cluster.deploy();
    wait_for("web-2 to be forgotten", || {
        let left = resolves(cluster.node(1), "asker", "tasks.web");
        if left.len() == 2 {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

/// People run DNS servers.
#[test]
fn a_task_that_listens_on_port_53_itself() {
    let mut cluster = Cluster::new("own-dns", 1);
    cluster.task("dns", 1).serves(&["tcp:53", "udp:53"]);
    cluster.task("asker", 1);
    cluster.deploy();
    let node = cluster.node(1);
    let to = format!("{}:53", cluster.address("dns", "app"));
    for protocol in ["tcp", "udp"] {
        for task in ["asker", "dns"] {
            let text = node.task_asks(task, protocol, &to);
            assert!(
                text.clone().is_ok_and(|text| text.starts_with("dns ")),
                "{protocol}: {text:?}"
            );
        }
        let own = node.task_asks("dns", protocol, "127.0.0.1:53");
        assert!(
            own.clone().is_ok_and(|text| text.starts_with("dns ")),
            "{protocol}: {own:?}"
        );
    }
    let found = resolves(node, "dns", "asker");
    assert!(
        found.contains(&cluster.address("asker", "app")),
        "{found:?}"
    );
}
