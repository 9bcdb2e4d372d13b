//! Tasks that have left the assignment and are not gone yet.

use std::time::{Duration, Instant};

use fairlead_api::v1::{self, TaskState, change::Object};
use nix::sys::signal::Signal;
use tonic::Code;

use crate::bed::{Daemon, complete, configure, inspect, run, said, script, status};
use crate::traces::nothing_left;

fn network(vni: u32) -> v1::Network {
    v1::Network {
        id: "app".into(),
        subnets: vec![v1::Subnet {
            cidr: "10.1.0.0/24".into(),
            vni,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A task that ignores its stop signal, with an address of the network.
fn stubborn(daemon: &Daemon, id: &str) -> v1::Task {
    let mut task = script(
        daemon,
        id,
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    );
    task.networks = vec![v1::NetworkAttachment {
        network_id: "app".into(),
        addresses: vec!["10.1.0.5/24".into()],
        ..Default::default()
    }];
    task
}

fn set(name: &str, tasks: &[v1::Task], network: v1::Network) -> v1::AssignRequest {
    let mut request = complete(name, tasks);
    request.changes.push(v1::Change {
        action: 0,
        object: Some(Object::Network(network)),
    });
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_has_is_its_own_until_it_is_gone() {
    let daemon = Daemon::start("leaving");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut old = stubborn(&daemon, "old");
    old.container.as_mut().unwrap().stop_grace_period = Some(4_000_000_000);
    let request = set("1", std::slice::from_ref(&old), network(4097));
    client.assign(request).await.unwrap();
    said(&mut client, "old", |text| text == "ready\n").await;
    status(&mut client, "old", |s| s.state() == TaskState::Running).await;

    // Its network as well, although the set no longer has the task.
    client.assign(set("2", &[], network(4097))).await.unwrap();
    let refused = client.assign(set("3", &[], network(4098))).await;
    let refused = refused.expect_err("its network is another one");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("\"old\""),
        "{}",
        refused.message()
    );
    let new = stubborn(&daemon, "new");
    let request = set("4", std::slice::from_ref(&new), network(4097));
    client.assign(request).await.unwrap();
    let waits = |s: &v1::TaskStatus| s.error.contains("10.1.0.5") && s.error.contains("\"old\"");
    status(&mut client, "new", waits).await;
    let now = inspect(&mut client).await;
    let old = now
        .tasks
        .iter()
        .find(|t| t.status.as_ref().unwrap().task_id == "old");
    let old = old.expect("still stopped").status.clone().unwrap();
    assert_eq!(old.state(), TaskState::Running, "within its grace period");
    status(&mut client, "new", |s| s.state() == TaskState::Running).await;
    let now = inspect(&mut client).await;
    assert_eq!(now.tasks.len(), 1);
    client.assign(complete("5", &[])).await.unwrap();
    nothing_left(&daemon);
}

/// Nothing can be built without the underlay, but what goes, goes: first the namespace, then the task.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_without_the_underlay() {
    let mut daemon = Daemon::start("namespace");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let task = |id| script(&daemon, id, "exec sleep 1000");
    let tasks = ["goes", "stays"].map(task);
    client.assign(complete("1", &tasks)).await.unwrap();
    for id in ["goes", "stays"] {
        status(&mut client, id, |s| s.state() == TaskState::Running).await;
    }
    daemon.end(Signal::SIGKILL);
    let address = "192.0.2.1/24";
    let words = [
        "-n",
        &daemon.name,
        "address",
        "del",
        address,
        "dev",
        "under0",
    ];
    run("ip", &words);
    daemon.launch();
    let mut client = daemon.client().await;
    client.assign(complete("2", &tasks[1..])).await.unwrap();
    let file = daemon.run_dir().join("netns/task-goes");
    let begin = Instant::now();
    loop {
        // In this order: the file goes first.
        let there = file.exists();
        let held = inspect(&mut client).await.tasks.len();
        assert!(
            held == 2 || !there,
            "the task is forgotten while its namespace is there"
        );
        if held == 1 {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "it stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}
