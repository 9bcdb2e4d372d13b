//! Specifications that are refused: with the field's name, and with nothing left behind.

mod common;
use common::{Sandbox, set_linux, set_process, set_resources};
use oci_spec::runtime::Spec;

fn refused(sandbox: &Sandbox, json: serde_json::Value, words: &[&str]) {
    // Through JSON, as a bundle would have it.
    let mut value = serde_json::to_value(sandbox.script("true")).expect("json");
    merge(&mut value, json.clone());
    let spec: Spec = serde_json::from_value(value).expect("spec");
    let outcome = sandbox.run(&spec);
    let error = outcome
        .error
        .unwrap_or_else(|| panic!("{json} was accepted"));
    for word in words {
        assert!(
            error.contains(word),
            "{json}: \"{error}\" does not say \"{word}\""
        );
    }
    assert_eq!(outcome.code, 125);
    sandbox.assert_clean();
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn fields_that_are_not_supported() {
    let sandbox = Sandbox::new("unsupported");
    let json = |text: &str| serde_json::from_str(text).expect("json");
    for (text, words) in [
        (
            r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_NOTIFY","defaultErrnoRet":null}}}"#,
            vec!["linux.seccomp.defaultAction", "not supported"],
        ),
        (
            r#"{"hooks":{"poststop":[{"path":"/bin/true"}]}}"#,
            vec!["hooks"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"user"}]}}"#,
            vec!["linux.uidMappings", "missing"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1,"size":0}],"gidMappings":[{"containerID":0,"hostID":1,"size":1}]}}"#,
            vec!["linux.uidMappings", "empty"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"network","path":"/proc/self/ns/uts"}]}}"#,
            vec!["linux.namespaces[1].path", "not a net namespace"],
        ),
        (
            r#"{"linux":{"timeOffsets":{"boottime":{"secs":1}}}}"#,
            vec!["linux.timeOffsets", "time namespace"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}}}"#,
            vec!["linux.timeOffsets.realtime"],
        ),
        (
            r#"{"linux":{"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}}"#,
            vec!["linux.uidMappings"],
        ),
        (r#"{"process":{"terminal":true}}"#, vec!["process.terminal"]),
        (
            r#"{"process":{"selinuxLabel":"x"}}"#,
            vec!["process.selinuxLabel", "SELinux"],
        ),
        (
            r#"{"linux":{"mountLabel":"x"}}"#,
            vec!["linux.mountLabel", "SELinux"],
        ),
        (
            r#"{"process":{"scheduler":{"policy":"SCHED_OTHER","nice":20}}}"#,
            vec!["process.scheduler.nice"],
        ),
        (
            r#"{"process":{"scheduler":{"policy":"SCHED_FIFO"}}}"#,
            vec!["process.scheduler.priority"],
        ),
        (
            r#"{"process":{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}}"#,
            vec!["process.ioPriority"],
        ),
        (
            r#"{"process":{"execCPUAffinity":{"initial":"3-1"}}}"#,
            vec!["process.execCPUAffinity.initial", "backwards"],
        ),
        (
            r#"{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"3-1"}}}"#,
            vec!["linux.memoryPolicy.nodes", "backwards"],
        ),
        (
            r#"{"linux":{"rootfsPropagation":"public"}}"#,
            vec!["linux.rootfsPropagation"],
        ),
        (
            r#"{"linux":{"personality":{"domain":"LINUX32","flags":["X"]}}}"#,
            vec!["linux.personality.flags"],
        ),
        (
            r#"{"linux":{"resources":{"blockIO":{"weight":5}}}}"#,
            vec!["linux.resources.blockIO"],
        ),
        (
            r#"{"linux":{"resources":{"unified":{"../memory.high":"1"}}}}"#,
            vec!["linux.resources.unified"],
        ),
        (
            r#"{"linux":{"resources":{"cpu":{"realtimeRuntime":1}}}}"#,
            vec!["cpu.realtimeRuntime"],
        ),
        (
            r#"{"linux":{"resources":{"memory":{"kernel":1}}}}"#,
            vec!["memory.kernel"],
        ),
        (
            r#"{"mounts":[{"destination":"/proc/version","type":"bind","source":"/etc/passwd","options":["bind"]}]}"#,
            vec!["mounts[0].destination", "/proc"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"bind","source":"/etc","options":["bind","idmap"]}]}"#,
            vec!["mounts[0].uidMappings", "no maps"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"tmpfs","options":["idmap"]}]}"#,
            vec!["mounts[0].options", "bind"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"bind","source":"/etc","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}]}"#,
            vec!["mounts[0].uidMappings", "idmap"],
        ),
    ] {
        refused(&sandbox, json(text), &words);
    }
}

