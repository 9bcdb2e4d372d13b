//! The life of a container, command by command.

mod common;
use common::{Bundle, until, with_input};
use serde_json::{Value, json};
use std::fs;

#[test]
fn from_create_to_delete() {
    let bundle = Bundle::new("life");
    bundle.script("trap 'echo ended; exit 4' TERM; echo started; while :; do sleep 0.1; done");
    let pid_file = bundle.dir.path().join("pid");
    bundle.change(json!({ "annotations": { "who": "me" } }));
    let created = bundle.create("c1", &["--pid-file", pid_file.to_str().expect("utf-8")]);
    assert_eq!(created.code, 0, "{created:?}");
    let state: Value = serde_json::from_str(bundle.oci(&["state", "c1"]).ok()).expect("json");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c1");
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["bundle"], bundle.path());
    assert_eq!(state["annotations"]["who"], "me");
    let pid = state["pid"].to_string();
    assert_eq!(fs::read_to_string(&pid_file).expect("pid"), pid);
    assert_eq!(bundle.output(), "");
    bundle.create("c1", &[]).refused(&["c1", "exists already"]);

    bundle.oci(&["start", "c1"]).ok();
    until("its output", || bundle.output() == "started\n");
    assert_eq!(bundle.status("c1"), "running");
    bundle.oci(&["start", "c1"]).refused(&["c1", "running"]);
    bundle
        .oci(&["delete", "c1"])
        .refused(&["running", "--force"]);
    assert_eq!(bundle.oci(&["list", "--quiet"]).ok(), "c1");
    let list = bundle.oci(&["list"]);
    assert!(
        list.ok().lines().nth(1).expect("row").contains("running"),
        "{list:?}"
    );
    let pids: Vec<i64> =
        serde_json::from_str(bundle.oci(&["ps", "--format", "json", "c1"]).ok()).expect("json");
    assert!(pids.iter().any(|one| one.to_string() == pid), "{pids:?}");
    assert!(bundle.oci(&["ps", "c1"]).ok().contains("trap"));

    bundle.oci(&["kill", "c1", "0"]).ok();
    bundle.oci(&["kill", "c1"]).ok();
    until("its end", || bundle.status("c1") == "stopped");
    assert_eq!(bundle.output(), "started\nended\n");
    assert_eq!(bundle.pid("c1"), 0);
    // containerd looks for these words of runc (`checkKillError` of its process package).
    bundle
        .oci(&["kill", "c1"])
        .refused(&["c1", "container not running"]);
    bundle
        .oci(&["exec", "c1", "true"])
        .refused(&["c1", "not running"]);
    bundle.oci(&["start", "c1"]).refused(&["c1", "stopped"]);
    bundle.oci(&["delete", "c1"]).ok();
    bundle
        .oci(&["delete", "c1"])
        .refused(&["c1", "does not exist"]);
    bundle.oci(&["delete", "--force", "c1"]).ok();
    bundle
        .oci(&["state", "c1"])
        .refused(&["c1", "does not exist"]);
    bundle.assert_clean();
}

#[test]
fn in_the_foreground() {
    let bundle = Bundle::new("run");
    bundle.script("cat; echo said; echo wrong >&2; exit 7");
    let said = with_input(bundle.command(&["run", "c"]), "typed\n");
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (7, "typed\nsaid\n", "wrong\n")
    );
    bundle.script("kill -9 $$; sleep 1");
    // As process 1 it would survive its own signal; in the host's PID namespace it does not.
    bundle.change(json!({ "linux": { "namespaces": [ { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }, { "type": "cgroup" } ] } }));
    assert_eq!(bundle.oci(&["run", "c"]).code, 128 + 9);
    bundle.assert_clean();
}

