//! Statistics against the kernel's files as this test reads them, and events that really happen.

mod common;
use common::{Sandbox, until};
use container::Cgroup;
use container::cgroup::stats::IoOperation;
use container::cgroup::{Event, Events, Layout, RuncEvent, Version};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxResources;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;

fn create(sandbox: &Sandbox, json: serde_json::Value) -> Cgroup {
    let resources: LinuxResources = serde_json::from_value(json).expect("resources");
    Cgroup::create(&sandbox.parent, "task", &resources).expect("create")
}

/// The directory of the sandbox's cgroup, found by this test itself.
fn dir(sandbox: &Sandbox, controller: &str) -> (Version, PathBuf) {
    let layout = Layout::detect().expect("layout");
    let hierarchy = layout.with_controller(controller).expect(controller);
    let parent = sandbox.parent.trim_start_matches('/');
    let path = hierarchy.mountpoint.join(parent).join("task");
    (hierarchy.version, path)
}

fn is_v1(controller: &str) -> bool {
    let layout = Layout::detect().expect("layout");
    layout.with_controller(controller).map(|h| h.version) == Some(Version::V1)
}

/// A shell in the cgroup that waits for its input to end, then does as told.
fn shell(cgroup: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    drop(child.stdin.take());
    child
}

/// Ends what is in the cgroup, and the cgroup.
fn end(cgroup: Cgroup, mut child: Child) {
    let reaper = std::thread::spawn(move || child.wait());
    cgroup.kill().expect("kill");
    reaper.join().expect("join").expect("wait");
    cgroup.delete().expect("delete");
}

#[test]
fn time_memory_and_tasks() {
    let sandbox = Sandbox::new("stats");
    let cgroup = create(
        &sandbox,
        serde_json::json!({
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 20},
            "cpu": {"quota": 20_000, "period": 50_000}}),
    );
    let empty = cgroup.stats().expect("stats");
    assert_eq!((empty.cpu.usage, empty.pids.current), (0, 0));
    // tail keeps what has no newline.
    let child = shell(
        &cgroup,
        "(head -c 2000000 /dev/zero; exec sleep 60) | tail & while :; do :; done",
    );
    until("used", || {
        let stats = cgroup.stats().expect("stats");
        // Version 2 brings memory.stat up to date every two seconds.
        let stat = ["rss", "anon"]
            .iter()
            .find_map(|key| stats.memory.raw.get(*key));
        stat > Some(&MIB) && stats.cpu.throttled_periods > 2
    });
    cgroup.freeze().expect("freeze"); // so that both look at the same
    let read = |controller: &str, name: &str| {
        let text = fs::read_to_string(dir(&sandbox, controller).1.join(name)).expect(name);
        text.trim().to_string()
    };
    // The timer of the bandwidth still fires once or twice.
    let (stats, cpu) = loop {
        let periods = cgroup.stats().expect("stats").cpu.periods;
        let (cpu, stats) = (read("cpu", "cpu.stat"), cgroup.stats().expect("stats"));
        if stats.cpu.periods == periods {
            break (stats, cpu);
        }
    };
    let number = |text: String| text.parse::<u64>().expect("number");
    let key = |text: &str, key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        number(line.expect(key).trim().into())
    };
    // sh, head's successor, tail, and whatever the shell has not reaped.
    assert_eq!(stats.pids.current, number(read("pids", "pids.current")));
    assert!(stats.pids.current >= 3);
    assert_eq!(stats.pids.limit, Some(20));
    assert_eq!(stats.cpu.periods, key(&cpu, "nr_periods "));
    assert_eq!(stats.cpu.throttled_periods, key(&cpu, "nr_throttled "));
    if is_v1("cpuacct") {
        assert_eq!(stats.cpu.usage, number(read("cpuacct", "cpuacct.usage")));
        let sum: u64 = stats.cpu.per_cpu.iter().map(|t| t.usage).sum();
        assert_eq!(sum, stats.cpu.usage);
        assert_eq!(stats.cpu.throttled, key(&cpu, "throttled_time "));
    } else {
        assert_eq!(stats.cpu.usage, 1000 * key(&cpu, "usage_usec "));
        assert_eq!(stats.cpu.user, 1000 * key(&cpu, "user_usec "));
        assert_eq!(stats.cpu.throttled, 1000 * key(&cpu, "throttled_usec "));
        assert!(stats.cpu.per_cpu.is_empty());
    }
    assert!(stats.cpu.usage > 0 && stats.cpu.throttled > 0);
    let stat = read("memory", "memory.stat");
    assert_eq!(stats.memory.raw.len(), stat.lines().count());
    assert_eq!(stats.memory.usage.limit, Some(64 * MIB));
    if is_v1("memory") {
        assert_eq!(stats.memory.swap.limit, Some(96 * MIB));
        assert_eq!(stats.memory.kernel.limit, None);
        let peak = number(read("memory", "memory.max_usage_in_bytes"));
        assert_eq!(stats.memory.usage.peak, Some(peak));
    } else {
        assert_eq!(stats.memory.swap.limit, Some(32 * MIB));
        // The quota alone makes tasks wait.
        let pressure = read("cpu", "cpu.pressure");
        let some = pressure
            .lines()
            .find(|l| l.starts_with("some "))
            .expect("some");
        let total = number(some.rsplit_once("total=").expect("total").1.into());
        let found = stats.cpu.pressure.expect("psi").some.total;
        assert!(found > 0 && found <= total, "{found} {total}");
    }
    end(cgroup, child);
    sandbox.assert_clean();
}

