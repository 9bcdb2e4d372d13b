//! Processes by pidfd: a number alone may already belong to somebody else.

use crate::{fault, sys};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Why a process could not be found, signalled or waited for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process.
    #[error("process {0} does not exist")]
    Gone(i32),
    /// The number belongs to a process that was started at another time.
    #[error("process {0} is another one than the one meant: its number was reused")]
    Reused(i32),
    /// A system call failed.
    #[error("{step}: {errno}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// One number for both, as shells have it: 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// From a status of `wait(2)`.
    pub fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// When a process was started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`,
/// proc_pid_stat(5)). With the process id it names one process for as long as the machine runs.
///
/// # Errors
/// [`ProcessError::Gone`] where there is none.
pub fn start_time(pid: i32) -> Result<u64, ProcessError> {
    fault::step("read start time").map_err(|errno| ProcessError::System {
        step: "read start time of process",
        errno,
    })?;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw) {
            None | Some(Errno::ENOENT | Errno::ESRCH) => ProcessError::Gone(pid),
            Some(errno) => ProcessError::System {
                step: "read start time of process",
                errno,
            },
        }
    })?;
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let after_name = stat.iter().rposition(|b| *b == b')').map_or(0, |at| at + 1);
    String::from_utf8_lossy(stat.get(after_name..).unwrap_or_default())
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or(ProcessError::System {
            step: "parse start time of process",
            errno: Errno::EINVAL,
        })
}

/// A pidfd for `pid`, if it is still the process that was started at `start_time`.
///
/// # Errors
/// [`ProcessError::Gone`] or [`ProcessError::Reused`]: the process meant has ended.
pub fn open_verified(pid: i32, start_time: u64) -> Result<OwnedFd, ProcessError> {
    let pidfd = sys::pidfd_open(pid).map_err(|errno| match errno {
        Errno::ESRCH | Errno::EINVAL => ProcessError::Gone(pid),
        errno => ProcessError::System {
            step: "open process",
            errno,
        },
    })?;
    // Read after the pidfd was opened: if the number had changed hands before, this shows it.
    if self::start_time(pid)? == start_time {
        Ok(pidfd)
    } else {
        Err(ProcessError::Reused(pid))
    }
}

/// Sends a signal; `false` when the process has ended already.
///
/// # Errors
/// Anything else: a bad signal number, no permission.
pub fn signal(pidfd: impl AsFd, signal: i32) -> Result<bool, ProcessError> {
    match sys::pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(ProcessError::System {
            step: "send signal",
            errno,
        }),
    }
}

/// The number of a signal that people name: `9`, `KILL`, `SIGKILL`, `RTMIN+1`.
pub fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse().ok()?
        };
        return (0..=30)
            .contains(&offset)
            .then(|| libc::SIGRTMIN() + offset);
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

/// Waits until any process, child or not, has ended; `false` when it has not within the time.
///
/// # Errors
/// The kernel refuses to poll.
pub fn wait_ended(pidfd: impl AsFd, timeout: Option<Duration>) -> Result<bool, ProcessError> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            // Rounded up, or the last millisecond would be spent spinning.
            i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
        });
        match sys::poll_readable(pidfd.as_fd().as_raw_fd(), left) {
            Ok(true) => return Ok(true),
            Ok(false) if deadline.is_some_and(|d| std::time::Instant::now() >= d) => {
                return Ok(false);
            }
            Ok(false) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(ProcessError::System {
                    step: "wait for process",
                    errno,
                });
            }
        }
    }
}

/// Waits for a child and reaps it.
///
/// # Errors
/// It is not a child of this process, or was reaped already.
pub fn wait_child(pidfd: impl AsFd) -> Result<Exit, ProcessError> {
    loop {
        match sys::waitid_pidfd(pidfd.as_fd()) {
            Ok(exit) => return Ok(exit),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(ProcessError::System {
                    step: "wait for child",
                    errno,
                });
            }
        }
    }
}

/// Reaps one ended child of this process, whichever; `None` when none has ended.
///
/// # Errors
/// Other than having no child at all, none is expected.
pub fn reap_any() -> Result<Option<(i32, Exit)>, ProcessError> {
    match sys::reap_any() {
        Ok(reaped) => Ok(reaped.map(|(pid, status)| (pid, Exit::from_wait_status(status)))),
        Err(Errno::ECHILD) => Ok(None),
        Err(errno) => Err(ProcessError::System {
            step: "reap children",
            errno,
        }),
    }
}

/// Closes every descriptor above stderr except those listed: what a daemon has inherited and does
/// not mean to keep.
///
/// # Errors
/// `close_range(2)` is refused.
pub fn close_all_but(keep: &[i32]) -> Result<(), ProcessError> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        sys::close_range(from, fd - 1).map_err(|errno| ProcessError::System {
            step: "close descriptors",
            errno,
        })?;
        from = fd + 1;
    }
    sys::close_range(from, u32::MAX).map_err(|errno| ProcessError::System {
        step: "close descriptors",
        errno,
    })
}

/// Makes this process the one that inherits orphaned descendants.
///
/// # Errors
/// `prctl(2)` is refused.
pub fn become_subreaper() -> Result<(), ProcessError> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(|errno| ProcessError::System {
        step: "become a subreaper",
        errno,
    })
}

/// As [`become_subreaper`], and hides this process's memory, descriptors and executable from
/// everyone but root.
///
/// # Errors
/// `prctl(2)` is refused.
pub fn become_supervisor() -> Result<(), ProcessError> {
    become_subreaper()?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(|errno| ProcessError::System {
        step: "become a supervisor",
        errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_by_start_time() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("spawn");
        let pid = child.id() as i32;
        let started = start_time(pid).expect("start time");
        let pidfd = open_verified(pid, started).expect("open");
        assert!(matches!(
            open_verified(pid, started + 1),
            Err(ProcessError::Reused(_))
        ));
        assert!(!wait_ended(&pidfd, Some(Duration::from_millis(5))).expect("poll"));
        assert!(signal(&pidfd, libc::SIGKILL).expect("signal"));
        assert!(wait_ended(&pidfd, None).expect("poll"));
        assert_eq!(wait_child(&pidfd).expect("wait"), Exit::Signal(9));
        assert!(!signal(&pidfd, libc::SIGKILL).expect("signal"));
        assert!(matches!(start_time(pid), Err(ProcessError::Gone(_))));
        let _ = child.try_wait();
    }

    #[test]
    fn signals_by_name_and_number() {
        assert_eq!(parse_signal("SIGTERM"), Some(15));
        assert_eq!(parse_signal("quit"), Some(3));
        assert_eq!(parse_signal("9"), Some(9));
        assert_eq!(parse_signal("RTMIN+3"), Some(libc::SIGRTMIN() + 3));
        for bad in ["0", "65", "SIGNOPE", "RTMIN+x", "RTMIN-1", "-9"] {
            assert_eq!(parse_signal(bad), None, "{bad}");
        }
    }

    #[test]
    fn codes() {
        assert_eq!(Exit::from_wait_status(3 << 8), Exit::Code(3));
        assert_eq!(Exit::from_wait_status(15).code(), 143);
    }
}
