//! Commands for one container at the same time, and for one that does not answer.

use super::common::{Bundle, Said, until};
use super::running;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Runs a command that must come to its end.
fn bounded(bundle: &Bundle, args: &[&str]) -> Said {
    let mut command = bundle.command(args);
    // Files, since what is left by it must not keep us waiting.
    let file = || tempfile::tempfile().expect("file");
    let (mut out, mut err) = (file(), file());
    command
        .stdout(out.try_clone().expect("file"))
        .stderr(err.try_clone().expect("file"));
    let mut child = command.spawn().expect("runtime");
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{args:?} does not come to its end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let read = |file: &mut fs::File| {
        use std::io::{Read, Seek};
        let mut text = String::new();
        file.rewind().expect("rewind");
        file.read_to_string(&mut text).expect("read");
        text
    };
    let said = Said {
        code: status.code().unwrap_or(-1),
        stdout: read(&mut out),
        stderr: read(&mut err),
    };
    assert!(!said.stderr.contains("panicked"), "{args:?}: {said:?}");
    said
}

#[test]
fn all_at_once() {
    let bundle = Bundle::new("at-once");
    bundle.args(&["/bin/sleep", "600"]);
    for round in 0..8 {
        assert_eq!(bundle.create("c", &[]).code, 0);
        std::thread::scope(|scope| {
            let commands: [&[&str]; 8] = [
                &["start", "c"],
                &["exec", "c", "/bin/true"],
                &["exec", "--ignore-paused", "c", "/bin/true"],
                &["pause", "c"],
                &["resume", "c"],
                &["state", "c"],
                &["kill", "c", "KILL"],
                &["list"],
            ];
            for command in commands {
                let bundle = &bundle;
                scope.spawn(move || {
                    for _ in 0..3 {
                        bounded(bundle, command);
                    }
                });
            }
            let bundle = &bundle;
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20 * round));
                bounded(bundle, &["delete", "--force", "c"]);
            });
        });
        bounded(&bundle, &["delete", "--force", "c"]);
        bundle.assert_clean();
    }
}

#[test]
fn made_and_deleted_by_many() {
    let bundle = Bundle::new("by-many");
    bundle.args(&["/bin/true"]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10 {
                    bounded(&bundle, &["create", "c"]);
                    bounded(&bundle, &["start", "c"]);
                    bounded(&bundle, &["delete", "--force", "c"]);
                }
            });
        }
    });
    bounded(&bundle, &["delete", "--force", "c"]);
    bundle.assert_clean();
}