#[test]
fn bytes_of_a_disk() {
    let folder = PathBuf::from(if is_v1("memory") { "/tmp" } else { "/var/lib" });
    let device = nix::sys::stat::stat(&folder).expect("stat").st_dev;
    let (major, minor) = (libc::major(device), libc::minor(device));
    if !PathBuf::from(format!("/sys/dev/block/{major}:{minor}")).exists() {
        eprintln!("skipped: {} is on no block device", folder.display());
        return;
    }
    let sandbox = Sandbox::new("iostats");
    // Version 1 counts those devices that have had a limit.
    let rate = serde_json::json!([{"major": major, "minor": minor, "rate": 1_000_000_000u64}]);
    let cgroup = create(
        &sandbox,
        serde_json::json!({"blockIO": {"throttleWriteBpsDevice": rate}}),
    );
    let file = folder.join(format!("fltest-io-{}", std::process::id()));
    let mut child = shell(
        &cgroup,
        &format!(
            "dd if=/dev/zero of={} bs=65536 count=32 oflag=direct",
            file.display()
        ),
    );
    assert!(child.wait().expect("wait").success());
    fs::remove_file(&file).expect("remove");
    let stats = cgroup.stats().expect("stats");
    let sum = |operation| -> u64 {
        let entries = stats.io.bytes.iter();
        let of = entries.filter(|e| (e.major, e.minor, e.operation) == (major, minor, operation));
        of.map(|e| e.value).sum()
    };
    assert!(sum(IoOperation::Write) >= 2 * MIB, "{:?}", stats.io);
    let json = serde_json::to_value(RuncEvent::stats("c1", &stats)).expect("json");
    let list = json["data"]["blkio"]["ioServiceBytesRecursive"].as_array();
    let written = list.expect("list").iter().find(|e| e["op"] == "Write");
    assert!(written.expect("write")["value"].as_u64() >= Some(2 * MIB));
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

/// Keys and types as in runc's types/events.go.
#[test]
fn the_form_of_runc() {
    let sandbox = Sandbox::new("runcform");
    let cgroup = create(
        &sandbox,
        serde_json::json!({
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 20},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]}),
    );
    let child = shell(&cgroup, "while :; do :; done");
    until("used", || cgroup.stats().expect("stats").cpu.usage > 0);
    let stats = cgroup.stats().expect("stats");
    let json = serde_json::to_value(RuncEvent::stats("c1", &stats)).expect("json");
    assert_eq!(
        (&json["type"], &json["id"]),
        (&"stats".into(), &"c1".into())
    );
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<_> = value.as_object().expect("object").keys().cloned().collect();
        keys.sort();
        keys
    };
    let data = &json["data"];
    assert_eq!(
        keys(data),
        [
            "blkio",
            "cpu",
            "cpuset",
            "hugetlb",
            "intel_rdt",
            "memory",
            "network_interfaces",
            "pids"
        ]
    );
    assert_eq!(data["cpu"]["usage"]["total"], stats.cpu.usage);
    assert_eq!(data["cpu"]["usage"]["kernel"], stats.cpu.system);
    assert_eq!(data["pids"], serde_json::json!({"current": 1, "limit": 20}));
    let memory = &data["memory"];
    assert_eq!(memory["usage"]["limit"], 64 * MIB);
    // Memory and swap together, whatever the version.
    assert_eq!(memory["swap"]["limit"], 96 * MIB);
    assert!(memory["swap"]["usage"].as_u64() >= memory["usage"]["usage"].as_u64());
    assert_eq!(memory["kernelTCP"]["failcnt"], 0);
    assert!(memory["raw"].as_object().expect("raw").len() > 10);
    assert!(data["hugetlb"]["2MB"]["failcnt"].is_u64(), "{data}");
    assert!(data["cpuset"]["sched_relax_domain_level"].is_i64());
    assert_eq!(data["network_interfaces"], serde_json::Value::Null);
    if is_v1("cpuacct") {
        let cpus = data["cpu"]["usage"]["percpu"].as_array().expect("percpu");
        assert_eq!(cpus.len(), stats.cpu.per_cpu.len());
    }
    end(cgroup, child);
    assert_eq!(
        serde_json::to_string(&RuncEvent::oom("c1")).expect("json"),
        r#"{"type":"oom","id":"c1"}"#
    );
    // What has no limit says so by the largest number, in version 1 in whole pages.
    let cgroup = create(&sandbox, serde_json::json!({}));
    let stats = cgroup.stats().expect("stats");
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (None, None));
    let json = serde_json::to_value(RuncEvent::stats("c1", &stats)).expect("json");
    let (version, dir) = dir(&sandbox, "memory");
    let expected = match version {
        Version::V1 => fs::read_to_string(dir.join("memory.limit_in_bytes"))
            .expect("limit")
            .trim()
            .parse()
            .expect("number"),
        Version::V2 => u64::MAX,
    };
    assert_eq!(json["data"]["memory"]["usage"]["limit"], expected);
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn statistics_of_what_is_gone() {
    let sandbox = Sandbox::new("gonestats");
    let cgroup = create(&sandbox, serde_json::json!({}));
    cgroup.clone().delete().expect("delete");
    let error = cgroup.stats().expect_err("gone");
    assert!(
        matches!(error, container::CgroupError::NotFound(_)),
        "{error}"
    );
    sandbox.assert_clean();
}

