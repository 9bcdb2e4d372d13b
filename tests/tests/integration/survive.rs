//! Under steady load: draining, and a daemon that is killed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fairlead_tests::client::tell_task;
use fairlead_tests::witness::see;
use fairlead_tests::{Answer, Client, Cluster, Load, ask_tcp, output, wait_for};
use nix::sys::signal::Signal;

fn vip(netns: PathBuf, to: &str) -> impl FnMut() -> io::Result<Answer> + use<> {
    let order = format!("ask tcp {to}");
    move || Answer::parse(&tell_task(&netns, &order).map_err(io::Error::other)?)
}

/// The nft rules of all that the nodes made, with the handles that the kernel gave them: a rule that
/// was made again has another.
fn rulesets(cluster: &Cluster) -> BTreeMap<PathBuf, String> {
    let own = cluster.nodes().iter().map(|node| node.netns.clone());
    let made = cluster.nodes().iter().flat_map(|node| {
        let files = std::fs::read_dir(node.run_dir().join("netns")).expect("the node's namespaces");
        files.map(|file| file.expect("a namespace").path())
    });
    own.chain(made)
        .map(|netns| {
            let rules = see(&netns, "nft -a list ruleset");
            // A network's namespace may have none: where IPVS balances, and no task has a port.
            let path = netns.display().to_string();
            assert!(
                rules.contains("fairlead") || path.contains("/net-"),
                "{path}"
            );
            (netns, rules)
        })
        .collect()
}

/// Two replicas on two of three nodes, and a task that uses them.
fn web(test: &str) -> Cluster {
    let mut cluster = Cluster::new(test, 3);
    cluster.service("web").tcp(8080, 80).udp(5353, 53);
    cluster.replicas("web", &[1, 2]);
    cluster.task("asker", 3);
    cluster.deploy();
    cluster
}

