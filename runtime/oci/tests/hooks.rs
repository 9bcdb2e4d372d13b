//! What hooks find, and what becomes of it when they fail.

mod common;
use common::Bundle;
use serde_json::json;
use std::fs;

/// What one of them does not do, the others may (runtime.md, "Lifecycle", 13).
#[test]
fn hooks_after_its_end_all_run() {
    let bundle = Bundle::new("poststop");
    let log = bundle.dir.path().join("log");
    let hook = |name: &str, code: i32| {
        let script = format!("echo {name} >> {}; exit {code}", log.display());
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
    };
    let absent = json!({ "path": "/no/such/hook" });
    let list = json!([hook("one", 3), hook("two", 0), absent, hook("three", 0)]);
    bundle.args(&["/bin/true"]);
    bundle.change(json!({ "hooks": { "poststop": list } }));
    let said = bundle.oci(&["run", "c"]);
    said.ok();
    assert_eq!(fs::read_to_string(&log).expect("log"), "one\ntwo\nthree\n");
    for word in ["poststop[0]", "exit code 3", "poststop[2]", "/no/such/hook"] {
        assert!(said.stderr.contains(word), "{said:?}");
    }
    assert_eq!(said.stderr.matches("poststop").count(), 2, "{said:?}");
    bundle.assert_clean();
}

/// A foreground `run` takes signals by other means than handlers, and its caller may ignore some.
#[test]
fn hooks_have_the_default_signals() {
    let bundle = Bundle::new("hooksignals");
    let seen = bundle.dir.path().join("seen");
    let script = format!(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status >> {}",
        seen.display()
    );
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
    bundle.args(&["/bin/true"]);
    bundle.change(
        json!({ "hooks": { "createRuntime": hook, "createContainer": hook, "poststart": hook } }),
    );
    let script = "trap '' HUP USR1; exec \"$0\" --root \"$1\" run c";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, common::RUNTIME]);
    command.arg(bundle.state()).current_dir(bundle.dir.path());
    common::Said::from(command.output().expect("runtime")).ok();
    let text = fs::read_to_string(&seen).expect("seen");
    assert_eq!(text.lines().count(), 6, "{text}");
    for line in text.lines() {
        assert!(line.ends_with("\t0000000000000000"), "{text}");
    }
    bundle.assert_clean();
}

/// Docker's hook brings a network device, of which a setting may be (`docker run --sysctl
/// net.ipv4.conf.eth0.rp_filter=0`).
#[test]
fn settings_of_what_a_hook_brings() {
    let bundle = Bundle::new("hooksysctl");
    let script = "read state; pid=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
                  exec nsenter --target $pid --net ip link add eth0 type veth peer name far0";
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }]);
    let name = "net.ipv4.conf.eth0.rp_filter";
    bundle.args(&["/bin/cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]);
    bundle.change(json!({ "hooks": { "prestart": hook }, "linux": { "sysctl": { name: "2" } } }));
    assert_eq!(bundle.oci(&["run", "c"]).ok(), "2");
    bundle.assert_clean();
}
