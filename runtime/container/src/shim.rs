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
