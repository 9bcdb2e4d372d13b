//! The life of a task under its shim.

mod common;
use common::{Bundle, SHIM, set_resources, started, until};
use container::process;
use container::shim::StartReport;
use oci_spec::runtime::LinuxMemoryBuilder;
use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

#[test]
fn runs_and_records() {
    let bundle = Bundle::new("runs");
    let script = "echo out; echo err >&2; until [ -e /tmp/go ]; do sleep 0.05; done; exit 3";
    let report = bundle.script(script);
    assert_eq!(
        report.state,
        bundle.state(),
        "written before it is reported"
    );
    let (pid, time) = (
        report.state.init_pid.expect("pid"),
        report.state.init_start_time.expect("time"),
    );
    process::open_verified(pid, time).expect("the task runs");
    let shims =
        container::Cgroup::open(&bundle.sandbox.parent, container::cgroup::SHIMS).expect("cgroup");
    assert_eq!(shims.procs().expect("procs"), [report.state.shim_pid]);
    let stat = fs::read_to_string(format!("/proc/{}/stat", report.state.shim_pid)).expect("stat");
    let session = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split(' ').nth(4));
    assert_eq!(
        session,
        Some(report.state.shim_pid.to_string().as_str()),
        "{stat}"
    );

    fs::write(format!("/proc/{pid}/root/tmp/go"), "").expect("write");
    let exit = bundle.exit();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.oom_killed),
        (3, None, false)
    );
    assert!(exit.finished_at_unix_nanos > report.state.started_at_unix_nanos.expect("started"));
    assert_eq!(exit.dropped_log_lines, 0);
    let mut log = bundle.log();
    log.sort();
    assert_eq!(
        log,
        [
            ("err\n".into(), "stderr".into()),
            ("out\n".into(), "stdout".into())
        ]
    );
}

#[test]
fn ends_by_signal() {
    let bundle = Bundle::new("signal");
    let state = bundle
        .script("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
        .state;
    until("the trap", || bundle.log().len() == 1);
    let pidfd = process::open_verified(
        state.init_pid.expect("pid"),
        state.init_start_time.expect("time"),
    )
    .expect("open");
    // The shim itself takes no notice of a request to end.
    let shim = process::open_verified(state.shim_pid, state.shim_start_time).expect("open");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        process::signal(&shim, signal).expect("signal");
    }
    assert!(
        !process::wait_ended(&pidfd, Some(std::time::Duration::from_millis(300))).expect("wait")
    );
    process::signal(&pidfd, libc::SIGTERM).expect("signal");
    assert_eq!(bundle.exit().exit_code, 0);
    assert_eq!(bundle.log()[1].0, "asked\n");

    let bundle = Bundle::new("kill");
    let state = bundle.script("sleep 60").state;
    let pidfd = process::open_verified(
        state.init_pid.expect("pid"),
        state.init_start_time.expect("time"),
    )
    .expect("open");
    process::signal(&pidfd, libc::SIGKILL).expect("signal");
    let exit = bundle.exit();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.oom_killed),
        (137, Some(9), false)
    );
}

#[test]
fn out_of_memory_is_flagged() {
    let bundle = Bundle::new("oom");
    let mut spec = bundle.sandbox.command(&["/bin/tail", "/dev/zero"]);
    set_resources(&mut spec, |r| {
        let memory = LinuxMemoryBuilder::default()
            .limit(16i64 << 20)
            .swap(16i64 << 20);
        r.set_memory(Some(memory.build().expect("memory")));
    });
    started(bundle.run(&spec));
    let exit = bundle.exit();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.oom_killed),
        (137, Some(9), true)
    );
}

#[test]
fn a_program_that_does_not_exist() {
    let bundle = Bundle::new("noexec");
    let StartReport::Failed(failure) = bundle.run(&bundle.sandbox.command(&["nope"])) else {
        panic!("it started");
    };
    assert_eq!((failure.step.as_str(), failure.exit_code), ("exec", 127));
    assert_eq!(
        failure.message,
        "exec: \"nope\": executable file not found in $PATH"
    );
    // A daemon that was gone at that moment reads it here.
    let exit = bundle.exit();
    assert_eq!(exit.failed, Some(failure));
    assert_eq!(exit.exit_code, 127);
}

