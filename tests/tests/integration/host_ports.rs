//! Ports in host mode: past the mesh, at one node.

use std::io::ErrorKind;
use std::net::TcpListener;

use fairlead_tests::{Client, Cluster, ask_tcp, ask_udp, inside, wait_for};
use serde_json::json;

#[test]
fn a_port_of_one_node_leads_to_its_task() {
    let mut cluster = Cluster::new("host-port", 2);
    cluster.task("web", 1).serves(&["tcp:80", "udp:53"]).set(
        "/hostPorts",
        json!([
            {"published": 8081, "target": 80, "protocol": "tcp"},
            {"published": 5354, "target": 53, "protocol": "udp"},
            {"published": 0, "target": 80, "protocol": "tcp"},
        ]),
    );
    cluster.deploy();
    let client = cluster.client();
    let ports = cluster.node(1).task("web")["ports"].clone();
    let port = |n: usize| ports[n]["published"].as_u64().unwrap_or_default();
    assert_eq!((port(0), port(1)), (8081, 5354), "{ports}");
    assert!(port(2) > 0, "{ports}");
    for (to, from) in [
        ("192.0.2.1", "192.0.2.100"),
        ("[2001:db8::1]", "2001:db8::100"),
    ] {
        for number in [port(0), port(2)] {
            let answer = ask_tcp(&client, &format!("{to}:{number}")).expect(to);
            assert_eq!(answer.to_string(), format!("web saw {from}"));
        }
        let answer = ask_udp(&client, &format!("{to}:5354")).expect(to);
        assert_eq!(answer.to_string(), format!("web saw {from}"));
    }
    let error = ask_tcp(&client, "192.0.2.2:8081").expect_err("not at the other node");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // The node's own programs reach it too.
    for to in ["127.0.0.1:8081", "192.0.2.1:8081"] {
        let answer = ask_tcp(&cluster.node(1).netns, to).expect(to);
        assert_eq!(answer.replica, "web");
    }
    // And so do a task on the same node, and one on another. The first only where bridged packets do
    // not pass the node's rules (docs/networking.md, limits).
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        let node = cluster.node(1);
        node.exec("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
    }
    cluster.task("near", 1);
    cluster.task("far", 2);
    cluster.deploy();
    for (node, task) in [(1, "near"), (2, "far")] {
        let text = cluster.node(node).task_asks(task, "tcp", "192.0.2.1:8081");
        assert!(
            text.clone().is_ok_and(|text| text.starts_with("web ")),
            "{task}: {text:?}"
        );
    }
    cluster.remove_task("web");
    cluster.deploy();
    cluster.node(1).await_no_task("web");
    let error = ask_tcp(&client, "192.0.2.1:8081").expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    inside(&cluster.node(1).netns, || TcpListener::bind("[::]:8081")).expect("given back");
}

#[test]
fn a_port_that_is_taken_rejects_the_task() {
    let mut cluster = Cluster::new("port-taken", 1);
    cluster.deploy();
    let netns = cluster.node(1).netns.clone();
    let taken = inside(&netns, || TcpListener::bind("0.0.0.0:8081")).expect("the port");
    let before = cluster.traces();
    let ports = json!([{"published": 8081, "target": 80, "protocol": "tcp"}]);
    cluster.task("late", 1).set("/hostPorts", ports.clone());
    cluster.apply(&[]).expect("taken");
    let late = cluster.node(1).await_task("late", "rejected");
    let error = late["error"].as_str().unwrap_or_default();
    assert!(error.contains("8081"), "{late}");
    assert_eq!(late["pid"], 0, "{late}");
    wait_for("nothing to be left", || {
        let now = cluster.traces();
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:#?}"))
        }
    });
    // Once it is free, another task can have it.
    drop(taken);
    cluster.remove_task("late");
    cluster
        .task("next", 1)
        .serves(&["tcp:80"])
        .set("/hostPorts", ports);
    cluster.deploy();
    let mut client = Client::tcp(&cluster.client(), None, "192.0.2.1:8081").expect("free");
    assert_eq!(client.ask().expect("an answer").replica, "next");
}
