//! A task's process: what surrounds it, how it ends, what it says.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use fairlead_tests::witness::cgroup_file;
use fairlead_tests::{Cluster, ask_tcp, wait_for};
use serde_json::json;

#[test]
fn namespaces_and_limits() {
    let mut cluster = Cluster::new("limits", 1);
    cluster
        .task("one", 1)
        .set("/container/pidsLimit", json!(100))
        .set("/resources/limits", json!({"cpus": 1.5, "memory": "64MiB"}))
        .set("/container/hostname", json!("first"))
        .set("/container/user", json!("web"));
    let ulimits = json!([{"name": "nofile", "soft": 100, "hard": 200}]);
    cluster
        .task("two", 1)
        .set("/container/ulimits", ulimits)
        .set("/container/oomScoreAdj", json!(100))
        .set("/container/readOnly", json!(true));
    cluster.deploy();
    let (one, two) = (
        cluster.node(1).task_pid("one"),
        cluster.node(1).task_pid("two"),
    );
    let own = u64::from(std::process::id());
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace");
        assert!(
            of(one) != of(own) && of(two) != of(own) && of(one) != of(two),
            "{kind}"
        );
    }
    // The kernel may have been built without cgroup namespaces.
    if let Ok(of_test) = fs::read_link("/proc/self/ns/cgroup") {
        let of = |pid| fs::read_link(format!("/proc/{pid}/ns/cgroup")).expect("namespace");
        assert!(of(one) != of_test && of(one) != of(two));
    }
    assert_eq!(
        cgroup_file(one, "memory.max", "memory", "memory.limit_in_bytes"),
        "67108864"
    );
    assert_eq!(cgroup_file(one, "pids.max", "pids", "pids.max"), "100");
    let cpu = cgroup_file(one, "cpu.max", "cpu", "cpu.cfs_quota_us");
    assert!(cpu == "150000 100000" || cpu == "150000", "{cpu}");
    assert_eq!(cgroup_file(two, "pids.max", "pids", "pids.max"), "max");
    let status = fs::read_to_string(format!("/proc/{one}/status")).expect("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {status}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Uid:"), "101 101 101 101");
    assert_eq!(field("NSpid:"), format!("{one} 1"));
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("CapEff:"), "0000000000000000");
    // The daemon raises its own limit only.
    let open_files = |pid: u64| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let numbers = line.unwrap_or_default().split_whitespace().skip(3).take(2);
        numbers.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(open_files(one), open_files(own));
    assert_eq!(open_files(two), "100 200");
    // The shim, whose child it is, is the last to go when memory is short; the task is not.
    let score = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("score");
    assert_eq!((score(one).trim(), score(two).trim()), ("0", "100"));
    // Read-only is all of it, also what is mounted for it.
    for (pid, read_only) in [(one, false), (two, true)] {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
        for path in ["/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
            let mut lines = mounts
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            let mount = lines.find(|words| words[4] == path).expect(path);
            assert_eq!(mount[5].starts_with("ro"), read_only, "{path}: {mount:?}");
        }
    }
    let root = format!("/proc/{one}/root");
    assert_eq!(
        fs::read_to_string(format!("{root}/etc/hostname"))
            .expect("hostname")
            .trim(),
        "first"
    );
    let hosts = fs::read_to_string(format!("{root}/etc/hosts")).expect("hosts");
    assert!(
        hosts.contains(&cluster.address("one", "app")) && hosts.contains("first"),
        "{hosts}"
    );
    // What it writes is its own.
    fs::write(format!("{root}/tmp/mark"), "one").expect("its root can be written");
    assert!(!fs::exists(format!("/proc/{two}/root/tmp/mark")).expect("root of the other"));
    assert!(!fs::exists(cluster.root().join("tmp/mark")).expect("the image"));
}

#[test]
fn an_archive_of_docker_save() {
    let mut cluster = Cluster::new("archive", 1);
    let archive = cluster.archive();
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[1]);
    cluster
        .spec_of("web-1")
        .set(
            "/container/image",
            json!(format!("docker-archive:{}:web:1", archive.display())),
        )
        // All from the image.
        .set("/container/command", json!([]))
        .set("/container/args", json!([]))
        .set("/container/env", json!([]));
    cluster.deploy();
    let answer = wait_for("its server", || {
        ask_tcp(&cluster.client(), "192.0.2.1:8080").map_err(|error| error.to_string())
    });
    assert_eq!(answer.replica, "archive");
}

