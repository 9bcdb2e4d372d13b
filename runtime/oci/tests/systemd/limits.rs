//! Limits: as systemd knows them, as the kernel has them, and that they stay when systemd is
//! reloaded.

use crate::init::Machine;
use serde_json::json;

const UNIT: &str = "fl-limits.scope";
const CGROUP: &str = "/fl.slice/fl-test.slice/fl-limits.scope";

/// What systemd may have forgotten and written anew: everything that it knows.
fn reload(machine: &Machine) {
    machine.run(&["systemctl", "daemon-reload"]).ok();
    // A change of another unit of the slice makes it look at all of them.
    let set = [
        "systemctl",
        "set-property",
        "--runtime",
        "fl-test.slice",
        "TasksMax=500",
    ];
    machine.run(&set).ok();
    let other = [
        "systemd-run",
        "--scope",
        "--slice=fl-test.slice",
        "-p",
        "CPUWeight=33",
        "true",
    ];
    machine.run(&other).ok();
}

#[test]
fn limits_stay_when_systemd_is_reloaded() {
    let Some(machine) = Machine::new("limits") else {
        return;
    };
    let v2 = machine.inside("/sys/fs/cgroup/cgroup.controllers").exists();
    // By rules the container has this device's node, and may not open it.
    let kmsg = json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 }]);
    machine.bundle.change(json!({ "linux": {
        "devices": kmsg,
        "resources": {
            "memory": { "limit": 100 << 20, "reservation": 50 << 20 },
            "cpu": { "shares": 512, "quota": 33_000, "period": 100_000 },
            "pids": { "limit": 77 },
            "blockIO": { "weight": 100 },
        },
    } }));
    if !v2
        || !machine
            .inside("/sys/fs/cgroup/system.slice/io.weight")
            .exists()
    {
        machine
            .bundle
            .change(json!({ "linux": { "resources": { "blockIO": null } } }));
    }
    machine.start("c");
    let property = |name| machine.property(UNIT, name);
    let file = |v1, v2| machine.limit(CGROUP, v1, v2);
    let device = |node: &str| {
        let script = format!("head -c 0 {node} && echo opened");
        machine.oci(&["exec", "c", "sh", "-c", &script])
    };
    let devices = || {
        device("/dev/null").ok();
        device("/dev/tty").refused(&["No such device or address"]); // allowed, but there is none
        device("/dev/kmsg").refused(&["Operation not permitted"]);
    };
    let known = |memory: &str, tasks: &str| {
        let names = if v2 {
            ["MemoryMax", "CPUWeight"]
        } else {
            ["MemoryLimit", "CPUShares"]
        };
        assert_eq!(property(names[0]), memory);
        assert_ne!(property(names[1]), "[not set]");
        assert_eq!(property("TasksMax"), tasks);
        assert_eq!(property("CPUQuotaPerSecUSec"), "330ms");
    };
    let held = |memory: &str, tasks: &str| {
        assert_eq!(file("memory.limit_in_bytes", "memory.max"), memory);
        assert_eq!(file("pids.max", "pids.max"), tasks);
        let quota = file("cpu.cfs_quota_us", "cpu.max");
        assert_eq!(quota.split(' ').next(), Some("33000"));
        let weight = file("cpu.shares", "cpu.weight");
        assert_eq!(weight, if v2 { "59" } else { "512" });
    };
    known("104857600", "77");
    held("104857600", "77");
    devices();
    reload(&machine);
    known("104857600", "77");
    held("104857600", "77");
    devices();

    let update = ["update", "--memory", "64m", "--pids-limit", "55", "c"];
    machine.oci(&update).ok();
    known("67108864", "55");
    held("67108864", "55");
    devices();
    reload(&machine);
    known("67108864", "55");
    held("67108864", "55");
    devices();
    machine
        .oci(&["update", "--pids-limit", "-5", "c"])
        .refused(&["pids.limit"]);
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
}

/// What systemd has no property for, and what the files of version 2 say.
#[test]
fn the_rest_of_the_limits_is_ours() {
    let Some(machine) = Machine::new("limits") else {
        return;
    };
    if !machine.inside("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("skipped: this needs cgroup version 2 alone");
        return;
    }
    machine.bundle.change(json!({ "linux": { "resources": {
        "memory": { "limit": 100 << 20, "swap": 150 << 20 },
        "cpu": { "cpus": "0", "idle": 1 },
        "unified": {
            "memory.oom.group": "1",
            "memory.high": "90001408",
            "cgroup.max.depth": "3",
            "pids.max": "66",
        },
    } } }));
    machine.start("c");
    let check = || {
        assert_eq!(machine.property(UNIT, "MemoryHigh"), "90001408");
        assert_eq!(machine.property(UNIT, "MemorySwapMax"), "52428800");
        assert_eq!(machine.property(UNIT, "AllowedCPUs"), "0");
        assert_eq!(machine.property(UNIT, "TasksMax"), "66");
        let file = |name| machine.limit(CGROUP, "-", name);
        assert_eq!(file("memory.high"), "90001408");
        assert_eq!(file("memory.swap.max"), "52428800");
        assert_eq!(file("cgroup.max.depth"), "3");
        assert_eq!(file("cpuset.cpus"), "0");
        assert_eq!(file("cpu.idle"), "1");
        assert_eq!(file("pids.max"), "66");
    };
    check();
    // To systemd this is a matter of OOMPolicy=, which scopes do not have before version 253: a reload
    // sets it back.
    assert_eq!(machine.limit(CGROUP, "-", "memory.oom.group"), "1");
    reload(&machine);
    check();
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
}
