//! The commands that show what is there, against a daemon that answers as scripted.

mod double;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use double::{Daemon, Script, fairlead, stderr, stdout};
use fairlead_api::v1;

fn task() -> v1::TaskView {
    v1::TaskView {
        task: Some(v1::Task {
            id: "0123456789abcdef".into(),
            name: "web.1".into(),
            desired_state: v1::TaskState::Running.into(),
            networks: vec![v1::NetworkAttachment {
                network_id: "app".into(),
                addresses: vec!["10.1.0.3/24".into(), "fd00::3/64".into()],
                ..Default::default()
            }],
            ..Default::default()
        }),
        status: Some(v1::TaskStatus {
            state: v1::TaskState::Failed.into(),
            timestamp: 1_000_000_000,
            error: "exited".into(),
            container: Some(v1::ContainerStatus {
                container_id: "c1".into(),
                pid: 0,
                exit_code: 7,
                oom_killed: false,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn service() -> v1::ServiceView {
    let backend = |task: &str, enabled: bool, reason: &str| v1::BackendView {
        network_id: "app".into(),
        task_id: task.into(),
        state: v1::EndpointState::Active.into(),
        enabled,
        reason: reason.into(),
        ..Default::default()
    };
    v1::ServiceView {
        service: Some(v1::Service {
            id: "web".into(),
            name: "web".into(),
            ..Default::default()
        }),
        backends: vec![
            backend("t1", true, ""),
            backend("t2", false, "n2 has not acknowledged"),
        ],
        engine: "nft".into(),
        scheduler: "rr".into(),
        errors: vec!["port 8080/tcp is already in use".into()],
    }
}

fn entry(stream: v1::Stream, line: &str) -> v1::LogEntry {
    v1::LogEntry {
        timestamp: 1_500_000_000,
        stream: stream.into(),
        line: line.into(),
    }
}

fn daemon() -> Daemon {
    use v1::Stream::{Stderr, Stdout};
    let held = v1::InspectResponse {
        tasks: vec![task()],
        services: vec![service()],
        ..Default::default()
    };
    let logs = vec![
        entry(Stdout, "one\n"),
        entry(Stderr, "two\n"),
        entry(Stdout, "thr"),
        entry(Stdout, "ee\n"),
    ];
    Daemon::start(Script {
        held,
        logs,
        ..Script::default()
    })
}

#[test]
fn tasks_as_a_table_and_as_json() {
    let daemon = daemon();
    let output = daemon.run(&["ps"]);
    let text = stdout(&output);
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["0123456789ab", "web.1", "failed", "running"]);
    assert_eq!(row[5..], ["10.1.0.3,fd00::3", "-", "-", "7", "exited"]);
    assert!(stdout(&daemon.run(&["ps", "--no-trunc"])).contains("0123456789abcdef"));

    let output = daemon.run(&["--format", "json", "ps"]);
    let tasks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(tasks[0]["state"], "failed");
    assert_eq!(tasks[0]["exitCode"], 7);
    assert_eq!(tasks[0]["since"], "1970-01-01T00:00:01.000000000Z");
    assert_eq!(tasks[0]["spec"]["networks"][0]["networkId"], "app");
}

#[test]
fn whether_a_task_is_well() {
    let mut well = task();
    well.health = Some(v1::TaskHealth {
        state: v1::HealthState::Healthy.into(),
        failing_streak: 1,
        log: vec![v1::ProbeResult {
            start: 1_000_000_000,
            end: 2_000_000_000,
            exit_code: -1,
            output: "slow".into(),
        }],
    });
    let mut runs = well.clone();
    runs.task.as_mut().unwrap().name = "web.2".into();
    let status = runs.status.as_mut().unwrap();
    status.state = v1::TaskState::Running.into();
    status.container.as_mut().unwrap().pid = 77;
    let held = v1::InspectResponse {
        tasks: vec![well, runs],
        ..Default::default()
    };
    let daemon = Daemon::start(Script {
        held,
        ..Script::default()
    });
    let text = stdout(&daemon.run(&["ps"]));
    let of = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
    assert!(of("web.2").contains("running (healthy)"), "{text}");
    // What has ended is neither well nor not.
    assert!(!of("web.1").contains("healthy"), "{text}");
    let output = daemon.run(&["--format", "json", "ps"]);
    let tasks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let health = &tasks[0]["health"];
    assert_eq!(health["state"], "healthy");
    assert_eq!(health["failingStreak"], 1);
    assert_eq!(health["log"][0]["exitCode"], -1);
    assert_eq!(health["log"][0]["end"], "1970-01-01T00:00:02.000000000Z");
}

#[test]
fn one_object() {
    let daemon = daemon();
    for arguments in [&["inspect", "0123"][..], &["inspect", "task", "0123"]] {
        let output = daemon.run(arguments);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found[0]["kind"], "task");
        assert_eq!(found[0]["name"], "web.1");
    }
    let output = daemon.run(&["inspect", "0123", "--format", "table"]);
    assert!(
        stdout(&output).contains("\nexitCode: 7\n"),
        "{}",
        stdout(&output)
    );
    let output = daemon.run(&["inspect", "node", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no node `nobody`"));
    for arguments in [
        &["inspect", "thing", "web"][..],
        &["inspect", ""],
        &["inspect"],
    ] {
        assert_eq!(
            daemon.run(arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_service_with_its_backends() {
    let daemon = daemon();
    assert!(stdout(&daemon.run(&["service", "ls"])).contains("1/2"));
    let text = stdout(&daemon.run(&["service", "inspect", "web"]));
    assert!(text.contains("engine:    nft\n"), "{text}");
    assert!(text.contains("n2 has not acknowledged"), "{text}");
}

#[test]
fn logs_keep_the_streams_apart() {
    let daemon = daemon();
    let output = daemon.run(&["logs", "0123", "--tail", "4"]);
    assert_eq!(stdout(&output), "one\nthree\n");
    assert_eq!(stderr(&output), "two\n");
    let output = daemon.run(&["logs", "--timestamps", "0123"]);
    assert_eq!(
        stdout(&output),
        "1970-01-01T00:00:01.500000000Z one\n1970-01-01T00:00:01.500000000Z three\n"
    );
    let output = daemon.run(&["logs", "--format", "json", "0123"]);
    let lines: Vec<serde_json::Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[1]["stream"], "stderr");
    assert_eq!(lines[1]["line"], "two");
    let requests = &daemon.script.lock().unwrap().log_requests;
    assert_eq!(requests[0].task_id, "0123456789abcdef");
    assert_eq!(requests[0].tail, Some(4));
    assert_eq!(requests[1].tail, None);
}

#[test]
fn following_logs_ends_with_an_interrupt_or_with_the_daemon() {
    let mut daemon = daemon();
    let follow = |daemon: &Daemon| {
        let mut command = daemon.command(&["logs", "-f", "0123"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        assert_eq!(lines.next().unwrap().unwrap(), "three");
        child
    };
    let mut child = follow(&daemon);
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut child = follow(&daemon);
    daemon.kill();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains("cannot reach the daemon"), "{text}");
}

#[test]
fn events_end_without_follow() {
    let daemon = Daemon::start(Script::default());
    let file = daemon.file(
        "a.yaml",
        "version: 1\nnode: {id: a}\nnodes: [{id: b, version: 2, vteps: [192.0.2.2]}]\n",
    );
    assert!(daemon.run(&["apply", "-f", &file]).status.success());
    let output = daemon.run(&["events"]);
    assert!(
        stdout(&output).contains("node b: version 2 applied"),
        "{}",
        stdout(&output)
    );
    let output = daemon.run(&["events", "--format", "json"]);
    let event: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(event["type"], "nodeApplied");
    assert_eq!(event["nodeId"], "b");
}

#[test]
fn what_a_node_offers() {
    let describe = v1::DescribeResponse {
        engine: "nft".into(),
        resources: Some(v1::Resources {
            nano_cpus: 1_500_000_000,
            memory_bytes: 64 << 20,
            ..Default::default()
        }),
        features: vec![v1::Feature {
            name: "ipvs".into(),
            available: false,
            detail: "the kernel has no ip_vs".into(),
        }],
        ..Default::default()
    };
    let daemon = Daemon::start(Script {
        describe,
        ..Script::default()
    });
    let text = stdout(&daemon.run(&["node", "describe"]));
    for part in [
        "not configured yet",
        "1.5",
        "64 MiB",
        "ipvs      no          the kernel",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = daemon.run(&["node", "describe", "--format", "json"]);
    let node: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(node["resources"]["cpus"], 1.5);
    assert_eq!(node["node"], serde_json::Value::Null);
}

#[test]
fn a_daemon_that_is_away() {
    let mut daemon = daemon();
    let output = daemon.run(&["--socket", "/nowhere/executor.sock", "ps"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("/nowhere/executor.sock"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("is fairleadd running?"),
        "{}",
        stderr(&output)
    );
    daemon.kill();
    // What another test has just begun to start holds the socket until it executes its program.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let output = daemon.run(&["ps"]);
        assert_eq!(output.status.code(), Some(3));
        let told = stderr(&output);
        if told.contains("nothing listens there") {
            break;
        }
        assert!(std::time::Instant::now() < limit, "{told}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let daemon = daemon();
    let mut command = daemon.command(&["ps"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert_eq!(text, "");
}

#[test]
fn usage() {
    for arguments in [
        &[][..],
        &["frob"],
        &["ps", "--format", "xml"],
        &["logs", "x", "--since", "soon"],
    ] {
        assert_eq!(
            fairlead(arguments).output().unwrap().status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    let output = fairlead(&["--socket", "a", "--socket", "b", "ps"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
