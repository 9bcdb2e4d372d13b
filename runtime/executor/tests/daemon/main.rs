//! The daemon as a whole, through its socket, with real containers and no networks but each task's
//! own way out. Needs root.

mod bed;
mod changes;
mod health;
mod image;
mod images;
mod leaving;
mod pull;
mod restart;
mod tasks;
mod traces;
mod volumes;

use std::fs;
use std::path::Path;

use bed::{Daemon, complete, configure, inspect, script, status, within};
use fairlead_api::v1::{self, TaskState};
use prost::Message;
use tonic::Code;
use traces::nothing_left;

fn violations(status: &tonic::Status) -> Vec<String> {
    let refusal = v1::Refusal::decode(status.details()).unwrap();
    refusal.violations.into_iter().map(|v| v.field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_changes_nothing() {
    let daemon = Daemon::start("refuse");
    let mut client = daemon.client().await;
    let early = client.assign(complete("1", &[])).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    configure(&mut client).await;
    let good = script(&daemon, "t1", "exec sleep 1000");
    client
        .assign(complete("1", std::slice::from_ref(&good)))
        .await
        .unwrap();
    status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    let before = inspect(&mut client).await;

    let mut bad = good.clone();
    bad.id = "t2".into();
    bad.container.as_mut().unwrap().tty = true;
    bad.networks = vec![v1::NetworkAttachment {
        network_id: "none".into(),
        ..Default::default()
    }];
    let refused = client.assign(complete("2", &[bad])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("not supported yet"),
        "{}",
        refused.message()
    );
    assert_eq!(
        violations(&refused),
        [
            r#"tasks["t2"].container.tty"#,
            r#"tasks["t2"].networks[0].addresses"#
        ]
    );
    let mut increment = complete("3", &[]);
    increment.changes.clear();
    increment.r#type = v1::AssignmentType::Incremental as i32;
    increment.applies_to = "0".into();
    let refused = client.assign(increment).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("\"0\"") && refused.message().contains("\"1\""));
    assert_eq!(inspect(&mut client).await, before);

    // The same again changes nothing either.
    client.assign(complete("1", &[good])).await.unwrap();
    assert_eq!(inspect(&mut client).await, before);
    let view = client
        .inspect(v1::InspectRequest {
            kind: v1::Kind::Task as i32,
            name: "t".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(view.tasks.len(), 1);
    client.assign(complete("4", &[])).await.unwrap();
    nothing_left(&daemon);
}

/// As after the state directory was lost, of an agent that remembers more than the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_never_given_out_is_the_beginning() {
    let daemon = Daemon::start("numbers");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let other = v1::NodeRecord {
        id: "node-2".into(),
        version: 1,
        vteps: vec!["192.0.2.2".into()],
        ..Default::default()
    };
    let mut request = complete("1", &[script(&daemon, "t1", "exec sleep 1000")]);
    request.changes.push(v1::Change {
        action: 0,
        object: Some(v1::change::Object::Node(other)),
    });
    client.assign(request).await.unwrap();
    let first = status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    for after in [u64::MAX, first.sequence + 1000] {
        let request = v1::WatchStatusRequest { after };
        let mut statuses = client.watch_status(request).await.unwrap().into_inner();
        let status = within("a status", statuses.message()).await;
        assert_eq!(status.unwrap().unwrap(), first);
        let request = v1::WatchEventsRequest { after };
        let mut events = client.watch_events(request).await.unwrap().into_inner();
        let event = within("an event", events.message()).await;
        let event = event.unwrap().unwrap().event;
        assert!(
            matches!(event, Some(v1::event::Event::NodeApplied(_))),
            "{event:?}"
        );
    }
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_not_for_others() {
    let daemon = Daemon::start("modes");
    // The socket is there before the store: an answer says that the daemon has both.
    inspect(&mut daemon.client().await).await;
    let mode = |path: &Path| {
        let permissions = fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::mode(&permissions) & 0o7777
    };
    assert_eq!(mode(&daemon.socket()), 0o660);
    // What others can open they can read, or lock.
    assert_eq!(mode(&daemon.state_dir()), 0o700);
    for path in [daemon.state_dir(), daemon.run_dir()] {
        assert_eq!(mode(&path.join("lock")), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&daemon.state_dir().join("executor.redb")), 0o600);
}
