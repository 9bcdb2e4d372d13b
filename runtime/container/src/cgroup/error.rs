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
    /// The path is not one.
    #[error("\"{path}\" is not a usable cgroup path: {reason}")]
    BadPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The path is that of the runtime's own cgroup or of one above it: limits there would hold
    /// for the runtime and for others.
    #[error(
        "cgroup {} holds the runtime itself: a container needs a cgroup of its own beside or below \
         it; choose another linux.cgroupsPath", .0.display()
    )]
    OwnAncestor(PathBuf),
    /// A relative path was given, but the caller's own cgroup is not below what is mounted.
    #[error(
        "a relative cgroup path needs the caller's own cgroup, which {} does not show; give an \
         absolute one", .0.display()
    )]
    OwnUnknown(PathBuf),
    /// A cgroup of this name is there already.
    #[error("cgroup {} exists already", .0.display())]
    Exists(PathBuf),
    /// A cgroup of this name is there already, with processes.
    #[error("cgroup {} exists already and has processes: {pids:?}", .path.display())]
    InUse {
        /// The cgroup.
        path: PathBuf,
        /// Its processes.
        pids: Vec<i32>,
    },
    /// A cgroup of this name is there already, and frozen: nothing that joins it would run.
    #[error("cgroup {} is frozen; thaw it or choose another", .0.display())]
    Frozen(PathBuf),
    /// There is no such cgroup.
    #[error("cgroup {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// A limit was asked for that no mounted hierarchy can apply.
    #[error("linux.resources.{field}: this machine has no \"{controller}\" controller for it")]
    NoController {
        /// The field of the specification.
        field: String,
        /// The controller it needs.
        controller: String,
    },
    /// A controller that is needed is not handed down to where the cgroup is.
    #[error(
        "linux.resources.{field}: {} does not hand \"{controller}\" down to its children, and that \
         cannot be changed from here ({source}): delegate the controller to this user or namespace \
         (of systemd: Delegate=)", .path.display()
    )]
    NotDelegated {
        /// The field of the specification.
        field: String,
        /// The controller.
        controller: String,
        /// The cgroup whose `cgroup.subtree_control` lacks it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A limit that is not supported, here or at all.
    #[error("linux.resources.{field} is not supported: {reason}")]
    Unsupported {
        /// The field of the specification.
        field: String,
        /// Why.
        reason: &'static str,
    },
    /// A limit whose value makes no sense.
    #[error("linux.resources.{field}: {reason}")]
    Invalid {
        /// The field of the specification.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel has refused a limit.
    #[error("linux.resources.{field}: write {value} to {}: {source}{}", .path.display(), limit_hint(source))]
    Limit {
        /// The field of the specification.
        field: String,
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
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
    #[error("{action} {}{}: {source}{}", .path.display(), value.as_ref().map(|v| format!(" ({v})")).unwrap_or_default(), file_hint(source))]
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
    #[error(
        "{action} of {}: {errno}{}", .path.display(),
        if *errno == Errno::EPERM { "; it needs CAP_BPF (or CAP_SYS_ADMIN) and CAP_NET_ADMIN" } else { "" }
    )]
    DeviceFilter {
        /// "attach device filter", "detach old device filter"...
        action: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Processes do not stop within the time given.
    #[error("freeze {}: processes of it did not stop within {seconds} s; it is thawed again", .path.display())]
    NotFreezing {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// No mounted hierarchy can freeze.
    #[error("freeze {}: this machine has neither the freezer of version 1 nor version 2", .0.display())]
    NoFreezer(PathBuf),
    /// Processes are left although all were killed, for some seconds.
    #[error("processes in {} do not die: {pids:?}", .path.display())]
    Undead {
        /// The cgroup.
        path: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
}

impl CgroupError {
    /// The kernel's answer, where that is the reason.
    pub fn errno(&self) -> Option<Errno> {
        let source = match self {
            Self::File { source, .. }
            | Self::Limit { source, .. }
            | Self::NotDelegated { source, .. } => source,
            Self::DeviceFilter { errno, .. } => return Some(*errno),
            _ => return None,
        };
        source.raw_os_error().map(Errno::from_raw)
    }

    /// Whether the file or the whole cgroup was not there (any more).
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV))
    }

    /// Whether the caller may not do this.
    pub(super) fn is_denied(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
        )
    }

    pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn unsupported(field: impl Into<String>, reason: &'static str) -> Self {
        Self::Unsupported {
            field: field.into(),
            reason,
        }
    }
}

fn limit_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT) => "; this kernel, or the controller here, has no such limit",
        Some(libc::EBUSY) => "; more than that is in use, and cannot be taken back",
        Some(libc::ENODEV) => "; there is no such device",
        Some(libc::EINVAL | libc::ERANGE) => {
            "; the kernel does not take this value beside the other limits of the cgroup and of \
             those above it"
        }
        _ => file_hint(source),
    }
}

fn file_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; this user has no write permission there: the cgroup above has to be delegated to it"
        }
        Some(libc::EROFS) => "; the hierarchy is mounted read-only",
        _ => "",
    }
}

pub(super) type Result<T, E = CgroupError> = std::result::Result<T, E>;