#[test]
fn signals_of_the_foreground_go_to_the_program() {
    let bundle = Bundle::new("forward");
    bundle.script("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done");
    let out = bundle.dir.path().join("out");
    let mut child = bundle
        .command(&["run", "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .spawn()
        .expect("spawn");
    until("the program", || bundle.output() == "ready\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGUSR1,
    )
    .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(5));
    assert_eq!(bundle.output(), "ready\ngot\n");
    bundle.assert_clean();
}

#[test]
fn detached_and_kept() {
    let bundle = Bundle::new("detach");
    bundle.args(&["/bin/sleep", "60"]);
    let status = bundle
        .command(&["run", "--detach", "c"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.expect("run").success());
    assert_eq!(bundle.status("c"), "running");
    bundle.oci(&["kill", "--all", "c", "KILL"]).ok();
    until("its end", || bundle.status("c") == "stopped");
    bundle.oci(&["delete", "c"]).ok();
    bundle.args(&["/bin/true"]);
    bundle.oci(&["run", "--keep", "c"]).ok();
    assert_eq!(bundle.status("c"), "stopped");
    bundle.oci(&["delete", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn programs_that_cannot_be_run() {
    let bundle = Bundle::new("noprogram");
    fs::write(bundle.root().join("plain"), "text").expect("write");
    for (program, code, words) in [
        (
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            127,
            "exec: \"/no/such\": no such file or directory",
        ),
        ("/plain", 126, "exec: \"/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
    ] {
        bundle.args(&[program]);
        // Already when it is created: nothing is left to be deleted.
        let said = bundle.create("c", &[]);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
        let said = bundle.oci(&["run", "c"]);
        assert_eq!(said.code, code, "{said:?}");
        bundle.assert_clean();
    }
}

#[test]
fn frozen_and_changed() {
    let bundle = Bundle::new("pause");
    bundle.script("i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done");
    bundle.create("c", &[]);
    bundle.oci(&["start", "c"]).ok();
    let count = || fs::read_to_string(bundle.root().join("tmp/count")).unwrap_or_default();
    until("counting", || !count().is_empty());
    bundle.oci(&["resume", "c"]).refused(&["c", "not paused"]);
    bundle.oci(&["pause", "c"]).ok();
    assert_eq!(bundle.status("c"), "paused");
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count(), before);
    bundle
        .oci(&["exec", "c", "true"])
        .refused(&["paused", "--ignore-paused"]);
    bundle.oci(&["resume", "c"]).ok();
    until("counting again", || count() != before);
    bundle
        .oci(&["update", "--pids-limit", "77", "--memory", "64m", "c"])
        .ok();
    let limit = |file: &[&str]| {
        let mut found = bundle
            .cgroups()
            .into_iter()
            .flat_map(|dir| file.iter().map(move |f| dir.join("c").join(f)));
        let path = found.find(|path| path.exists()).expect("file");
        fs::read_to_string(path).expect("limit").trim().to_string()
    };
    assert_eq!(limit(&["pids.max"]), "77");
    assert_eq!(
        limit(&["memory.max", "memory.limit_in_bytes"]),
        (64 << 20).to_string()
    );
    let update = with_input(
        bundle.command(&["update", "--resources", "-", "c"]),
        r#"{"pids":{"limit":88}}"#,
    );
    update.ok();
    assert_eq!(limit(&["pids.max"]), "88");
    bundle
        .oci(&["update", "--memory", "lots", "c"])
        .refused(&["--memory", "lots"]);
    // Frozen, it dies all the same.
    bundle.oci(&["pause", "c"]).ok();
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

/// As podman says it: all is forbidden but what every container has.
#[test]
fn an_update_leaves_the_devices_of_every_container() {
    let bundle = Bundle::new("devupdate");
    bundle.args(&["/bin/sleep", "60"]);
    bundle.create("c", &[]);
    bundle.oci(&["start", "c"]).ok();
    let update = with_input(
        bundle.command(&["update", "--resources", "-", "c"]),
        r#"{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":88}}"#,
    );
    update.ok();
    let script = "echo x > /dev/null && head -c 2 /dev/zero | wc -c; \
                  mknod /tmp/none c 1 2 && cat /tmp/none";
    let said = bundle.oci(&["exec", "c", "sh", "-c", script]);
    assert_eq!(said.stdout, "2\n", "{said:?}");
    assert!(said.stderr.contains("not permitted"), "{said:?}");
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn statistics_and_events() {
    let bundle = Bundle::new("events");
    bundle.change(json!({ "linux": { "resources": { "memory": { "limit": 32 << 20, "swap": 32 << 20 }, "pids": { "limit": 50 } } } }));
    // A child of the first process takes more than there is, so that the container stays.
    bundle.script(
        "while [ ! -e /tmp/go ]; do sleep 0.05; done; tail /dev/zero; touch /tmp/done; sleep 60",
    );
    bundle.create("c", &[]);
    bundle.oci(&["start", "c"]).ok();
    let stats: Value =
        serde_json::from_str(bundle.oci(&["events", "--stats", "c"]).ok()).expect("json");
    assert_eq!(
        (&stats["type"], &stats["id"]),
        (&json!("stats"), &json!("c"))
    );
    assert_eq!(stats["data"]["pids"]["limit"], 50);
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 32 << 20);
    assert!(
        stats["data"]["memory"]["usage"]["usage"]
            .as_u64()
            .expect("number")
            > 0
    );
    assert!(
        stats["data"]["cpu"]["usage"]["total"]
            .as_u64()
            .expect("number")
            > 0
    );
    let out = bundle.dir.path().join("events");
    let mut child = bundle
        .command(&["events", "--interval", "100ms", "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .spawn()
        .expect("spawn");
    let seen = |word: &str| fs::read_to_string(&out).expect("events").contains(word);
    until("statistics", || seen("\"stats\""));
    fs::write(bundle.root().join("tmp/go"), "").expect("write");
    until("the kernel's answer", || seen("\"oom\""));
    bundle.oci(&["kill", "c", "KILL"]).ok();
    assert!(child.wait().expect("wait").success());
    bundle
        .oci(&["events", "--stats", "c"])
        .refused(&["not running"]);
    bundle
        .oci(&["events", "--interval", "0s", "c"])
        .refused(&["--interval"]);
    bundle.oci(&["delete", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn hooks_around_its_life() {
    let bundle = Bundle::new("hooks");
    let log = bundle.dir.path().join("log");
    let hook = |name: &str, code: i32| {
        let script = format!("(echo {name}; cat; echo) >> {}; exit {code}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    let logged = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::remove_file(&log).ok();
        let words = text.split(['\n', '{']).map(str::trim);
        let known = ["createRuntime", "poststart", "poststop"];
        words
            .filter(|w| known.contains(w))
            .collect::<Vec<_>>()
            .join(" ")
    };
    bundle.args(&["/bin/true"]);
    bundle.change(json!({ "hooks": { "createRuntime": hook("createRuntime", 0), "poststart": hook("poststart", 0), "poststop": hook("poststop", 3) } }));
    let said = bundle.oci(&["run", "c"]);
    said.ok(); // a poststop hook can change nothing any more
    assert!(
        said.stderr.contains("poststop[0]") && said.stderr.contains("exit code 3"),
        "{said:?}"
    );
    assert_eq!(logged(), "createRuntime poststart poststop");
    // A container must not run without what its hooks were to do.
    bundle.args(&["/bin/sleep", "60"]);
    bundle.change(json!({ "hooks": { "poststart": hook("poststart", 1) } }));
    bundle
        .oci(&["run", "c"])
        .refused(&["poststart[0]", "exit code 1"]);
    assert_eq!(logged(), "createRuntime poststart poststop");
    bundle.assert_clean();
    bundle.change(json!({ "hooks": { "createRuntime": hook("createRuntime", 1) } }));
    bundle.oci(&["run", "c"]).refused(&["createRuntime[0]"]);
    assert_eq!(logged(), "createRuntime poststop");
    bundle.assert_clean();
}

/// With cgroups of version 1 alone, and none that freezes, nothing is frozen.
#[test]
fn without_a_freezer() {
    let bundle = Bundle::new("nofreezer");
    bundle.args(&["/bin/sleep", "60"]);
    let found = container::cgroup::Layout::detect().expect("layout");
    let devices = found.hierarchies.iter().find(|one| {
        let mut controllers = one.controllers.iter();
        one.version == container::cgroup::Version::V1 && controllers.any(|name| name == "devices")
    });
    let Some(devices) = devices.map(|one| one.mountpoint.clone()) else {
        eprintln!("skipped: no version 1 cgroups for devices");
        return;
    };
    // In a mount namespace where that is all there is.
    let script = "mount --bind \"$2\" /mnt && umount -R -l /sys/fs/cgroup && \
                  mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/devices && \
                  mount --move /mnt /sys/fs/cgroup/devices || exit 99; \
                  o() { \"$0\" --root \"$R\" \"$@\" 2>&1; }; R=$1; \
                  o create c > out || { cat out; exit 1; }; o start c && o state c && \
                  o exec c true && o pause c; o delete --force c";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", script, common::RUNTIME]);
    command.arg(bundle.state()).arg(devices);
    command.current_dir(bundle.dir.path());
    let said = common::Said::from(command.output().expect("runtime"));
    assert!(said.ok().contains("\"running\""), "{said:?}");
    assert!(said.ok().contains("freeze"), "{said:?}"); // what pause says
    bundle.assert_clean();
}

/// What waits to be started holds nothing of the host: who looks into it could go through that.
#[test]
fn what_waits_holds_nothing_of_the_host() {
    let bundle = Bundle::new("waits");
    bundle.args(&["/bin/true"]);
    bundle.create("c", &[]);
    let list = fs::read_dir(format!("/proc/{}/fd", bundle.pid("c"))).expect("descriptors");
    let mut above: Vec<String> = list
        .map(|entry| entry.expect("entry"))
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .parse::<u32>()
                .expect("number")
                > 2
        })
        .map(|entry| {
            fs::read_link(entry.path())
                .expect("link")
                .display()
                .to_string()
        })
        .collect();
    above.retain(|target| !target.starts_with("socket:"));
    assert!(above.is_empty(), "{above:?}");
    bundle.oci(&["delete", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn messages_where_callers_look() {
    let bundle = Bundle::new("log");
    let log = bundle.dir.path().join("log.json");
    let path = log.to_str().expect("utf-8");
    let said = bundle.oci(&["--log", path, "--log-format", "json", "state", "nobody"]);
    said.refused(&["nobody", "does not exist"]);
    // Options may stand behind the command too.
    bundle
        .oci(&["start", "nobody", "--log", path, "--log-format=json"])
        .refused(&[]);
    let text = fs::read_to_string(&log).expect("log");
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).expect("json");
        assert_eq!(entry["level"], "error");
        assert!(
            entry["msg"]
                .as_str()
                .expect("msg")
                .contains("does not exist")
        );
        assert!(entry["time"].as_str().expect("time").ends_with('Z'));
    }
    bundle
        .oci(&["--log", "/no/such/dir/log", "state", "nobody"])
        .refused(&["/no/such/dir/log", "nobody"]);
}

#[test]
fn managers_of_cgroups() {
    let bundle = Bundle::new("manager");
    bundle.args(&["/bin/true"]);
    bundle.oci(&["--systemd-cgroup", "run", "c"]).refused(&[
        "linux.cgroupsPath",
        "systemd",
        "slice:prefix:name",
    ]);
    bundle
        .oci(&["--cgroup-manager", "nobody", "run", "c"])
        .refused(&["nobody"]);
    bundle
        .oci(&["--cgroup-manager", "disabled", "run", "c"])
        .ok();
    bundle.assert_clean();
}

#[test]
fn what_it_can_do() {
    let bundle = Bundle::new("features");
    let features: Value = serde_json::from_str(bundle.oci(&["features"]).ok()).expect("json");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"],
        true
    );
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    for kind in ["v1", "v2", "systemd", "systemdUser", "rdma"] {
        assert_eq!(features["linux"]["cgroup"][kind], true, "{kind}");
    }
    assert_eq!(
        features["potentiallyUnsafeConfigAnnotations"],
        json!(["org.systemd.property."])
    );
    // Those of the kernel work as said, too.
    let options = features["mountOptions"].as_array().expect("list");
    let mut of_kernel = vec!["dirsync", "lazytime", "sync"];
    assert!(of_kernel.iter().all(|one| options.contains(&json!(one))));
    of_kernel.extend(["async", "nolazytime"]);
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "none" });
    for option in of_kernel {
        let mut mounts = bundle.config()["mounts"].clone();
        let list = mounts.as_array_mut().expect("list");
        let mut mount = mount.clone();
        mount["options"] = json!([option]);
        list.retain(|one| one["destination"] != "/tmp");
        list.push(mount);
        bundle.change(json!({ "mounts": mounts }));
        bundle.args(&["/bin/grep", " /tmp ", "/proc/self/mountinfo"]);
        let said = bundle.oci(&["run", "c"]);
        let shown = said.ok().rsplit(' ').next().expect("options");
        let shown = shown.split(',').any(|one| one == option);
        let set = !["async", "nolazytime"].contains(&option);
        assert_eq!(shown, set, "{option}: {said:?}");
    }
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
    assert_eq!(features["linux"]["intelRdt"]["enabled"], true);
    assert_eq!(
        features["linux"]["namespaces"]
            .as_array()
            .expect("list")
            .len(),
        8
    );
    assert!(bundle.oci(&["--version"]).ok().contains("spec: 1.3.0"));
    bundle.oci(&["spec"]).refused(&["config.json"]); // it is there already
}

/// The specification: what is no capability of the kernel is a warning and no error.
#[test]
fn capabilities_that_nobody_knows() {
    let bundle = Bundle::new("unknown-caps");
    let sets = |names: &[&str]| {
        json!({ "bounding": names, "effective": names, "permitted": names,
            "inheritable": [], "ambient": [] })
    };
    let named = sets(&["CAP_KILL", "CAP_FUTURE", "CAP_CHOWN"]);
    bundle.change(json!({ "process": { "capabilities": named } }));
    bundle.script("grep CapEff /proc/self/status");
    let said = bundle.oci(&["run", "c"]);
    assert!(said.ok().ends_with("0000000000000021"), "{said:?}");
    assert_eq!(said.stderr.matches("CAP_FUTURE").count(), 1, "{said:?}");
    assert!(said.stderr.contains("left out"), "{said:?}");
    assert!(!said.stderr.contains("CAP_KILL"), "{said:?}");

    bundle.args(&["/bin/sleep", "600"]);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    let file = bundle.dir.path().join("process.json");
    let process = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/grep", "CapEff", "/proc/self/status"],
        "capabilities": sets(&["CAP_KILL", "what\nis this"]) });
    fs::write(&file, process.to_string()).expect("write");
    let said = bundle.oci(&["exec", "--process", file.to_str().expect("utf-8"), "c"]);
    assert!(said.ok().ends_with("0000000000000020"), "{said:?}");
    assert!(said.stderr.contains("what\\nis this"), "{said:?}");
    // What the container was created with says nothing more.
    let said = bundle.oci(&["exec", "c", "/bin/true"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}
