//! What can go wrong with a cgroup.

use nix::errno::Errno;
use std::io;
use std::path::PathBuf;

/// Why a cgroup could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted, or none that can be written.
    #[error("no writable cgroup hierarchy is mounted")]
    NoHierarchy,
    /// The parent or name is not one.
    #[error("\"{path}\" is not a usable cgroup path: {reason}")]
    BadPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cgroup of this name is there already.
    #[error("cgroup {} exists already", .0.display())]
    Exists(PathBuf),
    /// There is no such cgroup.
    #[error("cgroup {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// A limit was asked for that no mounted hierarchy can apply.
    #[error("linux.resources.{field}: this machine has no \"{controller}\" controller for it")]
    NoController {
        /// The field of the specification.
        field: &'static str,
        /// The controller it needs.
        controller: &'static str,
    },
    /// A limit that is not supported, here or at all.
    #[error("linux.resources.{field} is not supported: {reason}")]
    Unsupported {
        /// The field of the specification.
        field: String,
        /// Why.
        reason: &'static str,
    },
    /// A controller could not be handed down to the children of a cgroup.
    #[error(
        "enable controller \"{controller}\" for the children of {}: processes are in that cgroup \
         itself, and version 2 forbids both at once; move them into a child of it",
        .path.display()
    )]
    InternalProcesses {
        /// The controller.
        controller: String,
        /// The cgroup that holds processes.
        path: PathBuf,
    },
    /// A file of the hierarchy could not be read or written.
    #[error("{action} {}{}: {source}", .path.display(), value.as_ref().map(|v| format!(" ({v})")).unwrap_or_default())]
    File {
        /// "read", "write", "create", "remove".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What was to be written.
        value: Option<String>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device filter could not be loaded.
    #[error("attach device filter to {}: {errno}", .path.display())]
    DeviceFilter {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Processes are left although all were killed, for some seconds.
    #[error("processes in {} do not die: {pids:?}", .path.display())]
    Undead {
        /// The cgroup.
        path: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
}

pub(super) type Result<T> = std::result::Result<T, CgroupError>;
