//! The program: who it is, what it holds, how it ends.

mod common;
use common::{Sandbox, set_linux, set_process};
use container::{Created, EnterOptions, Rootfs, Stdio, Target, create, enter};
use oci_spec::runtime::{
    LinuxNamespaceBuilder, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Spec,
};
use std::fs;

#[test]
fn exit_codes() {
    let sandbox = Sandbox::new("codes");
    for (script, code, signal) in [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exec /bin/nope", 127, None),
    ] {
        let outcome = sandbox.run(&sandbox.script(script));
        assert_eq!(
            (outcome.code, outcome.signal),
            (code, signal),
            "{script}: {outcome:?}"
        );
    }
    // As process 1 it ignores signals that it sends to itself, so a fault has to do.
    common::install(&sandbox.root().join("bin/crash"), &crash_program());
    let outcome = sandbox.run(&sandbox.command(&["/bin/crash"]));
    assert_eq!(
        (outcome.code, outcome.signal),
        (128 + 11, Some(11)),
        "{outcome:?}"
    );
    sandbox.assert_clean();
}

/// The smallest ELF program: it reads address 0.
fn crash_program() -> Vec<u8> {
    let code: &[u8] = &[0x31, 0xc0, 0x8b, 0x00]; // xor eax,eax; mov eax,[rax]
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2u8, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    elf.extend(0x40_0078u64.to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes());
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1u8, 0, 0, 0, 5, 0, 0, 0]); // loadable, read and execute
    let size = 120 + code.len() as u64;
    for value in [0u64, 0x40_0000, 0x40_0000, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
fn programs_that_cannot_be_executed() {
    let sandbox = Sandbox::new("exec");
    let root = sandbox.root();
    fs::write(root.join("plain"), "text").expect("write");
    common::install(&root.join("garbage"), &[0u8; 64]);
    common::install(&root.join("script"), b"#!/no/such/interpreter\n");
    for (program, code, message) in [
        (
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "/bin/nope",
            127,
            "exec: \"/bin/nope\": no such file or directory",
        ),
        (
            "/plain/x",
            127,
            "exec: \"/plain/x\": no such file or directory",
        ),
        ("/script", 127, "interpreter"),
        ("/plain", 126, "exec: \"/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("/garbage", 126, "exec: \"/garbage\": exec format error"),
    ] {
        let outcome = sandbox.run(&sandbox.command(&[program]));
        let error = outcome.error.unwrap_or_default();
        assert!(error.contains(message), "{program}: {error}");
        assert_eq!(outcome.code, code, "{program}");
        sandbox.assert_clean();
    }
}

#[test]
fn arguments_environment_directory_and_names() {
    let sandbox = Sandbox::new("env");
    let mut spec = sandbox.command(&[
        "sh",
        "-c",
        "echo \"$0|$1|$2|$A\"; pwd; hostname; echo $HOME; cat /proc/sys/kernel/domainname; umask",
        "zero",
        "one two",
        "",
    ]);
    spec.set_hostname(Some("the-host".into()));
    spec.set_domainname(Some("the-domain".into()));
    set_process(&mut spec, |p| {
        p.set_cwd("/made/here".into());
        let mut env = p.env().clone().expect("env");
        env.push("A=b=c".into());
        p.set_env(Some(env));
    });
    let outcome = sandbox.run(&spec);
    assert_eq!(
        outcome.ok(),
        "zero|one two||b=c\n/made/here\nthe-host\n/root\nthe-domain\n0022"
    );
    assert_ne!(nix::unistd::gethostname().expect("hostname"), "the-host");
}

#[test]
fn users() {
    let sandbox = Sandbox::new("users");
    for (user, expected) in [
        ("web", "uid=101 gid=102(web) groups=29(audio)"),
        ("101", "uid=101 gid=102(web) groups=29(audio)"),
        ("web:audio", "gid=29(audio)"),
        ("4242:17", "uid=4242 gid=17"),
        ("root", "uid=0"),
    ] {
        let mut options = sandbox.options();
        options.user = Some(user.into());
        let outcome = sandbox.run_with(
            &sandbox.script("id; echo $HOME; echo again > /dev/stderr"),
            options,
        );
        let expected = expected.replace("uid=101 ", "uid=101(web) ");
        assert!(outcome.ok().contains(&expected), "{user}: {outcome:?}");
        assert_eq!(outcome.stderr, "again\n", "the pipe belongs to the user");
        if user == "web" {
            assert!(outcome.stdout.contains("/srv"), "{outcome:?}");
        }
    }
    let mut options = sandbox.options();
    options.user = Some("nobody".into());
    let outcome = sandbox.run_with(&sandbox.script("id"), options);
    let error = outcome.error.unwrap_or_default();
    assert!(
        error.contains("no user \"nobody\" in /etc/passwd"),
        "{error}"
    );
    sandbox.assert_clean();
}

#[test]
fn user_by_number() {
    let sandbox = Sandbox::new("uid");
    let mut spec = sandbox.script("id -u; id -g; id -G; umask");
    set_process(&mut spec, |p| {
        let mut user = p.user().clone();
        user.set_uid(7)
            .set_gid(8)
            .set_additional_gids(Some(vec![9, 10]))
            .set_umask(Some(0o77));
        p.set_user(user);
    });
    assert_eq!(sandbox.run(&spec).ok(), "7\n8\n8 9 10\n0077");
}

fn status_line<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .expect(name);
    line.trim_start_matches(':').trim()
}