fn readable(events: &Events, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(milliseconds)).expect("poll") > 0
}

/// Waits by the descriptor alone until this event is there; all that were read.
fn wait_for(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut all = Vec::new();
    for _ in 0..100 {
        assert!(readable(events, 20_000), "nothing but {all:?}");
        all.extend(events.read().expect("read"));
        if all.iter().any(&wanted) {
            return all;
        }
    }
    panic!("only {all:?}");
}

const SMALL: &str = "tail /dev/zero";

#[test]
fn lack_of_memory_is_told() {
    let sandbox = Sandbox::new("oomevent");
    let limit = 16 * MIB;
    let cgroup = create(
        &sandbox,
        serde_json::json!({"memory": {"limit": limit, "swap": limit}}),
    );
    let mut events = cgroup.watch().expect("watch");
    assert_eq!(events.read().expect("read"), []);
    assert!(!readable(&events, 0));
    // The shell outlives what is killed.
    let child = shell(&cgroup, &format!("{SMALL}; exec sleep 60"));
    let told = wait_for(&mut events, |e| matches!(e, Event::Oom(_)));
    if !is_v1("memory") {
        assert!(told.iter().any(|e| matches!(e, Event::Max(_))), "{told:?}");
    }
    // The kill itself is counted a moment later.
    let mut kills = 0;
    let mut count = |events: Vec<Event>| {
        kills += events
            .iter()
            .map(|e| if let Event::OomKill(n) = e { *n } else { 0 })
            .sum::<u64>();
        kills
    };
    count(told);
    until("killed", || count(events.read().expect("read")) >= 1);
    let (_, dir) = dir(&sandbox, "memory");
    let file = if is_v1("memory") {
        "memory.oom_control"
    } else {
        "memory.events"
    };
    let text = fs::read_to_string(dir.join(file)).expect(file);
    assert!(
        text.contains(&format!("oom_kill {}", count(Vec::new()))),
        "{text}"
    );
    assert_eq!(cgroup.stats().expect("stats").memory.events.oom_kill, 1);
    end(cgroup, child);
    until("told that it is gone", || {
        events.read().expect("read").contains(&Event::Removed)
    });
    assert_eq!(events.read().expect("read"), []);
    sandbox.assert_clean();
}

#[test]
fn lack_of_memory_just_before_the_end_is_not_lost() {
    let sandbox = Sandbox::new("oomlate");
    let limit = 16 * MIB;
    let cgroup = create(
        &sandbox,
        serde_json::json!({"memory": {"limit": limit, "swap": limit}}),
    );
    let events = cgroup.watch().expect("watch");
    // Nobody reads until the only process is killed and gone.
    let mut child = shell(&cgroup, &format!("exec {SMALL}"));
    let status = child.wait().expect("wait");
    assert!(!status.success());
    let last = events.finish().expect("finish");
    assert!(last.contains(&Event::OomKill(1)), "{last:?}");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn the_last_process_and_freezing_are_told() {
    let sandbox = Sandbox::new("populated");
    let cgroup = create(&sandbox, serde_json::json!({}));
    let v2 = Layout::detect().expect("layout");
    if !v2.hierarchies.iter().any(|h| h.version == Version::V2) {
        eprintln!("skipped: no version 2 hierarchy");
        return;
    }
    let mut events = cgroup.watch().expect("watch");
    let mut child = shell(&cgroup, "exec sleep 60");
    wait_for(&mut events, |e| *e == Event::Populated(true));
    if !is_v1("freezer") {
        cgroup.freeze().expect("freeze");
        wait_for(&mut events, |e| *e == Event::Frozen(true));
        cgroup.thaw().expect("thaw");
        wait_for(&mut events, |e| *e == Event::Frozen(false));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    wait_for(&mut events, |e| *e == Event::Populated(false));
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn memory_high_is_told() {
    if is_v1("memory") {
        eprintln!("skipped: version 1 has no memory.high");
        return;
    }
    let sandbox = Sandbox::new("high");
    let cgroup = create(
        &sandbox,
        serde_json::json!({"unified": {"memory.high": "8388608"}}),
    );
    let mut events = cgroup.watch().expect("watch");
    let child = shell(&cgroup, "head -c 20000000 /dev/zero | tail");
    wait_for(&mut events, |e| matches!(e, Event::High(_)));
    end(cgroup, child);
    sandbox.assert_clean();
}
