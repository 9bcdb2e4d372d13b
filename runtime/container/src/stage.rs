//! A short-lived process between the creating one and the container's.
//!
//! Some namespaces cannot be entered by the process that is to live in them: a PID or time
//! namespace holds only for children, and those that belong to different user namespaces must be
//! joined in an order. The stage enters them and clones the container's process, as a child not of
//! its own but of the creating process (`CLONE_PARENT`, clone(2)).

use crate::error::{ContainerError, Context, Setup};
use crate::fault::{self, Role};
use crate::gate::{self, MAPPED, Report, hear, say, tell};
use crate::idmap::IdMaps;
use crate::namespaces::Namespaces;
use crate::process;
use crate::sys::{self, Cloned, Parent};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Clones the container's process by way of a stage; returns in it too.
pub fn clone(
    namespaces: &Namespaces,
    maps: Option<&IdMaps>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned, ContainerError> {
    run(maps, cgroup, namespaces.clone_flags(), |socket| {
        namespaces.join_in_stage(|| {
            // A creating process that is gone needs no container.
            if tell(socket, &Report::Unmapped).is_err() {
                sys::exit_now(125);
            }
            gate::await_word(socket, MAPPED);
            Ok(())
        })
    })
}

/// As [`clone`], with any way to enter the namespaces.
pub fn run(
    maps: Option<&IdMaps>,
    cgroup: Option<BorrowedFd<'_>>,
    flags: u64,
    enter: impl FnOnce(&OwnedFd) -> Setup<()>,
) -> Result<Cloned, ContainerError> {
    let (ours, theirs) = gate::pair()?;
    let system = |step| move |errno| ContainerError::System { step, errno };
    let stage = fault::step("clone stage")
        .and_then(|()| sys::clone3(0, None, Parent::Caller))
        .map_err(system("clone stage"))?;
    match stage {
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let born = midwife(&ours, pid, maps);
            drop(ours); // a stage that waits for something ends
            let _ = process::wait_child(&pidfd);
            let pid = born?;
            // A child of this process that nobody has reaped: the number is its.
            let pidfd = sys::pidfd_open(pid).map_err(system("open container process"))?;
            Ok(Cloned::Parent { pid, pidfd })
        }
        Cloned::Child => {
            drop(ours);
            fault::begin(Role::Stage);
            let cloned = sys::prctl(libc::PR_SET_DUMPABLE, dumpable(maps.is_some()))
                .step("make", "process non-dumpable")
                .and_then(|()| enter(&theirs))
                .and_then(|()| {
                    sys::clone3(flags, cgroup, Parent::Callers).step("clone", "container process")
                });
            let report = match cloned {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, .. }) => Report::Born { pid },
                Err(failure) => Report::Failed(failure),
            };
            let told = tell(&theirs, &report);
            sys::exit_now(if told.is_ok() { 0 } else { 125 })
        }
    }
}

/// Whether a process that is about to enter namespaces shows itself to others in them. An ordinary
/// user's must while its ids are to be `mapped`: the files for that would belong to root otherwise.
pub fn dumpable(mapped: bool) -> libc::c_ulong {
    libc::c_ulong::from(mapped && !nix::unistd::geteuid().is_root())
}

/// Serves the stage until the container's process exists.
fn midwife(socket: &OwnedFd, stage: i32, maps: Option<&IdMaps>) -> Result<i32, ContainerError> {
    loop {
        match hear(socket)? {
            Some(Report::Unmapped) => {
                if let Some(maps) = maps {
                    maps.write(stage)?;
                }
                say(socket, MAPPED)?;
            }
            Some(Report::Born { pid }) => return Ok(pid),
            Some(Report::Failed(failure)) => return Err(failure.into()),
            _ => {
                return Err(ContainerError::Vanished {
                    phase: "the joining of namespaces",
                    status: "status unknown".into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Uid, fork, setresuid};

    /// Root of a container that an ordinary user's program enters may look into all that it can see
    /// of that user's.
    #[test]
    fn who_enters_does_not_show_itself() {
        // SAFETY: the child goes on alone and ends with _exit.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                let user = Uid::from_raw(65_534);
                let shown = |_: &OwnedFd| {
                    // SAFETY: no pointers.
                    match unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } {
                        0 => Ok(()),
                        shown => Err(crate::error::SetupFailure::because(
                            "stay",
                            "unseen",
                            shown.to_string(),
                        )),
                    }
                };
                let entered = setresuid(user, user, user)
                    .is_ok()
                    .then(|| run(None, None, 0, shown));
                sys::exit_now(match entered {
                    Some(Ok(Cloned::Child)) => 0,
                    Some(Ok(Cloned::Parent { pidfd, .. })) => {
                        process::wait_child(&pidfd).map_or(3, process::Exit::code)
                    }
                    Some(Err(_)) => 1,
                    None => 2,
                })
            }
            ForkResult::Parent { child } => {
                let ended = waitpid(child, None).expect("wait");
                assert_eq!(ended, WaitStatus::Exited(child, 0));
            }
        }
    }
}