#[test]
fn capabilities_and_privileges() {
    let sandbox = Sandbox::new("caps");
    let spec = sandbox.command(&["/bin/cat", "/proc/self/status"]);
    let outcome = sandbox.run(&spec);
    let status = outcome.ok();
    // Docker's fourteen.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status_line(status, set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status_line(status, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_line(status, "NoNewPrivs"), "1");
    assert_eq!(status_line(status, "SigBlk"), "0000000000000000");
    assert_eq!(status_line(status, "SigIgn"), "0000000000000000");

    // Another user holds none, but may not lose the bound.
    let mut options = sandbox.options();
    options.user = Some("web".into());
    let outcome = sandbox.run_with(&spec, options);
    assert_eq!(status_line(outcome.ok(), "CapEff"), "0000000000000000");
    assert_eq!(status_line(outcome.ok(), "CapBnd"), "00000000a80425fb");

    // Ambient ones survive the change of user.
    let mut ambient = spec.clone();
    set_process(&mut ambient, |p| {
        let list: oci_spec::runtime::Capabilities = [oci_spec::runtime::Capability::NetBindService]
            .into_iter()
            .collect();
        let mut sets = container::defaults::capability_sets(list.clone());
        sets.set_inheritable(Some(list.clone()))
            .set_ambient(Some(list));
        p.set_capabilities(Some(sets))
            .set_no_new_privileges(Some(false));
    });
    let mut options = sandbox.options();
    options.user = Some("web".into());
    let outcome = sandbox.run_with(&ambient, options);
    assert_eq!(status_line(outcome.ok(), "CapEff"), "0000000000000400");
    assert_eq!(status_line(outcome.ok(), "NoNewPrivs"), "0");
}

#[test]
fn limits_of_the_process() {
    let sandbox = Sandbox::new("rlimits");
    let limit = |soft, hard| {
        PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(soft)
            .hard(hard)
            .build()
            .expect("limit")
    };
    let mut spec = sandbox.script("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj");
    set_process(&mut spec, |p| {
        p.set_rlimits(Some(vec![limit(100u64, 200u64)]))
            .set_oom_score_adj(Some(500));
    });
    assert_eq!(sandbox.run(&spec).ok(), "100\n200\n500");

    // What may not be raised or lowered here is an error or a warning, never silence.
    set_process(&mut spec, |p| {
        p.set_rlimits(None).set_oom_score_adj(Some(-900));
    });
    let outcome = sandbox.run(&spec);
    let privileged = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_RESOURCE,
    )
    .expect("caps");
    assert_eq!(outcome.warnings.is_empty(), privileged, "{outcome:?}");
    if !privileged {
        assert!(outcome.warnings[0].contains("oom_score_adj"));
        set_process(&mut spec, |p| {
            p.set_rlimits(Some(vec![limit(1u64 << 30, 1u64 << 30)]));
        });
        let outcome = sandbox.run(&spec);
        let error = outcome.error.unwrap_or_default();
        assert!(
            error.contains("RLIMIT_NOFILE") && error.contains("CAP_SYS_RESOURCE"),
            "{error}"
        );
    }
    sandbox.assert_clean();
}

