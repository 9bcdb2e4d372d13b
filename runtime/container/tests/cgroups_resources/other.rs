//! Huge pages, networks, and files by their names.

use super::*;

#[test]
fn huge_pages() {
    let sandbox = Sandbox::new("huge");
    if dir(&sandbox, "hugetlb").is_none() {
        eprintln!("skipped: no hugetlb controller");
        return;
    }
    // Natively the controller is in version 2 beside version 1.
    let limit = |limit: i64| serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": limit * 2 * MIB}]});
    let cgroup = create(&sandbox, limit(3));
    let read = |kind: &str| {
        let v1 = format!("hugetlb.2MB.{kind}limit_in_bytes");
        file(&sandbox, "hugetlb", &v1, &format!("hugetlb.2MB.{kind}max"))
    };
    assert_eq!(
        (read(""), read("rsvd.")),
        ("6291456".into(), "6291456".into())
    );
    cgroup.update(&resources(limit(1))).expect("update");
    assert_eq!(
        (read(""), read("rsvd.")),
        ("2097152".into(), "2097152".into())
    );
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn unified_files() {
    let sandbox = Sandbox::new("unified");
    let mut map = serde_json::json!({"hugetlb.2MB.max": "4194304", "cgroup.max.depth": "5"});
    let v2 = !is_v1("memory");
    if v2 {
        map["memory.high"] = "20971520".into();
        map["memory.oom.group"] = "1".into();
        map["cpu.max"] = "20000 50000".into();
        map["cpu.max.burst"] = "10000".into();
    }
    let cgroup = create(&sandbox, serde_json::json!({"unified": map}));
    let (_, dir) = dir(&sandbox, "hugetlb").expect("a version 2 hierarchy");
    for (key, value) in map.as_object().expect("map") {
        let found = fs::read_to_string(dir.join(key)).expect(key);
        assert_eq!(found.trim(), value.as_str().expect("text"), "{key}");
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

/// No machine of ours has these mounted: in a mount namespace they are, for a moment.
#[test]
fn network_of_version_1() {
    let sandbox = Sandbox::new("netcls");
    let parent = sandbox.parent.clone();
    let found: Vec<String> = in_process(|| {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        let here = sandbox.dir.path().join("net_cls,net_prio");
        fs::create_dir(&here).expect("mkdir");
        let data = Some("net_cls,net_prio");
        if let Err(error) = mount(
            Some("cgroup"),
            &here,
            Some("cgroup"),
            MsFlags::empty(),
            data,
        ) {
            return vec![error.to_string()];
        }
        let json = serde_json::json!({"network": {
            "classID": 1_048_577, "priorities": [{"name": "lo", "priority": 5}]}});
        let cgroup = Cgroup::create(&parent, "task", &resources(json)).expect("create");
        let task = here.join(parent.trim_start_matches('/')).join("task");
        let read = |name: &str| fs::read_to_string(task.join(name)).expect(name);
        let found = vec![read("net_cls.classid"), read("net_prio.ifpriomap")];
        cgroup.delete().expect("delete");
        // The hierarchy goes with its last cgroup and its last mount.
        container::cgroup::remove_parent(&parent).expect("parent");
        umount2(&here, MntFlags::MNT_DETACH).expect("umount");
        found
    });
    match found.as_slice() {
        [class, priorities] => {
            assert_eq!(class.trim(), "1048577");
            assert!(priorities.lines().any(|l| l == "lo 5"), "{priorities}");
        }
        other => eprintln!("skipped: these controllers cannot be mounted: {other:?}"),
    }
    sandbox.assert_clean();
}
