//! The data path, packet by packet: nodes as network namespaces, real servers and clients in them.
//! Needs root. Engine: what the kernel has, or `FAIRLEAD_TEST_ENGINE`.

mod lab;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use lab::{Lab, ask, ask_udp, inside};
use netdp::Backend;

/// Both nodes, two replicas; a third node with nothing but its ingress.
fn web(test: &str) -> Lab {
    let mut lab = Lab::new(test, 3);
    lab.add_task(1, 11, Some("web"));
    lab.add_task(2, 12, Some("web"));
    lab.add_task(1, 21, None);
    lab.apply();
    lab.serve("t1-11");
    lab.serve("t2-12");
    lab
}

fn answers(from: &std::path::Path, to: &str, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|_| ask(from, to).unwrap_or_else(|error| panic!("{to} from {from:?}: {error}")))
        .collect()
}

fn both(client: &str) -> BTreeSet<String> {
    [format!("t1-11 {client}"), format!("t2-12 {client}")].into()
}

#[test]
fn published_port_on_every_node() {
    let lab = web("published");
    for node in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(answers(&lab.client(), &format!("{node}:8080"), 40), both("192.0.2.100"), "{node}");
    }
    for node in ["[2001:db8::1]", "[2001:db8::2]", "[2001:db8::3]"] {
        assert_eq!(answers(&lab.client(), &format!("{node}:8080"), 40), both("2001:db8::100"), "{node}");
    }
}

#[test]
fn published_udp_port_on_every_node() {
    let lab = web("udp");
    for (local, node, client) in [
        ("0.0.0.0:0", "192.0.2.1", "192.0.2.100"),
        ("0.0.0.0:0", "192.0.2.3", "192.0.2.100"),
        ("[::]:0", "[2001:db8::1]", "2001:db8::100"),
        ("[::]:0", "[2001:db8::3]", "2001:db8::100"),
    ] {
        let seen: BTreeSet<String> = (0..40)
            .map(|_| ask_udp(&lab.client(), local, &format!("{node}:5353")).unwrap_or_else(|e| panic!("{node}: {e}")))
            .collect();
        assert_eq!(seen, both(client), "{node}");
    }
}

#[test]
fn virtual_address_from_a_task() {
    let lab = web("vip");
    assert_eq!(answers(&lab.task("t1-21"), "10.1.0.2:80", 40), both("10.1.0.21"));
    assert_eq!(answers(&lab.task("t1-21"), "[fd01::2]:80", 40), both("fd01::15"));
    // A replica reaches its own service, itself included.
    let own = answers(&lab.task("t1-11"), "10.1.0.2:80", 40);
    assert_eq!(own, both("10.1.0.11"));
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    let mut lab = web("refuse");
    lab.set_backend("t1-11", Backend::Disabled);
    lab.set_backend("t2-12", Backend::Disabled);
    lab.apply();
    let client = lab.client();
    for (from, to) in [
        (&client, "192.0.2.1:8080"),
        (&client, "[2001:db8::1]:8080"),
        (&lab.task("t1-21"), "10.1.0.2:80"),
        (&lab.task("t1-21"), "[fd01::2]:80"),
    ] {
        let error = ask(from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn removal_leaves_nothing() {
    let lab = web("removal");
    let before = lab.exec("n2", "ip -o link");
    assert!(before.contains("fl_gwbridge"), "{before}");
    for (node, desired) in lab.nodes.iter().zip(&lab.desired) {
        let mut empty = desired.clone();
        empty.networks.clear();
        empty.sandboxes.clear();
        empty.endpoints.clear();
        empty.services.clear();
        let report = node.apply(&empty);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let report = node.with(netdp::DataPlane::reconcile);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let files = std::fs::read_dir(node.run_dir.join("netns")).unwrap().count();
        assert_eq!(files, 0);
        let links = inside(&node.netns, || lab::sh("ip -o link"));
        assert!(!links.contains("flg") && !links.contains("fl_ingress"), "{links}");
    }
}