#[test]
fn bad_bundles() {
    let failed = |bundle: &Bundle, words: &[&str]| {
        let output = Command::new(SHIM)
            .arg("run")
            .arg(bundle.path())
            .output()
            .expect("shim");
        let StartReport::Failed(failure) = common::report(output) else {
            panic!("it started")
        };
        for word in words {
            assert!(
                failure.message.contains(word),
                "{failure:?} does not say {word}"
            );
        }
        bundle.sandbox.assert_clean();
    };
    let mut bundle = Bundle::new("bad");
    failed(&bundle, &["shim.json", "No such file"]);
    bundle.write(&bundle.sandbox.script("true"));
    fs::write(bundle.path().join("shim.json"), "{\"id\":1}").expect("write");
    failed(&bundle, &["shim.json", "line 1"]);
    bundle.write(&bundle.sandbox.script("true"));
    fs::write(bundle.path().join("config.json"), "{").expect("write");
    failed(&bundle, &["config.json"]);
    bundle.options.hold_fds = vec![77];
    bundle.write(&bundle.sandbox.script("true"));
    failed(&bundle, &["descriptor 77"]);
    bundle.options.hold_fds.clear();
    bundle.options.log.path = "/no/such/directory/log".into();
    bundle.write(&bundle.sandbox.script("true"));
    failed(&bundle, &["/no/such/directory/log"]);
    bundle.options.log.path = bundle.path().join("log");
    bundle.options.user = Some("stranger".into());
    bundle.write(&bundle.sandbox.script("true"));
    failed(&bundle, &["stranger", "/etc/passwd"]);

    let usage = Command::new(SHIM).arg("walk").output().expect("shim");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn survives_its_parent() {
    let bundle = Bundle::new("orphan");
    bundle.write(
        &bundle
            .sandbox
            .script("while :; do echo tick; sleep 0.05; done"),
    );
    // A stand-in for the daemon, in the middle of its life.
    let script = format!(
        "{SHIM} run {} && echo $$ && exec sleep 60",
        bundle.path().display()
    );
    let mut daemon = Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    until("running", || {
        bundle.options.state_path.exists() && bundle.state().started_at_unix_nanos.is_some()
    });
    daemon.kill().expect("kill");
    daemon.wait().expect("wait");
    drop(daemon);
    let state = bundle.state();
    process::open_verified(state.shim_pid, state.shim_start_time).expect("the shim lives");
    let before = bundle.log().len();
    until("more output", || bundle.log().len() > before + 3);
    let pidfd = process::open_verified(
        state.init_pid.expect("pid"),
        state.init_start_time.expect("time"),
    )
    .expect("open");
    process::signal(&pidfd, libc::SIGKILL).expect("signal");
    assert_eq!(bundle.exit().exit_code, 137);
}

#[test]
fn a_report_that_nobody_reads() {
    let bundle = Bundle::new("deaf");
    bundle.write(&bundle.sandbox.script("echo done"));
    let mut shim = Command::new(SHIM)
        .arg("run")
        .arg(bundle.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("shim");
    drop(shim.stdout.take());
    shim.wait().expect("wait");
    assert_eq!(bundle.exit().exit_code, 0);
    assert_eq!(bundle.log()[0].0, "done\n");
}

#[test]
fn holds_descriptors_for_the_daemon() {
    let mut bundle = Bundle::new("hold");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let inherited = nix::unistd::dup(&socket).expect("dup"); // not close-on-exec
    let number = inherited.as_raw_fd();
    bundle.options.hold_fds = vec![number];
    let state = bundle.script("ls /proc/self/fd; sleep 60").state;
    drop((socket, inherited));
    std::net::UdpSocket::bind(address).expect_err("the shim holds it");
    let shim = process::open_verified(state.shim_pid, state.shim_start_time).expect("open");
    // SAFETY: no pointers; the result is a new descriptor or an error.
    let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, shim.as_raw_fd(), number, 0) };
    assert!(got >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: as above, it is ours.
    let back = unsafe { <std::net::UdpSocket as std::os::fd::FromRawFd>::from_raw_fd(got as i32) };
    assert_eq!(back.local_addr().expect("address"), address);
    until("output", || bundle.log().len() >= 4);
    // 0, 1, 2 and the directory that ls reads: none of it in the task.
    let seen: Vec<_> = bundle.log().into_iter().map(|(line, _)| line).collect();
    assert_eq!(seen, ["0\n", "1\n", "2\n", "3\n"]);
    // Beside what it holds the shim keeps: std, the two outputs, signals, the log.
    let kept = fs::read_dir(format!("/proc/{}/fd", state.shim_pid))
        .expect("fds")
        .count();
    assert!(kept <= 8, "{kept} descriptors");
    let pidfd = process::open_verified(
        state.init_pid.expect("pid"),
        state.init_start_time.expect("time"),
    )
    .expect("open");
    process::signal(&pidfd, libc::SIGKILL).expect("signal");
    bundle.exit();
}

#[test]
fn its_executable_is_out_of_reach() {
    let bundle = Bundle::new("exe");
    let state = bundle.script("sleep 60").state;
    // Even root on the host, by the link that a container could get hold of, cannot write it: it
    // leads to a read-only mount.
    let link = format!("/proc/{}/exe", state.shim_pid);
    let executable = fs::File::open(&link).expect("open");
    let flags = nix::sys::statvfs::fstatvfs(&executable)
        .expect("statvfs")
        .flags();
    assert!(
        flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
        "{flags:?}"
    );
    let by_descriptor = format!("/proc/self/fd/{}", executable.as_raw_fd());
    for path in [link, by_descriptor] {
        let error = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect_err("writable");
        assert!(
            matches!(error.raw_os_error(), Some(libc::EROFS | libc::ETXTBSY)),
            "{error}"
        );
        let error = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .expect_err("writable");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    }
    let pidfd = process::open_verified(
        state.init_pid.expect("pid"),
        state.init_start_time.expect("time"),
    )
    .expect("open");
    process::signal(&pidfd, libc::SIGKILL).expect("signal");
    bundle.exit();
}

#[test]
fn an_image_that_executes_the_runtime() {
    let bundle = Bundle::new("selfexe");
    let before = fs::read(SHIM).expect("shim");
    // What the shim needs to start inside, so that the attack gets as far as it can.
    let root = bundle.sandbox.root();
    let libraries = Command::new("ldd").arg(SHIM).output().expect("ldd");
    for word in String::from_utf8_lossy(&libraries.stdout)
        .split_whitespace()
        .filter(|w| w.starts_with('/'))
    {
        let to = root.join(&word[1..]);
        fs::create_dir_all(to.parent().expect("parent")).expect("mkdir");
        common::install(&to, &fs::read(word).expect("library"));
    }
    common::install(&root.join("entry"), b"#!/proc/self/exe\n");
    started(bundle.run(&bundle.sandbox.command(&["/entry"])));
    // The script's path became the command, which the shim does not know.
    assert_eq!(bundle.exit().exit_code, 2);
    assert!(bundle.log()[0].0.starts_with("usage: fairlead-shim"));
    // The descriptor that this gives a program leads to the read-only mount; a program inside
    // sees no other way to it than its own and process 1's.
    let bundle = Bundle::new("exe1");
    bundle.script("readlink /proc/1/exe; echo x 2>/dev/null >> /proc/1/exe || echo refused");
    assert_eq!(bundle.exit().exit_code, 0);
    let lines: Vec<_> = bundle.log().into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, ["/bin/busybox\n", "refused\n"]);
    assert_eq!(fs::read(SHIM).expect("shim"), before);
}
