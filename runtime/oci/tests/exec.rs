//! Programs in containers that run.

mod common;
use common::{Bundle, Said, until, with_input};
use serde_json::json;
use std::fs;

fn running(name: &str, change: serde_json::Value) -> Bundle {
    let bundle = Bundle::new(name);
    bundle.args(&["/bin/sleep", "100"]);
    bundle.change(change);
    let created = bundle.create("c", &[]);
    assert_eq!(created.code, 0, "{created:?}");
    bundle.oci(&["start", "c"]).ok();
    bundle
}

#[test]
fn as_the_container_itself() {
    let bundle = running("exec", json!({}));
    let pid = bundle.pid("c");
    let said = bundle.oci(&["exec", "c", "/bin/sh", "-c", "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; pwd; echo $HOME; cat /proc/1/comm; exit 6"]);
    assert_eq!(said.code, 6, "{said:?}");
    let lines: Vec<_> = said.stdout.lines().collect();
    for (line, name) in lines
        .iter()
        .zip(["mnt", "pid", "net", "ipc", "uts", "cgroup"])
    {
        let own = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace");
        assert_eq!(*line, own.to_string_lossy());
    }
    let tail = &lines[lines.len() - 3..];
    assert_eq!(tail, ["/", "/root", "sleep"]);
    // In its cgroup namespace all of its cgroups are roots.
    let cgroups = &lines[6..lines.len() - 3];
    assert!(
        cgroups.iter().all(|line| line.ends_with(":/")),
        "{cgroups:?}"
    );
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn as_somebody_else() {
    let bundle = running("execas", json!({}));
    let said = bundle.oci(&[
        "exec",
        "--user",
        "101:102",
        "-g",
        "29",
        "--cwd",
        "/tmp",
        "-e",
        "A=b",
        "-e",
        "PATH=/bin",
        "c",
        "sh",
        "-c",
        "id; pwd; echo $A; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status",
    ]);
    let lines: Vec<_> = said.ok().lines().collect();
    assert_eq!(lines[0], "uid=101(web) gid=102 groups=29");
    assert_eq!(lines[1..3], ["/tmp", "b"]);
    assert!(
        lines.contains(&"CapEff:\t0000000000000000") && lines.contains(&"NoNewPrivs:\t1"),
        "{said:?}"
    );
    let said = bundle.oci(&[
        "exec",
        "--cap",
        "CAP_SYS_TIME",
        "c",
        "grep",
        "CapEff",
        "/proc/self/status",
    ]);
    let effective =
        u64::from_str_radix(said.ok().split_whitespace().last().expect("set"), 16).expect("hex");
    assert_ne!(effective & 1 << 25, 0, "{said:?}");
    for (args, word) in [
        (["--user", "root"], "UID[:GID]"),
        (["--user", "1x"], "1x"),
        (["--cap", "CAP_NONE"], "CAP_NONE"),
        (["--cwd", "/no/such"], "/no/such"),
        (["--cwd", "relative"], "absolute"),
        (["--env", "NOVALUE"], "NOVALUE"),
        (["--process", "/no/such/file"], "/no/such/file"),
    ] {
        let mut all = vec!["exec", "c"];
        all.splice(1..1, args);
        if args[0] != "--process" {
            all.push("true");
        }
        bundle.oci(&all).refused(&[word]);
    }
    bundle.oci(&["exec", "c"]).refused(&["process.args"]);
    let said = bundle.oci(&["exec", "c", "nope"]);
    assert_eq!(said.code, 127);
    said.refused(&["executable file not found in $PATH"]);
}

#[test]
fn from_a_file_and_in_the_background() {
    let bundle = running("execfile", json!({}));
    let process = json!({ "cwd": "/", "args": ["sh", "-c", "id -u > /tmp/said; exec sleep 50"], "user": { "uid": 5, "gid": 6 }, "env": ["PATH=/bin"] });
    fs::set_permissions(
        bundle.root().join("tmp"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("chmod");
    let file = bundle.dir.path().join("process.json");
    fs::write(&file, process.to_string()).expect("write");
    let pid_file = bundle.dir.path().join("execpid");
    let status = bundle
        .command(&[
            "exec",
            "--process",
            "process.json",
            "--detach",
            "--pid-file",
            "execpid",
            "c",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.expect("exec").success());
    until("its output", || {
        fs::read_to_string(bundle.root().join("tmp/said")).is_ok_and(|said| said == "5\n")
    });
    let pid = fs::read_to_string(pid_file).expect("pid");
    let pids: Vec<i64> =
        serde_json::from_str(bundle.oci(&["ps", "-f", "json", "c"]).ok()).expect("json");
    assert!(
        pids.iter().any(|one| one.to_string() == pid),
        "{pids:?} lacks {pid}"
    );
    // With the first process, the others end too.
    bundle.oci(&["delete", "-f", "c"]).ok();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/cwd")).exists());
    bundle.assert_clean();
}

/// What the file leaves out is the container's own: it must not be less confined than that.
#[test]
fn from_a_file_that_leaves_out_much() {
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 111 }]);
    let groups = json!([7, 8]);
    let bundle = running(
        "execleft",
        json!({ "process": { "rlimits": limits, "noNewPrivileges": true,
            "user": { "additionalGids": groups } } }),
    );
    let look = "grep -E 'Cap(Bnd|Eff|Prm)|NoNewPrivs' /proc/self/status; ulimit -n; ulimit -Hn";
    let as_file = |more: serde_json::Value| {
        let mut process = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
            "args": ["sh", "-c", look] });
        common::merge(&mut process, more);
        let file = bundle.dir.path().join("process.json");
        fs::write(file, process.to_string()).expect("write");
        let said = bundle.oci(&["exec", "--process", "process.json", "c"]);
        said.ok().to_string()
    };
    let own = bundle.oci(&["exec", "c", "sh", "-c", look]);
    let own = own.ok();
    assert!(own.contains("NoNewPrivs:\t1") && own.ends_with("\n99\n111"));
    assert!(!own.contains("CapEff:\t0000000000000000"), "{own}");
    assert_eq!(as_file(json!({})), own);
    assert_eq!(as_file(json!({ "rlimits": [] })), own);
    // What it does say counts.
    let said = as_file(json!({ "noNewPrivileges": false, "capabilities": {},
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }] }));
    assert!(
        said.contains("NoNewPrivs:\t0") && said.ends_with("\n50\n60"),
        "{said}"
    );
    assert!(said.contains("CapEff:\t0000000000000000"), "{said}");
    // Further groups come to those of the container, as with runc.
    let said = bundle.oci(&[
        "exec",
        "-g",
        "29",
        "--additional-gids",
        "30",
        "c",
        "id",
        "-G",
    ]);
    assert_eq!(said.ok(), "0 7 8 29 30");
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn input_goes_through() {
    let bundle = running("execin", json!({}));
    let said = with_input(bundle.command(&["exec", "c", "cat"]), "typed");
    assert_eq!(said.ok(), "typed");
    let said = bundle.oci(&["exec", "c", "sh", "-c", "ls -l /proc/self/fd | wc -l"]);
    assert_eq!(said.ok(), "5"); // the total, three, and that of the directory
}

