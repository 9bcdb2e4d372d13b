//! What the configuration says of the process, as the kernel tells it.

mod common;
use common::Bundle;
use serde_json::{Value, json};
use std::fs;

/// What the program says that this configuration runs.
fn said(bundle: &Bundle, change: Value, script: &str) -> String {
    let whole = bundle.config();
    bundle.change(change);
    bundle.script(script);
    let said = bundle.oci(&["run", "c"]).ok().to_string();
    let text = whole.to_string();
    fs::write(bundle.dir.path().join("config.json"), text).expect("config");
    said
}

/// Nice value and policy (proc_pid_stat(5), fields 19 and 41).
fn scheduling(stat: &str) -> (i32, i32) {
    let (_, fields) = stat.rsplit_once(')').expect("name");
    let fields: Vec<_> = fields.split_whitespace().collect();
    let field = |number: usize| fields[number - 3].parse().expect("number");
    (field(19), field(41))
}

#[test]
fn scheduler() {
    let bundle = Bundle::new("scheduler");
    let read = |scheduler: Value| {
        let change = json!({ "process": { "scheduler": scheduler } });
        let text = said(&bundle, change, "cat /proc/1/stat /proc/self/stat; true");
        let lines: Vec<_> = text.lines().map(scheduling).collect();
        (lines[0], lines[1])
    };
    let plain = read(json!({ "policy": "SCHED_OTHER", "nice": -5 }));
    assert_eq!(plain, ((-5, 0), (-5, 0)));
    let batch = read(json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    assert_eq!(batch, ((7, 3), (7, 3)));
    let idle = read(json!({ "policy": "SCHED_IDLE" }));
    assert_eq!((idle.0.1, idle.1.1), (5, 5));
    // Those that it starts do not have it.
    let flags = ["SCHED_FLAG_RESET_ON_FORK"];
    let reset = read(json!({ "policy": "SCHED_OTHER", "nice": -5, "flags": flags }));
    assert_eq!(reset, ((-5, 0), (0, 0)));
    bundle.assert_clean();
}

#[test]
fn priority_of_input_and_output() {
    let bundle = Bundle::new("ioprio");
    for (class, priority, shown) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let change =
            json!({ "process": { "ioPriority": { "class": class, "priority": priority } } });
        assert_eq!(said(&bundle, change, "busybox ionice -p 1"), shown);
    }
}

#[test]
fn execution_domain() {
    let bundle = Bundle::new("persona");
    // Its applets may look at the program's name, and uname at the domain.
    let change = |domain| json!({ "linux": { "personality": { "domain": domain } } });
    let native = said(&bundle, change("LINUX"), "busybox uname -m");
    assert_eq!(native, std::env::consts::ARCH);
    if native == "x86_64" {
        assert_eq!(said(&bundle, change("LINUX32"), "busybox uname -m"), "i686");
    }
}

#[test]
fn memory_policy() {
    if !fs::exists("/proc/self/numa_maps").is_ok_and(|there| there) {
        eprintln!("skipped: a kernel without NUMA");
        return;
    }
    let bundle = Bundle::new("mempolicy");
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let change = json!({ "linux": { "memoryPolicy": policy } });
    let text = said(&bundle, change, "head -1 /proc/self/numa_maps");
    assert!(text.contains(" bind=static:0 "), "{text}");
    let change =
        json!({ "linux": { "memoryPolicy": { "mode": "MPOL_INTERLEAVE", "nodes": "0" } } });
    let text = said(&bundle, change, "head -1 /proc/self/numa_maps");
    assert!(text.contains(" interleave:0 "), "{text}");
}

/// A label that nobody would enforce is refused, also where it comes by an option.
#[test]
fn labels_of_an_exec() {
    let bundle = Bundle::new("execlabel");
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    for (option, module) in [("--apparmor", "AppArmor"), ("--process-label", "SELinux")] {
        let said = bundle.oci(&["exec", option, "fltest-absent", "c", "true"]);
        said.refused(&["fltest-absent", module]);
    }
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

/// Nobody in the container looks into what becomes its first process, which still is the runtime's
/// (CVE-2016-9962).
#[test]
fn what_waits_lets_nobody_look_into_it() {
    let bundle = Bundle::new("undumpable");
    bundle.args(&["/bin/sleep", "600"]);
    // All that the container's own root has, but not the right to trace others.
    let held = ["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"];
    let sets = json!({ "bounding": held, "effective": held, "permitted": held });
    bundle.change(json!({ "process": { "capabilities": sets } }));
    assert_eq!(bundle.create("c", &[]).code, 0);
    for look in [
        &["readlink", "/proc/1/exe"][..],
        &["readlink", "/proc/1/root"],
        &["cat", "/proc/1/environ"],
        &["readlink", "/proc/1/fd/0"],
        &["head", "-c", "1", "/proc/1/mem"],
    ] {
        let said = bundle.oci(&[&["exec", "c"], look].concat());
        assert_ne!(said.code, 0, "{look:?}: {said:?}");
        assert_eq!(said.stdout, "", "{look:?}");
    }
    bundle.oci(&["start", "c"]).ok();
    let said = bundle.oci(&["exec", "c", "readlink", "/proc/1/exe"]);
    assert_eq!(said.ok(), "/bin/busybox");
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}
