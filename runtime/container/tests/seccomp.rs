//! Filters of system calls, in containers.
#![cfg(target_arch = "x86_64")] // the probe is machine code

mod common;
use common::agent::{self, Answer};
use common::probe::{self, Call, asking, probing, profile, set_no_new_privileges, set_profile};
use common::{Outcome, Sandbox, set_process};
use oci_spec::runtime::{Capabilities, Capability};
use serde_json::json;

const SIGSYS: Option<i32> = Some(31);
const EPERM: i64 = -1;
const ENOSYS: i64 = -38;

fn probe(sandbox: &Sandbox, value: serde_json::Value, calls: &[Call]) -> Outcome {
    let outcome = sandbox.run(&probing(sandbox, Some(profile(value)), calls));
    assert!(outcome.error.is_none(), "{outcome:?}");
    outcome
}

fn results(sandbox: &Sandbox, value: serde_json::Value, calls: &[Call]) -> Vec<i64> {
    probe::results(probe(sandbox, value, calls).ok())
}

#[test]
fn actions() {
    let sandbox = Sandbox::new("actions");
    let rule = |name: &str, action: &str, errno: Option<u32>| {
        let mut rule = json!({"names": [name], "action": action});
        if let Some(errno) = errno {
            rule["errnoRet"] = errno.into();
        }
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    let mkdir = |path: &str| Call::path(libc::SYS_mkdir, path, &[0o755]);
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(77), -77),
        ("SCMP_ACT_ERRNO", Some(0), 0),
        ("SCMP_ACT_TRACE", None, ENOSYS), // nobody traces
    ] {
        let got = results(&sandbox, rule("mkdir", action, errno), &[mkdir("/tmp/no")]);
        assert_eq!(got, [expected], "{action} {errno:?}");
        assert!(!common::exists(sandbox.root().join("tmp/no")), "{action}");
    }
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        let path = format!("/tmp/{action}");
        assert_eq!(
            results(&sandbox, rule("mkdir", action, None), &[mkdir(&path)]),
            [0]
        );
        assert!(common::exists(
            sandbox.root().join(path.trim_start_matches('/'))
        ));
    }
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        let outcome = probe(&sandbox, rule("mkdir", action, None), &[mkdir("/tmp/no")]);
        assert_eq!(outcome.signal, SIGSYS, "{action}: {outcome:?}");
        assert!(!common::exists(sandbox.root().join("tmp/no")), "{action}");
    }
    sandbox.assert_clean();
}

#[test]
fn operators_and_arguments() {
    let sandbox = Sandbox::new("operators");
    let umask = |args: &[u64]| Call::new(libc::SYS_umask, args);
    let high = 0x1_0000_0010;
    let calls = [umask(&[15]), umask(&[16]), umask(&[17]), umask(&[high])];
    // Whether the filter meets 15, 16, 17 and 16 with a bit above the 32nd.
    for (op, value, two, hits) in [
        ("SCMP_CMP_NE", 16, 0, [true, false, true, true]),
        ("SCMP_CMP_LT", 16, 0, [true, false, false, false]),
        ("SCMP_CMP_LE", 16, 0, [true, true, false, false]),
        ("SCMP_CMP_EQ", 16, 0, [false, true, false, false]),
        ("SCMP_CMP_GE", 16, 0, [false, true, true, true]),
        ("SCMP_CMP_GT", 16, 0, [false, false, true, true]),
        ("SCMP_CMP_MASKED_EQ", 0x11, 0x10, [false, true, false, true]),
        ("SCMP_CMP_EQ", high, 0, [false, false, false, true]),
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
            "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]}]});
        let got: Vec<bool> = results(&sandbox, profile, &calls)
            .iter()
            .map(|r| *r == -77)
            .collect();
        assert_eq!(got, hits, "{op} {value}");
    }
    // Different arguments: all must match. The same one: each stands for itself.
    let two = |first: u32, second: u32| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
            "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [
                {"index": first, "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": second, "value": 2, "op": "SCMP_CMP_EQ"}]}]})
    };
    let calls = [
        umask(&[1, 0]),
        umask(&[0, 2]),
        umask(&[1, 2]),
        umask(&[2, 0]),
    ];
    let hits = |profile| -> Vec<bool> {
        results(&sandbox, profile, &calls)
            .iter()
            .map(|r| *r == -77)
            .collect()
    };
    assert_eq!(hits(two(0, 1)), [false, false, true, false]);
    assert_eq!(hits(two(0, 0)), [true, false, true, true]);
}

