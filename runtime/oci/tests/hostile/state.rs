//! What is kept of containers, damaged.

use super::bounded;
use super::common::Bundle;
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

/// Somebody else's process.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep"))
    }

    fn assert_alive(&mut self, when: &str) {
        assert!(self.0.try_wait().expect("wait").is_none(), "killed: {when}");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// None of the commands panics or hangs, none harms a stranger, and the entry can be deleted.
fn survived(bundle: &Bundle, stranger: &mut Stranger, what: &str) {
    bounded(bundle, &["list"]).ok();
    for command in [
        &["state", "c"][..],
        &["start", "c"],
        &["kill", "c", "KILL"],
        &["kill", "--all", "c", "KILL"],
        &["pause", "c"],
        &["resume", "c"],
        &["ps", "c"],
        &["exec", "c", "/bin/true"],
        &["update", "--pids-limit", "10", "c"],
        &["events", "--stats", "c"],
        &["create", "c"],
    ] {
        let said = bounded(bundle, command);
        if said.code != 0 {
            assert!(
                !said.stderr.trim().is_empty(),
                "{what}, {command:?}: no reason"
            );
        }
        stranger.assert_alive(&format!("{what}, {command:?}"));
    }
    let said = bounded(bundle, &["delete", "--force", "c"]);
    assert_eq!(said.code, 0, "{what}: {said:?}");
    stranger.assert_alive(what);
    assert!(!bundle.state().join("c").exists(), "{what}: not deleted");
}

fn entry(bundle: &Bundle) -> std::path::PathBuf {
    let entry = bundle.state().join("c");
    fs::create_dir_all(&entry).expect("mkdir");
    fs::copy(
        bundle.dir.path().join("config.json"),
        entry.join("config.json"),
    )
    .expect("copy");
    entry
}

#[test]
fn texts() {
    let bundle = Bundle::new("state");
    let mut stranger = Stranger::new();
    let pid = stranger.0.id();
    let started = container::process::start_time(pid as i32).expect("start time");
    let whole = |id: &str, cgroup: &str, process: &str| {
        format!(
            r#"{{"id":{id},"bundle":"/b","rootfs":"/r","created":"x","owner":0,"cgroup":{cgroup},"process":{process}}}"#
        )
    };
    let good = whole("\"c\"", "null", "null");
    let cgroup = |parent: &str, name: &str| format!(r#"{{"parent":"{parent}","name":"{name}"}}"#);
    let mut texts: Vec<String> = ["", "{", "null", "[]", "7", "\"c\"", "{}", "\0\0\0\0"]
        .map(String::from)
        .to_vec();
    texts.extend((1..good.len()).step_by(7).map(|at| good[..at].to_string()));
    texts.push(good.clone());
    texts.push(whole("\"d\"", "null", "null"));
    texts.push(whole("7", "null", "null"));
    for process in [
        "[0,0]".to_string(),
        "[-1,0]".into(),
        "[1,0]".into(),
        "[1,1]".into(),
        "[2147483647,1]".into(),
        "[2147483648,1]".into(),
        "[-2147483648,1]".into(),
        "[1]".into(),
        "[1,2,3]".into(),
        "7".into(),
        "\"1\"".into(),
        // Its number, used again.
        format!("[{pid},{}]", started + 1),
        format!("[{pid},0]"),
        format!("[{pid},18446744073709551615]"),
        format!("[{pid},-1]"),
        format!("[{pid},{started}.5]"),
        format!("{{\"pid\":{pid}}}"),
    ] {
        texts.push(whole("\"c\"", "null", &process));
    }
    for cgroup in [
        cgroup("/", ".."),
        cgroup("/..", "x"),
        cgroup("", ""),
        cgroup("/", ""),
        cgroup("/a\\u0000", "b"),
        cgroup("/no/such", "cgroup"),
        cgroup("/", "a/b"),
        "[]".into(),
        "\"/x\"".into(),
    ] {
        texts.push(whole("\"c\"", &cgroup, "null"));
    }
    for text in texts {
        fs::write(entry(&bundle).join("state.json"), &text).expect("write");
        survived(&bundle, &mut stranger, &text);
    }
    bundle.assert_clean();
}

#[test]
fn files_of_other_kinds() {
    let bundle = Bundle::new("stateodd");
    let mut stranger = Stranger::new();
    let make: [(&str, fn(&Path)); 6] = [
        ("nothing", |_| {}),
        ("a FIFO", |path| {
            nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("fifo")
        }),
        ("a directory", |path| {
            fs::create_dir_all(path.join("x/y")).expect("mkdir")
        }),
        ("a device", |path| {
            symlink("/dev/zero", path).expect("symlink")
        }),
        ("a loop", |path| {
            symlink("state.json", path).expect("symlink")
        }),
        ("a terminal", |path| {
            symlink("/dev/tty", path).expect("symlink")
        }),
    ];
    for (what, make) in make {
        for file in ["state.json", "config.json", "start"] {
            let entry = entry(&bundle);
            if file != "state.json" {
                let state = r#"{"id":"c","bundle":"/b","rootfs":"/r","created":"x","owner":0,"cgroup":null,"process":null}"#;
                fs::write(entry.join("state.json"), state).expect("write");
            }
            let _ = fs::remove_file(entry.join(file));
            make(&entry.join(file));
            survived(&bundle, &mut stranger, &format!("{what} as {file}"));
        }
    }
    bundle.assert_clean();
}

/// Of a container that runs.
#[test]
fn while_it_runs() {
    let bundle = Bundle::new("stateruns");
    bundle.args(&["/bin/sleep", "600"]);
    for damage in ["config.json", "start"] {
        assert_eq!(bundle.create("c", &[]).code, 0);
        bundle.oci(&["start", "c"]).ok();
        let _ = fs::remove_file(bundle.state().join("c").join(damage));
        fs::write(bundle.state().join("c").join(damage), "{").expect("write");
        bounded(&bundle, &["state", "c"]).ok();
        bounded(&bundle, &["kill", "c", "KILL"]).ok();
        super::common::until("its end", || bundle.status("c") == "stopped");
        bounded(&bundle, &["delete", "c"]).ok();
        bundle.assert_clean();
    }
    // What is known of it being lost, its cgroup is still found, but not whose processes are there.
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    let pid = bundle.pid("c");
    let state = bundle.state().join("c/state.json");
    fs::write(&state, "{").expect("write");
    bounded(&bundle, &["state", "c"]).refused(&["damaged", "--force"]);
    bounded(&bundle, &["delete", "--force", "c"]).refused(&[&pid.to_string(), "delete it again"]);
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    bounded(&bundle, &["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

/// Things in the directory of all containers that are none.
#[test]
fn beside_them() {
    let bundle = Bundle::new("statebeside");
    let root = bundle.state();
    fs::create_dir_all(&root).expect("mkdir");
    fs::write(root.join("file"), "").expect("write");
    nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).expect("fifo");
    symlink("absent", root.join("link")).expect("symlink");
    assert_eq!(bounded(&bundle, &["list", "-q"]).ok(), "");
    for id in ["file", "fifo", "link"] {
        bounded(&bundle, &["state", id]).refused(&["does not exist"]);
        bounded(&bundle, &["delete", "--force", id]).ok();
        let said = bounded(&bundle, &["create", id]);
        assert_ne!(said.code, 0);
        assert!(
            said.stderr.contains(root.join(id).to_str().expect("utf-8")),
            "{said:?}"
        );
    }
    bundle.assert_clean();
}
