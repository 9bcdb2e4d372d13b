//! What becomes of tasks.

use std::fs;
use std::process::Command;
use std::time::Duration;

use fairlead_api::v1::{self, TaskState};
use nix::sched::{CloneFlags, unshare};
use tonic::Code;

use crate::bed::{
    Daemon, complete, configure, inspect, output, output_of, script, status, wait_for,
};
use crate::traces::nothing_left;

/// A process that is no part of the daemon, ended with the test.
struct Stranger(std::process::Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
         grep CapEff /proc/self/status; ls -l /proc/self/fd 2>/dev/null | wc -l",
    );
    task.resources = Some(v1::ResourceRequirements {
        limits: Some(v1::Resources {
            memory_bytes: 64 << 20,
            nano_cpus: 500_000_000,
            ..Default::default()
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
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", daemon.name))
            .args(["busybox", "nc", "-l", "-p", "8081"])
            .spawn()
            .unwrap(),
    );
    let sockets = || {
        let output =
            output_of(Command::new("ip").args(["netns", "exec", &daemon.name, "ss", "-Htan"]));
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
    // What takes its place gets the port once that has ended.
    let mut next = script(&daemon, "next", "exec sleep 1000");
    next.host_ports = vec![host(8082)];
    client.assign(complete("3", &[next])).await.unwrap();
    status(&mut client, "next", |s| s.state() == TaskState::Running).await;
    client.assign(complete("4", &[])).await.unwrap();
    nothing_left(&daemon);
}

/// An ext4 that counts by project, in mounts of this thread and of what it starts.
struct Counting(tempfile::TempDir);

impl Counting {
    /// `None` where the kernel has not got the format of such quotas.
    fn new() -> Option<Self> {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let script = "mount --make-rprivate /; modprobe -q loop || true; modprobe -q quota_v2 || true
             mkdir state; truncate -s 128M disk; mkfs.ext4 -q -O quota,project -E quotatype=prjquota disk
             mount -o loop,prjquota disk state";
        let mut command = Command::new("sh");
        let output = command.args(["-euc", script]).current_dir(&dir).output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let required = std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_some();
        assert!(output.status.success() || !required, "{error}");
        output.status.success().then(|| Self(dir))
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_task_writes_no_more_than_its_limit() {
    let counting = Counting::new();
    let daemon = Daemon::prepared("storage", |state| {
        if let Some(counting) = &counting {
            std::os::unix::fs::symlink(counting.path(), state).unwrap();
        }
    });
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let program = "dd if=/dev/zero of=/a bs=1M count=6 && dd if=/dev/zero of=/b bs=1M count=6; rm /a /b \
         && dd if=/dev/zero of=/c bs=1M count=6 && exit 9";
    let mut task = script(&daemon, "t1", program);
    task.resources = Some(v1::ResourceRequirements {
        limits: Some(v1::Resources {
            storage_bytes: 8 << 20,
            ..Default::default()
        }),
        ..Default::default()
    });
    client.assign(complete("1", &[task])).await.unwrap();
    if counting.is_some() {
        let ended = status(&mut client, "t1", |s| s.state() >= TaskState::Complete).await;
        let request = v1::LogsRequest {
            task_id: "t1".into(),
            ..Default::default()
        };
        let log = output(&mut client, request).await;
        assert!(log.contains("Disk quota exceeded"), "{log}");
        assert_eq!(ended.container.unwrap().exit_code, 9, "{log}");
    } else {
        let ended = status(&mut client, "t1", |s| s.state() >= TaskState::Complete).await;
        assert_eq!(ended.state(), TaskState::Rejected, "{ended:?}");
        assert!(ended.error.contains("prjquota"), "{}", ended.error);
    }
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}
