//! What can go wrong, and where.

use crate::cgroup::CgroupError;
use crate::fault;
use crate::program::ExecFailure;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Why a container could not be created or started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// A field of the specification that this runtime does not support.
    #[error("{field} is not supported{}", detail(.reason))]
    Unsupported {
        /// The field, as in `config.json`: `linux.seccomp`.
        field: String,
        /// What exactly, and what to do; may be empty.
        reason: String,
    },
    /// A field whose value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, as in `config.json`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller has more than one thread, so it cannot be cloned safely.
    #[error("a container can be created only by a process with one thread")]
    Multithreaded,
    /// Something of the host that the container needs could not be opened.
    #[error("open {what} {}: {errno}", .path.display())]
    Open {
        /// What it is: "network namespace".
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A system call of the creating side failed.
    #[error("{step}: {errno}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A step inside the container failed.
    #[error(transparent)]
    Setup(#[from] SetupFailure),
    /// The child ended without saying why (killed, out of memory).
    #[error("the container's first process ended during {phase} without a report ({status})")]
    Vanished {
        /// "setup" or "start".
        phase: &'static str,
        /// Its exit status in words.
        status: String,
    },
    /// The program could not be executed.
    #[error("{message}")]
    Exec {
        /// Readable, names the program: `exec: "nope": executable file not found in $PATH`.
        message: String,
        /// 127 where there is no such file, else 126, as shells and Docker have it.
        exit_code: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The control group could not be made or used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl ContainerError {
    /// The exit code that stands for this error: 127 or 126 for a program that cannot be
    /// executed, 125 ("the runtime itself failed") for the rest.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { exit_code, .. } => *exit_code,
            _ => 125,
        }
    }

    /// A short word for the step that failed, for programs: `exec`, `cgroup`, `spec`...
    pub fn step(&self) -> &str {
        match self {
            Self::Unsupported { .. } | Self::Invalid { .. } => "spec",
            Self::Multithreaded | Self::System { .. } | Self::Vanished { .. } => "create",
            Self::Open { what, .. } => what,
            Self::Setup(failure) => &failure.step,
            Self::Exec { .. } => "exec",
            Self::Cgroup(_) => "cgroup",
        }
    }

    pub(crate) fn not_executed(failure: ExecFailure) -> Self {
        Self::Exec {
            message: failure.message,
            exit_code: failure.exit_code,
            errno: Errno::from_raw(failure.errno),
        }
    }

    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            field: field.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

fn detail(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

/// A step of the set-up inside the container that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupFailure {
    /// What was being done: "mount", "resolve user".
    pub step: String,
    /// To what: a path, a name, a limit.
    pub object: String,
    /// The kernel's error number; 0 where the reason is not the kernel's.
    pub errno: i32,
    /// What the reason is, in words, where the number alone does not say it.
    pub reason: String,
}

impl std::fmt::Display for SetupFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.step, self.object)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        if self.errno != 0 {
            write!(f, ": {}", Errno::from_raw(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for SetupFailure {}

impl SetupFailure {
    pub(crate) fn new(step: &str, object: impl std::fmt::Display, errno: Errno) -> Self {
        Self {
            step: step.into(),
            object: object.to_string(),
            errno: errno as i32,
            reason: String::new(),
        }
    }

    pub(crate) fn because(
        step: &str,
        object: impl std::fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            step: step.into(),
            object: object.to_string(),
            errno: 0,
            reason: reason.into(),
        }
    }
}

/// Result of a step inside the container.
pub(crate) type Setup<T> = Result<T, SetupFailure>;

/// Names the step and the object of a failed system call.
pub(crate) trait Context<T> {
    fn step(self, step: &str, object: impl std::fmt::Display) -> Setup<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn step(self, step: &str, object: impl std::fmt::Display) -> Setup<T> {
        self.and_then(|value| fault::step(step).map(|()| value))
            .map_err(|errno| SetupFailure::new(step, object, errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn step(self, step: &str, object: impl std::fmt::Display) -> Setup<T> {
        let result = self.and_then(|value| Ok(fault::step(step).map(|()| value)?));
        result.map_err(|error| match error.raw_os_error() {
            Some(errno) => SetupFailure::new(step, object, Errno::from_raw(errno)),
            None => SetupFailure::because(step, object, error.to_string()),
        })
    }
}
