//! The command line, as callers of runc write it.

mod common;
use common::Bundle;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

#[test]
fn descriptors_that_are_passed_on() {
    use std::os::unix::process::CommandExt;
    let bundle = Bundle::new("fds");
    let file = bundle.dir.path().join("passed");
    fs::write(&file, "through the descriptor").expect("write");
    let with_fd = |args: &[&str], env: &[(&str, &str)]| {
        let file = fs::File::open(&file).expect("open");
        // Out of the way of the numbers that are passed on.
        let command = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10);
        let high = nix::fcntl::fcntl(&file, command).expect("duplicate");
        // The shell's own number is the runtime's then.
        let script = "[ -z \"$OWN\" ] || export LISTEN_PID=$$; exec \"$@\"";
        let runtime = bundle.command(args);
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .arg(runtime.get_program())
            .args(runtime.get_args())
            .current_dir(bundle.dir.path())
            .stdin(std::process::Stdio::null())
            .envs(env.iter().copied());
        // SAFETY: only duplicates descriptors, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for to in 3..5 {
                    if libc::dup2(high, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        common::Said::from(command.output().expect("runtime"))
    };
    let script = "cat <&3; echo; ls /proc/self/fd | wc -l; env | grep LISTEN; true";
    bundle.script(script);
    let said = with_fd(&["run", "c", "--preserve-fds", "1"], &[]);
    // Three standard ones, the one passed on, and that of the directory.
    assert_eq!(said.ok(), "through the descriptor\n5");
    let said = with_fd(
        &["run", "c", "--preserve-fds", "1"],
        &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web"), ("OWN", "1")],
    );
    let lines: Vec<_> = said.ok().lines().collect();
    assert_eq!(lines[1], "6");
    for wanted in ["LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=web"] {
        assert!(lines.contains(&wanted), "{said:?}");
    }
    // Meant for somebody else, or not understood (sd_listen_fds(3)).
    for env in [
        &[("LISTEN_FDS", "1")][..],
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "x")],
        &[("LISTEN_FDS", ""), ("OWN", "1")],
        &[("LISTEN_FDS", "many"), ("OWN", "1")],
        &[("LISTEN_FDS", "-1"), ("OWN", "1")],
    ] {
        let said = with_fd(&["run", "c", "--preserve-fds", "1"], env);
        assert_eq!(said.ok(), "through the descriptor\n5", "{env:?}");
    }
    bundle.script("ls /proc/self/fd | wc -l");
    assert_eq!(with_fd(&["run", "c"], &[]).ok(), "4");
    bundle
        .oci(&["run", "c", "--preserve-fds", "9"])
        .refused(&["descriptor to preserve"]);
    for many in ["4294967295", "4294967296", "-1"] {
        let option = format!("--preserve-fds={many}");
        bundle
            .oci(&["run", "c", &option])
            .refused(&["--preserve-fds", many]);
    }
    bundle.assert_clean();
}

