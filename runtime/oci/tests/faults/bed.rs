//! A bundle whose runtime has a fault, and what must not be left of it.

use super::common::{Bundle, RUNTIME, Said, until};
use super::page::{Action, Page, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

pub struct Bed {
    pub bundle: Bundle,
    pub page: Page,
    /// The files beside the state of containers.
    files: BTreeSet<String>,
}

/// One command with a fault in it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub role: Role,
    pub number: u32,
    pub action: Action,
}

impl Bed {
    pub fn new(name: &str) -> Self {
        let bundle = Bundle::new(name);
        bundle.args(&["/bin/sleep", "600"]);
        let hook = json!([{ "path": "/bin/true" }]);
        bundle.change(json!({ "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": [{ "path": "/bin/busybox", "args": ["true"] }],
            "poststart": hook, "poststop": hook,
        } }));
        let page = Page::new(&bundle);
        for file in ["out", "err"] {
            fs::write(bundle.dir.path().join(file), "").expect("file");
        }
        let mut bed = Self {
            bundle,
            page,
            files: BTreeSet::new(),
        };
        bed.files = bed.listing();
        bed
    }

    /// The runtime, which looks at the page.
    pub fn command(&self, args: &[&str]) -> Command {
        let file = |name: &str| File::create(self.bundle.dir.path().join(name)).expect("file");
        let mut command = Command::new(RUNTIME);
        command
            .arg("--root")
            .arg(self.bundle.state())
            .args(args)
            .current_dir(self.bundle.dir.path())
            .env("FAIRLEAD_FAULTS", self.page.path())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"));
        command
    }

    /// Runs a command with this fault; `None` when it has no such step, and the command succeeded.
    pub fn with(&self, fault: Fault, args: &[&str]) -> Option<Said> {
        self.page.choose(fault.role, fault.number, fault.action);
        let mut child = self.command(args).spawn().expect("runtime");
        if fault.action == Action::Wait {
            let mut ended = false;
            until("the step, or the end", || {
                ended = child.try_wait().expect("wait").is_some();
                ended || self.page.fired().is_some()
            });
            if !ended {
                // The moment to lose the creator.
                let pid = Pid::from_raw(child.id() as i32);
                kill(pid, Signal::SIGKILL).expect("kill");
            }
        }
        let status = child.wait().expect("wait");
        self.page.go();
        let read =
            |name: &str| fs::read_to_string(self.bundle.dir.path().join(name)).expect("output");
        let said = Said {
            code: status.code().unwrap_or(-1),
            stdout: read("out"),
            stderr: read("err"),
        };
        match self.page.fired() {
            Some(_) => Some(said),
            None => {
                assert_eq!(said.code, 0, "without a fault: {said:?}");
                None
            }
        }
    }

    /// Says where it was.
    pub fn at(&self, fault: Fault) -> String {
        format!("{fault:?} ({})", self.page.fired().unwrap_or_default())
    }

    fn listing(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.bundle.dir.path()).expect("bundle");
        let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "state").collect()
    }

    /// These are the caller's own: a command that was killed may have got to them.
    pub fn remove_pid_files(&self) {
        for name in self.listing() {
            if name == "pid" || name.starts_with(".pid.") {
                fs::remove_file(self.bundle.dir.path().join(name)).expect("remove");
            }
        }
    }

    /// The processes of the runtime: those that look at the page.
    pub fn processes(&self) -> Vec<i32> {
        let page = format!("FAIRLEAD_FAULTS={}", self.page.path());
        let entries = fs::read_dir("/proc").expect("proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == page.as_bytes())
        };
        pids.filter(ours).collect()
    }

    /// What is left of a container: directories, cgroups, processes, mounts, files.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let entries = fs::read_dir(self.bundle.state()).into_iter().flatten();
        let names = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        left.extend(
            names
                .filter(|name| name != ".seccomp")
                .map(|name| format!("state {name}")),
        );
        for cgroup in self.bundle.cgroups() {
            if cgroup.join("c").exists() {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
        left.extend(self.processes().iter().map(|pid| format!("process {pid}")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = mounts
            .lines()
            .filter(|line| line.contains(self.bundle.path()));
        left.extend(mounts.map(|line| format!("mount {line}")));
        let files = self.listing();
        left.extend(
            files
                .difference(&self.files)
                .map(|file| format!("file {file}")),
        );
        left
    }

    /// Nothing, as soon as those that are ending have ended.
    pub fn assert_clean_soon(&self, when: &str) {
        for _ in 0..500 {
            if self.leftovers().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{when}: {:?} left", self.leftovers());
    }
}
