//! What is left when everything is removed: nothing.

use std::fs;
use std::path::{Path, PathBuf};

use fairlead_tests::{Cluster, Node, ask_tcp, wait_for, witness};
use serde_json::json;

/// Files below a folder, without what a daemon keeps for itself.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return all;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(files(&path));
        }
        // Where the daemon puts what belongs to tasks: made with the first of them.
        if !path.ends_with("run/tasks") && !path.ends_with("state/tasks") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Descriptors of network namespaces and of BPF and the like that the daemon holds, by kind.
fn descriptors(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", node.daemon_pid())).expect("descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut kinds: Vec<String> = links
        .map(|link| link.display().to_string())
        .filter(|link| !link.starts_with("socket:") && !link.starts_with("pipe:"))
        .map(|link| link.split(":[").next().unwrap_or_default().to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[derive(Debug, PartialEq)]
struct Remains {
    traces: fairlead_tests::Traces,
    network: String,
    run: Vec<PathBuf>,
    state: Vec<PathBuf>,
    descriptors: Vec<String>,
}

fn remains(cluster: &Cluster) -> Vec<Remains> {
    let of = |node: &Node| Remains {
        traces: cluster.traces(),
        network: witness::state(&node.netns),
        run: files(&node.dir.join("run")),
        state: files(&node.dir.join("state")),
        descriptors: descriptors(node),
    };
    cluster.nodes().iter().map(of).collect()
}

fn await_the_same(cluster: &Cluster, before: &[Remains]) {
    wait_for("nothing to be left", || {
        let now = remains(cluster);
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:#?}\ninstead of {before:#?}"))
        }
    });
}

/// What docs/operations.md says of the settings that stay: a node goes on to forward, and to take
/// routes from router advertisements where it did.
fn settings_are_as_documented(node: &Node, before: &[String]) {
    let expected: Vec<String> = before
        .iter()
        .map(|line| {
            let (name, value) = line.split_once(" = ").expect("name = value");
            let link = name.split('.').nth(3).unwrap_or_default();
            let value = match name.rsplit('.').next() {
                Some("ip_forward" | "forwarding") => "1",
                Some("accept_redirects") => "0",
                Some("accept_ra") if value == "1" && link != "all" && link != "default" => "2",
                _ => value,
            };
            format!("{name} = {value}")
        })
        .collect();
    assert_ne!(before, expected, "nothing would show");
    assert_eq!(witness::stays(&node.netns), expected, "{}", node.id);
}

/// What docs/operations.md and the README say to uninstall with.
#[test]
fn a_file_with_the_node_alone_removes_everything() {
    let mut cluster = Cluster::new("uninstall", 2);
    let before = remains(&cluster);
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[1, 2]);
    cluster.deploy();
    for (number, node) in (1..).zip(cluster.nodes()) {
        let mut file = cluster.assignment(number);
        let fields = file.as_object_mut().expect("an object");
        fields.retain(|field, _| field == "version" || field == "node");
        node.apply(&file).expect("taken");
        node.await_no_task(&format!("web-{number}"));
    }
    await_the_same(&cluster, &before);
}

#[test]
fn removal_leaves_nothing() {
    let mut cluster = Cluster::new("remains", 2);
    let before = remains(&cluster);
    let settings: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| witness::stays(&node.netns))
        .collect();
    // Twice, to see what only a second time leaves.
    for _ in 0..2 {
        cluster.service("web").tcp(8080, 80).udp(5353, 53);
        cluster.replicas("web", &[1, 1, 2]);
        cluster.task("host", 1).serves(&["tcp:80"]).set(
            "/hostPorts",
            json!([{"published": 8081, "target": 80, "protocol": "tcp"}]),
        );
        cluster.deploy();
        ask_tcp(&cluster.client(), "192.0.2.2:8080").expect("it works");
        ask_tcp(&cluster.client(), "192.0.2.1:8081").expect("it works");
        let during = remains(&cluster);
        assert!(during.iter().zip(&before).all(|(during, before)| {
            during.traces != before.traces
                && during.network != before.network
                && during.run != before.run
        }));
        cluster.clear();
        cluster.apply(&[]).expect("taken");
        for task in ["web-1", "web-2", "host"] {
            cluster.node(1).await_no_task(task);
        }
        cluster.node(2).await_no_task("web-3");
    }
    let networks = cluster.networks();
    assert_eq!(networks.len(), 2);
    cluster.clear_all();
    cluster.apply(&[]).expect("taken");
    await_the_same(&cluster, &before);
    for (node, before) in cluster.nodes().iter().zip(&settings) {
        settings_are_as_documented(node, before);
    }
}
