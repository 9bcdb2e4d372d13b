//! Daemons that end, are killed, and come again.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fairlead_api::v1::{self, TaskState};
use nix::sys::signal::Signal;
use tonic::Code;

use crate::bed::{
    Daemon, complete, configure, inspect, output_of, run, said, script, status, wait_for,
};
use crate::traces::{nothing_left, traces};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_loses_nothing() {
    let mut daemon = Daemon::start("adopt");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut stays = script(
        &daemon,
        "stays",
        "trap 'echo bye; exit 3' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done",
    );
    stays.container.as_mut().unwrap().stop_grace_period = Some(60_000_000_000);
    let tasks = [
        stays,
        script(
            &daemon,
            "ends",
            "until [ -e /go ]; do sleep 0.05; done; exit 5",
        ),
    ];
    let process = |status: &v1::TaskStatus| {
        let pid = status.container.as_ref().unwrap().pid;
        PathBuf::from(format!("/proc/{pid}"))
    };
    client.assign(complete("1", &tasks)).await.unwrap();
    let before = status(&mut client, "stays", |s| s.state() == TaskState::Running).await;
    let ends = status(&mut client, "ends", |s| s.state() == TaskState::Running).await;
    let pid = before.container.as_ref().unwrap().pid;
    // It says something from when on it listens to its signal.
    said(&mut client, "stays", |text| !text.is_empty()).await;

    daemon.end(Signal::SIGKILL);
    fs::write(process(&ends).join("root/go"), "").unwrap();
    wait_for("the end of a task", || !process(&ends).exists());
    assert!(process(&before).exists());
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
    let answer = output_of(
        Command::new("nsenter")
            .arg(format!("--net={}", netns.unwrap().netns))
            .args(["busybox", "nslookup", "nobody", "127.0.0.11"]),
    );
    let answer = format!(
        "{}{}",
        String::from_utf8_lossy(&answer.stdout),
        String::from_utf8_lossy(&answer.stderr)
    );
    assert!(
        answer.contains("NXDOMAIN") || answer.contains("SERVFAIL"),
        "{answer}"
    );
    // No line of output is missing.
    let text = said(&mut client, "stays", |text| !text.is_empty()).await;
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
    let program = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    // The shell runs; it becomes another program in its own time.
    wait_for("the task's program", || program() == "sleep\n");
    daemon.launch();
    let mut client = daemon.client().await;
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_for_each_directory_and_socket() {
    let mut daemon = Daemon::start("second");
    let refused = output_of(&mut daemon.command());
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains(&format!(
            "in use by another fairleadd (pid {})",
            daemon.pid()
        )),
        "{said}"
    );

    // Directories of its own are not enough: each would take the other's devices for leftovers.
    let other = tempfile::tempdir().unwrap();
    let [state, run_dir] = ["state", "run"].map(|name| other.path().join(name));
    let mut command = daemon.command_in(&state, &run_dir);
    let refused = output_of(command.args(["--gwbridge", "other0"]));
    let said = String::from_utf8(refused.stderr).unwrap();
    let managed = format!("managed by another fairleadd (pid {})", daemon.pid());
    assert!(said.contains(&managed), "{said}");

    // Nor is a network namespace of its own, with the socket of another.
    let mut command = Command::new("unshare");
    command.arg("--net").arg(env!("CARGO_BIN_EXE_fairleadd"));
    command.arg("--state-dir").arg(&state);
    command.arg("--run-dir").arg(&run_dir);
    command.arg("--socket").arg(daemon.socket());
    let said = String::from_utf8(output_of(&mut command).stderr).unwrap();
    assert!(said.contains("served by another daemon"), "{said}");

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

/// Also the one that comes while it starts, wherever it then is.
#[test]
fn sigterm_ends_it_at_any_moment() {
    let mut daemon = Daemon::start("moment");
    daemon.end(Signal::SIGTERM);
    let (mut moment, mut listened) = (Duration::ZERO, 0);
    while listened < 20 {
        daemon.spawn();
        std::thread::sleep(moment);
        let status = daemon.end(Signal::SIGTERM);
        // Before it listens for signals, the kernel ends it.
        let early = status.signal() == Some(libc::SIGTERM);
        assert!(status.success() || early, "after {moment:?}: {status}");
        listened += u32::from(!early);
        moment += Duration::from_millis(1) + if early { moment / 10 } else { Duration::ZERO };
    }
    daemon.launch();
}

/// A file system that is taken away with the test, whoever still uses it.
struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_made_room_on() {
    let mut daemon = Daemon::start("full");
    daemon.end(Signal::SIGTERM);
    let state = daemon.state_dir();
    let words = ["-t", "tmpfs", "-o", "size=32m", "none"];
    let place = state.display().to_string();
    run("mount", &[&words[..], &[&place]].concat());
    let _tmpfs = Tmpfs(state.clone());
    daemon.launch();
    let mut client = daemon.client().await;
    configure(&mut client).await;
    client.assign(complete("1", &[])).await.unwrap();

    let filler = state.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let mut task = script(&daemon, "big", "exec sleep 1000");
    task.desired_state = TaskState::Ready as i32;
    task.container.as_mut().unwrap().env = vec![format!("X={}", "x".repeat(2 << 20))];
    for _ in 0..2 {
        let refused = client
            .assign(complete("2", std::slice::from_ref(&task)))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    let held = inspect(&mut client).await.assignment;
    assert_eq!(held, "1");
    fs::remove_file(&filler).unwrap();
    client.assign(complete("2", &[task])).await.unwrap();
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}
