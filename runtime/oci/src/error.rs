//! What can go wrong with a command.

use container::{CgroupError, ContainerError, SetupFailure, process::ProcessError};
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error("\"{id}\" is no usable id of a container: {reason}")]
    BadId { id: String, reason: &'static str },
    #[error("container {0} exists already")]
    Exists(String),
    // The words are those that callers of runc look for.
    #[error("container {0} does not exist")]
    NotFound(String),
    #[error("container {id} is {status}: {wanted}")]
    WrongStatus {
        id: String,
        status: &'static str,
        wanted: &'static str,
    },
    #[error(
        "what is known of container {id} is damaged ({reason}); look for its processes, then \
         delete it with --force"
    )]
    Damaged { id: String, reason: String },
    #[error(
        "container {id}: {reason}, and it cannot be told whether the processes {pids:?} in its \
         cgroup are its own; end them if they are, and delete it again"
    )]
    Unknown {
        id: String,
        reason: String,
        pids: Vec<i32>,
    },
    #[error(
        "{} is held by another command that has not come to its end; see lsof {}", .0.display(),
        .0.display()
    )]
    Busy(PathBuf),
    // containerd takes a kill that fails with these words of runc for one of a process that has ended.
    #[error("container not running: {0}")]
    NotRunning(String),
    #[error("{action} {}: {source}", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("read {}: {reason}", .path.display())]
    Json { path: PathBuf, reason: String },
    #[error("{option}: {reason}")]
    Option {
        option: &'static str,
        reason: String,
    },
    #[error("hook of container {id}: {failure}")]
    Hook { id: String, failure: SetupFailure },
    #[error("{0}: checkpoints are not supported by this runtime; stop the container instead")]
    NoCheckpoints(&'static str),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Systemd(#[from] systemd::SystemdError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{step}: {errno}")]
    System {
        step: &'static str,
        errno: nix::errno::Errno,
    },
}

impl OciError {
    /// 127 or 126 for a program that cannot be executed, as shells have it; else 1, as runc has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Container(error @ ContainerError::Exec { .. }) => {
                u8::try_from(error.exit_code()).unwrap_or(1)
            }
            _ => 1,
        }
    }

    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
