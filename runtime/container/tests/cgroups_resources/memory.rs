//! Memory and swap.

use super::*;

#[test]
fn memory_grows_and_shrinks_past_its_older_limits() {
    let sandbox = Sandbox::new("memmove");
    let pair = |limit: i64, swap: i64| serde_json::json!({"memory": {"limit": limit * MIB, "swap": swap * MIB}});
    let cgroup = create(&sandbox, pair(64, 64));
    for (limit, swap) in [(256, 512), (32, 40), (40, 40), (300, 300), (16, 32)] {
        cgroup
            .update(&resources(pair(limit, swap)))
            .unwrap_or_else(|e| panic!("{limit} {swap}: {e}"));
        let found = (
            file(&sandbox, "memory", "memory.limit_in_bytes", "memory.max"),
            file(
                &sandbox,
                "memory",
                "memory.memsw.limit_in_bytes",
                "memory.swap.max",
            ),
        );
        let swap = if is_v1("memory") { swap } else { swap - limit };
        assert_eq!(found, ((limit * MIB).to_string(), (swap * MIB).to_string()));
    }
    // "No limit" takes the one of memory and swap along.
    let free = resources(serde_json::json!({"memory": {"limit": -1}}));
    cgroup.update(&free).expect("free");
    let limit = file(&sandbox, "memory", "memory.limit_in_bytes", "memory.max");
    assert!(
        limit == "max" || limit.parse::<u64>().expect("number") > 1 << 60,
        "{limit}"
    );
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn memory_of_version_1() {
    if !is_v1("memory") {
        eprintln!("skipped: memory is not in version 1 here");
        return;
    }
    let sandbox = Sandbox::new("memv1");
    let json = serde_json::json!({"memory": {
        "limit": 64 * MIB, "swappiness": 7, "disableOOMKiller": true, "useHierarchy": true,
        "kernelTCP": 8 * MIB}});
    let cgroup = create(&sandbox, json);
    let read = |name| file(&sandbox, "memory", name, "");
    assert_eq!(read("memory.swappiness"), "7");
    assert!(read("memory.oom_control").contains("oom_kill_disable 1"));
    assert_eq!(read("memory.use_hierarchy"), "1");
    assert_eq!(
        read("memory.kmem.tcp.limit_in_bytes"),
        (8 * MIB).to_string()
    );
    let back = serde_json::json!({"memory": {"disableOOMKiller": false}});
    cgroup.update(&resources(back)).expect("update");
    assert!(read("memory.oom_control").contains("oom_kill_disable 0"));
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn check_before_update() {
    let sandbox = Sandbox::new("check");
    let limit = 4 * MIB;
    let mut spec = sandbox.script("true");
    spec.set_linux(None); // only its root file system is of use here
    let cgroup = create(&sandbox, serde_json::json!({"memory": {"limit": 64 * MIB}}));
    // tail holds what comes without a newline in memory.
    let mut child = std::process::Command::new("sh")
        .args([
            "-c",
            "read go; (head -c 25000000 /dev/zero; exec sleep 60) | tail",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    drop(child.stdin.take());
    common::until("memory is used", || {
        cgroup.memory_current().expect("memory") > Some(20 * MIB as u64)
    });
    let json = serde_json::json!({"memory": {"limit": limit, "checkBeforeUpdate": true}});
    let error = cgroup.update(&resources(json)).map_err(|e| e.to_string());
    let alive = cgroup.procs().expect("procs").len();
    cgroup.kill().map(|()| drop(child.wait())).expect("kill");
    // Version 1 tries to swap first; where that works the limit is taken.
    if !is_v1("memory") {
        let error = error.expect_err("refused");
        assert!(error.contains("memory.limit"), "{error}");
        assert!(alive >= 2, "nothing was killed");
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}
