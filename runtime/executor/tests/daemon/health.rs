//! Whether tasks are well, and what becomes of them.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_api::v1::executor_client::ExecutorClient;
use fairlead_api::v1::{self, HealthState, TaskState};
use nix::sys::signal::Signal;
use tonic::transport::Channel;

use crate::bed::{
    Daemon, PATIENCE, complete, configure, inspect, script, status, wait_for, within,
};
use crate::traces::nothing_left;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

/// A task that does nothing, and a line of shell that tells whether it is well.
fn checked(daemon: &Daemon, id: &str, line: &str) -> v1::Task {
    let mut task = script(
        daemon,
        id,
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    );
    let container = task.container.as_mut().unwrap();
    container.stop_grace_period = Some(60 * SECOND);
    container.healthcheck = Some(v1::HealthConfig {
        test: vec!["CMD-SHELL".into(), line.into()],
        interval: 100 * MILLI,
        ..Default::default()
    });
    task
}

fn check(task: &mut v1::Task) -> &mut v1::HealthConfig {
    let container = task.container.as_mut().unwrap();
    container.healthcheck.get_or_insert_default()
}

async fn health(client: &mut ExecutorClient<Channel>, id: &str) -> v1::TaskHealth {
    let tasks = inspect(client).await.tasks;
    let view = tasks
        .into_iter()
        .find(|t| t.task.as_ref().is_some_and(|t| t.id == id));
    view.and_then(|view| view.health).unwrap_or_default()
}

