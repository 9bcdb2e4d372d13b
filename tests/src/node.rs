//! A node: a network namespace, and a daemon in it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::tell_task;
use crate::programs::program;
use crate::tools::{PATIENCE, output, result, try_sh, wait_for};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its id, such as `n1`.
    pub id: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its files.
    pub dir: PathBuf,
    /// Its IPv4 address on the underlay.
    pub v4: String,
    /// Its IPv6 address on the underlay.
    pub v6: String,
    pub(crate) cgroup: String,
    /// How often the daemon compares with the kernel; `None`: as it does by default.
    interval: Option<&'static str>,
    arguments: Vec<String>,
    daemon: Option<Child>,
}

impl Node {
    pub(crate) fn new(
        id: String,
        netns: PathBuf,
        dir: PathBuf,
        v4: String,
        v6: String,
        cgroup: String,
    ) -> Self {
        fs::create_dir_all(&dir).expect("folder");
        // Tasks take over the node's options. A resolver gives up after ten seconds, which is less than
        // a daemon needs to start on a busy emulated processor.
        fs::write(dir.join("resolv.conf"), "options timeout:30\n").expect("resolv.conf");
        Self {
            id,
            netns,
            dir,
            v4,
            v6,
            cgroup,
            interval: None,
            arguments: Vec::new(),
            daemon: None,
        }
    }

    pub(crate) fn with_interval(self, interval: Option<&'static str>) -> Self {
        Self { interval, ..self }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("executor.sock")
    }

