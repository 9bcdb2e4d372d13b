//! Every step of create, start, exec and delete is made to fail, and every process is killed at
//! every step of its own and of the others'. Nothing may be left: at once where a command could
//! still clean up, after `delete --force` where it was killed.

mod bed;
#[path = "../common/mod.rs"]
mod common;
mod page;

use bed::{Bed, Fault};
use page::{Action, Role};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long every step is tried; then, on an emulated processor, only some.
const PATIENCE: Duration = Duration::from_secs(60);

/// Faults at the first step, the second... until a command has no more.
fn each(role: Role, action: Action, mut one: impl FnMut(Fault) -> bool) {
    let started = Instant::now();
    let (mut number, mut tried) = (1, 0);
    while one(Fault {
        role,
        number,
        action,
    }) {
        tried += 1;
        number += if started.elapsed() < PATIENCE { 1 } else { 7 };
        assert!(number < 2000, "no end of the steps");
    }
    assert!(tried > 0, "{role:?} has no step");
    println!("{role:?} {action:?}: {tried} steps");
}

/// Creates and starts, with a fault in whichever has the step; whether one had.
fn create_and_start(bed: &Bed, fault: Fault) -> bool {
    let create = ["create", "--pid-file", "pid", "c"];
    let said = bed.with(fault, &create);
    let at = bed.at(fault);
    if let Some(said) = &said
        && said.code != 0
    {
        if said.code == -1 {
            // Killed: nobody could clean up.
            bed.bundle.oci(&["delete", "--force", "c"]).ok();
            bed.remove_pid_files();
            bed.assert_clean_soon(&at);
        } else {
            assert!(!said.stderr.trim().is_empty(), "{at}: no reason");
            assert_eq!(bed.leftovers(), [""; 0], "{at}: {said:?}");
        }
        return true;
    }
    // Inside, the steps of the start have the numbers that follow.
    let started = match fault.role {
        Role::Inside => {
            let status = bed.command(&["start", "c"]).status().expect("start");
            bed.page.go();
            said.is_some() || bed.page.fired().is_some() || !status.success()
        }
        _ => said.is_some(),
    };
    let at = bed.at(fault);
    let deleted = bed.bundle.oci(&["delete", "--force", "c"]);
    assert_eq!(deleted.code, 0, "{at}: {deleted:?}");
    bed.remove_pid_files();
    bed.assert_clean_soon(&at);
    started
}

fn creation(name: &str, role: Role, change: serde_json::Value) {
    let bed = Bed::new(name);
    bed.bundle.change(change);
    // What images lack as mount points is made once and stays.
    assert_eq!(bed.bundle.create("c", &[]).code, 0);
    bed.bundle.oci(&["delete", "--force", "c"]).ok();
    for action in [Action::Fail, Action::Die] {
        each(role, action, |fault| create_and_start(&bed, fault));
    }
    if role != Role::Creator {
        each(role, Action::Wait, |fault| create_and_start(&bed, fault));
    }
}

#[test]
fn the_creator() {
    creation("faults-create", Role::Creator, json!({}));
}

#[test]
fn the_first_process() {
    creation("faults-inside", Role::Inside, json!({}));
}

/// Of a container with namespaces that take a process in between.
#[test]
fn the_stage() {
    let offsets = json!({ "linux": { "timeOffsets": { "boottime": { "secs": 1 } } } });
    let bed = Bed::new("faults-stage");
    let mut namespaces = bed.bundle.config()["linux"]["namespaces"].clone();
    namespaces
        .as_array_mut()
        .expect("list")
        .push(json!({ "type": "time" }));
    drop(bed);
    let mut change = offsets;
    change["linux"]["namespaces"] = namespaces;
    creation("faults-stage", Role::Stage, change);
}

#[test]
fn who_starts_it() {
    let bed = Bed::new("faults-start");
    for action in [Action::Fail, Action::Die] {
        each(Role::Creator, action, |fault| {
            bed.page.clear();
            assert!(
                bed.command(&["create", "c"])
                    .status()
                    .expect("create")
                    .success()
            );
            let reached = bed.with(fault, &["start", "c"]).is_some();
            let at = bed.at(fault);
            let status = bed.bundle.status("c");
            assert!(
                ["created", "running", "stopped"].contains(&status.as_str()),
                "{at}: {status}"
            );
            bed.bundle.oci(&["delete", "--force", "c"]).ok();
            bed.assert_clean_soon(&at);
            reached
        });
    }
}

#[test]
fn who_enters() {
    let bed = Bed::new("faults-exec");
    assert!(
        bed.command(&["create", "c"])
            .status()
            .expect("create")
            .success()
    );
    bed.bundle.oci(&["start", "c"]).ok();
    let first = bed.bundle.pid("c");
    let pids = || {
        let said = bed.bundle.oci(&["ps", "--format", "json", "c"]);
        serde_json::from_str::<Vec<i32>>(said.ok()).expect("json")
    };
    for role in [Role::Creator, Role::Stage, Role::Inside] {
        for action in [Action::Fail, Action::Die, Action::Wait] {
            if (role, action) == (Role::Creator, Action::Wait) {
                continue;
            }
            each(role, action, |fault| {
                let exec = ["exec", "--pid-file", "pid", "c", "/bin/true"];
                let said = bed.with(fault, &exec);
                let at = bed.at(fault);
                for _ in 0..500 {
                    if pids() == [first] && bed.processes().is_empty() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                assert_eq!(pids(), [first], "{at}: {said:?}");
                assert_eq!(bed.processes(), [0; 0], "{at}: {said:?}");
                assert_eq!(bed.bundle.status("c"), "running", "{at}");
                // Killed between the word to start and the exec it looks like the program.
                if let Some(said) = &said
                    && said.code > 0
                    && said.code != 128 + 9
                {
                    assert!(!said.stderr.trim().is_empty(), "{at}: no reason");
                }
                bed.remove_pid_files();
                said.is_some()
            });
        }
    }
    bed.bundle.oci(&["delete", "--force", "c"]).ok();
    bed.assert_clean_soon("after all");
}

#[test]
fn who_deletes() {
    let bed = Bed::new("faults-delete");
    each(Role::Creator, Action::Die, |fault| {
        bed.page.clear();
        assert!(
            bed.command(&["create", "c"])
                .status()
                .expect("create")
                .success()
        );
        bed.bundle.oci(&["start", "c"]).ok();
        let reached = bed.with(fault, &["delete", "--force", "c"]).is_some();
        let at = bed.at(fault);
        bed.bundle.oci(&["delete", "--force", "c"]).ok();
        bed.assert_clean_soon(&at);
        reached
    });
}