/// Waits until what was found of a task fits.
async fn found(
    client: &mut ExecutorClient<Channel>,
    id: &str,
    fits: impl Fn(&v1::TaskHealth) -> bool,
) -> v1::TaskHealth {
    let look = async {
        loop {
            let health = health(client, id).await;
            if fits(&health) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("what is found of {id}"), look).await
}

/// Processes whose command line holds the text.
fn processes(text: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let spaced = all.map(|e| String::from_utf8_lossy(&line(e)).replace('\0', " "));
    spaced.filter(|line| line.contains(text)).count()
}

/// A `sleep` that nobody else runs.
fn long(number: u32) -> String {
    format!("sleep 10{}{number}", std::process::id())
}

fn code(health: &v1::TaskHealth) -> Vec<i32> {
    health.log.iter().map(|result| result.exit_code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_once_it_is_found_well() {
    let daemon = Daemon::start("well");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let count =
        "n=0; [ -e /n ] && read n < /n; n=$((n+1)); echo $n > /n; echo try $n; [ $n -ge 3 ]";
    let mut task = checked(&daemon, "t1", count);
    // Of the task's: identity, place, privileges, limits.
    let mut same = checked(
        &daemon,
        "same",
        "id -u; id -g; pwd; echo $A; cat /proc/self/cgroup; grep -e CapEff -e Seccomp: \
         /proc/self/status; ls -l /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/mnt",
    );
    let c = same.container.as_mut().unwrap();
    (c.user, c.dir, c.env) = ("web".into(), "/work".into(), vec!["A=of the task".into()]);
    // The results of a few probes are kept.
    (check(&mut task).retries, check(&mut task).interval) = (1000, SECOND);
    client.assign(complete("1", &[task, same])).await.unwrap();
    let starting = status(&mut client, "t1", |s| s.state() == TaskState::Starting).await;
    assert_eq!(starting.message, "starting");
    let running = status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    assert_ne!(running.container.unwrap().pid, 0);
    let found = found(&mut client, "t1", |h| h.state() == HealthState::Healthy).await;
    assert_eq!(code(&found)[..3], [1, 1, 0]);
    assert_eq!(found.log[2].output, "try 3\n");
    assert!(found.log[2].start <= found.log[2].end && found.log[1].end <= found.log[2].start);
    assert_eq!(found.failing_streak, 0);

    let same = status(&mut client, "same", |s| s.state() == TaskState::Running).await;
    let pid = same.container.unwrap().pid;
    let log = health(&mut client, "same").await.log;
    let said = &log[0].output;
    assert!(said.starts_with("77\n78\n/work\nof the task\n"), "{said}");
    let own = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in own
        .lines()
        .filter(|l| l.starts_with("CapEff") || l.starts_with("Seccomp:"))
    {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    for name in ["net", "pid", "mnt"] {
        let own = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert!(
            said.contains(own.to_str().unwrap()),
            "{own:?} is not in {said}"
        );
    }

    let request = v1::WatchEventsRequest { after: 1 };
    let mut events = client.watch_events(request).await.unwrap().into_inner();
    let healthy = async {
        loop {
            let event = events.message().await.unwrap().unwrap().event;
            if let Some(v1::event::Event::TaskHealthChanged(event)) = event
                && event.task_id == "t1"
            {
                return event.state();
            }
        }
    };
    assert_eq!(within("the event", healthy).await, HealthState::Healthy);
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_task_has_failed() {
    let daemon = Daemon::start("unwell");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let falls = checked(
        &daemon,
        "falls",
        "[ ! -e /sick ] || { echo out; echo sick >&2; exit 3; }",
    );
    let mut never = checked(&daemon, "never", "exit 1");
    check(&mut never).retries = 2;
    let mut absent = checked(&daemon, "absent", "");
    check(&mut absent).test = vec!["CMD".into(), "/no/such/probe".into()];
    let mut ends = checked(&daemon, "ends", "exit 1");
    check(&mut ends).retries = 1000;
    ends.container.as_mut().unwrap().command[2] = "sleep 1; exit 6".into();
    let tasks = [falls, never, absent, ends];
    client.assign(complete("1", &tasks)).await.unwrap();

    let running = status(&mut client, "falls", |s| s.state() == TaskState::Running).await;
    let pid = running.container.unwrap().pid;
    fs::write(format!("/proc/{pid}/root/sick"), "").unwrap();
    let failed = status(&mut client, "falls", |s| s.state() == TaskState::Failed).await;
    let error =
        "unhealthy container: 3 failed probes in a row, the last with exit code 3: out\nsick";
    assert_eq!(failed.error, error);
    // It did as it was told.
    assert_eq!(failed.container.unwrap().exit_code, 0);
    let found = health(&mut client, "falls").await;
    assert_eq!(
        (found.state(), found.failing_streak),
        (HealthState::Unhealthy, 3)
    );

    // States are passed one by one, so one that was skipped was never seen.
    for (id, error) in [
        (
            "never",
            "unhealthy container: 2 failed probes in a row, the last with exit code 1",
        ),
        ("absent", "/no/such/probe"),
        ("ends", "task: non-zero exit (6)"),
    ] {
        let passed = RefCell::new(Vec::new());
        let failed = status(&mut client, id, |s| {
            passed.borrow_mut().push(s.state());
            s.state() == TaskState::Failed
        })
        .await;
        assert!(failed.error.contains(error), "{id}: {}", failed.error);
        assert!(
            !passed.borrow().contains(&TaskState::Running),
            "{id}: {passed:?}"
        );
    }
    let found = health(&mut client, "absent").await;
    // Three count; one that came before a whole interval had passed does not.
    let codes = code(&found);
    assert!(
        codes.len() >= 3 && codes.iter().all(|code| *code == 127),
        "{codes:?}"
    );
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_takes_too_long_ends_with_its_children() {
    let daemon = Daemon::start("late");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut task = checked(
        &daemon,
        "t1",
        &format!(
            "({} &); sh -c 'trap \"\" TERM; {}' & echo begun; {}",
            long(101),
            long(102),
            long(103)
        ),
    );
    *check(&mut task) = v1::HealthConfig {
        timeout: 3 * SECOND,
        start_interval: 600 * SECOND,
        interval: 600 * SECOND,
        ..check(&mut task).clone()
    };
    // One that leaves something behind has ended, too.
    let mut leaves = checked(&daemon, "leaves", &format!("{} & echo fine", long(104)));
    check(&mut leaves).interval = 600 * SECOND;
    let mut loud = checked(
        &daemon,
        "loud",
        "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done",
    );
    check(&mut loud).interval = 600 * SECOND;
    client
        .assign(complete("1", &[task, leaves, loud]))
        .await
        .unwrap();
    let late = found(&mut client, "t1", |h| !h.log.is_empty()).await;
    assert_eq!(late.state(), HealthState::Starting);
    assert_eq!(code(&late), [-1]);
    assert_eq!(late.log[0].output, "the probe took more than 3s: begun\n");
    let fine = found(&mut client, "leaves", |h| !h.log.is_empty()).await;
    assert_eq!(
        (code(&fine), fine.log[0].output.as_str()),
        (vec![0], "fine\n")
    );
    for number in 101..105 {
        assert_eq!(processes(&long(number)), 0, "{number} is left");
    }
    let loud = found(&mut client, "loud", |h| h.state() == HealthState::Healthy).await;
    let said = &loud.log[0].output;
    assert!(
        said.len() <= 4096 && said.starts_with("0123456789\n"),
        "{said}"
    );
    assert!(said.ends_with("..."), "{said}");
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_the_start_period_do_not_count() {
    let daemon = Daemon::start("period");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut task = checked(&daemon, "t1", "exit 1");
    *check(&mut task) = v1::HealthConfig {
        retries: 1,
        start_period: 10 * SECOND,
        ..check(&mut task).clone()
    };
    client.assign(complete("1", &[task])).await.unwrap();
    let early = found(&mut client, "t1", |h| h.log.len() >= 3).await;
    assert_eq!(
        (early.state(), early.failing_streak),
        (HealthState::Starting, 0)
    );
    let failed = status(&mut client, "t1", |s| s.state() == TaskState::Failed).await;
    assert!(
        failed.error.contains("1 failed probes in a row"),
        "{}",
        failed.error
    );
    let last = health(&mut client, "t1").await.log.pop().unwrap();
    let first = early.log.first().unwrap();
    assert!(last.start - first.start > 5 * SECOND, "{first:?} {last:?}");
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_go_on_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start("goes-on");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut waits = checked(&daemon, "waits", "[ -e /ok ]");
    check(&mut waits).retries = 100_000;
    let mut fine = checked(&daemon, "fine", "[ ! -e /sick ]");
    check(&mut fine).retries = 2;
    let hangs = checked(&daemon, "hangs", &format!("{} & {}", long(201), long(202)));
    let tasks = [waits, fine, hangs];
    client.assign(complete("1", &tasks)).await.unwrap();
    let starting = found(&mut client, "waits", |h| !h.log.is_empty()).await;
    assert_eq!(starting.state(), HealthState::Starting);
    let waiting = status(&mut client, "waits", |s| s.container.is_some()).await;
    assert_eq!(waiting.state(), TaskState::Starting);
    let fine = status(&mut client, "fine", |s| s.state() == TaskState::Running).await;
    wait_for("a probe that hangs", || processes(&long(202)) > 0);

    daemon.end(Signal::SIGKILL);
    wait_for("the probes to end", || {
        processes(&long(201)) == 0 && processes(&long(202)) == 0
    });
    daemon.launch();
    let mut client = daemon.client().await;
    let pid = |status: &v1::TaskStatus| status.container.as_ref().map_or(0, |c| c.pid);
    // What was known is known at once, and no state is taken back.
    let known = found(&mut client, "fine", |h| !h.log.is_empty()).await;
    assert_eq!(known.state(), HealthState::Healthy);
    let again = status(&mut client, "fine", |s| s.state() == TaskState::Running).await;
    assert_eq!(pid(&again), pid(&fine));
    let again = status(&mut client, "waits", |s| s.container.is_some()).await;
    assert_eq!(
        (again.state(), pid(&again)),
        (TaskState::Starting, pid(&waiting))
    );
    wait_for("another probe that hangs", || processes(&long(202)) > 0);

    fs::write(format!("/proc/{}/root/ok", pid(&waiting)), "").unwrap();
    status(&mut client, "waits", |s| s.state() == TaskState::Running).await;
    fs::write(format!("/proc/{}/root/sick", pid(&fine)), "").unwrap();
    let failed = status(&mut client, "fine", |s| s.state() == TaskState::Failed).await;
    assert!(
        failed.error.starts_with("unhealthy container"),
        "{}",
        failed.error
    );

    // A probe keeps nobody from ending.
    let begun = Instant::now();
    assert!(daemon.end(Signal::SIGTERM).success());
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
    wait_for("the probes to end", || processes(&long(202)) == 0);
    daemon.launch();
    let mut client = daemon.client().await;
    status(&mut client, "waits", |s| s.state() == TaskState::Running).await;
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
    assert!(!Path::new(&format!("/proc/{}", pid(&waiting))).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_task_has_failed_also_when_the_daemon_is_killed_meanwhile() {
    let mut daemon = Daemon::start("sick");
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let tasks = ["stays", "ends"].map(|id| {
        let mut task = checked(&daemon, id, "[ ! -e /sick ]");
        check(&mut task).retries = 1;
        let c = task.container.as_mut().unwrap();
        c.command[2] = "trap '' TERM; while :; do sleep 0.1; done".into();
        c.stop_grace_period = Some(8 * SECOND);
        task
    });
    client.assign(complete("1", &tasks)).await.unwrap();
    let mut pids = Vec::new();
    for id in ["stays", "ends"] {
        let running = status(&mut client, id, |s| s.state() == TaskState::Running).await;
        let pid = running.container.unwrap().pid;
        fs::write(format!("/proc/{pid}/root/sick"), "").unwrap();
        pids.push(pid);
    }
    // Both are being stopped, and are in no hurry.
    wait_for("both to be stopped", || {
        let log = fs::read_to_string(daemon.log_path()).unwrap_or_default();
        log.matches("the task is stopped").count() == 2
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.end(Signal::SIGKILL);
    let ends = nix::unistd::Pid::from_raw(i32::try_from(pids[1]).unwrap());
    nix::sys::signal::kill(ends, Signal::SIGKILL).unwrap();
    daemon.launch();
    let mut client = daemon.client().await;
    for id in ["ends", "stays"] {
        let failed = status(&mut client, id, |s| s.state() == TaskState::Failed).await;
        let error = "unhealthy container: 1 failed probes in a row";
        assert!(failed.error.starts_with(error), "{id}: {}", failed.error);
        assert_eq!(failed.container.unwrap().exit_code, 137, "{id}");
    }
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}