#[test]
fn default_errno_and_new_calls() {
    let sandbox = Sandbox::new("default");
    let calls = [
        Call::new(libc::SYS_getuid, &[]),
        Call::new(libc::SYS_openat2, &[]), // the highest that is named
        Call::new(libc::SYS_openat2 + 1, &[]),
        Call::new(900, &[]),
    ];
    let with = |default: serde_json::Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["execve", "write", "exit"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]});
        for (key, value) in default.as_object().expect("object") {
            profile[key] = value.clone();
        }
        profile
    };
    let got = results(&sandbox, with(json!({})), &calls);
    assert_eq!(got, [EPERM, -5, ENOSYS, ENOSYS]);
    let got = results(&sandbox, with(json!({"defaultErrnoRet": 99})), &calls);
    assert_eq!(got, [-99, -5, ENOSYS, ENOSYS]);
    // Also where the default ends the process: a C library may still try.
    let killing = with(json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}));
    assert_eq!(
        results(&sandbox, killing.clone(), &calls[1..]),
        [-5, ENOSYS, ENOSYS]
    );
    assert_eq!(probe(&sandbox, killing, &calls).signal, SIGSYS);
}

#[test]
fn other_architectures() {
    let sandbox = Sandbox::new("archs");
    let calls = [Call::int80(20, &[])]; // getpid
    let free = sandbox.run(&probing(&sandbox, None, &calls));
    if free.signal.is_some() || probe::results(&free.stdout) != [1] {
        eprintln!("skipped: this kernel does not run 32-bit calls ({free:?})");
    } else {
        let with = |archs: &[&str]| {
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": [
                {"names": ["execve", "write", "exit", "getpid"], "action": "SCMP_ACT_ALLOW"}]})
        };
        let own = ["SCMP_ARCH_X86_64"];
        assert_eq!(probe(&sandbox, with(&own), &calls).signal, SIGSYS);
        let both = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"];
        assert_eq!(results(&sandbox, with(&both), &calls), [1]);
        let other = [Call::int80(5, &[])]; // open
        assert_eq!(
            results(&sandbox, with(&both), &other)[0] as i32,
            EPERM as i32
        );
        // The default policy has it.
        let mut spec = probing(&sandbox, None, &calls);
        let policy = container::defaults::seccomp(&container::defaults::capabilities());
        set_profile(&mut spec, Some(policy));
        assert_eq!(probe::results(sandbox.run(&spec).ok()), [1]);
    }
    // The third table of x86-64 is another architecture, too.
    let x32 = [Call::new(libc::SYS_getpid + 0x4000_0000, &[])];
    let allowing = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL"}]});
    assert_eq!(probe(&sandbox, allowing, &x32).signal, SIGSYS);
}

#[test]
fn only_what_must_be_allowed() {
    let sandbox = Sandbox::new("tail");
    let calls = [Call::new(900, &[])];
    let with = |more: &[&str]| {
        let names = [&["execve", "write", "exit"], more].concat();
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"}]})
    };
    // The first three are the program's own.
    for on in [true, false] {
        let mut spec = probing(&sandbox, Some(profile(with(&[]))), &calls);
        set_no_new_privileges(&mut spec, on);
        assert_eq!(probe::results(sandbox.run(&spec).ok()), [ENOSYS], "{on}");
        // And by its name only.
        set_process(&mut spec, |p| {
            p.set_args(Some(vec!["probe".into()]));
        });
        assert_eq!(probe::results(sandbox.run(&spec).ok()), [ENOSYS], "{on}");
    }
    // With an agent the report and the word to start are under the filter, too.
    let path = sandbox.dir.path().join("agent.sock");
    let mut value = with(&["read"]);
    value["listenerPath"] = path.to_str().expect("utf-8").into();
    let rule = json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"});
    value["syscalls"].as_array_mut().expect("list").push(rule);
    let calls = [Call::path(libc::SYS_mkdir, "/tmp/x", &[0o700])];
    let agent = agent::start(&path, |_| Answer::Errno(42));
    let spec = probing(&sandbox, Some(profile(value)), &calls);
    let outcome = sandbox.run_with(&spec, asking(&sandbox));
    assert_eq!(probe::results(outcome.ok()), [-42]);
    assert_eq!(agent.join().expect("agent").calls, [libc::SYS_mkdir]);
}

