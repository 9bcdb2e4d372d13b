//! Commands for one container at the same time, and for one that does not answer.

use super::common::{Bundle, Said, until};
use super::running;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
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
    let read = |file: &mut std::fs::File| {
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