    /// The daemon's folder of runtime files.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The file that names the servers of the outside.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// The command line that starts a daemon of this node.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.display()))
            .arg(program("fairleadd"))
            .args(["--state-dir".as_ref(), self.dir.join("state").as_os_str()])
            .args(["--run-dir".as_ref(), self.run_dir().as_os_str()])
            .args(["--resolv-conf".as_ref(), self.resolv_conf().as_os_str()])
            .args(["--cgroup-parent", &self.cgroup])
            .args([
                "--log",
                "info,netdp=debug,executor=debug,image=debug,ureq=debug",
            ])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        if let Some(interval) = self.interval {
            command.args(["--reconcile-interval", interval]);
        }
        command.args(&self.arguments);
        if let Ok(engine) = std::env::var("FAIRLEAD_TEST_ENGINE") {
            command.args(["--engine", &engine]);
        }
        command
    }

    /// Further arguments of every daemon that is started from now on.
    pub fn with_arguments(&mut self, arguments: &[&str]) -> &mut Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        self.arguments.extend(arguments);
        self
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} has a daemon", self.id);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.expect("the daemon's log");
        let mut daemon = self
            .daemon_command()
            .stdout(log.try_clone().expect("the daemon's log"))
            .stderr(log)
            .spawn()
            .expect("nsenter runs");
        wait_for(&format!("the daemon of {}", self.id), || {
            if let Ok(Some(status)) = daemon.try_wait() {
                panic!(
                    "the daemon of {} ended with {status}:\n{}",
                    self.id,
                    self.log_end(40)
                );
            }
            self.fairlead(&["node", "describe"])
        });
        self.daemon = Some(daemon);
    }

    /// Ends the daemon with a signal, and waits until it is gone.
    ///
    /// # Panics
    /// When there is none, or it does not end.
    pub fn stop(&mut self, signal: Signal) {
        let mut daemon = self.daemon.take().expect("the node has a daemon");
        kill(pid_of(&daemon), signal).expect("the daemon lives");
        wait_for("the daemon's end", || match daemon.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    pub(crate) fn abandon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn daemon_pid(&self) -> Pid {
        pid_of(self.daemon.as_ref().expect("the node has a daemon"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    fn log_end(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The command line `fairlead`, for this node.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("fairlead"));
        command
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `fairlead`; its output, or all it said.
    ///
    /// # Errors
    /// When it ends with another status than 0.
    pub fn fairlead(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(arguments);
        result(
            &format!("{}: fairlead {}", self.id, arguments.join(" ")),
            &output,
        )
    }

    /// Runs `fairlead`; whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let what = format!("{}: fairlead {}", self.id, arguments.join(" "));
        output(&what, &mut self.cli(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `fairlead --format json`; what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let all = [&["--format", "json"], arguments].concat();
        let text = self
            .fairlead(&all)
            .unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What balances published ports here.
    #[must_use]
    pub fn engine(&self) -> String {
        text(&self.json(&["node", "describe"])["engine"])
    }

    /// What the node says of a task; `Null` when it does not know it.
    #[must_use]
    pub fn task(&self, id: &str) -> Value {
        let tasks = self.json(&["ps"]);
        let tasks = tasks.as_array().expect("an array");
        tasks
            .iter()
            .find(|task| task["id"] == id)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// Waits until a task is in a state; what the node says of it then.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn await_task(&self, id: &str, state: &str) -> Value {
        wait_for(&format!("task {id} to be {state}"), || {
            let task = self.task(id);
            if task["state"] == state {
                Ok(task)
            } else {
                Err(task.to_string())
            }
        })
    }

    /// Waits until a task is not on the node any more.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn await_no_task(&self, id: &str) {
        wait_for(&format!("the end of task {id}"), || {
            let task = self.task(id);
            if task.is_null() {
                Ok(())
            } else {
                Err(task.to_string())
            }
        });
    }

    /// The process of a task.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn task_pid(&self, id: &str) -> u64 {
        let task = self.task(id);
        task["pid"]
            .as_u64()
            .filter(|pid| *pid > 0)
            .unwrap_or_else(|| panic!("no process: {task}"))
    }

    /// The network namespace of a task.
    ///
    /// # Panics
    /// When the node does not know the task.
    #[must_use]
    pub fn task_netns(&self, id: &str) -> PathBuf {
        let task = self.task(id);
        let path = text(&task["netns"]);
        assert!(!path.is_empty(), "{id} has no namespace: {task}");
        path.into()
    }

    /// The namespace of a network.
    ///
    /// # Panics
    /// When the node does not know the network.
    #[must_use]
    pub fn network_netns(&self, id: &str) -> PathBuf {
        let network = self.json(&["network", "inspect", id]);
        let path = text(&network[0]["netns"]);
        assert!(!path.is_empty(), "{id} has no namespace: {network}");
        path.into()
    }

    /// A task asks a server; `NAME ADDRESS PORT`.
    ///
    /// # Errors
    /// What the task met.
    pub fn task_asks(&self, id: &str, protocol: &str, to: &str) -> Result<String, String> {
        tell_task(&self.task_netns(id), &format!("ask {protocol} {to}"))
    }

    /// A task resolves a name; sorted addresses.
    ///
    /// # Errors
    /// What the task met.
    pub fn task_resolves(&self, id: &str, name: &str) -> Result<Vec<String>, String> {
        let text = tell_task(&self.task_netns(id), &format!("resolve {name}"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// A task's output, on both streams.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn logs(&self, id: &str) -> String {
        let output = self.run(&["logs", id]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// The events after a sequence number that the node still has; 0: the state of the
    /// acknowledgements.
    ///
    /// # Panics
    /// When they cannot be had.
    #[must_use]
    pub fn events(&self, after: u64) -> Vec<Value> {
        let text = self.fairlead(&["--format", "json", "events", "--since", &after.to_string()]);
        let text = text.unwrap_or_else(|e| panic!("{e}"));
        let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(line).collect()
    }

    /// The number of the last event so far.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        let events = self.events(0);
        events
            .iter()
            .filter_map(|event| event["sequence"].as_u64())
            .max()
            .unwrap_or(0)
    }

    /// Waits for an event after a sequence number that satisfies a condition.
    ///
    /// # Panics
    /// When there is none.
    pub fn await_event(&self, after: u64, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("event {what} at {}", self.id), || {
            let events = self.events(after);
            let found = events.iter().find(|event| matches(event)).cloned();
            found.ok_or_else(|| Value::from(events).to_string())
        })
    }

    /// Runs a shell script in the node's network namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn exec(&self, script: &str) -> String {
        in_netns(&self.netns, script).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Writes an assignment and applies it to this node alone, without waiting.
    ///
    /// # Errors
    /// What `fairlead apply` said.
    pub fn apply(&self, assignment: &Value) -> Result<String, String> {
        let path = self.dir.join("assignment.yaml");
        fs::write(&path, format!("{assignment:#}")).expect("assignment");
        self.fairlead(&["apply", "-f", &path.display().to_string()])
    }

    /// Sends the daemon one whole text as the assignment.
    ///
    /// # Errors
    /// What `fairlead apply` said.
    pub fn apply_text(&self, yaml: &str) -> Result<String, String> {
        let path = self.dir.join("assignment.yaml");
        fs::write(&path, yaml).expect("assignment");
        self.fairlead(&["apply", "-f", &path.display().to_string()])
    }

    /// All that may tell why a test failed.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("--- {} ---\n{}\n", self.id, self.log_end(60));
        for arguments in [
            &["ps"][..],
            &["service", "ls"],
            &["network", "ls"],
            &["endpoint", "ls"],
        ] {
            // A daemon that does not answer must not hold up the report.
            let output = Command::new("timeout")
                .arg("5")
                .arg(program("fairlead"))
                .arg("--socket")
                .arg(self.socket())
                .args(arguments)
                .output();
            if let Ok(output) = output {
                text += &format!("$ fairlead {}\n", arguments.join(" "));
                text += &String::from_utf8_lossy(&output.stdout);
                text += &String::from_utf8_lossy(&output.stderr);
            }
        }
        let mut namespaces = vec![self.netns.clone()];
        if let Ok(entries) = fs::read_dir(self.dir.join("run/netns")) {
            namespaces.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        for netns in namespaces {
            let script = "set +e; ip -br addr; ip route; ip neigh; bridge fdb; ipvsadm -Ln 2>/dev/null; nft list ruleset";
            text += &format!("# {}\n", netns.display());
            text += &in_netns(&netns, script).unwrap_or_else(|error| error);
        }
        text
    }
}

/// Runs a shell script in a network namespace.
///
/// # Errors
/// All it said when it failed.
pub(crate) fn in_netns(netns: &Path, script: &str) -> Result<String, String> {
    // The script is given as a file: it may contain any quotes.
    let quoted = script.replace('\'', r"'\''");
    try_sh(&format!(
        "exec nsenter --net={} sh -ec '{quoted}'",
        netns.display()
    ))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A long-running program in a network namespace, ended when dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts a program. What it writes goes to a file.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(netns: &Path, output: &Path, program: &[&str]) -> Self {
        let file = File::create(output).expect("output");
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(program)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("output"))
            .stderr(file)
            .spawn();
        Self(child.expect("nsenter runs"))
    }

    /// Asks it to end, and waits until it has; at most [`PATIENCE`].
    ///
    /// # Panics
    /// When it does not.
    pub fn end(mut self) {
        kill(pid_of(&self.0), Signal::SIGTERM).expect("it runs");
        wait_for(&format!("its end within {PATIENCE:?}"), || {
            match self.0.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