#[test]
fn values_that_make_no_sense() {
    let sandbox = Sandbox::new("invalid");
    let json = |text: &str| serde_json::from_str(text).expect("json");
    for (text, words) in [
        (r#"{"ociVersion":"2.0.0"}"#, vec!["ociVersion"]),
        (r#"{"process":{"args":[]}}"#, vec!["process.args"]),
        (
            r#"{"process":{"args":["a\u0000b"]}}"#,
            vec!["process.args", "NUL"],
        ),
        (
            r#"{"process":{"env":["NOVALUE"]}}"#,
            vec!["process.env", "NOVALUE"],
        ),
        (
            r#"{"process":{"cwd":"relative"}}"#,
            vec!["process.cwd", "absolute"],
        ),
        (r#"{"process":{"cwd":"/a/../b"}}"#, vec!["process.cwd"]),
        (
            r#"{"process":{"user":{"uid":4294967295,"gid":0}}}"#,
            vec!["process.user.uid", "no id"],
        ),
        (
            r#"{"process":{"user":{"uid":0,"gid":4294967295}}}"#,
            vec!["process.user.gid", "no id"],
        ),
        (
            r#"{"process":{"oomScoreAdj":1001}}"#,
            vec!["process.oomScoreAdj"],
        ),
        (
            r#"{"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]}}"#,
            vec!["process.rlimits[0]"],
        ),
        (
            r#"{"process":{"capabilities":{"permitted":[]}}}"#,
            vec!["effective", "not permitted"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#,
            vec!["mounts", "mount namespace"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"mount"}]}}"#,
            vec!["namespaces[1]", "second"],
        ),
        (
            r#"{"linux":{"namespaces":[{"type":"mount"}]},"hostname":"x"}"#,
            vec!["hostname", "UTS"],
        ),
        (
            r#"{"hooks":{"createRuntime":[{"path":"true"}]}}"#,
            vec!["hooks.createRuntime[0].path", "absolute"],
        ),
        (
            r#"{"hooks":{"poststop":[{"path":"/bin/true","timeout":0}]}}"#,
            vec!["hooks.poststop[0].timeout"],
        ),
        (
            r#"{"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":1},{"type":"RLIMIT_CORE","soft":0,"hard":1}]}}"#,
            vec!["process.rlimits[1]", "second"],
        ),
        (
            r#"{"linux":{"sysctl":{"kernel.panic":"1"}}}"#,
            vec!["linux.sysctl.kernel.panic"],
        ),
        (
            r#"{"linux":{"sysctl":{"net/../kernel/panic":"1"}}}"#,
            vec!["linux.sysctl"],
        ),
        (
            r#"{"mounts":[{"destination":"/","type":"tmpfs"}]}"#,
            vec!["mounts[0].destination"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"bind","options":["bind"]}]}"#,
            vec!["mounts[0].source"],
        ),
        (
            r#"{"mounts":[{"destination":"/x/../../y","type":"tmpfs"}]}"#,
            vec!["mounts[0].destination"],
        ),
    ] {
        refused(&sandbox, json(text), &words);
    }
}

