//! Filters that ask an agent, in containers.
#![cfg(target_arch = "x86_64")] // the probe is machine code

mod common;
use common::Sandbox;
use common::agent::{self, Answer};
use common::probe::{self, Call, asking, probing, profile, set_no_new_privileges};
use serde_json::json;

const ENOSYS: i64 = -38;

#[test]
fn an_agent_answers() {
    let sandbox = Sandbox::new("agent");
    let path = sandbox.dir.path().join("agent.sock");
    // Also what the runtime itself still does: it only may not be asked about `write`.
    let names = [
        "mkdir", "rmdir", "getpid", "read", "close", "execve", "sendto", "sendmsg", "recvfrom",
        "recvmsg", "ioctl", "fcntl", "brk", "mmap",
    ];
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path, "listenerMetadata": "opaque \" text",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]});
    let calls = [
        Call::path(libc::SYS_mkdir, "/tmp/refused", &[0o755]),
        Call::new(libc::SYS_getpid, &[]),
        Call::path(libc::SYS_rmdir, "/tmp/there", &[]),
    ];
    for (privileges, user) in [
        (true, "root"),
        (false, "root"),
        (true, "web"),
        (false, "web"),
    ] {
        let there = sandbox.root().join("tmp/there");
        std::fs::create_dir_all(&there).expect("mkdir");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(sandbox.root().join("tmp"), open).expect("chmod");
        let agent = agent::start(&path, |call| match call {
            libc::SYS_mkdir => Answer::Errno(42),
            libc::SYS_getpid => Answer::Value(4242),
            _ => Answer::Continue,
        });
        let mut spec = probing(&sandbox, Some(profile(value.clone())), &calls);
        spec.set_annotations(Some([("key".to_string(), "value".to_string())].into()));
        set_no_new_privileges(&mut spec, privileges);
        let mut options = asking(&sandbox);
        options.user = Some(user.into());
        let outcome = sandbox.run_with(&spec, options);
        assert_eq!(
            probe::results(outcome.ok()),
            [-42, 4242, 0],
            "{user} {privileges}"
        );
        assert!(!there.exists(), "the agent let it go on");
        let seen = agent.join().expect("agent");
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_mkdir] {
            assert!(seen.calls.contains(&call), "{call} in {seen:?}");
        }
        let pid = &seen.state["pid"];
        assert!(pid.as_i64().is_some_and(|pid| pid > 1), "{seen:?}");
        let expected = json!({
            "ociVersion": container::defaults::OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": "opaque \" text",
            "state": {
                "ociVersion": container::defaults::OCI_VERSION,
                "id": "the-container",
                "status": "creating",
                "pid": pid,
                "bundle": "/the/bundle",
                "annotations": {"key": "value"}
            }
        });
        assert_eq!(seen.state, expected);
        std::fs::remove_file(&path).expect("remove");
    }
    sandbox.assert_clean();
}

#[test]
fn an_agent_that_is_not_there() {
    let sandbox = Sandbox::new("noagent");
    let path = sandbox.dir.path().join("agent.sock");
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let spec = probing(&sandbox, Some(profile(value)), &[]);
    let fails = |word: &str| {
        let outcome = sandbox.run_with(&spec, asking(&sandbox));
        let error = outcome.error.expect("refused");
        for word in [
            "linux.seccomp.listenerPath",
            path.to_str().expect("utf-8"),
            word,
        ] {
            assert!(error.contains(word), "{error} lacks {word}");
        }
        sandbox.assert_clean();
    };
    fails("ENOENT");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind")); // the file stays
    fails("ECONNREFUSED");
    std::fs::remove_file(&path).expect("remove");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    fails("EPROTOTYPE");
    // Nobody is told about a container without a name.
    let outcome = sandbox.run(&spec);
    assert!(
        outcome
            .error
            .expect("refused")
            .contains("linux.seccomp.listenerPath")
    );
}

#[test]
fn an_agent_that_ends() {
    let sandbox = Sandbox::new("gone");
    let path = sandbox.dir.path().join("agent.sock");
    let value = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let calls = [Call::path(libc::SYS_mkdir, "/tmp/x", &[0o700])];
    let spec = probing(&sandbox, Some(profile(value)), &calls);
    let socket = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let agent = std::thread::spawn(move || drop(socket.accept().expect("accept")));
    let outcome = sandbox.run_with(&spec, asking(&sandbox));
    agent.join().expect("agent");
    // It may have closed before or after the runtime has sent; no call waits for ever.
    match &outcome.error {
        Some(error) => assert!(error.contains("linux.seccomp.listenerPath"), "{error}"),
        None => assert_eq!(probe::results(outcome.ok()), [ENOSYS]),
    }
    sandbox.assert_clean();
}
