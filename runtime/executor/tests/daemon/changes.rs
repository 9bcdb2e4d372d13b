//! What may change while there are tasks, and what is taken away piece by piece.

use fairlead_api::v1::{self, TaskState};
use tonic::Code;

use crate::bed::{Daemon, complete, configure, inspect, script, status};
use crate::traces::nothing_left;

fn config(change: impl FnOnce(&mut v1::NodeConfig)) -> v1::ConfigureRequest {
    let mut config = v1::NodeConfig {
        node_id: "node-1".into(),
        gwbridge_subnets: vec!["172.30.0.0/24".into()],
        ..Default::default()
    };
    change(&mut config);
    v1::ConfigureRequest {
        config: Some(config),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_node_is_stays_while_it_has_tasks() {
    let daemon = Daemon::start("fixed");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let task = script(&daemon, "t1", "exec sleep 1000");
    client.assign(complete("1", &[task])).await.unwrap();
    status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    let before = inspect(&mut client).await;
    for (request, words) in [
        (
            config(|c| c.node_id = "node-2".into()),
            ["the id", "\"node-1\"", "\"node-2\""],
        ),
        (
            config(|c| c.gwbridge_subnets = vec!["172.31.0.0/24".into()]),
            ["the gwbridge", "172.30.0.0/24", "172.31.0.0/24"],
        ),
        (
            config(|c| c.engine = "nft".into()),
            ["the engine", "\"\"", "\"nft\""],
        ),
    ] {
        let refused = client.configure(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        for word in words {
            assert!(refused.message().contains(word), "{word}: {refused}");
        }
    }
    // What is the same, and what nothing depends on, may be said.
    client.configure(config(|_| {})).await.unwrap();
    let named = config(|c| c.hostname = "host-1".into());
    client.configure(named).await.unwrap();
    assert_eq!(inspect(&mut client).await.tasks, before.tasks);

    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
    // Without tasks all of it may change; the engine is opened anew.
    let other = config(|c| {
        c.node_id = "node-2".into();
        c.gwbridge_subnets = vec!["172.31.0.0/24".into()];
        c.engine = "nft".into();
    });
    client.configure(other).await.unwrap();
    let described = client.describe(v1::DescribeRequest {}).await.unwrap();
    let described = described.into_inner();
    assert_eq!(described.engine, "nft");
    // All that docs/operations.md asks of a kernel is looked for, in one order.
    let names: Vec<&str> = described.features.iter().map(|f| f.name.as_str()).collect();
    let expected = [
        "bridge",
        "cgroup-cpu",
        "cgroup-memory",
        "cgroup-pids",
        "firewalls",
        "ipvs",
        "nft",
        "nft-egress",
        "overlayfs",
        "vxlan",
    ];
    assert_eq!(names, expected);
    for feature in described.features.iter().filter(|f| f.name != "ipvs") {
        assert!(feature.available, "{feature:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_set_removes_what_it_names_and_nothing_else() {
    let daemon = Daemon::start("remove");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let tasks = ["t1", "t2"].map(|id| script(&daemon, id, "exec sleep 1000"));
    client.assign(complete("1", &tasks)).await.unwrap();
    let mut pids = Vec::new();
    for id in ["t1", "t2"] {
        let running = status(&mut client, id, |s| s.state() == TaskState::Running).await;
        pids.push(running.container.unwrap().pid);
    }
    let remove = |from: &str, to: &str, id: &str| v1::AssignRequest {
        r#type: v1::AssignmentType::Incremental as i32,
        applies_to: from.into(),
        results_in: to.into(),
        node_config: None,
        changes: vec![v1::Change {
            action: v1::Action::Remove as i32,
            object: Some(v1::change::Object::Task(v1::Task {
                id: id.into(),
                ..Default::default()
            })),
        }],
    };
    // Not on top of something else.
    let refused = client.assign(remove("0", "2", "t1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(inspect(&mut client).await.assignment, "1");

    client.assign(remove("1", "2", "t1")).await.unwrap();
    let gone = async {
        while inspect(&mut client).await.tasks.len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    crate::bed::within("the end of t1", gone).await;
    let held = inspect(&mut client).await;
    assert_eq!(held.assignment, "2");
    let left = held.tasks[0].status.as_ref().unwrap();
    assert_eq!(left.task_id, "t2");
    assert_eq!(left.container.as_ref().unwrap().pid, pids[1]);
    // What is not there is no error; a set of its own for each step.
    client.assign(remove("2", "3", "t1")).await.unwrap();
    client.assign(remove("3", "4", "t2")).await.unwrap();
    nothing_left(&daemon);
    assert_eq!(inspect(&mut client).await.assignment, "4");
}