#[test]
fn the_default_policy() {
    let sandbox = Sandbox::new("policy");
    let calls = [
        Call::new(libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64]),
        Call::new(libc::SYS_clone, &[libc::CLONE_NEWUSER as u64 | 17]),
        Call::new(libc::SYS_clone3, &[]),
        Call::new(libc::SYS_socket, &[libc::AF_ALG as u64, 5]),
        Call::new(libc::SYS_socket, &[libc::AF_VSOCK as u64, 1]),
        Call::new(libc::SYS_io_uring_setup, &[]),
        Call::new(libc::SYS_keyctl, &[]),
        Call::new(libc::SYS_personality, &[0x4_0000]),
        Call::new(libc::SYS_mount, &[]),
        Call::new(900, &[]),
    ];
    let refused = [
        EPERM, EPERM, ENOSYS, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, ENOSYS,
    ];
    let policy = container::defaults::seccomp(&container::defaults::capabilities());
    let mut spec = probing(&sandbox, Some(policy), &calls);
    for user in ["root", "web"] {
        for privileges in [true, false] {
            set_no_new_privileges(&mut spec, privileges);
            let mut options = sandbox.options();
            options.user = Some(user.into());
            let outcome = sandbox.run_with(&spec, options);
            assert_eq!(probe::results(outcome.ok()), refused, "{user} {privileges}");
        }
    }
    let allowed = [
        Call::new(libc::SYS_socket, &[libc::AF_INET as u64, 1]),
        Call::new(libc::SYS_personality, &[0xffff_ffff]),
    ];
    let policy = container::defaults::seccomp(&container::defaults::capabilities());
    let spec = probing(&sandbox, Some(policy), &allowed);
    assert_eq!(probe::results(sandbox.run(&spec).ok()), [3, 0]);

    // With the capability the calls reach the kernel, which finds the arguments bad.
    let admin: Capabilities = [Capability::SysAdmin].into_iter().collect();
    let calls = [
        Call::new(libc::SYS_clone3, &[0, 0]),
        Call::new(libc::SYS_mount, &[1, 1, 1]),
    ];
    let mut spec = probing(&sandbox, Some(container::defaults::seccomp(&admin)), &calls);
    set_process(&mut spec, |p| {
        p.set_capabilities(Some(container::defaults::capability_sets(admin)));
    });
    let got = probe::results(sandbox.run(&spec).ok());
    assert_eq!(got, [-i64::from(libc::EINVAL), -i64::from(libc::EFAULT)]);
}

#[test]
fn what_the_kernel_shows() {
    let sandbox = Sandbox::new("status");
    let line = |status: &str, name: &str| -> String {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .expect(name);
        line.trim_start_matches(':').trim().into()
    };
    let mut spec = sandbox.command(&["/bin/cat", "/proc/self/status"]);
    for (user, privileges, held) in [
        ("root", true, "00000000a80425fb"),
        ("root", false, "00000000a80425fb"),
        ("web", true, "0000000000000000"),
        ("web", false, "0000000000000000"),
    ] {
        set_no_new_privileges(&mut spec, privileges);
        let mut options = sandbox.options();
        options.user = Some(user.into());
        let outcome = sandbox.run_with(&spec, options);
        let status = outcome.ok();
        assert_eq!(line(status, "Seccomp"), "2", "{user}");
        assert_eq!(line(status, "Seccomp_filters"), "1", "{user}");
        assert_eq!(
            line(status, "NoNewPrivs"),
            if privileges { "1" } else { "0" }
        );
        // What installing the filter took is gone.
        assert_eq!(line(status, "CapPrm"), held, "{user} {privileges}");
        assert_eq!(line(status, "CapEff"), held, "{user} {privileges}");
        assert_eq!(
            line(status, "CapBnd"),
            "00000000a80425fb",
            "{user} {privileges}"
        );
    }
    set_profile(&mut spec, None);
    let outcome = sandbox.run(&spec);
    assert_eq!(line(outcome.ok(), "Seccomp"), "0");
}