#[test]
fn draining_loses_nothing() {
    let mut cluster = web("drain");
    let client = cluster.client();
    let vip_address = format!("{}:80", cluster.vips("web")[0]);
    let mut load = Load::new();
    for node in cluster.nodes() {
        load = load.tcp(&client, &format!("{}:8080", node.v4));
        load = load.udp(&client, &format!("{}:5353", node.v4));
    }
    load = load.tcp(&client, "[2001:db8::3]:8080");
    // Connections that live on while their replica drains.
    let asker = cluster.node(3).task_netns("asker");
    let places = [(&client, "192.0.2.3:8080"), (&asker, &*vip_address)];
    let mut kept = places.map(|(from, to)| {
        loop {
            let mut kept = Client::tcp(from, None, to).expect("a connection");
            if kept.ask().expect("an answer").replica == "web-1" {
                break kept;
            }
        }
    });
    // And flows of UDP, which are to leave it.
    let nodes = cluster.nodes().iter();
    let addresses = nodes
        .map(|node| format!("{}:5353", node.v4))
        .collect::<Vec<_>>();
    let mut flows: Vec<Client> = addresses
        .iter()
        .map(|to| {
            loop {
                let mut flow = Client::udp(&client, None, to).expect("a socket");
                if flow.ask().expect("an answer").replica == "web-1" {
                    break flow;
                }
            }
        })
        .collect();
    load = load.worker("VIP".into(), vip(asker.clone(), &vip_address));
    load.go_on(400);
    cluster.spec_of("web-1").mark("draining");
    cluster.apply(&["--wait"]).expect("draining");
    for node in cluster.nodes() {
        for endpoint in ["web-1-app", "web-1-ingress"] {
            node.await_event(0, "draining", |event| {
                event["type"] == "endpointApplied"
                    && event["endpointId"] == endpoint
                    && event["version"] == 2
                    && event["state"] == "draining"
            });
        }
    }
    load.go_on(100);
    for node in cluster.nodes() {
        for _ in 0..10 {
            let answer = ask_tcp(&client, &format!("{}:8080", node.v4)).expect("an answer");
            assert_eq!(answer.replica, "web-2", "chosen although it drains");
        }
    }
    for (flow, to) in flows.iter_mut().zip(&addresses) {
        wait_for(&format!("the flow to {to} to leave web-1"), || {
            // What is on its way when it leaves is lost.
            match flow.ask() {
                Ok(answer) if answer.replica == "web-2" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    for kept in &mut kept {
        assert_eq!(kept.ask().expect("the kept connection").replica, "web-1");
    }
    drop(kept);
    cluster.remove_task("web-1");
    cluster.deploy();
    cluster.node(1).await_no_task("web-1");
    load.go_on(400);
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{outcome:#?}");
    assert!(outcome.answers.len() == 2, "{outcome:?}");
}

/// Records that only have a higher version: nobody has to acknowledge them before backends are used,
/// by the same daemon or by the next one.
#[test]
fn a_higher_version_of_the_nodes_records_loses_nothing() {
    let mut cluster = web("version");
    let client = cluster.client();
    let vip_address = format!("{}:80", cluster.vips("web")[0]);
    let mut load = Load::new();
    for node in cluster.nodes() {
        load = load.tcp(&client, &format!("{}:8080", node.v4));
        load = load.udp(&client, &format!("{}:5353", node.v4));
    }
    let asker = cluster.node(3).task_netns("asker");
    load = load.worker("VIP".into(), vip(asker, &vip_address));
    load.go_on(200);
    let enabled = |cluster: &Cluster| {
        let services = cluster.node(3).json(&["service", "inspect", "web"]);
        let backends = services[0]["backends"].as_array().expect("backends");
        assert_eq!(backends.len(), 4, "{services}");
        assert!(backends.iter().all(|b| b["enabled"] == true), "{services}");
    };
    for number in 1..=3 {
        cluster.record_of(number)["version"] = 2.into();
    }
    // Without --wait nobody passes acknowledgements on.
    cluster.apply(&[]).expect("taken");
    for node in cluster.nodes() {
        node.await_event(0, "of version 2", |event| {
            event["type"] == "nodeApplied" && event["version"] == 2
        });
    }
    enabled(&cluster);
    load.go_on(200);
    cluster.node_mut(3).stop(Signal::SIGTERM);
    cluster.node_mut(3).start();
    cluster.node(3).await_event(0, "of version 2", |event| {
        event["type"] == "nodeApplied" && event["version"] == 2
    });
    enabled(&cluster);
    load.go_on(200);
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{outcome:#?}");
    assert_eq!(outcome.answers.len(), 2, "{outcome:?}");
}

#[test]
fn a_killed_daemon_loses_nothing_and_the_next_one_adopts_all() {
    let mut cluster = web("killed");
    let client = cluster.client();
    let vip_address = format!("{}:80", cluster.vips("web")[0]);
    let mut load = Load::new();
    for node in cluster.nodes() {
        load = load.tcp(&client, &format!("{}:8080", node.v4));
        load = load.tcp_kept(&client, &format!("{}:8080", node.v4));
        load = load.udp(&client, &format!("{}:5353", node.v4));
        load = load.udp_kept(&client, &format!("[{}]:5353", node.v6));
    }
    let asker = cluster.node(3).task_netns("asker");
    load = load.worker("VIP".into(), vip(asker.clone(), &vip_address));
    load.go_on(300);
    let tasks = [(1, "web-1"), (2, "web-2"), (3, "asker")];
    let before = tasks.map(|(node, task)| cluster.node(node).task_pid(task));
    let log = cluster.node(1).logs("web-1");
    let rules = rulesets(&cluster);
    for number in 1..=3 {
        cluster.node_mut(number).stop(Signal::SIGKILL);
    }
    load.go_on(300);
    for number in 1..=3 {
        cluster.node_mut(number).start();
    }
    load.go_on(300);
    let after = tasks.map(|(node, task)| cluster.node(node).task_pid(task));
    assert_eq!(before, after);
    for (node, task) in tasks {
        assert_eq!(cluster.node(node).task(task)["state"], "running");
    }
    assert_eq!(cluster.node(1).logs("web-1"), log);
    assert_eq!(rulesets(&cluster), rules);
    // A second time, and ended politely. Names are asked too: queries wait for the next daemon, as
    // long as the resolver does.
    load = load.worker("name".into(), vip(asker, "web:80"));
    load.go_on(100);
    for number in 1..=3 {
        cluster.node_mut(number).stop(Signal::SIGTERM);
        cluster.node_mut(number).start();
    }
    load.go_on(300);
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{outcome:#?}");
    assert_eq!(outcome.answers.len(), 2, "{outcome:?}");
    // It is theirs: names are answered, and what is new takes effect.
    let found = cluster
        .node(3)
        .task_resolves("asker", "web")
        .expect("a name");
    assert!(found.contains(&cluster.vips("web")[0]), "{found:?}");
    cluster.replicas("web", &[3]);
    cluster.deploy();
    cluster.clear();
    cluster.deploy();
    for (node, task) in tasks {
        cluster.node(node).await_no_task(task);
    }
}

/// Killed at all kinds of moments while tasks come and go: nothing is lost, nothing is left.
#[test]
fn a_daemon_that_is_killed_again_and_again() {
    let mut cluster = Cluster::new("again", 1);
    cluster.deploy();
    let before = cluster.traces();
    for (round, millis) in [0, 15, 40, 80, 130, 200, 300].into_iter().enumerate() {
        cluster.task(&format!("t{round}"), 1);
        if round % 3 == 2 {
            cluster.remove_task(&format!("t{}", round - 1));
        }
        cluster.apply(&[]).expect("taken");
        // Not a wait: a moment to be killed at.
        std::thread::sleep(Duration::from_millis(millis));
        cluster.node_mut(1).stop(Signal::SIGKILL);
        cluster.node_mut(1).start();
    }
    for task in ["t0", "t2", "t3", "t5", "t6"] {
        cluster.node(1).await_task(task, "running");
        let asked = cluster
            .node(1)
            .task_resolves(task, "t0")
            .expect("its names are answered");
        assert!(asked.contains(&cluster.address("t0", "app")), "{asked:?}");
    }
    for task in ["t1", "t4"] {
        cluster.node(1).await_no_task(task);
    }
    assert_eq!(
        cluster.node(1).json(&["ps"]).as_array().map(Vec::len),
        Some(5)
    );
    cluster.clear();
    cluster.deploy();
    for task in ["t0", "t2", "t3", "t5", "t6"] {
        cluster.node(1).await_no_task(task);
    }
    assert_eq!(cluster.traces(), before);
}

#[test]
fn a_second_daemon_is_refused() {
    let mut cluster = Cluster::new("second", 1);
    cluster.task("one", 1);
    cluster.deploy();
    let node = cluster.node(1);
    let pid = node.task_pid("one");
    let output = output("a second daemon", &mut node.daemon_command()).expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains(&node.daemon_pid().to_string()),
        "who has it is not told: {text}"
    );
    assert_eq!(node.task_pid("one"), pid);
    // Another state directory, but the same socket.
    let mut command = node.daemon_command();
    let other = node.dir.join("other");
    command
        .arg("--state-dir")
        .arg(&other)
        .arg("--run-dir")
        .arg(&other)
        .arg("--socket")
        .arg(node.socket());
    let output = fairlead_tests::output("a third daemon", &mut command).expect("it ends");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(node.task_pid("one"), pid);
}

/// A machine can be nodes of several clusters, which know nothing of each other: one goes while the other, with the same
/// names, addresses and VNIs, is under load.
#[test]
fn two_clusters_with_the_same_of_everything() {
    let [mut one, mut other] = ["twin-a", "twin-b"].map(|test| Cluster::new(test, 2));
    for cluster in [&mut one, &mut other] {
        cluster.service("web").tcp(8080, 80);
        cluster.replicas("web", &[1, 2]);
        cluster.deploy();
    }
    assert_eq!(one.networks(), other.networks());
    assert_eq!(
        one.address("web-1", "ingress"),
        other.address("web-1", "ingress")
    );
    let load = |cluster: &Cluster| {
        cluster.nodes().iter().fold(Load::new(), |load, node| {
            load.tcp(&cluster.client(), &format!("{}:8080", node.v4))
        })
    };
    let (of_one, of_other) = (load(&one), load(&other));
    of_one.go_on(50);
    assert_eq!(of_one.stop().failures, Vec::<String>::new());
    of_other.go_on(50);
    one.clear_all();
    one.deploy();
    of_other.go_on(50);
    drop(one);
    of_other.go_on(50);
    assert_eq!(of_other.stop().failures, Vec::<String>::new());
}