/// Frozen before its program was started, it answers nobody.
#[test]
fn frozen_before_its_start() {
    let bundle = Bundle::new("frozen");
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bounded(&bundle, &["pause", "c"]).ok();
    for _ in 0..12 {
        bounded(&bundle, &["state", "c"]).ok();
    }
    bounded(&bundle, &["start", "c"]).refused(&["paused", "resume"]);
    bounded(&bundle, &["resume", "c"]).ok();
    bounded(&bundle, &["start", "c"]).ok();
    bounded(&bundle, &["pause", "c"]).ok();
    bounded(&bundle, &["exec", "c", "/bin/true"]).refused(&["paused"]);
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn killed_while_frozen() {
    for kill in [&["kill", "c", "KILL"][..], &["kill", "--all", "c", "KILL"]] {
        let bundle = running("frozen-kill", &["/bin/sleep", "600"]);
        bounded(&bundle, &["pause", "c"]).ok();
        bounded(&bundle, kill).ok();
        until("its end", || bundle.status("c") == "stopped");
        bounded(&bundle, &["delete", "c"]).ok();
        bundle.assert_clean();
    }
}

/// An exec into a frozen container waits; it must not keep the container alive.
#[test]
fn an_exec_that_waits() {
    let bundle = running("frozen-exec", &["/bin/sleep", "600"]);
    bounded(&bundle, &["pause", "c"]).ok();
    let mut exec = bundle
        .command(&["exec", "--ignore-paused", "c", "/bin/sleep", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("exec");
    std::thread::sleep(Duration::from_millis(300));
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    until("its end", || exec.try_wait().expect("wait").is_some());
    bundle.assert_clean();
}

/// A command that waits for a container for ever holds its lock; `delete --force` ends both.
#[test]
fn a_start_that_hangs() {
    let bundle = Bundle::new("hangs");
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    let first = Pid::from_raw(bundle.pid("c"));
    kill(first, Signal::SIGSTOP).expect("stop");
    let mut start = bundle.command(&["start", "c"]).spawn().expect("start");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        start.try_wait().expect("wait").is_none(),
        "it does not hang"
    );
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    until("its end", || start.try_wait().expect("wait").is_some());
    bundle.assert_clean();
}

/// A hook that says that it runs, and hangs until it is let go of.
fn hanging(bundle: &Bundle, point: &str) -> Value {
    let (begun, go) = (
        bundle.dir.path().join("begun"),
        bundle.dir.path().join("go"),
    );
    let script = format!(
        "echo $$ > {}; while ! [ -e {} ]; do sleep 0.02; done",
        begun.display(),
        go.display()
    );
    json!({ "hooks": { point: [{ "path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin"] }] } })
}

/// A command, when its hook has begun.
fn in_hook(bundle: &Bundle, args: &[&str]) -> Child {
    let mut command = bundle.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("runtime");
    until("the hook", || {
        fs::read_to_string(bundle.dir.path().join("begun")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    child
}

/// Who only looks does not wait for a hook, and who would have to is told.
#[test]
fn while_a_hook_hangs() {
    for point in ["createRuntime", "createContainer"] {
        let bundle = Bundle::new("hook-hangs");
        bundle.args(&["/bin/sleep", "600"]);
        bundle.change(hanging(&bundle, point));
        let mut create = in_hook(&bundle, &["create", "c"]);
        let said = bounded(&bundle, &["state", "c"]);
        let state: Value = serde_json::from_str(said.ok()).expect("json");
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&json!("creating"), &json!(0))
        );
        assert!(bounded(&bundle, &["list"]).ok().contains("creating"));
        bounded(&bundle, &["ps", "c"]);
        for command in [
            &["kill", "c"][..],
            &["exec", "c", "/bin/true"],
            &["events", "--stats", "c"],
        ] {
            bounded(&bundle, command).refused(&["container not running"]);
        }
        for command in ["start", "pause", "resume", "delete"] {
            bounded(&bundle, &[command, "c"]).refused(&["creating"]);
        }
        bounded(&bundle, &["update", "--pids-limit", "9", "c"]).refused(&["creating"]);
        bounded(&bundle, &["create", "c"]).refused(&["exists already"]);
        fs::write(bundle.dir.path().join("go"), "").expect("write");
        assert!(create.wait().expect("wait").success());
        assert_eq!(bundle.status("c"), "created");
        bounded(&bundle, &["delete", "c"]).ok();
        bundle.assert_clean();
    }
}

/// A hook that hangs for ever is ended with the creation, and with the container's process.
#[test]
fn a_create_that_hangs() {
    for point in ["createRuntime", "createContainer"] {
        let bundle = Bundle::new("create-hangs");
        bundle.args(&["/bin/sleep", "600"]);
        bundle.change(hanging(&bundle, point));
        // So that the hook's number is the one that it has here.
        let mut list = bundle.config()["linux"]["namespaces"].clone();
        let kinds = list.as_array_mut().expect("list");
        kinds.retain(|one| one["type"] != "pid");
        bundle.change(json!({ "linux": { "namespaces": list } }));
        let mut create = in_hook(&bundle, &["create", "c"]);
        let hook = fs::read_to_string(bundle.dir.path().join("begun")).expect("begun");
        bounded(&bundle, &["delete", "--force", "c"]).ok();
        until("its end", || create.try_wait().expect("wait").is_some());
        let hook = format!("/proc/{}/exe", hook.trim());
        until("the hook's end", || fs::read_link(&hook).is_err());
        bundle.assert_clean();
    }
}

#[test]
fn a_poststart_hook_that_hangs() {
    let bundle = Bundle::new("start-hangs");
    bundle.args(&["/bin/sleep", "600"]);
    bundle.change(hanging(&bundle, "poststart"));
    assert_eq!(bundle.create("c", &[]).code, 0);
    let mut start = in_hook(&bundle, &["start", "c"]);
    assert_eq!(bundle.status("c"), "running");
    bounded(&bundle, &["pause", "c"]).ok();
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    // Another of that name is not taken for it when the hook fails.
    let go = bundle.dir.path().join("go");
    bundle.change(json!({ "hooks": null }));
    assert_eq!(bundle.create("c", &[]).code, 0);
    let hook = fs::read_to_string(bundle.dir.path().join("begun")).expect("begun");
    let hook = Pid::from_raw(hook.trim().parse().expect("number"));
    kill(hook, Signal::SIGKILL).expect("kill");
    assert!(!start.wait().expect("wait").success());
    assert_eq!(bundle.status("c"), "created");
    fs::write(go, "").expect("write");
    bounded(&bundle, &["delete", "c"]).ok();
    bundle.assert_clean();
}

/// A hook that asks its own runtime for its own container.
#[test]
fn hooks_that_ask_for_the_state() {
    let bundle = Bundle::new("hook-asks");
    let ask = |name: &str| {
        let runtime = format!(
            "{} --root {}",
            super::common::RUNTIME,
            bundle.state().display()
        );
        let script = format!("{runtime} state c > {name} && {runtime} list -q >> {name}");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 }])
    };
    bundle.args(&["/bin/sleep", "600"]);
    let hooks = json!({ "createRuntime": ask("made"), "poststart": ask("begun"), "poststop": ask("ended") });
    bundle.change(json!({ "hooks": hooks }));
    assert_eq!(bundle.create("c", &[]).code, 0);
    bounded(&bundle, &["start", "c"]).ok();
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    for (name, status) in [
        ("made", "creating"),
        ("begun", "running"),
        ("ended", "stopped"),
    ] {
        let text = fs::read_to_string(bundle.dir.path().join(name)).expect(name);
        assert!(
            text.contains(&format!("\"status\": \"{status}\"")),
            "{name}: {text}"
        );
        assert!(text.ends_with("}\nc\n"), "{name}: {text}");
    }
    bundle.assert_clean();
}
