//! Block devices, and which devices may be used.

use super::*;

#[test]
fn weights_of_block_devices() {
    let sandbox = Sandbox::new("weights");
    let cgroup = create(&sandbox, serde_json::json!({"blockIO": {"weight": 500}}));
    if let Some((Version::V1, dir)) = dir(&sandbox, "blkio") {
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let found = read("blkio.weight").or(read("blkio.bfq.weight"));
        assert_eq!(found.expect("weight").trim(), "500");
    } else {
        let (_, dir) = dir(&sandbox, "io").expect("io");
        let expected = if dir.join("io.bfq.weight").exists() {
            ("io.bfq.weight", "default 500")
        } else {
            ("io.weight", "default 4950")
        };
        let found = fs::read_to_string(dir.join(expected.0)).expect("weight");
        assert_eq!(found.lines().next(), Some(expected.1));
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

/// Major and minor number of a real disk.
fn disk() -> Option<(u64, u64)> {
    let name = ["vda", "sda", "nvme0n1"]
        .into_iter()
        .find(|name| Path::new("/sys/block").join(name).exists())?;
    let text = fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn rates_of_a_disk() {
    let Some((major, minor)) = disk() else {
        eprintln!("skipped: this machine has no disk");
        return;
    };
    let sandbox = Sandbox::new("rates");
    let device = |rate: u64| serde_json::json!([{"major": major, "minor": minor, "rate": rate}]);
    let json = serde_json::json!({"blockIO": {
        "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
        "throttleReadIOPSDevice": device(300), "throttleWriteIOPSDevice": device(400)}});
    let cgroup = create(&sandbox, json);
    let v1 = dir(&sandbox, "blkio");
    let number = format!("{major}:{minor}");
    if let Some((_, dir)) = &v1 {
        for (name, rate) in [
            ("read_bps", 1_000_000),
            ("write_bps", 2_000_000),
            ("read_iops", 300),
            ("write_iops", 400),
        ] {
            let path = dir.join(format!("blkio.throttle.{name}_device"));
            let found = fs::read_to_string(path).expect(name);
            assert_eq!(found.trim(), format!("{number} {rate}"));
        }
    } else {
        assert_eq!(
            file(&sandbox, "io", "", "io.max"),
            format!("{number} rbps=1000000 wbps=2000000 riops=300 wiops=400")
        );
    }
    // 0 takes one away and leaves the rest.
    let json = serde_json::json!({"blockIO": {"throttleReadBpsDevice": device(0)}});
    cgroup.update(&resources(json)).expect("update");
    if let Some((_, dir)) = &v1 {
        let found = fs::read_to_string(dir.join("blkio.throttle.read_bps_device")).expect("rate");
        assert_eq!(found.trim(), "");
    } else {
        assert_eq!(
            file(&sandbox, "io", "", "io.max"),
            format!("{number} rbps=max wbps=2000000 riops=300 wiops=400")
        );
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn devices_are_changed_in_place() {
    let sandbox = Sandbox::new("devupdate");
    let rules = |zero: bool| {
        serde_json::json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": zero, "type": "c", "major": 1, "minor": 5, "access": "r"}]})
    };
    let cgroup = create(&sandbox, rules(true));
    // Each line of its input is tried; the answers come back.
    let mut child = std::process::Command::new("/bin/busybox")
        .args([
            "sh",
            "-c",
            "while read f; do if (: <$f) 2>/dev/null; then echo yes; else echo no; fi; done",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    let mut input = child.stdin.take().expect("stdin");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let mut may_open = |path: &str| {
        use std::io::{BufRead, Write};
        writeln!(input, "{path}").expect("ask");
        let mut line = String::new();
        output.read_line(&mut line).expect("answer");
        line.trim() == "yes"
    };
    assert!(may_open("/dev/null") && may_open("/dev/zero") && !may_open("/dev/full"));
    for zero in [false, true, false] {
        cgroup.update(&resources(rules(zero))).expect("update");
        assert!(may_open("/dev/null"));
        assert_eq!(may_open("/dev/zero"), zero);
        assert!(!may_open("/dev/full"));
    }
    // An update of something else leaves the filter.
    cgroup
        .update(&resources(serde_json::json!({"pids": {"limit": 9}})))
        .expect("update");
    assert!(may_open("/dev/null") && !may_open("/dev/zero"));
    drop(input);
    child.wait().expect("wait");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}