#[test]
fn in_a_user_namespace() {
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let bundle = Bundle::new("execuser");
    let mut namespaces = bundle.config()["linux"]["namespaces"]
        .as_array()
        .expect("list")
        .clone();
    namespaces.push(json!({ "type": "user" }));
    namespaces.push(json!({ "type": "time" }));
    bundle.args(&["/bin/sleep", "100"]);
    bundle.change(json!({ "linux": { "namespaces": namespaces, "uidMappings": maps, "gidMappings": maps, "timeOffsets": { "boottime": { "secs": 5_000_000 } } } }));
    let created = bundle.create("c", &[]);
    assert_eq!(created.code, 0, "{created:?}");
    // Also before its program runs.
    assert_eq!(bundle.oci(&["exec", "c", "id", "-u"]).ok(), "0");
    bundle.oci(&["start", "c"]).ok();
    let said = bundle.oci(&[
        "exec",
        "c",
        "sh",
        "-c",
        "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/time; cat /proc/uptime",
    ]);
    let lines: Vec<_> = said.ok().lines().collect();
    assert_eq!(lines[0], "0");
    for (line, name) in lines[1..3].iter().zip(["user", "time"]) {
        let own = fs::read_link(format!("/proc/{}/ns/{name}", bundle.pid("c"))).expect("namespace");
        assert_eq!(*line, own.to_string_lossy());
    }
    let uptime: f64 = lines[3]
        .split(' ')
        .next()
        .and_then(|t| t.parse().ok())
        .expect("uptime");
    assert!(uptime > 5_000_000.0);
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

/// `execCPUAffinity`: what is not said stays as the kernel has it.
#[test]
fn on_some_cpus() {
    let bundle = Bundle::new("execcpus");
    bundle.args(&["/bin/sleep", "100"]);
    // Without a cgroup, so that no cpuset changes anything when the process moves.
    let plain = ["--cgroup-manager", "disabled"];
    let run = [&plain[..], &["run", "--detach", "c"]].concat();
    let mut run = bundle.command(&run);
    let null = std::process::Stdio::null;
    assert!(
        run.stdout(null())
            .stderr(null())
            .status()
            .expect("run")
            .success()
    );
    let grep = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let on = |affinity: serde_json::Value| {
        let process = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
            "args": grep, "execCPUAffinity": affinity });
        let file = bundle.dir.path().join("process.json");
        fs::write(file, process.to_string()).expect("write");
        let said = bundle.oci(&["exec", "--process", "process.json", "c"]);
        said.ok()
            .split_whitespace()
            .last()
            .expect("list")
            .to_string()
    };
    let all = on(json!(null));
    let last = all.rsplit([',', '-']).next().expect("cpu").to_string();
    assert_eq!(on(json!({ "initial": "0" })), "0");
    assert_eq!(on(json!({ "initial": "0", "final": last })), last);
    assert_eq!(on(json!({ "final": "0" })), "0");
    assert_eq!(on(json!({})), all);
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn in_a_cgroup_below() {
    let bundle = running("execbelow", json!({}));
    for cgroup in bundle.cgroups() {
        if cgroup.join("c").exists() {
            fs::create_dir(cgroup.join("c/below")).expect("mkdir");
        }
    }
    // A new cpuset of version 1 takes nobody before it has CPUs.
    for cgroup in bundle.cgroups() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (
                fs::read_to_string(cgroup.join("c").join(file)),
                cgroup.to_string_lossy().contains("cpuset"),
            ) {
                fs::write(cgroup.join("c/below").join(file), value.trim()).expect("cpuset");
            }
        }
    }
    let said = bundle.oci(&["exec", "--cgroup", "below", "c", "cat", "/proc/self/cgroup"]);
    let below = said.ok().lines().filter(|line| line.ends_with("/below"));
    assert_eq!(below.count(), bundle.cgroups().len(), "{said:?}");
    bundle
        .oci(&["exec", "--cgroup", "nowhere", "c", "true"])
        .refused(&["nowhere"]);
    bundle
        .oci(&["exec", "--cgroup", "../..", "c", "true"])
        .refused(&[".."]);
    // Other places in other hierarchies.
    for args in [
        &["--cgroup", "pids:below"][..],
        &["--cgroup", "below", "--cgroup", "below"],
    ] {
        let args = [&["exec"], args, &["c", "true"]].concat();
        bundle.oci(&args).refused(&["--cgroup", "one path"]);
    }
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn a_terminal_of_the_caller() {
    // `script` gives the runtime a terminal of its own.
    let bundle = running("exectty", json!({}));
    let in_terminal = |command: &str| -> Said {
        let mut script = std::process::Command::new("script");
        let line = format!(
            "stty rows 33 cols 44; {} --root {} {command}",
            common::RUNTIME,
            bundle.state().display()
        );
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.current_dir(bundle.dir.path());
        script.stdin(std::process::Stdio::null());
        let mut said: Said = script.output().expect("script").into();
        // At the end of its own input it sends this.
        said.stdout = said.stdout.replace("^@", "").trim_end().to_string();
        said
    };
    let said = in_terminal("exec -t c sh -c 'tty; stty size; exit 9'");
    let lines: Vec<_> = said.stdout.lines().map(str::trim).collect();
    assert_eq!(lines, ["/dev/pts/0", "33 44"], "{said:?}");
    assert_eq!(said.code, 9);
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.script("tty; ls -l /dev/console; stty size; echo to the console > /dev/console; exit 3");
    bundle.change(json!({ "process": { "terminal": true } }));
    let said = in_terminal("run c");
    let lines: Vec<_> = said.stdout.lines().map(str::trim).collect();
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(lines[0], "/dev/pts/0");
    assert!(lines[1].starts_with("crw"), "{said:?}");
    assert_eq!(lines[2..], ["33 44", "to the console"]);
    bundle
        .oci(&["run", "--detach", "c"])
        .refused(&["--console-socket"]);
    bundle
        .create("c", &[])
        .refused(&["process.terminal", "console socket"]);
    bundle
        .create("c", &["--console-socket", "/no/such/socket"])
        .refused(&["/no/such/socket"]);
    bundle.assert_clean();
}

