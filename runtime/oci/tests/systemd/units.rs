//! Units: where they are, how they come and go.

use crate::common::{RUNTIME, until};
use crate::init::{Machine, left_out};
use serde_json::{Value, json};
use std::process::Command;

const UNIT: &str = "fl-unit.scope";
const CGROUP: &str = "/fl.slice/fl-test.slice/fl-unit.scope";

#[test]
fn a_container_is_a_scope() {
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    machine.start("c");
    let property = |name| machine.property(UNIT, name);
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(property("Slice"), "fl-test.slice");
    assert_eq!(property("ControlGroup"), CGROUP);
    assert_eq!(property("Delegate"), "yes");
    assert_eq!(property("Description"), "Container c");
    let state: Value = serde_json::from_str(machine.oci(&["state", "c"]).ok()).expect("json");
    assert_eq!(state["status"], "running");
    // The only process: the one that held the unit before is gone.
    assert_eq!(property("TasksCurrent"), "1");
    let pid = state["pid"].to_string();
    let cgroups = machine.run(&["cat", &format!("/proc/{pid}/cgroup")]);
    for line in cgroups.ok().lines() {
        assert!(line.ends_with(CGROUP), "{line}");
    }
    let listed = machine.run(&["systemd-cgls", "--no-pager", "-l", "-u", UNIT]);
    assert!(listed.ok().contains("sleep 1000"), "{listed:?}");
    // What is executed in it is in the unit too.
    let exec = machine.oci(&["exec", "c", "cat", "/proc/self/cgroup"]);
    assert!(!exec.ok().contains("commands"), "{exec:?}");
    machine.oci(&["pause", "c"]).ok();
    machine.oci(&["resume", "c"]).ok();
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
}

#[test]
fn a_path_may_be_left_out_in_parts() {
    if left_out() {
        return;
    }
    let Some(machine) = Machine::new("paths") else {
        return;
    };
    machine.bundle.args(&["/bin/true"]);
    for (path, unit, cgroup) in [
        ("", "fairlead-c.scope", "/system.slice/fairlead-c.scope"),
        (
            ":docker:c",
            "docker-c.scope",
            "/system.slice/docker-c.scope",
        ),
        ("-.slice:x:c", "x-c.scope", "/x-c.scope"),
        (
            "a-b-c.slice::c",
            "c.scope",
            "/a.slice/a-b.slice/a-b-c.slice/c.scope",
        ),
    ] {
        machine
            .bundle
            .change(json!({ "linux": { "cgroupsPath": path } }));
        machine.create("c").ok();
        assert_eq!(machine.property(unit, "ControlGroup"), cgroup, "{path:?}");
        machine.oci(&["start", "c"]).ok();
        // When its last process ends, the scope does.
        until("the end of the unit", || !machine.knows(unit));
        machine.oci(&["delete", "c"]).ok();
        machine.assert_gone(unit, cgroup);
    }
    // A slice for a whole pod.
    let path = "x.slice::x-pod.slice";
    machine
        .bundle
        .change(json!({ "linux": { "cgroupsPath": path } }));
    machine.bundle.script("sleep 1000");
    machine.start("c");
    let cgroup = machine.property("x-pod.slice", "ControlGroup");
    assert_eq!(cgroup, "/x.slice/x-pod.slice");
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone("x-pod.slice", &cgroup);
    for path in ["/a/b", "a:b:c", "a.slice:b:c/d", "a.slice:b:"] {
        machine
            .bundle
            .change(json!({ "linux": { "cgroupsPath": path } }));
        machine.create("c").refused(&[path, "linux.cgroupsPath"]);
    }
    assert_eq!(machine.oci(&["list", "-q"]).ok(), "");
}

#[test]
fn what_fails_leaves_no_unit() {
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    // After the unit was made: a limit that the kernel refuses, a program that is not there.
    machine
        .bundle
        .change(json!({ "linux": { "resources": { "cpu": { "cpus": "4000" } } } }));
    machine.create("c").refused(&["cpu.cpus", "4000"]);
    machine.assert_gone(UNIT, CGROUP);
    machine
        .bundle
        .change(json!({ "linux": { "resources": { "cpu": null } } }));
    machine.bundle.args(&["/bin/nothing"]);
    machine.create("c").refused(&["/bin/nothing"]);
    machine.assert_gone(UNIT, CGROUP);
    // The name is taken.
    let busy = format!("--unit={UNIT}");
    let sleeper = [
        "systemd-run",
        "--service-type=exec",
        "--scope",
        &busy,
        "sleep",
        "1000",
    ];
    let sleeper = [&sleeper[..1], &sleeper[2..]].concat();
    let mut other = machine.command(&sleeper).spawn().expect("systemd-run");
    until("the other unit", || {
        machine.property(UNIT, "ActiveState") == "active"
    });
    machine.bundle.script("sleep 1000");
    let said = machine.create("c");
    said.refused(&[UNIT, "UnitExists", "stop the unit"]);
    assert_eq!(machine.property(UNIT, "ActiveState"), "active");
    machine
        .run(&["systemctl", "kill", "--signal=KILL", UNIT])
        .ok();
    let _ = other.wait();
    until("the end of the other unit", || {
        machine.property(UNIT, "ActiveState") != "active"
    });
    // A unit that failed and is remembered is none.
    machine.start("c");
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
}

