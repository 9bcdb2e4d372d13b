//! CVE-2024-21626: ways out by a descriptor of the runtime.

use super::common::{Bundle, Said};
use super::running;
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

/// Says ESCAPED when a file of the host can be seen from the working directory.
fn look(bundle: &Bundle) -> String {
    let mark = bundle.dir.path().join("mark");
    fs::write(&mark, "").expect("mark");
    format!(
        "d=.; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do \
         for f in mark .{mark}; do [ -e $d/$f ] && echo ESCAPED; done; d=$d/..; done; echo looked",
        mark = mark.display()
    )
}

/// Whatever came of it.
fn stayed(said: &Said, how: &str) {
    assert!(!said.stdout.contains("ESCAPED"), "{how}: {said:?}");
    if said.code != 0 {
        let reason = said.stderr.trim();
        assert!(
            !reason.is_empty() && !reason.contains("panicked"),
            "{how}: {said:?}"
        );
    } else {
        assert!(said.stdout.contains("looked"), "{how}: {said:?}");
    }
}

/// The runtime as a careless caller starts it, with a directory of the host open.
fn leaking(bundle: &Bundle, args: &[&str]) -> Said {
    let directory = fs::File::open("/").expect("open");
    let flags = nix::fcntl::FdFlag::empty();
    nix::fcntl::fcntl(&directory, nix::fcntl::FcntlArg::F_SETFD(flags)).expect("fcntl");
    assert!(directory.as_raw_fd() > 2);
    bundle.oci(args)
}

#[test]
fn the_working_directory() {
    let bundle = Bundle::new("cwd");
    bundle.script(&look(&bundle));
    for number in 3..24 {
        let how = format!("/proc/self/fd/{number}");
        bundle.change(json!({ "process": { "cwd": how } }));
        stayed(&leaking(&bundle, &["run", "c"]), &how);
        // By a link of the image.
        let link = bundle.root().join("work");
        let _ = fs::remove_file(&link);
        symlink(&how, &link).expect("symlink");
        bundle.change(json!({ "process": { "cwd": "/work" } }));
        stayed(&leaking(&bundle, &["run", "c"]), &format!("/work -> {how}"));
    }
    bundle.assert_clean();
}

#[test]
fn the_working_directory_of_exec() {
    let bundle = running("execcwd", &["/bin/sleep", "600"]);
    let look = look(&bundle);
    for number in 3..24 {
        for cwd in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../.."),
        ] {
            let args = ["exec", "--cwd", &cwd, "c", "/bin/sh", "-c", &look];
            stayed(&leaking(&bundle, &args), &cwd);
        }
        // Nor is a program found by one.
        let program = format!("/proc/self/fd/{number}/bin/echo");
        let said = leaking(&bundle, &["exec", "c", &program, "ESCAPED"]);
        assert_ne!(said.code, 0, "{program}: {said:?}");
    }
    let said = leaking(&bundle, &["exec", "c", "/bin/ls", "/proc/self/fd"]);
    assert_eq!(
        said.ok().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

/// What is not understood must not become somebody else (CVE-2026-30892).
#[test]
fn users_that_are_none() {
    let bundle = running("execuser", &["/bin/sleep", "600"]);
    for user in [
        "0x",
        "1:2:3",
        "1 ",
        " 1",
        "-1",
        "1:",
        ":",
        "",
        "4294967295",
        "1:4294967295",
        "99999999999",
        "web",
    ] {
        let user = format!("--user={user}");
        let said = bundle.oci(&["exec", &user, "c", "/bin/id", "-u"]);
        assert_ne!(said.code, 0, "{user:?}: {said:?}");
        assert_eq!(said.stdout, "", "{user:?}");
    }
    assert_eq!(
        bundle
            .oci(&["exec", "--user=7:8", "c", "/bin/id", "-u"])
            .ok(),
        "7"
    );
}

/// What the container has put where the runtime looks when it enters (CVE-2025-52881).
#[test]
fn a_procfs_that_the_container_has_covered() {
    let bundle = Bundle::new("execproc");
    bundle.script(
        "mkdir -p /real && mount -t proc real /real && mount -t tmpfs fake /proc && \
         mkdir -p /proc/self/attr /proc/self/fd && echo untouched > /victim && \
         for f in oom_score_adj setgroups attr/exec; do ln -s /victim /proc/self/$f; done && \
         rm /etc/passwd && mkfifo /etc/passwd && echo ready && sleep 600",
    );
    symlink("/bin/busybox", bundle.root().join("bin/mkfifo")).expect("symlink");
    let admin = json!(["CAP_SYS_ADMIN", "CAP_KILL", "CAP_DAC_OVERRIDE"]);
    bundle.change(json!({
        "process": { "capabilities": { "bounding": admin, "effective": admin, "permitted": admin } },
        "linux": { "seccomp": null, "maskedPaths": null, "readonlyPaths": null },
        "root": { "readonly": false },
    }));
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    super::common::until("the mounts", || bundle.output().contains("ready"));
    let process = bundle.dir.path().join("process.json");
    let text = json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 }, "oomScoreAdj": 321,
        "env": ["PATH=/bin"],
        "args": ["/bin/sh", "-c", "cat /real/self/oom_score_adj /victim; echo $HOME"] });
    fs::write(&process, text.to_string()).expect("write");
    let said = bundle.oci(&["exec", "--process", process.to_str().expect("utf-8"), "c"]);
    assert_eq!(said.ok(), "321\nuntouched\n/");
}