/// Neither side waits for the other while both are full.
#[test]
fn much_at_once_through_a_terminal() {
    let bundle = running("execmuch", json!({}));
    let lines = 20_000;
    let input: String = (0..lines).map(|n| format!("{n:050}\n")).collect();
    let file = bundle.dir.path().join("input");
    fs::write(&file, input).expect("write");
    let mut command = std::process::Command::new("timeout");
    command.args(["--signal=KILL", "60", common::RUNTIME, "--root"]);
    command.arg(bundle.state());
    command.args(["exec", "-t", "c", "head", "-n", &lines.to_string()]);
    command.stdin(fs::File::open(&file).expect("open"));
    let said: Said = command.output().expect("runtime").into();
    assert_eq!(said.code, 0, "{}", said.stderr);
    let last = format!("{:050}\r\n", lines - 1);
    assert!(said.stdout.ends_with(&last));
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn a_terminal_for_somebody_else() {
    use std::io::Read;
    use std::os::fd::FromRawFd;
    let bundle = Bundle::new("console");
    bundle.script("tty; read line; echo heard $line; exit 0");
    bundle.change(json!({ "process": { "terminal": true, "consoleSize": { "height": 12, "width": 34 }, "user": { "uid": 0 } } }));
    let path = bundle.dir.path().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let created = bundle.create("c", &["--console-socket", path.to_str().expect("utf-8")]);
    assert_eq!(created.code, 0, "{created:?}");
    let (stream, _) = listener.accept().expect("accept");
    let mut name = [0u8; 128];
    let mut parts = [std::io::IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = nix::sys::socket::recvmsg::<()>(
        std::os::fd::AsRawFd::as_raw_fd(&stream),
        &mut parts,
        Some(&mut space),
        nix::sys::socket::MsgFlags::empty(),
    )
    .expect("message");
    let fd = message.cmsgs().expect("parts").find_map(|part| match part {
        nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just given us this descriptor.
    let mut master = unsafe { fs::File::from_raw_fd(fd.expect("descriptor")) };
    bundle.oci(&["start", "c"]).ok();
    std::io::Write::write_all(&mut master, b"hello\n").expect("type");
    let mut shown = Vec::new();
    let _ = master.read_to_end(&mut shown); // a pty ends with EIO
    let shown = String::from_utf8_lossy(&shown).replace('\r', "");
    assert!(
        shown.starts_with("/dev/pts/0\n") || shown.starts_with("hello\n/dev/pts/0\n"),
        "{shown}"
    );
    assert!(shown.ends_with("heard hello\n"), "{shown}");
    bundle.oci(&["delete", "-f", "c"]).ok();
    bundle.assert_clean();
}