#[test]
fn a_creation_that_is_killed_leaves_what_delete_removes() {
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    // The hook kills the runtime, which at that moment holds the unit.
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] }]);
    machine
        .bundle
        .change(json!({ "hooks": { "createRuntime": hook } }));
    assert_ne!(machine.create("c").code, 0);
    assert_eq!(machine.oci(&["list", "-q"]).ok(), "c");
    until("the end of the unit", || !machine.knows(UNIT));
    machine.oci(&["delete", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
}

#[test]
fn annotations_set_properties() {
    if left_out() {
        return;
    }
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    let annotate = |name: &str, value: &str| {
        let name = format!("org.systemd.property.{name}");
        machine
            .bundle
            .change(json!({ "annotations": { name: value } }));
    };
    annotate("TimeoutStopSec", "7");
    annotate("Description", "'a box'");
    annotate("CollectMode", "'inactive'");
    annotate("MemoryMax", "uint64 50000000");
    machine.start("c");
    let property = |name| machine.property(UNIT, name);
    assert_eq!(property("TimeoutStopUSec"), "7s");
    assert_eq!(property("Description"), "a box");
    assert_eq!(property("CollectMode"), "inactive");
    assert_eq!(property("MemoryMax"), "50000000");
    machine.oci(&["delete", "--force", "c"]).ok();
    machine.assert_gone(UNIT, CGROUP);
    for (name, value, words) in [
        ("PIDs", "[uint32 1]", ["sets this property itself", "PIDs"]),
        ("Description", "a box", ["is no value", "Description"]),
        ("NoSuchThing", "1", ["systemd refuses", "NoSuchThing"]),
    ] {
        annotate(name, value);
        machine.create("c").refused(&words);
        machine.assert_gone(UNIT, CGROUP);
        let name = format!("org.systemd.property.{name}");
        machine
            .bundle
            .change(json!({ "annotations": { name: null } }));
    }
}

/// Where systemd's own socket is not there, as for a runtime in a container that was given the
/// bus.
#[test]
fn over_the_bus() {
    let Some(machine) = Machine::new("unit") else {
        return;
    };
    let copy = "cp /lib/systemd/system/dbus.service /lib/systemd/system/dbus.socket /run/units/ \
        && systemctl daemon-reload && systemctl start dbus.socket dbus.service \
        && mv /run/systemd/private /run/systemd/hidden";
    machine.run(&["sh", "-c", copy]).ok();
    machine.start("c");
    machine.oci(&["update", "--memory", "60m", "c"]).ok();
    machine
        .run(&["mv", "/run/systemd/hidden", "/run/systemd/private"])
        .ok();
    assert_eq!(machine.property(UNIT, "ControlGroup"), CGROUP);
    machine
        .run(&["mv", "/run/systemd/private", "/run/systemd/hidden"])
        .ok();
    machine.oci(&["delete", "--force", "c"]).ok();
    machine
        .run(&["mv", "/run/systemd/hidden", "/run/systemd/private"])
        .ok();
    machine.assert_gone(UNIT, CGROUP);
}

#[test]
fn without_systemd_it_says_so() {
    let bundle = crate::common::Bundle::new("nosystemd");
    bundle.change(json!({ "linux": { "cgroupsPath": "a.slice:b:c" } }));
    let state = bundle.state();
    let state = state.to_str().expect("utf-8");
    let words = [
        "--cgroup-manager=systemd",
        "--root",
        state,
        "create",
        "--bundle",
        bundle.path(),
    ];
    let said = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .args(["mount -t tmpfs run /run && exec \"$@\"", "sh", RUNTIME])
        .args(words)
        .arg("c")
        .output()
        .expect("unshare")
        .into();
    crate::common::Said::refused(
        &said,
        &[
            "systemd is not there",
            "/run/systemd/private",
            "--cgroup-manager=cgroupfs",
        ],
    );
    assert_eq!(bundle.oci(&["list", "-q"]).ok(), "");
}
