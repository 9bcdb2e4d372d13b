//! A process that holds a unit until the container does: systemd makes no scope without a process,
//! and ends one whose last process ends.

use crate::error::{Result, SystemdError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid};

/// The unit stays as long as this does, even without a process of its own. Dropped, the process
/// that holds it has ended.
#[derive(Debug)]
pub struct Held(Option<Pid>);

impl Held {
    /// A unit that needs nobody: a slice.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// Makes the process. It does nothing, holds no descriptor, and ends with the caller.
    pub(crate) fn new(unit: &str) -> Result<Self> {
        let parent = getpid();
        // SAFETY: the child makes only system calls, none of which allocates, and never returns.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => Ok(Self(Some(child))),
            Ok(ForkResult::Child) => stay(parent),
            Err(errno) => Err(SystemdError::Hold {
                unit: unit.into(),
                errno,
            }),
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.0.and_then(|pid| u32::try_from(pid.as_raw()).ok())
    }
}

fn stay(parent: Pid) -> ! {
    // SAFETY: these take and return numbers only; the name is a literal that ends with a NUL. A
    // descriptor that is left open, as on a kernel without close_range, is closed a moment later.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"fairlead-hold".as_ptr());
        libc::close_range(0, libc::c_uint::MAX, 0);
        // The caller may have ended before it was to be told.
        while libc::getppid() == parent.as_raw() {
            libc::pause();
        }
        libc::_exit(0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(pid) = self.0.take() else { return };
        let _ = kill(pid, Signal::SIGKILL); // it is our child, and not reaped: it is still this one
        while waitpid(pid, None) == Err(Errno::EINTR) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn holds_nothing_and_ends() {
        let held = Held::new("x.scope").expect("fork");
        let pid = held.pid().expect("a process");
        let name = || fs::read_to_string(format!("/proc/{pid}/comm"));
        while name().expect("comm") != "fairlead-hold\n" {
            std::thread::yield_now();
        }
        let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").count();
        while open() != 0 {
            std::thread::yield_now();
        }
        drop(held);
        assert!(name().is_err());
        assert!(Held::nobody().pid().is_none());
    }
}