#[test]
fn failures_during_the_set_up() {
    let sandbox = Sandbox::new("setup");
    let json = |text: &str| serde_json::from_str(text).expect("json");
    for (text, words) in [
        (
            r#"{"mounts":[{"destination":"/x","type":"bind","source":"/no/such/source","options":["bind"]}]}"#,
            vec!["/no/such/source", "ENOENT"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"nosuchfs"}]}"#,
            vec!["nosuchfs", "ENODEV"],
        ),
        (
            r#"{"mounts":[{"destination":"/x","type":"tmpfs","options":["size=nonsense"]}]}"#,
            vec!["size", "tmpfs at /x"],
        ),
        (
            r#"{"linux":{"sysctl":{"net.ipv4.no_such_thing":"1"}}}"#,
            vec!["net.ipv4.no_such_thing", "ENOENT"],
        ),
        (
            r#"{"linux":{"resources":{"memory":{"limit":-7}}}}"#,
            vec!["memory."],
        ),
    ] {
        refused(&sandbox, json(text), &words);
    }
    let mut options = sandbox.options();
    options.rootfs = container::Rootfs::Directory("/no/such/root".into());
    let outcome = sandbox.run_with(&sandbox.script("true"), options);
    assert!(outcome.error.is_some_and(|e| e.contains("/no/such/root")));
    sandbox.assert_clean();
}

/// Not refused: the specification wants a warning.
#[test]
fn a_capability_beyond_ours_is_a_warning() {
    use oci_spec::runtime::{Capabilities, Capability};
    let sandbox = Sandbox::new("beyond");
    let mut spec = sandbox.script("grep ^Cap /proc/self/status");
    set_process(&mut spec, |p| {
        let list = [Capability::SysResource, Capability::Chown];
        let list: Capabilities = list.into_iter().collect();
        p.set_capabilities(Some(container::defaults::capability_sets(list)));
    });
    let outcome = common::in_process(|| {
        // Where this process holds it, it is given up first.
        let _ = caps::drop(
            None,
            caps::CapSet::Bounding,
            caps::Capability::CAP_SYS_RESOURCE,
        );
        common::run_here(&spec, sandbox.options())
    });
    let sets = outcome.ok();
    // CAP_CHOWN is bit 0; nothing else is held in any set.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let line = format!("{set}:\t0000000000000001");
        assert!(sets.contains(&line), "{set}: {sets}");
    }
    assert_eq!(outcome.warnings.len(), 1, "{outcome:?}");
    let warning = &outcome.warnings[0];
    assert!(
        warning.contains("CAP_SYS_RESOURCE") && warning.contains("bounding set"),
        "{warning}"
    );
}

#[test]
fn a_second_cgroup_of_the_same_name() {
    let sandbox = Sandbox::new("twice");
    let cgroup =
        container::Cgroup::create(&sandbox.parent, "task", &Default::default()).expect("made");
    let outcome = sandbox.run(&sandbox.script("true"));
    assert!(outcome.error.is_some_and(|e| e.contains("exists already")));
    // The first one is untouched.
    container::Cgroup::open(&sandbox.parent, "task").expect("still there");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_caller_with_threads() {
    let sandbox = Sandbox::new("threads");
    let error = container::create(&sandbox.script("true"), sandbox.options()).expect_err("refused");
    assert!(
        matches!(error, container::ContainerError::Multithreaded),
        "{error}"
    );
    sandbox.assert_clean();
}

#[test]
fn limits_without_a_cgroup() {
    let sandbox = Sandbox::new("nocgroup");
    let mut options = sandbox.options();
    options.cgroup = None;
    let outcome = sandbox.run_with(&sandbox.script("true"), options);
    assert!(outcome.error.is_some_and(|e| e.contains("linux.resources")));
    let mut spec = sandbox.script("true");
    set_linux(&mut spec, |l| {
        l.set_resources(None).set_cgroups_path(Some("/x".into()));
    });
    let mut options = sandbox.options();
    options.cgroup = None;
    let outcome = sandbox.run_with(&spec, options);
    assert!(
        outcome
            .error
            .is_some_and(|e| e.contains("linux.cgroupsPath"))
    );
    let mut spec = sandbox.script("true");
    set_resources(&mut spec, |r| *r = Default::default());
    set_linux(&mut spec, |l| {
        l.set_resources(None);
    });
    let mut options = sandbox.options();
    options.cgroup = None;
    sandbox.run_with(&spec, options).ok();
}