#[test]
fn each_end_has_its_state_and_code() {
    let mut cluster = Cluster::new("ends", 1);
    cluster.task("good", 1).script("echo done");
    cluster.task("bad", 1).script("echo oops >&2; exit 3");
    cluster.task("killed", 1).script("kill -KILL $$; sleep 100");
    cluster
        .task("missing", 1)
        .command(&["/bin/no-such-program"]);
    cluster.task("folder", 1).command(&["/etc"]);
    cluster
        .task("greedy", 1)
        .set("/resources/limits", json!({"memory": "16MiB"}))
        .command(&["/bin/tail", "/dev/zero"]);
    cluster.apply(&[]).expect("taken");
    let node = cluster.node(1);
    let good = node.await_task("good", "complete");
    assert_eq!(
        (&good["exitCode"], &good["error"]),
        (&json!(0), &json!("")),
        "{good}"
    );
    assert_eq!(node.logs("good"), "done\n");
    let bad = node.await_task("bad", "failed");
    assert_eq!(bad["exitCode"], 3, "{bad}");
    assert!(
        bad["error"]
            .as_str()
            .is_some_and(|error| error.contains('3')),
        "{bad}"
    );
    assert_eq!(node.logs("bad"), "oops\n");
    let missing = node.await_task("missing", "failed");
    assert_eq!(missing["exitCode"], 127, "{missing}");
    let error = missing["error"].as_str().unwrap_or_default();
    assert!(error.contains("/bin/no-such-program"), "{missing}");
    let folder = node.await_task("folder", "failed");
    assert_eq!(folder["exitCode"], 126, "{folder}");
    assert!(
        folder["error"]
            .as_str()
            .is_some_and(|error| error.contains("/etc")),
        "{folder}"
    );
    let greedy = node.await_task("greedy", "failed");
    assert_eq!(
        (&greedy["exitCode"], &greedy["oomKilled"]),
        (&json!(137), &json!(true)),
        "{greedy}"
    );
    node.await_event(1, "OOM", |event| {
        event["type"] == "taskOom" && event["taskId"] == "greedy"
    });
    // PID 1 is protected from itself, so it went on; its end is ours to ask for.
    node.await_task("killed", "running");
    // Ended tasks hold nothing but their status and output.
    let only = cluster.traces();
    let mine = |task: &str| {
        only.processes
            .iter()
            .filter(|p| p.contains(&format!("/{task}")))
            .count()
    };
    for task in ["good", "bad", "missing", "folder", "greedy"] {
        assert_eq!(mine(task), 0, "{task}: {only:#?}");
        let in_cgroup = only.cgroups.iter().find(|path| path.ends_with(task));
        assert_eq!(in_cgroup, None, "{task}");
    }
}

#[test]
fn the_output_is_followed_to_the_end() {
    let mut cluster = Cluster::new("logs", 1);
    cluster.task("talker", 1).script(
        "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo problem >&2; echo -n last",
    );
    cluster.deploy();
    let node = cluster.node(1);
    let pid = node.task_pid("talker");
    let mut logs = node
        .cli(&["logs", "-f", "talker"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fairlead logs");
    let mut stdout = BufReader::new(logs.stdout.take().expect("stdout"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line while it runs");
    assert_eq!(line, "first\n");
    fs::write(format!("/proc/{pid}/root/tmp/go"), "").expect("the sign to go on");
    let (mut rest, mut errors) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("the rest");
    logs.stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut errors)
        .expect("stderr");
    assert_eq!((rest.as_str(), errors.as_str()), ("last", "problem\n"));
    assert!(logs.wait().expect("it ends").success());
    node.await_task("talker", "complete");
    let tail = node.run(&["logs", "--tail", "1", "talker"]);
    assert_eq!(String::from_utf8_lossy(&tail.stdout), "last");
}

/// The stop signal first, SIGKILL after the grace period.
#[test]
fn a_task_is_stopped_as_it_wishes() {
    let mut cluster = Cluster::new("stop", 1);
    cluster
        .task("polite", 1)
        .set("/container/stopSignal", json!("SIGUSR1"))
        .script("trap 'echo bye; exit 7' USR1; echo ready; while :; do sleep 0.05; done");
    cluster
        .task("deaf", 1)
        .set("/container/stopGracePeriod", json!("200ms"))
        .script("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    cluster.deploy();
    for task in ["polite", "deaf"] {
        wait_for("its trap", || {
            let logs = cluster.node(1).logs(task);
            if logs.contains("ready") {
                Ok(())
            } else {
                Err(logs)
            }
        });
        cluster
            .spec_of(task)
            .set("/desiredState", json!("shutdown"));
    }
    cluster.apply(&[]).expect("taken");
    let node = cluster.node(1);
    let polite = node.await_task("polite", "shutdown");
    assert_eq!(polite["exitCode"], 7, "{polite}");
    assert_eq!(node.logs("polite"), "ready\nbye\n");
    let deaf = node.await_task("deaf", "shutdown");
    assert_eq!(deaf["exitCode"], 137, "{deaf}");
}

#[test]
fn a_prepared_task_waits_to_be_wanted() {
    let mut cluster = Cluster::new("parked", 1);
    cluster
        .task("parked", 1)
        .set("/desiredState", json!("ready"));
    cluster.apply(&["--wait-tasks"]).expect("taken");
    let parked = cluster.node(1).await_task("parked", "ready");
    assert_eq!(parked["pid"], 0, "{parked}");
    cluster
        .spec_of("parked")
        .set("/desiredState", json!("running"));
    cluster.deploy();
    assert!(cluster.node(1).task_pid("parked") > 0);
}
