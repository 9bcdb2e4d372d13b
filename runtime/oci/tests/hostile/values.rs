//! Values of `config.json` that make no sense.

use super::common::{Bundle, merge};
use super::config::refused;
use serde_json::json;

#[test]
fn numbers_and_strings() {
    let bundle = Bundle::new("numbers");
    let whole = bundle.config();
    let devices = |major: i64, minor: i64| json!({ "linux": { "devices": [{ "path": "/dev/x", "type": "c", "major": major, "minor": minor }] } });
    let cases = [
        (
            "a negative user",
            json!({ "process": { "user": { "uid": -1, "gid": 0 } } }),
            vec!["process.user.uid"],
        ),
        (
            "a large user",
            json!({ "process": { "user": { "uid": 4294967296u64, "gid": 0 } } }),
            vec!["process.user.uid"],
        ),
        (
            "half a user",
            json!({ "process": { "user": { "uid": 1.5, "gid": 0 } } }),
            vec!["process.user.uid"],
        ),
        (
            "a user in words",
            json!({ "process": { "user": { "uid": "root", "gid": 0 } } }),
            vec!["process.user.uid"],
        ),
        (
            "a large group",
            json!({ "process": { "user": { "uid": 0, "gid": 0, "additionalGids": [-1] } } }),
            vec!["additionalGids"],
        ),
        (
            "a negative limit",
            json!({ "process": { "rlimits": [{ "type": "RLIMIT_CORE", "soft": -1, "hard": 1 }] } }),
            vec!["process.rlimits[0].soft"],
        ),
        (
            "an unknown limit",
            json!({ "process": { "rlimits": [{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }] } }),
            vec!["process.rlimits[0].type"],
        ),
        (
            "a large number",
            json!({ "linux": { "resources": { "memory": { "limit": 1e300 } } } }),
            vec!["linux.resources.memory.limit"],
        ),
        (
            "a negative memory",
            json!({ "linux": { "resources": { "memory": { "limit": -7 } } } }),
            vec!["memory"],
        ),
        (
            "a negative share",
            json!({ "linux": { "resources": { "cpu": { "shares": -1 } } } }),
            vec!["cpu.shares"],
        ),
        (
            "a device cut off",
            devices(4096 + 1, 1),
            vec!["linux.devices[0].major"],
        ),
        (
            "a device cut off",
            devices(1, (1 << 20) + 1),
            vec!["linux.devices[0].minor"],
        ),
        (
            "a device cut off",
            devices(i64::MAX, 0),
            vec!["linux.devices[0].major"],
        ),
        (
            "a negative device",
            devices(1, -1),
            vec!["linux.devices[0].minor"],
        ),
        (
            "no program",
            json!({ "process": { "args": [] } }),
            vec!["process.args"],
        ),
        (
            "no program",
            json!({ "process": { "args": null } }),
            vec!["process.args"],
        ),
        (
            "a program without a name",
            json!({ "process": { "args": [""] } }),
            vec!["exec"],
        ),
        (
            "NUL",
            json!({ "process": { "args": ["/bin/true", "a\0b"] } }),
            vec!["process.args", "NUL"],
        ),
        (
            "NUL",
            json!({ "process": { "env": ["A=\0"] } }),
            vec!["process.env", "NUL"],
        ),
        (
            "NUL",
            json!({ "process": { "cwd": "/\0" } }),
            vec!["process.cwd"],
        ),
        (
            "NUL",
            json!({ "hostname": "a\0b" }),
            vec!["hostname", "NUL"],
        ),
        (
            "NUL",
            json!({ "domainname": "a\0b" }),
            vec!["domainname", "NUL"],
        ),
        (
            "NUL",
            json!({ "root": { "path": "root\0fs" } }),
            vec!["root"],
        ),
        (
            "NUL",
            json!({ "linux": { "maskedPaths": ["/a\0b"] } }),
            vec!["linux.maskedPaths"],
        ),
        (
            "NUL",
            json!({ "mounts": [{ "destination": "/a\0b", "type": "tmpfs" }] }),
            vec!["mounts[0].destination"],
        ),
        (
            "NUL",
            json!({ "mounts": [{ "destination": "/a", "type": "tm\0pfs" }] }),
            vec!["/a"],
        ),
        (
            "NUL",
            json!({ "mounts": [{ "destination": "/a", "type": "tmpfs", "options": ["size=\0"] }] }),
            vec!["/a"],
        ),
        (
            "NUL",
            json!({ "mounts": [{ "destination": "/a", "type": "bind", "source": "/\0" }] }),
            vec!["mounts[0].source"],
        ),
        (
            "NUL",
            json!({ "linux": { "sysctl": { "net.x\0": "1" } } }),
            vec!["sysctl"],
        ),
        (
            "..",
            json!({ "mounts": [{ "destination": "/a/../../b", "type": "tmpfs" }] }),
            vec!["mounts[0].destination"],
        ),
        (
            "a source that is not there, beside the bundle",
            json!({ "mounts": [{ "destination": "/a", "type": "bind", "source": "../not-there" }] }),
            vec!["../not-there"],
        ),
        (
            "..",
            json!({ "linux": { "maskedPaths": ["/proc/../etc"] } }),
            vec!["linux.maskedPaths"],
        ),
        (
            "..",
            json!({ "linux": { "readonlyPaths": ["../etc"] } }),
            vec!["linux.readonlyPaths"],
        ),
        (
            "over procfs",
            json!({ "mounts": [{ "destination": "/proc", "type": "tmpfs" }] }),
            vec!["mounts[0].destination"],
        ),
        (
            "over procfs",
            json!({ "mounts": [{ "destination": "/proc/self", "type": "tmpfs" }] }),
            vec!["mounts[0].destination"],
        ),
        (
            "over procfs",
            json!({ "mounts": [{ "destination": "/proc", "type": "bind", "source": "/tmp", "options": ["bind"] }] }),
            vec!["mounts[0].destination"],
        ),
        (
            "a hook by a relative path",
            json!({ "hooks": { "createRuntime": [{ "path": "bin/true" }] } }),
            vec!["hooks.createRuntime[0].path"],
        ),
        (
            "NUL",
            json!({ "hooks": { "poststop": [{ "path": "/bin/true", "env": ["A=\0"] }] } }),
            vec!["hooks.poststop[0]"],
        ),
        (
            "NUL",
            json!({ "hooks": { "prestart": [{ "path": "/bin/\0" }] } }),
            vec!["hooks.prestart[0]"],
        ),
        (
            "a number for a text",
            json!({ "hostname": 7 }),
            vec!["hostname"],
        ),
        (
            "a list for an object",
            json!({ "linux": [] }),
            vec!["mount"],
        ),
        (
            "another version",
            json!({ "ociVersion": "99999999999999999999.0" }),
            vec!["ociVersion"],
        ),
    ];
    for (what, change, words) in cases {
        let mut config = whole.clone();
        merge(&mut config, change.clone());
        refused(
            &bundle,
            &format!("{what}: {change}"),
            config.to_string(),
            &words,
        );
    }
}
