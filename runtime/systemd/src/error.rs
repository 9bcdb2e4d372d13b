//! What can go wrong with systemd.

use container::CgroupError;
use std::io;
use std::time::Duration;

/// Why a unit could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The path of the cgroup is not one of a unit.
    #[error("\"{path}\" is not a usable linux.cgroupsPath for systemd: {reason}")]
    BadPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens where systemd would.
    #[error(
        "systemd is not there to make the container's cgroup ({tried}): it must be the init of this \
         machine, or for an ordinary user `systemd --user` must run and XDG_RUNTIME_DIR be set; \
         without it use --cgroup-manager=cgroupfs"
    )]
    Absent {
        /// The sockets, each with the answer.
        tried: String,
    },
    /// The conversation broke off.
    #[error("{step} (systemd, at {socket}): {source}")]
    Conversation {
        /// What was being done.
        step: String,
        /// The socket.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// systemd has refused.
    #[error("{step}: systemd refuses: {message} ({name}){}", hint(name))]
    Refused {
        /// What was asked.
        step: String,
        /// The name of the error, as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// In systemd's words.
        message: String,
    },
    /// The job came to another end than the one wanted.
    #[error(
        "{action} unit {unit}: the job ended with \"{result}\"; see systemctl status {unit} and \
         journalctl -u {unit}"
    )]
    Job {
        /// "start", "stop".
        action: &'static str,
        /// The unit.
        unit: String,
        /// systemd's word for it: "failed", "timeout", "canceled", ...
        result: String,
    },
    /// The job did not come to an end.
    #[error(
        "{action} unit {unit}: systemd has not finished it within {} s; see systemctl list-jobs",
        .waited.as_secs()
    )]
    Slow {
        /// "start", "stop".
        action: &'static str,
        /// The unit.
        unit: String,
        /// How long was waited.
        waited: Duration,
    },
    /// An annotation `org.systemd.property.*` is not usable.
    #[error("annotation {name}: {reason}")]
    Annotation {
        /// The annotation.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process that holds the unit at first could not be made.
    #[error("make the process that holds unit {unit}: {errno}")]
    Hold {
        /// The unit.
        unit: String,
        /// The kernel's answer.
        errno: nix::errno::Errno,
    },
    /// Cgroups of this machine.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

fn hint(name: &str) -> &'static str {
    match name {
        "org.freedesktop.systemd1.UnitExists" => {
            "; stop the unit, or choose another linux.cgroupsPath"
        }
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            "; an ordinary user may ask only its own systemd --user"
        }
        _ => "",
    }
}

pub(crate) type Result<T, E = SystemdError> = std::result::Result<T, E>;
