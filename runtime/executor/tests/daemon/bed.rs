//! A daemon in a network namespace of its own, with directories and a cgroup of its own, and a
//! client of it. Dropped in whatever way, nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use fairlead_api::v1::executor_client::ExecutorClient;
use fairlead_api::v1::images_client::ImagesClient;
use fairlead_api::v1::{self, TaskState};
use tonic::transport::{Channel, Endpoint};

pub struct Daemon {
    pub name: String,
    dir: tempfile::TempDir,
    /// Further ones, from the next launch on.
    pub arguments: Vec<String>,
    child: Option<Child>,
}

/// What a test waits for at most; far beyond what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Daemon {
    pub fn start(test: &str) -> Self {
        Self::prepared(test, |_| {})
    }

    /// Prepares the state directory before the daemon starts.
    pub fn prepared(test: &str, prepare: impl FnOnce(&Path)) -> Self {
        let name = format!("flt-{test}-{}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&name).tempdir().unwrap();
        // The image's files are reached by unprivileged users of tasks.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        for words in [
            "link add under0 type veth peer name under1",
            "link set under0 up",
            "link set under1 up",
            "address add 192.0.2.1/24 dev under0",
        ] {
            let words = words.split(' ');
            run(
                "ip",
                &["-n", &name].into_iter().chain(words).collect::<Vec<_>>(),
            );
        }
        let mut daemon = Self {
            name,
            dir,
            arguments: Vec::new(),
            child: None,
        };
        daemon.image();
        prepare(&daemon.state_dir());
        daemon.launch();
        daemon
    }

    /// A root file system with a static busybox.
    fn image(&self) {
        let bin = self.rootfs().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(self.rootfs().join("etc")).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for applet in [
            "sh", "sleep", "cat", "echo", "id", "hostname", "true", "grep", "ls", "wc", "dd", "rm",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        fs::write(
            self.rootfs().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:77:78::/:/bin/sh\n",
        )
        .unwrap();
        fs::write(self.rootfs().join("etc/group"), "root:x:0:\nweb:x:78:\n").unwrap();
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("executor.sock")
    }

    pub fn command(&self) -> Command {
        self.command_in(&self.state_dir(), &self.run_dir())
    }

    pub fn command_in(&self, state: &Path, run: &Path) -> Command {
        let daemon = PathBuf::from(env!("CARGO_BIN_EXE_fairleadd"));
        // Not `ip netns exec`, which mounts a /sys of its own, without the cgroups.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(&daemon);
        command.arg("--state-dir").arg(state);
        command.arg("--run-dir").arg(run);
        command.arg("--shim").arg(shim(&daemon));
        command.args(["--cgroup-parent", &format!("/{}", self.name)]);
        command.args(["--log", "debug", "--reconcile-interval", "1s"]);
        command.stdin(Stdio::null());
        command
    }

    pub fn launch(&mut self) {
        self.spawn();
        wait_for("the socket", || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Starts it, and does not wait until it serves.
    pub fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut command = self.command();
        command.args(&self.arguments);
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("fairleadd.log")
    }

    /// nsenter executes the daemon in its own place.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    #[track_caller]
    pub fn end(&mut self, signal: nix::sys::signal::Signal) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let mut status = None;
        wait_for(&format!("the daemon's end by {signal}"), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.child = None;
        status.unwrap()
    }

    /// A client. Each call must be answered within [`PATIENCE`].
    pub async fn client(&self) -> ExecutorClient<Channel> {
        ExecutorClient::new(self.channel().await)
    }

    pub async fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel().await)
    }

    async fn channel(&self) -> Channel {
        let uri = format!("unix://{}", self.socket().display());
        let endpoint = Endpoint::from_shared(uri).unwrap().timeout(PATIENCE);
        let channel = within("a connection to the daemon", endpoint.connect()).await;
        channel.unwrap()
    }

    /// What each thread of the daemon is in, as the kernel says: where one that hangs does so.
    fn threads(&self) -> String {
        let Some(child) = &self.child else {
            return String::new();
        };
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id()));
        let thread = |task: fs::DirEntry| {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let [name, wait, call] = ["comm", "wchan", "syscall"].map(read);
            format!("{} waits in {wait}, system call {call}", name.trim())
        };
        tasks.into_iter().flatten().flatten().map(thread).collect()
    }

    /// Cgroup directories of this daemon, in every hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let roots = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|e| e.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let path = root.join(&self.name);
            if path.is_dir() {
                found.push(path);
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the daemon's log ---");
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
            eprintln!("--- its threads ---\n{}", self.threads());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Tasks and shims of this test only: their cgroups carry its name.
        for cgroup in self.cgroups() {
            for dir in tree(&cgroup) {
                let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|line| line.parse().ok()) {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        for cgroup in self.cgroups() {
            for dir in tree(&cgroup) {
                while fs::remove_dir(&dir).is_err() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        for file in fs::read_dir(self.run_dir().join("netns"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = Command::new("umount").arg("-l").arg(file.path()).status();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Deepest first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            all.extend(tree(&entry.path()));
        }
    }
    all.push(dir.to_owned());
    all
}

/// The shim of the same build; made when it is not there yet.
fn shim(daemon: &Path) -> PathBuf {
    let shim = daemon.with_file_name("fairlead-shim");
    if !shim.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-p", "fairlead-shim"]);
        if daemon.parent().is_some_and(|dir| dir.ends_with("release")) {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().unwrap().success(),
            "cannot build fairlead-shim"
        );
    }
    shim
}

#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let output = output_of(Command::new(program).args(arguments));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{errors}",
        output.status
    );
}

/// What a command says and how it ends, within [`PATIENCE`]; then it is killed. It must not say more
/// than a pipe holds.
#[track_caller]
pub fn output_of(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("waited {PATIENCE:?} for the end of {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// What `work` gives, within [`PATIENCE`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A task of this image that runs a shell script, without networks.
pub fn script(daemon: &Daemon, id: &str, script: &str) -> v1::Task {
    v1::Task {
        id: id.into(),
        name: id.into(),
        container: Some(v1::ContainerSpec {
            image: format!("dir:{}", daemon.rootfs().display()),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            stop_grace_period: Some(2_000_000_000),
            ..Default::default()
        }),
        desired_state: TaskState::Running as i32,
        ..Default::default()
    }
}

pub fn complete(name: &str, tasks: &[v1::Task]) -> v1::AssignRequest {
    let own = v1::NodeRecord {
        id: "node-1".into(),
        version: 1,
        vteps: vec!["192.0.2.1".into()],
        ..Default::default()
    };
    let tasks = tasks
        .iter()
        .map(|task| v1::change::Object::Task(task.clone()));
    let objects = tasks.chain([v1::change::Object::Node(own)]);
    v1::AssignRequest {
        r#type: v1::AssignmentType::Complete as i32,
        applies_to: String::new(),
        results_in: name.into(),
        changes: objects
            .map(|object| v1::Change {
                action: 0,
                object: Some(object),
            })
            .collect(),
        node_config: None,
    }
}

pub async fn configure(client: &mut ExecutorClient<Channel>) {
    let config = v1::NodeConfig {
        node_id: "node-1".into(),
        gwbridge_subnets: vec!["172.30.0.0/24".into()],
        ..Default::default()
    };
    let request = v1::ConfigureRequest {
        config: Some(config),
    };
    within("the answer to Configure", client.configure(request))
        .await
        .unwrap();
}

/// Waits until the task's status fits.
pub async fn status(
    client: &mut ExecutorClient<Channel>,
    task: &str,
    fits: impl Fn(&v1::TaskStatus) -> bool,
) -> v1::TaskStatus {
    let watch = async {
        let request = v1::WatchStatusRequest { after: 0 };
        let mut stream = client.watch_status(request).await.unwrap().into_inner();
        while let Some(status) = stream.message().await.unwrap() {
            if status.task_id == task {
                if fits(&status) {
                    return status;
                }
                assert!(
                    status.state() < TaskState::Complete,
                    "ended otherwise: {status:?}"
                );
                eprintln!(
                    "{task}: {:?} {} {}",
                    status.state(),
                    status.message,
                    status.error
                );
            }
        }
        panic!("the stream ended");
    };
    within(&format!("a status of {task}"), watch).await
}

pub async fn output(client: &mut ExecutorClient<Channel>, request: v1::LogsRequest) -> String {
    let read = async {
        let mut stream = client.logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(entry) = stream.message().await.unwrap() {
            text.extend(entry.line);
        }
        String::from_utf8(text).unwrap()
    };
    within("the end of the output", read).await
}

/// What a task has said so far, once that fits.
pub async fn said(
    client: &mut ExecutorClient<Channel>,
    task: &str,
    fits: impl Fn(&str) -> bool,
) -> String {
    let text = async {
        loop {
            let request = v1::LogsRequest {
                task_id: task.into(),
                ..Default::default()
            };
            let text = output(client, request).await;
            if fits(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(&format!("what {task} says"), text).await
}

pub async fn inspect(client: &mut ExecutorClient<Channel>) -> v1::InspectResponse {
    let request = v1::InspectRequest::default();
    let answer = within("the answer to Inspect", client.inspect(request)).await;
    answer.unwrap().into_inner()
}
