//! A bundle, and a shim that runs it.
#![allow(dead_code)] // each test file uses its part

#[path = "../../../container/tests/common/mod.rs"]
mod container_common;
pub use container_common::*;

use container::Rootfs;
use container::shim::{ExitStatus, LogOptions, ShimOptions, ShimState, StartReport, StartedReport};
use oci_spec::runtime::Spec;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub const SHIM: &str = env!("CARGO_BIN_EXE_fairlead-shim");

pub struct Bundle {
    pub sandbox: Sandbox,
    pub options: ShimOptions,
}

impl Bundle {
    pub fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(&format!("shim-{name}"));
        let dir = sandbox.dir.path();
        let options = ShimOptions {
            id: name.into(),
            cgroup_parent: sandbox.parent.clone(),
            cgroup_name: "task".into(),
            rootfs: Rootfs::Directory(sandbox.root()),
            user: None,
            log: LogOptions {
                path: dir.join("log"),
                max_bytes: 0,
                max_files: 1,
            },
            state_path: dir.join("state.json"),
            exit_path: dir.join("exit.json"),
            hold_fds: Vec::new(),
        };
        Self { sandbox, options }
    }

    pub fn path(&self) -> PathBuf {
        self.sandbox.dir.path().into()
    }

    pub fn write(&self, spec: &Spec) {
        let json = |name: &str, bytes| fs::write(self.path().join(name), bytes).expect("write");
        json("config.json", serde_json::to_vec(spec).expect("spec"));
        json(
            "shim.json",
            serde_json::to_vec(&self.options).expect("options"),
        );
    }

    /// Runs the shim as the daemon would; returns when it has reported.
    pub fn run(&self, spec: &Spec) -> StartReport {
        self.write(spec);
        let mut command = Command::new(SHIM);
        report(
            command
                .arg("run")
                .arg(self.path())
                .stdin(Stdio::null())
                .output()
                .expect("shim"),
        )
    }

    pub fn script(&self, script: &str) -> StartedReport {
        started(self.run(&self.sandbox.script(script)))
    }

    pub fn state(&self) -> ShimState {
        let bytes = fs::read(&self.options.state_path).expect("state");
        serde_json::from_slice(&bytes).expect("state")
    }

    /// Waits for the exit status and for the end of the shim.
    pub fn exit(&self) -> ExitStatus {
        until("exit status", || self.options.exit_path.exists());
        let state = self.state();
        // Whoever inherits it may reap it late.
        if let Ok(shim) = container::process::open_verified(state.shim_pid, state.shim_start_time) {
            let patience = Some(std::time::Duration::from_secs(30));
            assert!(
                container::process::wait_ended(&shim, patience).expect("wait"),
                "the shim stays"
            );
        }
        let bytes = fs::read(&self.options.exit_path).expect("exit");
        self.sandbox.assert_clean();
        serde_json::from_slice(&bytes).expect("exit")
    }

    /// The log's entries: text and stream.
    pub fn log(&self) -> Vec<(String, String)> {
        let content = fs::read_to_string(&self.options.log.path).expect("log");
        entries(&content)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A test that failed halfway leaves a shim; it ends with its task.
        if let Ok(cgroup) = container::Cgroup::open(&self.options.cgroup_parent, "task") {
            let _ = cgroup.kill();
        }
        if let Ok(shims) =
            container::Cgroup::open(&self.options.cgroup_parent, container::cgroup::SHIMS)
        {
            for _ in 0..100 {
                if shims.procs().is_ok_and(|pids| pids.is_empty()) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

pub fn entries(content: &str) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().expect("string").to_string();
    content
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect(line);
            let time = text(&value["time"]);
            assert!(time.ends_with('Z') && time.len() == 30, "{time}");
            (text(&value["log"]), text(&value["stream"]))
        })
        .collect()
}

pub fn report(output: Output) -> StartReport {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    assert_eq!(text.matches('\n').count(), 1, "one line: {text} {stderr}");
    serde_json::from_str(&text).expect("report")
}

pub fn started(report: StartReport) -> StartedReport {
    match report {
        StartReport::Started(started) => started,
        StartReport::Failed(failure) => panic!("{failure:?}"),
    }
}
