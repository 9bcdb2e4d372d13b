//! `delete`.

use super::Context;
use super::create::run_poststop;
use crate::args;
use crate::error::OciError;
use crate::store::Entry;
use container::{Cgroup, process};
use oci_spec::runtime::{ContainerState, Spec};
use std::process::ExitCode;
use std::time::Duration;

/// How long a killed process may take to end: what it did in the kernel must come to its end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(context: &Context<'_>, args: &args::Delete) -> Result<ExitCode, OciError> {
    let entry = match context.store.get(&args.id) {
        Err(OciError::NotFound(_)) if args.force => return Ok(ExitCode::SUCCESS),
        result => result?,
    };
    // One that was created runs nothing of its own yet.
    if entry.status()? == ContainerState::Running && !args.force {
        return Err(OciError::WrongStatus {
            id: args.id.clone(),
            status: "running",
            wanted: "stop it first, or give --force",
        });
    }
    delete(context, entry)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends what is left of a container, and forgets it.
pub fn delete(context: &Context<'_>, entry: Entry) -> Result<(), OciError> {
    destroy(&entry)?;
    // Without a configuration, the creation never came to where hooks run.
    if let Ok(spec) = entry.spec() {
        run_poststop(context, &spec, &entry);
    }
    entry.forget()
}

/// As [`delete`], by whoever has made it and knows its specification and its cgroup.
pub fn delete_known(
    context: &Context<'_>,
    entry: Entry,
    spec: &Spec,
    cgroup: Option<Cgroup>,
) -> Result<(), OciError> {
    destroy_in(&entry, cgroup)?;
    run_poststop(context, spec, &entry);
    entry.forget()
}

/// Kills the container's processes and removes its cgroup.
pub fn destroy(entry: &Entry) -> Result<(), OciError> {
    destroy_in(entry, entry.cgroup()?)
}

fn destroy_in(entry: &Entry, cgroup: Option<Cgroup>) -> Result<(), OciError> {
    if let Some(cgroup) = &cgroup {
        // Frozen processes too, which by a signal alone would not end.
        cgroup.kill()?;
    }
    if let Some((_, pidfd)) = entry.process()? {
        process::signal(&pidfd, libc::SIGKILL)?;
        if !process::wait_ended(&pidfd, Some(PATIENCE))? {
            return Err(OciError::WrongStatus {
                id: entry.saved.id.clone(),
                status: "running",
                wanted: "its first process was killed and does not end; see what it waits for in \
                         /proc/<pid>/stack, and delete it again",
            });
        }
    }
    match cgroup {
        Some(cgroup) => Ok(cgroup.delete()?),
        None => Ok(()),
    }
}
