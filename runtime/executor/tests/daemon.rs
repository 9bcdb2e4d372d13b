//! The daemon as a whole, through its socket, with real containers and no networks but each task's
//! own way out. Needs root.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Daemon, complete, configure, inspect, output, run, script, status, wait_for};
use fairlead_api::v1::{self, TaskState};
use nix::sys::signal::Signal;
use prost::Message;
use tonic::Code;

/// A process that is no part of the daemon, ended with the test.
struct Stranger(std::process::Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that a task leaves in the system while it exists.
fn traces(daemon: &Daemon) -> Vec<String> {
    let mut all: Vec<String> = daemon
        .cgroups()
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    for dir in [
        daemon.run_dir().join("tasks"),
        daemon.state_dir().join("tasks"),
    ] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let entries = fs::read_dir(daemon.run_dir().join("netns"))
        .into_iter()
        .flatten()
        .flatten();
    let tasks = entries.filter(|e| e.file_name().to_string_lossy().starts_with("task-"));
    all.extend(tasks.map(|entry| entry.path().display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts
        .lines()
        .filter(|line| line.contains(&daemon.name) && line.contains("/task-"));
    all.extend(ours.map(str::to_owned));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The daemon itself names the shim too, but not as its own program.
        let program = command.split(' ').next().unwrap_or_default();
        if program.ends_with("fairlead-shim") && command.contains(&daemon.name) {
            all.push(command);
        }
    }
    all
}

#[track_caller]
fn nothing_left(daemon: &Daemon) {
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while !traces(daemon).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "left: {:#?}",
            traces(daemon)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn violations(status: &tonic::Status) -> Vec<String> {
    let refusal = v1::Refusal::decode(status.details()).unwrap();
    refusal.violations.into_iter().map(|v| v.field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_end_with_their_codes_and_leave_nothing() {
    let daemon = Daemon::start("codes");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut missing = script(&daemon, "missing", "");
    missing.container.as_mut().unwrap().command = vec!["no-such-program".into()];
    let mut absent = script(&daemon, "absent", "");
    absent.container.as_mut().unwrap().image = "dir:/no/such/directory".into();
    let tasks = [
        script(&daemon, "good", "echo out; echo err >&2; exit 0"),
        script(&daemon, "bad", "exit 7"),
        script(&daemon, "killed", "sh -c 'kill -9 $$; true'; exit $?"),
        missing,
        absent,
    ];
    client.assign(complete("1", &tasks)).await.unwrap();

    let good = status(&mut client, "good", |s| s.state() == TaskState::Complete).await;
    assert_eq!(
        (good.message.as_str(), good.container.unwrap().exit_code),
        ("finished", 0)
    );
    let bad = status(&mut client, "bad", |s| s.state() == TaskState::Failed).await;
    assert_eq!(bad.error, "task: non-zero exit (7)");
    assert_eq!(bad.container.unwrap().exit_code, 7);
    let killed = status(&mut client, "killed", |s| s.state() == TaskState::Failed).await;
    assert_eq!(killed.container.unwrap().exit_code, 137);
    let missing = status(&mut client, "missing", |s| s.state() == TaskState::Failed).await;
    assert_eq!(missing.container.unwrap().exit_code, 127);
    assert!(
        missing.error.contains("no-such-program"),
        "{}",
        missing.error
    );
    let absent = status(&mut client, "absent", |s| s.state() == TaskState::Rejected).await;
    assert!(
        absent.error.contains("/no/such/directory"),
        "{}",
        absent.error
    );

    let request = v1::LogsRequest {
        task_id: "good".into(),
        ..Default::default()
    };
    assert_eq!(output(&mut client, request).await, "out\nerr\n");
    let nobody = client
        .logs(v1::LogsRequest {
            task_id: "nobody".into(),
            ..Default::default()
        })
        .await;
    assert_eq!(nobody.unwrap_err().code(), Code::NotFound);

    // Ended tasks keep their log and nothing else.
    wait_for("the cgroups to go", || daemon.cgroups().is_empty());
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
    assert!(inspect(&mut client).await.tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_specification_reaches_the_program() {
    let daemon = Daemon::start("spec");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    fs::create_dir(daemon.run_dir().join("data")).unwrap();
    fs::write(daemon.run_dir().join("data/file"), "bound").unwrap();
    let mut task = script(
        &daemon,
        "t1",
        "echo $A-$B; pwd; id -u; id -g; hostname; cat /data/file; echo; cat /etc/resolv.conf; \
         cat /etc/hosts; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; \
         grep CapEff /proc/self/status; ls -l /proc/self/fd | wc -l",
    );
    task.resources = Some(v1::ResourceRequirements {
        limits: Some(v1::Resources {
            memory_bytes: 64 << 20,
            nano_cpus: 500_000_000,
            generic: vec![],
        }),
        ..Default::default()
    });
    let c = task.container.as_mut().unwrap();
    c.env = vec!["A=1".into(), "B=2".into(), "B".into()];
    c.dir = "/work".into();
    c.user = "web".into();
    c.hostname = "box".into();
    c.pids_limit = 77;
    c.hosts = vec!["192.0.2.9 other".into()];
    c.capability_drop = vec!["all".into()];
    c.mounts = vec![
        v1::Mount {
            source: daemon.run_dir().join("data").display().to_string(),
            target: "/data".into(),
            read_only: true,
            ..Default::default()
        },
        v1::Mount {
            r#type: v1::MountType::Tmpfs as i32,
            target: "/tmp".into(),
            ..Default::default()
        },
    ];
    client.assign(complete("1", &[task])).await.unwrap();
    status(&mut client, "t1", |s| s.state() == TaskState::Complete).await;
    let text = output(
        &mut client,
        v1::LogsRequest {
            task_id: "t1".into(),
            ..Default::default()
        },
    )
    .await;
    assert!(
        text.starts_with("1-\n/work\n77\n78\nbox\nbound\nnameserver 127.0.0.11\n"),
        "{text}"
    );
    assert!(text.contains("ndots:0"), "{text}");
    assert!(text.contains("192.0.2.9\tother\n"), "{text}");
    assert!(text.contains("\n77\n"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000\n"), "{text}");
    // Its three, the one that ls reads, and the header: nothing of the shim's is inherited.
    assert!(text.trim_end().ends_with("\n5"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_loses_nothing() {
    let mut daemon = Daemon::start("adopt");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let tasks = [
        script(
            &daemon,
            "stays",
            "trap 'echo bye; exit 3' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done",
        ),
        script(&daemon, "ends", "sleep 2; exit 5"),
    ];
    client.assign(complete("1", &tasks)).await.unwrap();
    let before = status(&mut client, "stays", |s| s.state() == TaskState::Running).await;
    status(&mut client, "ends", |s| s.state() == TaskState::Running).await;
    let pid = before.container.as_ref().unwrap().pid;
    assert!(Path::new(&format!("/proc/{pid}")).exists());

    daemon.end(Signal::SIGKILL);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    daemon.launch();
    let mut client = daemon.client().await;

    // What ended meanwhile is known, with its code; what runs is the same process.
    let ends = status(&mut client, "ends", |s| s.state() == TaskState::Failed).await;
    assert_eq!(ends.container.unwrap().exit_code, 5);
    let after = status(&mut client, "stays", |s| s.state() == TaskState::Running).await;
    assert_eq!(after.container.unwrap().pid, pid);
    assert_eq!(inspect(&mut client).await.assignment, "1");
    // Its names are served again, on the sockets that the shim has held.
    let netns = inspect(&mut client)
        .await
        .tasks
        .into_iter()
        .find(|t| t.netns.contains("stays"));
    let answer = std::process::Command::new("nsenter")
        .arg(format!("--net={}", netns.unwrap().netns))
        .args(["busybox", "nslookup", "nobody", "127.0.0.11"])
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&answer.stdout),
        String::from_utf8_lossy(&answer.stderr)
    );
    assert!(
        said.contains("NXDOMAIN") || said.contains("SERVFAIL"),
        "{said}"
    );
    // No line of output is missing.
    let request = v1::LogsRequest {
        task_id: "stays".into(),
        ..Default::default()
    };
    let text = output(&mut client, request).await;
    for (i, line) in text.lines().enumerate() {
        assert_eq!(line, (i + 1).to_string());
    }
    // The adopted task is stopped by its signal, within its grace period.
    let mut stopped = tasks[0].clone();
    stopped.desired_state = TaskState::Shutdown as i32;
    client.assign(complete("2", &[stopped])).await.unwrap();
    let end = status(&mut client, "stays", |s| s.state() == TaskState::Shutdown).await;
    assert_eq!(end.container.unwrap().exit_code, 3);
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_again_and_again_converges() {
    let mut daemon = Daemon::start("again");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let tasks: Vec<v1::Task> = (0..4)
        .map(|n| script(&daemon, &format!("t{n}"), "exec sleep 1000"))
        .collect();
    for round in 0..6_u64 {
        let wanted: &[v1::Task] = if round % 2 == 0 { &tasks } else { &[] };
        client
            .assign(complete(&format!("r{round}"), wanted))
            .await
            .unwrap();
        // Cut off at a different point each time.
        tokio::time::sleep(Duration::from_millis(round * 40)).await;
        daemon.end(Signal::SIGKILL);
        daemon.launch();
        client = daemon.client().await;
        assert_eq!(inspect(&mut client).await.assignment, format!("r{round}"));
    }
    client.assign(complete("on", &tasks)).await.unwrap();
    // A task that is still on its way out from the round before begins anew after that: its status
    // may first be that of its end.
    let running = async {
        loop {
            let views = inspect(&mut client).await.tasks;
            let states = views.iter().filter_map(|view| view.status.as_ref());
            if states.filter(|s| s.state() == TaskState::Running).count() == tasks.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let running = tokio::time::timeout(Duration::from_secs(120), running).await;
    assert!(
        running.is_ok(),
        "not all run: {:?}",
        inspect(&mut client).await.tasks
    );
    let shims = traces(&daemon)
        .iter()
        .filter(|t| t.contains("fairlead-shim"))
        .count();
    assert_eq!(shims, tasks.len());
    client.assign(complete("off", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_leaves_the_tasks_alone() {
    let mut daemon = Daemon::start("term");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    client
        .assign(complete("1", &[script(&daemon, "t1", "exec sleep 1000")]))
        .await
        .unwrap();
    let running = status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    assert!(daemon.end(Signal::SIGTERM).success());
    assert!(!daemon.socket().exists());
    let pid = running.container.unwrap().pid;
    assert_eq!(
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(),
        "sleep\n"
    );
    daemon.launch();
    let mut client = daemon.client().await;
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_for_each_directory_and_socket() {
    let mut daemon = Daemon::start("second");
    let refused = daemon.command().stderr(Stdio::piped()).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains(&format!(
            "in use by another fairleadd (pid {})",
            daemon.pid()
        )),
        "{said}"
    );

    let other = tempfile::tempdir().unwrap();
    let mut command = daemon.command();
    let refused = command
        .arg("--state-dir")
        .arg(other.path().join("state"))
        .arg("--run-dir")
        .arg(other.path().join("run"))
        .arg("--socket")
        .arg(daemon.socket())
        .stderr(Stdio::piped())
        .output();
    let said = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(
        said.contains("cannot be used multiple times") || said.contains("served by another"),
        "{said}"
    );

    // A socket that a killed daemon left is replaced.
    daemon.end(Signal::SIGKILL);
    assert!(daemon.socket().exists());
    daemon.launch();
    daemon
        .client()
        .await
        .describe(v1::DescribeRequest {})
        .await
        .unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn ready_parks_and_statuses_resume() {
    let daemon = Daemon::start("ready");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut task = script(&daemon, "t1", "echo begun; exec sleep 1000");
    task.desired_state = TaskState::Ready as i32;
    client.assign(complete("1", &[task.clone()])).await.unwrap();
    let ready = status(&mut client, "t1", |s| s.state() == TaskState::Ready).await;
    assert_eq!(ready.message, "prepared");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        output(
            &mut client,
            v1::LogsRequest {
                task_id: "t1".into(),
                ..Default::default()
            }
        )
        .await,
        ""
    );

    let request = v1::WatchStatusRequest {
        after: ready.sequence,
    };
    let mut stream = client.watch_status(request).await.unwrap().into_inner();
    task.desired_state = TaskState::Running as i32;
    client.assign(complete("2", &[task])).await.unwrap();
    let next = stream.message().await.unwrap().unwrap();
    assert!(
        next.sequence > ready.sequence && next.state() > TaskState::Ready,
        "{next:?}"
    );
    status(&mut client, "t1", |s| s.state() == TaskState::Running).await;

    // Followed from the beginning to the end.
    let mut logs = client
        .logs(v1::LogsRequest {
            task_id: "t1".into(),
            follow: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(logs.message().await.unwrap().unwrap().line, b"begun\n");
    client.assign(complete("3", &[])).await.unwrap();
    assert_eq!(logs.message().await.unwrap(), None);
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_does_not_listen_is_killed_after_its_grace_period() {
    let daemon = Daemon::start("grace");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let task = script(&daemon, "deaf", "trap '' TERM; while :; do sleep 1; done");
    client
        .assign(complete("1", std::slice::from_ref(&task)))
        .await
        .unwrap();
    status(&mut client, "deaf", |s| s.state() == TaskState::Running).await;
    let stopped = v1::Task {
        desired_state: TaskState::Shutdown as i32,
        ..task
    };
    client.assign(complete("2", &[stopped])).await.unwrap();
    let end = status(&mut client, "deaf", |s| s.state() == TaskState::Shutdown).await;
    assert_eq!(end.container.unwrap().exit_code, 137);
    wait_for("the cgroups to go", || daemon.cgroups().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_are_reserved_reported_and_given_back() {
    let daemon = Daemon::start("ports");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let _stranger = Stranger(
        std::process::Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", daemon.name))
            .args(["busybox", "nc", "-l", "-p", "8081"])
            .spawn()
            .unwrap(),
    );
    let sockets = || {
        let output = std::process::Command::new("ip")
            .args(["netns", "exec", &daemon.name, "ss", "-Htan"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    wait_for("the stranger to listen", || sockets().contains(":8081"));
    let host = |published_port| v1::PortConfig {
        name: "web".into(),
        target_port: 80,
        published_port,
        publish_mode: v1::PublishMode::Host as i32,
        ..Default::default()
    };
    let mut good = script(&daemon, "good", "exec sleep 1000");
    good.host_ports = vec![host(0)];
    let mut taken = script(&daemon, "taken", "exec sleep 1000");
    taken.host_ports = vec![host(8082), host(8081)];
    let mut free = script(&daemon, "free", "exec sleep 1000");
    client
        .assign(complete("1", &[good.clone(), taken]))
        .await
        .unwrap();

    let running = status(&mut client, "good", |s| s.state() == TaskState::Running).await;
    let port = running.ports[0].published_port;
    assert!((30_000..=32_767).contains(&port), "{port}");
    assert_eq!(
        (running.ports.len(), running.ports[0].name.as_str()),
        (1, "web")
    );
    let rejected = status(&mut client, "taken", |s| s.state() == TaskState::Rejected).await;
    assert!(
        rejected.error.contains("8081/tcp is already in use"),
        "{}",
        rejected.error
    );

    // What the rejected one had got before is free for others.
    free.host_ports = vec![host(8082)];
    client.assign(complete("2", &[good, free])).await.unwrap();
    status(&mut client, "free", |s| s.state() == TaskState::Running).await;
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_may_call() {
    let daemon = Daemon::start("peer");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(daemon.socket()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o7777, 0o660);
    // Even where the mode was loosened: connecting works, calling does not.
    run("chmod", &["0666", &daemon.socket().display().to_string()]);
    let program = daemon.rootfs().with_file_name("probe");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let probe = std::process::Command::new(program)
        .args(["--ignored", "--exact", "probe_of_a_stranger"])
        .env("PROBE_SOCKET", daemon.socket())
        .uid(12_345)
        .gid(12_345)
        .output()
        .unwrap();
    assert!(
        probe.status.success(),
        "{}",
        String::from_utf8_lossy(&probe.stdout)
    );
    assert!(String::from_utf8_lossy(&probe.stdout).contains("1 passed"));
    daemon
        .client()
        .await
        .describe(v1::DescribeRequest {})
        .await
        .unwrap();
}

/// Run by the test above, as another user.
#[tokio::test]
#[ignore = "no test by itself: only_root_may_call runs it, as another user"]
async fn probe_of_a_stranger() {
    let uri = format!("unix://{}", std::env::var("PROBE_SOCKET").unwrap());
    let channel = tonic::transport::Endpoint::from_shared(uri)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = v1::executor_client::ExecutorClient::new(channel);
    let refused = client.describe(v1::DescribeRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("12345"), "{}", refused.message());
}
