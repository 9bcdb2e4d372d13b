//! What the daemon and the shim of a task tell each other, in files and on the shim's stdout.

use crate::cgroup::CgroupPath;
use crate::rootfs::Rootfs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Name of the file in the bundle with the compiled filter of `linux.seccomp`
/// ([`crate::seccomp::Filter::to_bytes`]). One that is missing, or of another version, is compiled
/// by the shim.
pub const FILTER: &str = "seccomp.bpf";

/// `shim.json` in the bundle, beside the specification in `config.json`: written by the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimOptions {
    /// The task's id, for messages.
    pub id: String,
    /// The parent of all cgroups of this daemon: `/fairlead`. The shims live in `.shims` below it.
    pub cgroup_parent: String,
    /// The name of the task's own cgroup below that.
    pub cgroup_name: String,
    /// Where the files come from.
    pub rootfs: Rootfs,
    /// `name|uid[:group|gid]`, resolved in the image; overrides the specification's user.
    #[serde(default)]
    pub user: Option<String>,
    /// Where the output goes.
    pub log: LogOptions,
    /// Where the shim keeps [`ShimState`].
    pub state_path: PathBuf,
    /// Where the shim leaves [`ExitStatus`].
    pub exit_path: PathBuf,
    /// Inherited descriptors that the shim holds open for the daemon, at the same numbers.
    #[serde(default)]
    pub hold_fds: Vec<i32>,
}

impl ShimOptions {
    /// The task's cgroup.
    pub fn cgroup(&self) -> CgroupPath {
        CgroupPath::new(&self.cgroup_parent, &self.cgroup_name)
    }
}

/// The log of a task: JSON lines as Docker's json-file driver writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// The file; older ones have `.1`, `.2`... appended.
    pub path: PathBuf,
    /// A file that reaches this size, in bytes, is rotated; 0 is never.
    pub max_bytes: u64,
    /// How many files there are at most, the current one included; at least 1.
    pub max_files: u32,
}

/// Name of the file in the bundle with the task's [`HealthCheck`]; there is none without.
pub const HEALTH_CHECK: &str = "health.json";

/// How it is found out whether the task is well: complete, all times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The probe: a program and its arguments.
    pub args: Vec<String>,
    /// Between the end of a probe and the begin of the next.
    pub interval_nanos: u64,
    /// A probe that takes longer has failed, and is ended.
    pub timeout_nanos: u64,
    /// Failures in a row that make the task unhealthy; at least 1.
    pub retries: u32,
    /// From the start of the task; failures in it do not count.
    pub start_period_nanos: u64,
    /// In place of `interval_nanos`, as long as no probe has succeeded, if it is shorter.
    pub start_interval_nanos: u64,
}

/// More of what a probe says is not kept.
pub const PROBE_OUTPUT: usize = 4096;

/// The beginning of a text, of at most so many bytes.
pub fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1; // 0 is one
    }
    text.get(..end).unwrap_or_default()
}

/// The beginning of the names of the cgroups, below the task's, that probes run in.
pub const PROBE_CGROUP: &str = "fairlead-probe-";

/// What `fairlead-shim probe` says on its stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// How the probe ended.
    pub outcome: ProbeOutcome,
    /// Its output, up to [`PROBE_OUTPUT`] bytes; or why it did not run.
    pub output: String,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// By itself, with this code; 128 + signal when a signal ended it.
    Exited(i32),
    /// It took too long.
    TimedOut,
    /// It could not be run; the code that a shell would give.
    NotRun(i32),
    /// The task has ended, or is not there yet: nothing is known.
    NoTask,
}

/// Name of the file in the bundle with [`FillOptions`], for `fairlead-shim fill`.
pub const FILL: &str = "volumes.json";

/// New volumes, and what they begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillOptions {
    /// The image's files.
    pub image: FillSource,
    /// The volumes.
    pub volumes: Vec<Volume>,
}

/// Where the files of an image are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FillSource {
    /// In layers, which overlayfs puts together.
    Layers {
        /// The layers, the topmost first.
        lower: Vec<PathBuf>,
        /// An empty directory.
        empty: PathBuf,
    },
    /// In a directory.
    Directory(PathBuf),
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its place in the container.
    pub destination: PathBuf,
    /// Its directory on the host.
    pub source: PathBuf,
}

/// What `fairlead-shim fill` says on its stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FillReport {
    /// All is there.
    Filled,
    /// It is not.
    Failed {
        /// Readable, names the volume.
        message: String,
        /// Of the system call that failed; 0: of none.
        errno: i32,
    },
}

/// `state_path`: written before the container is made (without the `init_` fields), again when it
/// stands but nothing of it runs, and a third time when it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    /// The shim's process id.
    pub shim_pid: i32,
    /// Its start time (see [`crate::process::start_time`]).
    pub shim_start_time: u64,
    /// Process id of the container's first process, once it exists.
    pub init_pid: Option<i32>,
    /// Its start time.
    pub init_start_time: Option<u64>,
    /// When the program was started, in nanoseconds since 1970; `None` before.
    pub started_at_unix_nanos: Option<u64>,
}

/// `exit_path`: written durably when the task has ended, or could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The program's exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of the task for lack of memory.
    pub oom_killed: bool,
    /// When, in nanoseconds since 1970.
    pub finished_at_unix_nanos: u64,
    /// Set when the program never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<StartFailure>,
    /// Lines of output that could not be written to the log.
    #[serde(default)]
    pub dropped_log_lines: u64,
}

/// Why a task could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// What was being done: `spec`, `cgroup`, `mount`, `exec`...
    pub step: String,
    /// Readable, names the object.
    pub message: String,
    /// 127 or 126 for a program that cannot be executed, else 125.
    pub exit_code: i32,
}

/// The one line on the shim's stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReport {
    /// The program runs.
    Started(StartedReport),
    /// It does not; nothing is left but the exit status.
    Failed(StartFailure),
}

/// A task that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedReport {
    /// As in the state file.
    #[serde(flatten)]
    pub state: ShimState,
    /// What was asked for and could not be had.
    #[serde(default)]
    pub warnings: Vec<String>,
}
