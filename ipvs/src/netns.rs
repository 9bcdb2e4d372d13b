//! Doing something inside another network namespace.

use std::os::fd::BorrowedFd;
use std::{io, panic, thread};

use nix::sched::{CloneFlags, setns};

/// Runs `work` in the namespace, on a thread of its own, so that no thread of the caller ever
/// changes its namespace. Nothing forks, which a program with threads must not do.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let visit = || -> io::Result<T> {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        let visitor = thread::Builder::new()
            .name("ipvs-netns".into())
            .spawn_scoped(scope, visit)?;
        visitor
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}