#[test]
fn affinity_is_not_inherited() {
    let sandbox = Sandbox::new("affinity");
    let spec = sandbox.command(&["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]);
    let all = sandbox.run(&spec).ok().to_string();
    let options = sandbox.options();
    let pinned = common::in_process(|| {
        let mut set = nix::sched::CpuSet::new();
        set.set(0).expect("cpu");
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("pin");
        common::run_here(&spec, options)
    });
    assert_eq!(pinned.ok(), all);
}

/// Its serial number, as the program sees it, and as its creator does.
#[test]
fn session_keyrings() {
    use common::probe::{Call, probing, results};
    let sandbox = Sandbox::new("keyring");
    // keyctl(2): KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, not to be made.
    let call = Call::new(libc::SYS_keyctl, &[0, -3i64 as u64, 0]);
    let spec = probing(&sandbox, None, &[call]);
    for keep in [false, true] {
        let (own, outcome) = common::in_process(|| {
            // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a null name: one without a name.
            let own = unsafe { libc::syscall(libc::SYS_keyctl, 1, 0) };
            let mut options = sandbox.options();
            options.no_new_keyring = keep;
            (own, common::run_here(&spec, options))
        });
        if own < 0 {
            eprintln!("skipped: a kernel without keyrings");
            return;
        }
        let seen = results(outcome.ok())[0];
        assert_eq!(seen == own, keep, "{seen} {own}");
        assert!(seen > 0, "{seen}");
    }
}

/// The root moved over the old one, as `pivot_root(2)` does not work on an initramfs.
#[test]
fn without_pivot_root() {
    let sandbox = Sandbox::new("nopivot");
    let (upper, work) = (
        sandbox.dir.path().join("up"),
        sandbox.dir.path().join("work"),
    );
    fs::create_dir(&upper).expect("mkdir");
    fs::create_dir(&work).expect("mkdir");
    let overlay = Rootfs::Overlay {
        lower: vec![sandbox.root()],
        upper,
        work,
    };
    let script = "ls -d /bin/busybox; cd ../../../..; pwd; ls -d /root/.cargo /boot /lib/systemd; \
                  grep -c . /proc/self/mountinfo; touch /tmp/made";
    for rootfs in [Rootfs::Directory(sandbox.root()), overlay] {
        let mut options = sandbox.options();
        options.rootfs = rootfs;
        options.no_pivot = true;
        let outcome = sandbox.run_with(&sandbox.script(script), options);
        let lines: Vec<_> = outcome.ok().lines().collect();
        assert_eq!(lines[..2], ["/bin/busybox", "/"]);
        assert_eq!(lines.len(), 3, "the host's files are seen: {outcome:?}");
    }
    sandbox.assert_clean();
}

/// Another program in a container that shares all namespaces, or has a cgroup namespace alone.
#[test]
fn entering_where_no_namespace_is_joined() {
    let sandbox = Sandbox::new("bare");
    for own in [None, Some(LinuxNamespaceType::Cgroup)] {
        let mut spec = sandbox.command(&["/bin/sleep", "60"]);
        spec.set_mounts(None).set_hostname(None);
        set_linux(&mut spec, |linux| {
            let namespace = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
            let list = own.into_iter().map(|kind| namespace(kind).expect("valid"));
            linux
                .set_namespaces(Some(list.collect()))
                .set_masked_paths(None)
                .set_readonly_paths(None);
        });
        let options = sandbox.options();
        let said = common::in_process(|| entered(&spec, options, 0));
        assert_eq!(said, "bin dev etc proc sys tmp", "{own:?}");
    }
    sandbox.assert_clean();
}

/// What `ls /` says that enters the container, or why it cannot.
fn entered(spec: &Spec, options: container::CreateOptions, preserve_fds: u32) -> String {
    let started = create(spec, options).and_then(Created::start);
    let started = started.expect("started");
    let mut program = spec.process().clone().expect("process");
    program.set_args(Some(vec!["/bin/ls".into(), "/".into()]));
    let (out_read, out_write) = nix::unistd::pipe().expect("pipe");
    let target = Target {
        spec,
        pid: started.pid,
        pidfd: &started.pidfd,
        cgroup: started.cgroup.as_ref(),
        identity: None,
    };
    let stdio = Stdio {
        stdout: out_write,
        ..Stdio::null().expect("null")
    };
    let options = EnterOptions {
        stdio: Some(stdio),
        preserve_fds,
        ..EnterOptions::default()
    };
    let said = match enter(&target, &program, options) {
        Ok(inside) => {
            let said = std::io::read_to_string(fs::File::from(out_read)).expect("read");
            container::process::wait_child(&inside.pidfd).expect("wait");
            said
        }
        Err(error) => format!("refused: {error}"),
    };
    let cgroup = started.cgroup.expect("cgroup");
    cgroup.kill().expect("kill");
    container::process::wait_child(&started.pidfd).expect("wait");
    cgroup.delete().expect("delete");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A descriptor that is not there cannot be handed on, nor one that is closed at the exec, which is
/// one of the runtime's own.
#[test]
fn descriptors_that_the_program_is_to_have() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let sandbox = Sandbox::new("preserve");
    let spec = sandbox.script("cat <&3; cat /proc/self/fdinfo/4 >/dev/null && echo four");
    let file = sandbox.dir.path().join("handed");
    fs::write(&file, "handed\n").expect("write");
    // Takes the numbers that are free, so that those of the helper process are larger.
    let null = fs::File::open("/dev/null").expect("open");
    let _taken: Vec<_> = (0..64).map(|_| null.try_clone().expect("dup")).collect();
    let run = |count: u32, entering: bool, flags: FdFlag| {
        let mut options = sandbox.options();
        common::in_process(|| {
            let file = fs::File::open(&file).expect("open");
            for number in 3..5 {
                // SAFETY: nobody in this process uses what the number stood for.
                let number = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
                let raw = std::os::fd::AsRawFd::as_raw_fd(&number);
                // SAFETY: as above.
                let copied = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), raw) };
                assert_eq!(copied, raw);
                fcntl(number, FcntlArg::F_SETFD(flags)).expect("fcntl");
            }
            if entering {
                let spec = sandbox.command(&["/bin/sleep", "60"]);
                let error = Some(entered(&spec, options, count));
                return common::Outcome {
                    error,
                    ..common::Outcome::default()
                };
            }
            options.preserve_fds = count;
            common::run_here(&spec, options)
        })
    };
    let (none, close) = (FdFlag::empty(), FdFlag::FD_CLOEXEC);
    assert_eq!(run(2, false, none).ok(), "handed\nfour");
    assert_eq!(
        run(2, true, none).error.as_deref(),
        Some("bin dev etc proc sys tmp")
    );
    for entering in [false, true] {
        for (count, flags, missing) in [(2, close, "number 3 "), (u32::MAX, none, "4294967295")] {
            let error = run(count, entering, flags).error.expect("refused");
            assert!(
                error.contains("descriptor to preserve") && error.contains(missing),
                "{count} {entering}: {error}"
            );
        }
    }
    sandbox.assert_clean();
}