#[test]
fn flags() {
    let sandbox = Sandbox::new("flags");
    let path = sandbox.dir.path().join("agent.sock");
    let known = container::seccomp::known();
    let supported = known.supported_flags().clone().expect("flags");
    assert!(supported.len() >= 3, "{supported:?}");
    let all = json!(supported);
    let calls = [Call::path(libc::SYS_mkdir, "/tmp/x", &[0o700])];
    let errno = json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77});
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": all, "syscalls": [errno]});
    assert_eq!(results(&sandbox, value, &calls), [-77]);
    // All of them together with a listener.
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": all, "listenerPath": path,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let agent = agent::start(&path, |_| Answer::Errno(42));
    let spec = probing(&sandbox, Some(profile(value)), &calls);
    let outcome = sandbox.run_with(&spec, asking(&sandbox));
    assert_eq!(probe::results(outcome.ok()), [-42]);
    agent.join().expect("agent");
}

#[test]
fn a_filter_compiled_before() {
    use container::seccomp::{Cache, Filter, compile};
    let sandbox = Sandbox::new("compiled");
    let refusing = |errno: u32| {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
            [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]}))
    };
    let calls = [Call::path(libc::SYS_mkdir, "/tmp/x", &[0o700])];
    let spec = probing(&sandbox, Some(refusing(77)), &calls);
    let with = |filter: Filter| {
        let mut options = sandbox.options();
        options.seccomp = Some(filter);
        sandbox.run_with(&spec, options)
    };
    let bytes = compile(&refusing(77)).expect("compiled").to_bytes();
    let read = Filter::from_bytes(&bytes).expect("read");
    assert_eq!(probe::results(with(read).ok()), [-77]);
    let cache = Cache::open(&sandbox.dir.path().join("cache")).expect("cache");
    for _ in 0..2 {
        let (filter, warning) = cache.get(&refusing(77)).expect("filter");
        assert!(warning.is_none());
        assert_eq!(probe::results(with(filter).ok()), [-77]);
    }
    // One of another profile would not do what the specification says.
    let outcome = with(compile(&refusing(78)).expect("compiled"));
    assert!(outcome.error.expect("refused").contains("linux.seccomp"));
    sandbox.assert_clean();
}

#[test]
fn programs_that_cannot_be_executed() {
    let sandbox = Sandbox::new("noexec");
    common::install(&sandbox.root().join("script"), b"#!/no/such/interpreter\n");
    let path = sandbox.dir.path().join("agent.sock");
    let asks = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let policy = container::defaults::seccomp(&container::defaults::capabilities());
    for (program, message) in [
        ("nope", "executable file not found in $PATH"),
        ("/script", "interpreter"),
    ] {
        let mut spec = sandbox.command(&[program]);
        set_profile(&mut spec, Some(policy.clone()));
        let error = sandbox.run(&spec).error.expect("refused");
        assert!(error.contains(message), "{error}");
        sandbox.assert_clean();

        set_profile(&mut spec, Some(profile(asks.clone())));
        let socket = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let outcome = sandbox.run_with(&spec, asking(&sandbox));
        assert_eq!(outcome.code, 127, "{outcome:?}");
        assert!(outcome.error.expect("refused").contains(message));
        drop(socket);
        std::fs::remove_file(&path).expect("remove");
        sandbox.assert_clean();
    }
}
