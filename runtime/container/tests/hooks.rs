//! Hooks: when and where they run, what they are told, and what their failure does.

mod common;
use common::Sandbox;
use container::Identity;
use oci_spec::runtime::{Spec, State};
use std::fs;
use std::path::PathBuf;

/// A hook that appends its name, its mount namespace, whether it sees the host's root, and its
/// input to a file.
fn hook(sandbox: &Sandbox, name: &str) -> serde_json::Value {
    let log = sandbox.dir.path().join("log");
    let script = format!(
        "echo {name} $0 $VALUE $(readlink /proc/self/ns/mnt) >> {0}; cat >> {0}; echo >> {0}",
        log.display()
    );
    serde_json::json!({ "path": "/bin/sh", "args": [name, "-c", script], "env": ["VALUE=v", "PATH=/bin:/usr/bin"] })
}

fn with_hooks(spec: &Spec, hooks: serde_json::Value) -> Spec {
    let mut value = serde_json::to_value(spec).expect("json");
    value["hooks"] = hooks;
    serde_json::from_value(value).expect("spec")
}

fn options(sandbox: &Sandbox) -> container::CreateOptions {
    let mut options = sandbox.options();
    options.identity = Some(Identity {
        id: "hooked".into(),
        bundle: PathBuf::from("/the/bundle"),
    });
    options
}

#[test]
fn in_their_order_and_places() {
    let sandbox = Sandbox::new("hooks");
    let names = ["prestart", "createRuntime", "createContainer"];
    let mut hooks = serde_json::Map::new();
    for name in names {
        hooks.insert(name.into(), serde_json::json!([hook(&sandbox, name)]));
    }
    // This one runs inside, where the log is not.
    let inside = "echo startContainer $(pwd) > /tmp/inside; cat >> /tmp/inside";
    let inside = serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"] }]);
    hooks.insert("startContainer".into(), inside);
    let mut spec = with_hooks(
        &sandbox.script("cat /tmp/inside; readlink /proc/self/ns/mnt"),
        hooks.into(),
    );
    spec.set_annotations(Some([("key".to_string(), "value".to_string())].into()));
    let outcome = sandbox.run_with(&spec, options(&sandbox));
    let lines: Vec<_> = outcome.ok().lines().collect();
    assert_eq!(lines[0], "startContainer /");
    let state: State = serde_json::from_str(
        lines[1]
            .rsplit_once('}')
            .map(|(s, _)| format!("{s}}}"))
            .expect("state")
            .as_str(),
    )
    .expect("state");
    assert_eq!(
        (state.status().to_string().as_str(), *state.pid()),
        ("created", Some(1))
    );
    let container = lines[1].rsplit_once('}').expect("namespace").1;

    let log = fs::read_to_string(sandbox.dir.path().join("log")).expect("log");
    let host = fs::read_link("/proc/self/ns/mnt").expect("namespace");
    let lines: Vec<_> = log.lines().collect();
    for (i, name) in names.iter().enumerate() {
        let namespace = match *name {
            "createContainer" => container.to_string(),
            _ => host.to_string_lossy().into_owned(),
        };
        assert_eq!(
            lines[2 * i],
            format!("{name} {name} v {namespace}"),
            "{log}"
        );
        let state: State = serde_json::from_str(lines[2 * i + 1]).expect("state");
        assert_eq!(state.id(), "hooked");
        assert_eq!(state.status().to_string(), "creating");
        assert_eq!(state.bundle(), &PathBuf::from("/the/bundle"));
        assert_eq!(
            state.annotations().as_ref().expect("annotations")["key"],
            "value"
        );
        let pid = state.pid().expect("pid");
        assert_eq!(pid == 1, *name == "createContainer", "{log}");
    }
    sandbox.assert_clean();
}

#[test]
fn failures() {
    let sandbox = Sandbox::new("hookfails");
    for point in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let sh =
            |script: &str| serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        let cases = [
            (
                sh("echo the reason >&2; exit 7"),
                vec!["exit code 7", "the reason"],
            ),
            (
                serde_json::json!({ "path": "/no/such/hook" }),
                vec!["/no/such/hook", "ENOENT"],
            ),
            (
                serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 30"], "env": ["PATH=/bin:/usr/bin"], "timeout": 1 }),
                vec!["killed after 1 s"],
            ),
        ];
        for (hook, words) in cases {
            let mut hooks = serde_json::Map::new();
            hooks.insert(point.into(), serde_json::json!([hook]));
            let spec = with_hooks(&sandbox.script("echo started"), hooks.into());
            let outcome = sandbox.run_with(&spec, options(&sandbox));
            let error = outcome.error.expect("failed");
            let name = format!("{point}[0]");
            for word in words.into_iter().chain([name.as_str()]) {
                assert!(error.contains(word), "{point}: {error} does not say {word}");
            }
            assert_eq!(outcome.stdout, "");
            sandbox.assert_clean();
        }
    }
}

#[test]
fn a_hook_that_does_not_read_blocks_nobody() {
    let sandbox = Sandbox::new("deafhook");
    let deaf = serde_json::json!({ "createRuntime": [{ "path": "/bin/true" }, { "path": "/bin/sh", "args": ["sh", "-c", "head -c 1000000 /dev/zero"], "env": ["PATH=/bin:/usr/bin"] }] });
    let mut spec = with_hooks(&sandbox.script("echo ran"), deaf);
    // Far more than a pipe holds.
    spec.set_annotations(Some([("key".to_string(), "x".repeat(1 << 20))].into()));
    assert_eq!(sandbox.run_with(&spec, options(&sandbox)).ok(), "ran");
    sandbox.assert_clean();
}

#[test]
fn hooks_of_nobody() {
    let sandbox = Sandbox::new("nobodyshook");
    let spec = with_hooks(
        &sandbox.script("true"),
        serde_json::json!({ "poststop": [{ "path": "/bin/true" }] }),
    );
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(error.contains("hooks.poststop"), "{error}");
    sandbox.assert_clean();
}