/// The last one counts, and flags may have a value, as Go's programs take them.
#[test]
fn options_more_than_once() {
    let bundle = Bundle::new("optstwice");
    bundle.script("exit 3");
    let state = bundle.state();
    let state = state.to_str().expect("utf-8");
    let run = |args: &[&str]| bundle.oci(args).code;
    let given = &["--root", "/no", "--root", state, "run", "--bundle", "/no"];
    assert_eq!(run(&[given, &["--bundle", ".", "c"][..]].concat()), 3);
    // Also before and after the command.
    assert_eq!(run(&["--root", "/no", "run", "c", "--root", state]), 3);
    for flags in [
        &["--debug", "--debug"][..],
        &["--debug=true", "--systemd-cgroup=false"],
        &["--systemd-cgroup", "--systemd-cgroup=0"],
        &["--cgroup-manager=systemd", "--cgroup-manager=cgroupfs"],
        &["--criu", "/usr/sbin/criu", "--rootless=auto"],
    ] {
        assert_eq!(run(&[flags, &["run", "c"]].concat()), 3, "{flags:?}");
    }
    for flags in [
        &["--no-pivot=false", "--no-new-keyring=TRUE"][..],
        &["--no-mount-fallback"],
        &["--keep", "--keep=f"],
        &["-d", "-d=false"],
    ] {
        assert_eq!(run(&[&["run"], flags, &["c"]].concat()), 3, "{flags:?}");
    }
    bundle
        .oci(&["run", "--keep=yes", "c"])
        .refused(&["--keep", "yes"]);
    let version = bundle.oci(&["-v"]);
    assert!(version.ok().starts_with("fairlead-oci version "));
    assert_eq!(version.stdout, bundle.oci(&["--version"]).stdout);
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &["--no-mount-fallback"]).code, 0);
    // What is no matter of the kernel's any more, as with runc.
    let said = bundle.oci(&[
        "update",
        "--kernel-memory",
        "5m",
        "--kernel-memory-tcp=6m",
        "c",
    ]);
    said.ok();
    assert!(said.stderr.contains("--kernel-memory"), "{said:?}");
    for args in [
        &["ps", "c", "-ef"][..],
        &["ps", "c", "aux", "-o", "pid"],
        &["ps", "-f", "table", "c"],
    ] {
        let said = bundle.oci(args);
        assert!(said.ok().starts_with("PID"), "{args:?}: {said:?}");
    }
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn pauses_between_statistics() {
    let bundle = Bundle::new("optsevents");
    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    for interval in ["1m30s", "1.5s", "100us"] {
        bundle
            .oci(&["events", "--stats", "--interval", interval, "c"])
            .ok();
    }
    bundle
        .oci(&["events", "--stats", "--interval", "1x", "c"])
        .refused(&["--interval", "1x"]);
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

/// What is wrong with the command line is told where callers look too.
#[test]
fn mistakes_are_logged() {
    let bundle = Bundle::new("optslog");
    let log = bundle.dir.path().join("log.json");
    let path = log.to_str().expect("utf-8");
    for (args, word) in [
        (&["create", "--what", "c"][..], "--what"),
        (&["frobnicate", "c"], "frobnicate"),
        (
            &["checkpoint", "--image-path", "/x", "c"],
            "checkpoints are not supported",
        ),
        (&["checkpoint", "--help"], "checkpoints are not supported"),
        (
            &["restore", "-d", "--bundle", "/x", "c"],
            "checkpoints are not supported",
        ),
    ] {
        let equals = format!("--log={path}");
        for first in [
            &["--log", path, "--log-format", "json"][..],
            &[equals.as_str(), "--log-format=json"],
        ] {
            let _ = fs::remove_file(&log);
            let said = bundle.oci(&[first, args].concat());
            said.refused(&[word]);
            let text = fs::read_to_string(&log).expect("log");
            let entry: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
            assert_eq!(entry["level"], "error");
            let message = entry["msg"].as_str().expect("msg");
            assert!(message.contains(word), "{message}");
        }
    }
    // Help is no mistake.
    let _ = fs::remove_file(&log);
    bundle.oci(&["--log", path, "--help"]).ok();
    assert!(!log.exists());
}

/// Sources of bind mounts are relative to the bundle (config.md, "Mounts"), wherever the caller is.
#[test]
fn sources_in_the_bundle() {
    let bundle = Bundle::new("optsbind");
    fs::create_dir(bundle.dir.path().join("data")).expect("mkdir");
    fs::write(bundle.dir.path().join("data/file"), "from the bundle").expect("write");
    let mut mounts = bundle.config()["mounts"].clone();
    let list = mounts.as_array_mut().expect("list");
    for (destination, kind, source) in [
        ("/tmp/one", "bind", "data"),
        ("/tmp/two", "none", "./data/../data"),
    ] {
        list.push(
            json!({ "destination": destination, "type": kind, "source": source,
            "options": ["rbind", "ro"] }),
        );
    }
    bundle.change(json!({ "mounts": mounts }));
    bundle.script("cat /tmp/one/file /tmp/two/file");
    let mut command = bundle.command(&["run", "--bundle", bundle.path(), "c"]);
    let said: common::Said = command.current_dir("/").output().expect("runtime").into();
    assert_eq!(said.ok(), "from the bundlefrom the bundle");
    bundle.assert_clean();
}
