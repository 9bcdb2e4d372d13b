//! Processing time and tasks.

use super::*;

#[test]
fn quota_and_period_in_any_order() {
    let sandbox = Sandbox::new("quota");
    let pair =
        |quota: i64, period: u64| serde_json::json!({"cpu": {"quota": quota, "period": period}});
    let cgroup = create(&sandbox, pair(50_000, 100_000));
    // Half a CPU for all below the parent: a step between the pairs may break that.
    let (version, task) = dir(&sandbox, "cpu").expect("cpu");
    let parent = task.parent().expect("parent");
    match version {
        Version::V1 => fs::write(parent.join("cpu.cfs_quota_us"), "50000").expect("quota"),
        Version::V2 => fs::write(parent.join("cpu.max"), "50000 100000").expect("quota"),
    }
    for (quota, period) in [(10_000, 20_000), (100_000, 200_000), (5_000, 10_000)] {
        cgroup
            .update(&resources(pair(quota, period)))
            .unwrap_or_else(|e| panic!("{quota} {period}: {e}"));
        match version {
            Version::V1 => {
                let read = |name| file(&sandbox, "cpu", name, "");
                assert_eq!(read("cpu.cfs_quota_us"), quota.to_string());
                assert_eq!(read("cpu.cfs_period_us"), period.to_string());
            }
            Version::V2 => {
                let found = file(&sandbox, "cpu", "", "cpu.max");
                assert_eq!(found, format!("{quota} {period}"));
            }
        }
    }
    // One of the two leaves the other.
    let period = serde_json::json!({"cpu": {"period": 40_000}});
    cgroup.update(&resources(period)).expect("period");
    let found = file(&sandbox, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(found.split(' ').next(), Some("5000"));
    // A burst above the old quota, and a quota below the old burst.
    for (quota, burst) in [(8_000, 6_000), (2_000, 1_000)] {
        let json = serde_json::json!({"cpu": {"quota": quota, "burst": burst}});
        cgroup.update(&resources(json)).expect("burst");
        let found = file(&sandbox, "cpu", "cpu.cfs_burst_us", "cpu.max.burst");
        assert_eq!(found, burst.to_string());
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn shares_and_idle() {
    let sandbox = Sandbox::new("idle");
    let cgroup = create(
        &sandbox,
        serde_json::json!({"cpu": {"shares": 2048, "idle": 1}}),
    );
    assert_eq!(file(&sandbox, "cpu", "cpu.idle", "cpu.idle"), "1");
    // The weight of an idle cgroup cannot be set: idle is taken off first.
    let busy = serde_json::json!({"cpu": {"shares": 512, "idle": 0}});
    cgroup.update(&resources(busy)).expect("update");
    assert_eq!(file(&sandbox, "cpu", "cpu.idle", "cpu.idle"), "0");
    let expected = if is_v1("cpu") { "512" } else { "59" };
    assert_eq!(file(&sandbox, "cpu", "cpu.shares", "cpu.weight"), expected);
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn real_time_of_version_1() {
    let Some(cpu) = Layout::detect()
        .expect("layout")
        .with_controller("cpu")
        .filter(|h| h.version == Version::V1 && h.mountpoint.join("cpu.rt_runtime_us").exists())
        .cloned()
    else {
        eprintln!("skipped: this kernel divides no real-time processing time");
        return;
    };
    let sandbox = Sandbox::new("realtime");
    let parent = cpu.mountpoint.join(sandbox.parent.trim_start_matches('/'));
    fs::create_dir(&parent).expect("mkdir");
    fs::write(parent.join("cpu.rt_runtime_us"), "20000").expect("share of the parent");
    let json = serde_json::json!({"cpu": {"realtimeRuntime": 10_000, "realtimePeriod": 500_000}});
    let cgroup = create(&sandbox, json);
    // Each step between is more than the parent has; another order is not.
    let json = serde_json::json!({"cpu": {"realtimeRuntime": 1_000, "realtimePeriod": 50_000}});
    cgroup.update(&resources(json)).expect("update");
    assert_eq!(file(&sandbox, "cpu", "cpu.rt_runtime_us", ""), "1000");
    assert_eq!(file(&sandbox, "cpu", "cpu.rt_period_us", ""), "50000");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn tasks_and_time_are_limited() {
    let sandbox = Sandbox::new("bites");
    let json = serde_json::json!({"cpu": {"quota": 2_000, "period": 20_000}, "pids": {"limit": 3}});
    let cgroup = create(&sandbox, json);
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read go; while :; do :; done"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    drop(child.stdin.take());
    let throttled = || {
        let text = file(&sandbox, "cpu", "cpu.stat", "cpu.stat");
        let line = text.lines().find_map(|l| l.strip_prefix("nr_throttled "));
        line.expect("nr_throttled").parse::<u64>().expect("number")
    };
    common::until("throttled", || throttled() >= 3);
    std::thread::spawn(move || child.wait());
    cgroup.kill().expect("kill");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}