/// On a network file system root may be a stranger, as here where the owner is not mapped.
#[test]
fn a_working_directory_of_the_user_alone() {
    let sandbox = Sandbox::new("cwd");
    let home = sandbox.root().join("home");
    fs::create_dir(&home).expect("mkdir");
    std::os::unix::fs::chown(&home, Some(0), Some(100_102)).expect("chown");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    fs::set_permissions(&home, mode).expect("chmod");
    let mut spec = sandbox.command(&["/bin/pwd"]);
    common::with_user_namespace(&mut spec);
    set_process(&mut spec, |p| {
        p.set_cwd("/home".into());
    });
    let error = sandbox.run(&spec).error.expect("root may not");
    assert!(error.contains("/home: EACCES"), "{error}");
    let mut options = sandbox.options();
    options.user = Some("web".into());
    assert_eq!(sandbox.run_with(&spec, options).ok(), "/home");
    sandbox.assert_clean();
}

/// After the filter is in place nothing but the exec may be needed, also where it has to be tried
/// again.
#[test]
fn a_program_that_is_being_written() {
    let sandbox = Sandbox::new("busy");
    let program = sandbox.root().join("bin/written");
    common::install(&program, &fs::read("/bin/busybox").expect("busybox"));
    let mut spec = sandbox.command(&["/bin/written"]);
    let calls = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
        "names": ["nanosleep", "clock_nanosleep"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    common::probe::set_profile(&mut spec, Some(common::probe::profile(calls)));
    let _writer = fs::OpenOptions::new()
        .append(true)
        .open(&program)
        .expect("open");
    let outcome = sandbox.run(&spec);
    let error = outcome.error.expect("busy");
    assert!(error.contains("Text file busy"), "{error}");
    sandbox.assert_clean();
}
