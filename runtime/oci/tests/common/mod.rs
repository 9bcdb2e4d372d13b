//! A bundle of busybox, and the runtime as a program that others call.
#![allow(dead_code)] // each test file uses its part

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const RUNTIME: &str = env!("CARGO_BIN_EXE_fairlead-oci");

pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub name: String,
}

impl Bundle {
    /// `name` is the test's.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("fl-oci-{name}-"))
            .tempdir()
            .expect("tempdir");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = dir.path().join("rootfs");
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(directory)).expect("mkdir");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        for applet in [
            "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "env", "pwd", "hostname",
            "mount", "touch", "mkdir", "readlink", "stat", "dd", "mknod", "grep", "wc", "head",
            "kill", "ps", "tail", "chmod", "ln", "umount", "tr", "tty", "stty", "trap", "rm",
        ] {
            symlink("/bin/busybox", root.join("bin").join(applet)).expect("symlink");
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n",
        )
        .expect("passwd");
        let name = format!("fltest-{name}-{}", std::process::id());
        let bundle = Self { dir, name };
        let made = bundle
            .command(&["spec", "--bundle", bundle.path()])
            .output();
        assert!(made.expect("spec").status.success());
        let cgroup = format!("/{}/c", bundle.name);
        bundle.change(json!({ "linux": { "cgroupsPath": cgroup } }));
        bundle
    }

    pub fn path(&self) -> &str {
        self.dir.path().to_str().expect("utf-8")
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> Value {
        let text = fs::read(self.dir.path().join("config.json")).expect("config");
        serde_json::from_slice(&text).expect("json")
    }

    /// Merges this into the configuration; null removes.
    pub fn change(&self, change: Value) {
        let mut config = self.config();
        merge(&mut config, change);
        let text = serde_json::to_vec(&config).expect("json");
        fs::write(self.dir.path().join("config.json"), text).expect("config");
    }

    pub fn args(&self, args: &[&str]) {
        self.change(json!({ "process": { "args": args } }));
    }

    pub fn script(&self, script: &str) {
        self.args(&["/bin/sh", "-c", script]);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command.arg("--root").arg(self.state()).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn oci(&self, args: &[&str]) -> Said {
        self.command(args).output().expect("runtime").into()
    }

    /// `create` leaves the container's descriptors open, so its output must not be a pipe that
    /// somebody waits for.
    pub fn create(&self, id: &str, more: &[&str]) -> Said {
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let file = |path: &Path| fs::File::create(path).expect("file");
        let mut args = vec!["create", id];
        args.extend(more);
        let status = self
            .command(&args)
            .stdout(file(&out))
            .stderr(file(&err))
            .status()
            .expect("runtime");
        Said {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: fs::read_to_string(&err).expect("err"),
        }
    }

    /// What a container that was made by [`Bundle::create`] has said so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("out")).expect("out")
    }

    pub fn status(&self, id: &str) -> String {
        let said = self.oci(&["state", id]);
        let state: Value = serde_json::from_str(said.ok()).expect("json");
        state["status"].as_str().expect("status").to_string()
    }

    pub fn pid(&self, id: &str) -> i32 {
        let said = self.oci(&["state", id]);
        let state: Value = serde_json::from_str(said.ok()).expect("json");
        state["pid"].as_i64().expect("pid") as i32
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let layout = container::cgroup::Layout::detect().expect("layout");
        let roots = layout.hierarchies.into_iter();
        roots.map(|h| h.mountpoint.join(&self.name)).collect()
    }

    /// Nothing may be left: no container, mount, cgroup or process.
    pub fn assert_clean(&self) {
        assert_eq!(self.oci(&["list", "-q"]).ok(), "");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(self.path()), "a mount is left: {mounts}");
        for cgroup in self.cgroups() {
            assert!(!cgroup.join("c").exists(), "{} is left", cgroup.display());
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for id in self.oci(&["list", "-q"]).stdout.lines() {
            let _ = self.oci(&["delete", "--force", id]);
        }
        if let Ok(cgroup) = container::Cgroup::open(&format!("/{}", self.name), "c") {
            let _ = cgroup.kill();
            let _ = cgroup.delete();
        }
        for cgroup in self.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Said {
    /// What it printed, if it succeeded.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end()
    }

    /// That it failed, and named all of these.
    pub fn refused(&self, words: &[&str]) {
        assert_ne!(self.code, 0, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{self:?} does not say {word:?}");
        }
    }
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => drop(into.remove(&key)),
                    value => merge(into.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (into, from) => *into = from,
    }
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not within 30 s");
}

/// Writes to a program's standard input and reads what it says.
pub fn with_input(mut command: Command, input: &str) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(input.as_bytes()).expect("write");
    drop(stdin);
    child.wait_with_output().expect("wait").into()
}
