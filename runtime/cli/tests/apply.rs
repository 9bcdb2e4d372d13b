//! `fairlead apply` against daemons that answer as scripted.

mod double;

use double::{Daemon, Script, stderr, stdout};
use fairlead_api::v1;
use fairlead_api::v1::change::Object;

/// A node of two that know each other, with one task and its endpoint.
fn document(own: &str) -> String {
    format!(
        "version: 1
node: {{id: {own}}}
nodes:
- {{id: a, version: 3, vteps: [192.0.2.1], steeringId: 1}}
- {{id: b, version: 5, vteps: [192.0.2.2], steeringId: 2}}
endpoints:
- {{id: e1, version: 1, networkId: app, taskId: t1, nodeId: a, addresses: [10.1.0.3]}}
tasks:
- id: t1
  name: web.1
  container: {{image: x}}
  networks:
  - networkId: app
    addresses: [10.1.0.3/24]
  hostPorts: [{{published: 80, target: 80}}]
"
    )
}

fn status(task_id: &str, state: v1::TaskState, error: &str) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: task_id.into(),
        state: state.into(),
        error: error.into(),
        ..Default::default()
    }
}

#[test]
fn configures_and_assigns_everything_at_once() {
    let daemon = Daemon::start(Script::default());
    let file = daemon.file("a.yaml", &document("a"));
    let output = daemon.run(&["apply", "-f", &file, "--wait"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for line in ["  + node a", "  + node b", "  + endpoint e1", "  + task t1"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let script = daemon.script.lock().unwrap();
    assert_eq!(script.configured.as_ref().unwrap().node_id, "a");
    let request = &script.assigned[0];
    assert_eq!(request.r#type, v1::AssignmentType::Complete as i32);
    assert_eq!(request.changes.len(), 4);
    assert_eq!(request.results_in.len(), 32);
}

#[test]
fn changes_are_told_and_acknowledgements_are_kept() {
    let daemon = Daemon::start(Script::default());
    let file = daemon.file("a.yaml", &document("a"));
    assert!(daemon.run(&["apply", "-f", &file]).status.success());
    daemon
        .script
        .lock()
        .unwrap()
        .held
        .nodes
        .iter_mut()
        .for_each(|node| {
            node.acknowledged_version = if node.id == "b" { 3 } else { 0 };
        });
    let output = daemon.run(&["apply", "-f", &file, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report[0]["node"], "a");
    assert_eq!(report[0]["changed"], serde_json::json!([]));
    let script = daemon.script.lock().unwrap();
    let b = script
        .held
        .nodes
        .iter()
        .find(|node| node.id == "b")
        .unwrap();
    assert_eq!(b.acknowledged_version, 3);
}

#[test]
fn a_refusal_names_each_field_as_the_file_does() {
    let violation = |field: &str, reason: &str| v1::Violation {
        field: field.into(),
        reason: reason.into(),
    };
    let refusal = v1::Refusal {
        violations: vec![
            violation(
                "tasks[\"t1\"].networks[0].addresses[0]",
                "outside of every subnet",
            ),
            violation("tasks[\"t1\"].host_ports[0].published_port", "taken twice"),
            violation("services[\"x\"].virtual_ips[0]", "not there"),
        ],
    };
    let daemon = Daemon::start(Script {
        refusal: Some(refusal),
        ..Script::default()
    });
    let file = daemon.file("a.yaml", &document("a"));
    let output = daemon.run(&["apply", "-f", &file]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    for line in [
        "  tasks[\"t1\"].networks[0].addresses[0]: outside of every subnet (line 14)",
        "  tasks[\"t1\"].hostPorts[0].published: taken twice (line 15)",
        "  services[\"x\"].virtualIps[0]: not there",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn acknowledgements_are_passed_on_between_nodes() {
    let (a, b) = (
        Daemon::start(Script::default()),
        Daemon::start(Script::default()),
    );
    let (file_a, file_b) = (
        a.file("a.yaml", &document("a")),
        b.file("b.yaml", &document("b")),
    );
    let (socket_a, socket_b) = (a.socket.to_str().unwrap(), b.socket.to_str().unwrap());
    let output = a.run(&[
        "apply", "-f", &file_a, "-f", &file_b, "--socket", socket_a, "--socket", socket_b,
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    // a is told that b has version 3 of a's record; b is told that a has version 5 of b's.
    for (daemon, peer, version) in [(&a, "b", 3), (&b, "a", 5)] {
        let script = daemon.script.lock().unwrap();
        let [complete, incremental] = &script.assigned[..] else {
            panic!("{} assignments", script.assigned.len())
        };
        assert_eq!(incremental.r#type, v1::AssignmentType::Incremental as i32);
        assert_eq!(incremental.applies_to, complete.results_in);
        assert_ne!(incremental.results_in, complete.results_in);
        let Some(Object::Node(record)) = &incremental.changes[0].object else {
            panic!("{:?}", incremental.changes)
        };
        assert_eq!(
            (record.id.as_str(), record.acknowledged_version),
            (peer, version)
        );
        assert_eq!(record.vteps.len(), 1);
    }
}

#[test]
fn a_missing_acknowledgement_is_named() {
    let a = Daemon::start(Script {
        ignored: vec!["b".into()],
        ..Script::default()
    });
    let b = Daemon::start(Script::default());
    let with_socket = |daemon: &Daemon, own: &str| {
        let node = format!("node: {{id: {own}, socket: {}}}", daemon.socket.display());
        daemon.file(
            own,
            &document(own).replace(&format!("node: {{id: {own}}}"), &node),
        )
    };
    let (file_a, file_b) = (with_socket(&a, "a"), with_socket(&b, "b"));
    let output = a.run(&["apply", "-f", &file_a, &file_b, "--timeout", "5s"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("a has not applied version 5 of the record of b"),
        "{text}"
    );
    assert!(!text.contains("b has not applied"), "{text}");
}

#[test]
fn waits_for_tasks_and_tells_why_they_failed() {
    use v1::TaskState::{Preparing, Rejected, Running};
    let statuses = vec![
        status("t1", Preparing, ""),
        status("other", Rejected, "not ours"),
    ];
    let mut good = statuses.clone();
    good.push(status("t1", Running, ""));
    let daemon = Daemon::start(Script {
        statuses: good,
        ..Script::default()
    });
    let file = daemon.file("a.yaml", &document("a"));
    let output = daemon.run(&["apply", "-f", &file, "--wait-tasks"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("a: web.1 preparing\na: web.1 running\n"));

    let mut bad = statuses.clone();
    bad.push(status("t1", Rejected, "no such image"));
    daemon.script.lock().unwrap().statuses = bad;
    let output = daemon.run(&["apply", "-f", &file, "--wait-tasks"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("web.1 rejected (no such image)"),
        "{}",
        stderr(&output)
    );

    daemon.script.lock().unwrap().statuses = statuses;
    let output = daemon.run(&["apply", "-f", &file, "--wait-tasks", "--timeout", "5s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("web.1 preparing, shall be running"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_bad_file_is_refused_before_anything_is_sent() {
    let daemon = Daemon::start(Script::default());
    let good = daemon.file("good.yaml", &document("a"));
    let bad = daemon.file("bad.yaml", "version: 1\nnode:\n  id: b\n  colour: red\n");
    let socket = daemon.socket.to_str().unwrap();
    let arguments = [
        "apply", "-f", &good, &bad, "--socket", socket, "--socket", "/nowhere",
    ];
    let output = daemon.run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("bad.yaml:4:3: unknown field `colour`"),
        "{}",
        stderr(&output)
    );
    let output = daemon.run(&["apply", "-f", "/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot read /nowhere.yaml"),
        "{}",
        stderr(&output)
    );
    assert!(daemon.script.lock().unwrap().configured.is_none());
}

#[test]
fn nothing_is_sent_before_every_daemon_is_reached() {
    let daemon = Daemon::start(Script::default());
    let file = daemon.file("a.yaml", &document("a"));
    let socket = daemon.socket.to_str().unwrap();
    let output = daemon.run(&[
        "apply", "-f", &file, &file, "--socket", socket, "--socket", "/nowhere",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(daemon.script.lock().unwrap().configured.is_none());
}

#[test]
fn sockets_and_files_must_match() {
    let daemon = Daemon::start(Script::default());
    let file = daemon.file("a.yaml", &document("a"));
    let socket = daemon.socket.to_str().unwrap();
    for arguments in [
        vec!["apply", "-f", &file, "-f", &file],
        vec!["apply", "-f", &file, "-f", &file, "--socket", socket],
        vec![
            "apply", "-f", &file, "-f", &file, "--socket", socket, "--socket", socket,
        ],
        vec!["apply", "-f", &file, "--timeout", "30"],
        vec!["apply"],
    ] {
        let output = daemon.run(&arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}
