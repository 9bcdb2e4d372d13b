//! What holds for every field: updates, refusals, cgroups that are there already.

use super::*;

#[test]
fn an_update_leaves_the_rest() {
    let sandbox = Sandbox::new("leaves");
    let json = serde_json::json!({
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB},
        "pids": {"limit": 20}, "cpu": {"cpus": "0", "shares": 512}});
    let cgroup = create(&sandbox, json);
    cgroup
        .update(&resources(serde_json::json!({"pids": {"limit": 30}})))
        .expect("pids");
    // Absent is 0 in the parsed form: not "no tasks", and not "no limit".
    cgroup
        .update(&resources(
            serde_json::json!({"pids": {}, "memory": {"limit": 0}}),
        ))
        .expect("nothing");
    assert_eq!(file(&sandbox, "pids", "pids.max", "pids.max"), "30");
    let limit = file(&sandbox, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit, (64 * MIB).to_string());
    assert_eq!(file(&sandbox, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    cgroup
        .update(&resources(serde_json::json!({"pids": {"limit": -1}})))
        .expect("none");
    assert_eq!(file(&sandbox, "pids", "pids.max", "pids.max"), "max");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn an_update_that_fails_says_where() {
    let sandbox = Sandbox::new("failing");
    let cgroup = create(&sandbox, serde_json::json!({"pids": {"limit": 20}}));
    let json = serde_json::json!({"pids": {"limit": 30}, "cpu": {"cpus": "9999"}});
    let error = cgroup.update(&resources(json)).expect_err("refused");
    assert!(matches!(error, CgroupError::Limit { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("linux.resources.cpu.cpus"), "{text}");
    assert!(
        text.contains("cpuset.cpus: ") && text.contains("9999"),
        "{text}"
    );
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn bad_values_name_their_field() {
    let sandbox = Sandbox::new("badvalues");
    let v2 = !is_v1("memory");
    let mut cases = vec![
        (r#"{"memory":{"limit":-2}}"#, "memory.limit"),
        (r#"{"memory":{"reservation":-7}}"#, "memory.reservation"),
        (
            r#"{"memory":{"limit":8388608,"swap":4194304}}"#,
            "memory.swap",
        ),
        (r#"{"memory":{"limit":-1,"swap":4194304}}"#, "memory.swap"),
        (r#"{"memory":{"swap":4194304}}"#, "memory.swap"),
        (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
        (r#"{"memory":{"kernel":4194304}}"#, "memory.kernel"),
        (
            r#"{"memory":{"useHierarchy":false}}"#,
            "memory.useHierarchy",
        ),
        (r#"{"cpu":{"shares":262145}}"#, "cpu.shares"),
        (r#"{"cpu":{"quota":-2}}"#, "cpu.quota"),
        (r#"{"cpu":{"quota":1}}"#, "cpu.quota"),
        (r#"{"cpu":{"period":18446744073709551615}}"#, "cpu.period"),
        (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
        (r#"{"cpu":{"cpus":"x"}}"#, "cpu.cpus"),
        (r#"{"cpu":{"mems":"1-0"}}"#, "cpu.mems"),
        (r#"{"cpu":{"realtimeRuntime":-2}}"#, "cpu.realtimeRuntime"),
        (r#"{"pids":{"limit":-2}}"#, "pids.limit"),
        (r#"{"blockIO":{"weight":9}}"#, "blockIO.weight"),
        (r#"{"blockIO":{"weight":1001}}"#, "blockIO.weight"),
        (r#"{"blockIO":{"leafWeight":500}}"#, "blockIO.leafWeight"),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-8,"minor":0,"rate":1}]}}"#,
            "blockIO.throttleReadBpsDevice[0]",
        ),
        (
            r#"{"blockIO":{"throttleWriteIOPSDevice":[{"major":4000,"minor":9,"rate":5}]}}"#,
            "blockIO.throttleWriteIOPSDevice[0]",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#,
            "hugepageLimits[0]",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
            "hugepageLimits[0]",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
            "hugepageLimits[0]",
        ),
        (r#"{"network":{"classID":1}}"#, "network.classID"),
        (
            r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#,
            "network.priorities",
        ),
        (
            r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#,
            "network.priorities[0]",
        ),
        (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma"),
        (
            r#"{"unified":{"a/memory.high":"1"}}"#,
            "unified.a/memory.high",
        ),
        (r#"{"unified":{"..":"1"}}"#, "unified..."),
        (
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            "unified.cgroup.procs",
        ),
        (r#"{"unified":{"nothing.max":"1"}}"#, "unified.nothing.max"),
        (
            r#"{"devices":[{"allow":true,"type":"c","major":4294967296,"minor":1,"access":"r"}]}"#,
            "devices",
        ),
        (
            r#"{"devices":[{"allow":true,"type":"c","major":-5,"access":"r"}]}"#,
            "devices",
        ),
    ];
    if v2 {
        cases.extend([
            (r#"{"memory":{"swappiness":10}}"#, "memory.swappiness"),
            (
                r#"{"memory":{"disableOOMKiller":true}}"#,
                "memory.disableOOMKiller",
            ),
            (r#"{"memory":{"kernelTCP":4194304}}"#, "memory.kernelTCP"),
            (r#"{"cpu":{"realtimeRuntime":1000}}"#, "cpu.realtimeRuntime"),
            (r#"{"cpu":{"realtimePeriod":1000}}"#, "cpu.realtimePeriod"),
            (
                r#"{"unified":{"memory.nothing":"1"}}"#,
                "unified.memory.nothing",
            ),
            (r#"{"unified":{"memory.high":"x"}}"#, "unified.memory.high"),
        ]);
    } else {
        cases.push((r#"{"unified":{"memory.high":"1"}}"#, "unified.memory.high"));
    }
    for (json, field) in cases {
        let resources = serde_json::from_str(json).expect(json);
        let error = Cgroup::create(&sandbox.parent, "task", &resources)
            .map(|_| ())
            .expect_err(json);
        let field = format!("linux.resources.{field}");
        let text = error.to_string();
        assert!(text.starts_with(&field), "{json}: {text}");
        sandbox.assert_clean();
    }
}

#[test]
fn an_existing_cgroup() {
    let sandbox = Sandbox::new("existing");
    let path = CgroupPath::new(&sandbox.parent, "task");
    let none = LinuxResources::default();
    let first = Cgroup::create_at(&path, &none, Existing::Refuse).expect("first");
    let again = Cgroup::create_at(&path, &none, Existing::Refuse);
    assert!(matches!(again, Err(CgroupError::Exists(_))), "{again:?}");
    let limited = resources(serde_json::json!({"pids": {"limit": 7}}));
    let second = Cgroup::create_at(&path, &limited, Existing::UseEmpty).expect("empty");
    assert_eq!(file(&sandbox, "pids", "pids.max", "pids.max"), "7");
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("spawn");
    first.attach(child.id() as i32).expect("attach");
    let third = Cgroup::create_at(&path, &limited, Existing::UseEmpty);
    let pid = child.id() as i32;
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(
        matches!(&third, Err(CgroupError::InUse { pids, .. }) if *pids == [pid]),
        "{third:?}"
    );
    // A limit that is refused leaves what was there.
    let bad = resources(serde_json::json!({"cpu": {"cpus": "9999"}}));
    Cgroup::create_at(&path, &bad, Existing::UseEmpty).expect_err("refused");
    Cgroup::open_at(&path).expect("still there");
    second.delete().expect("delete");
    sandbox.assert_clean();
}
