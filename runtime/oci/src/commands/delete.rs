//! `delete`.

use super::Context;
use super::create::{self, run_poststop};
use super::kill::own_pids;
use crate::args;
use crate::error::OciError;
use crate::store::Entry;
use container::{Cgroup, CgroupError, process};
use oci_spec::runtime::{ContainerState, Spec};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use systemd::Manager;

/// How long a killed process may take to end: what it did in the kernel must come to its end.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(context: &Context<'_>, args: &args::Delete) -> Result<ExitCode, OciError> {
    let entry = match args.force {
        true => match context.store.get_forced(&args.id) {
            Err(OciError::NotFound(_)) => return Ok(ExitCode::SUCCESS),
            result => result?,
        },
        false => context.store.get(&args.id)?,
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
    destroy(context, &entry)?;
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
    destroy_in(context, &entry, cgroup, Some(spec))?;
    run_poststop(context, spec, &entry);
    entry.forget()
}

/// Kills the container's processes and removes its cgroup.
pub fn destroy(context: &Context<'_>, entry: &Entry) -> Result<(), OciError> {
    let spec = entry.spec().ok();
    destroy_in(context, entry, cgroup(context, entry)?, spec.as_ref())
}

fn destroy_in(
    context: &Context<'_>,
    entry: &Entry,
    cgroup: Option<Cgroup>,
    spec: Option<&Spec>,
) -> Result<(), OciError> {
    let id = &entry.saved.id;
    let first = entry.process()?;
    let mut killed = false;
    if let Some(cgroup) = &cgroup
        && holds(context, cgroup, entry, first.as_ref().map(|(pid, _)| *pid))?
    {
        // Frozen processes too, which by a signal alone would not end.
        cgroup.kill()?;
        killed = true; // all of them, and has waited for their end
    }
    if let Some((_, pidfd)) = first {
        process::signal(&pidfd, libc::SIGKILL)?;
        if !process::wait_ended(&pidfd, Some(PATIENCE))? {
            return Err(OciError::WrongStatus {
                id: id.clone(),
                status: "running",
                wanted: "its first process was killed and does not end; see what it waits for in \
                         /proc/<pid>/stack, and delete it again",
            });
        }
    }
    if let Some(spec) = spec {
        container::rdt::remove(spec, id)?;
    }
    if let Some(unit) = &entry.saved.unit {
        // Also when its cgroup is gone: one that failed is remembered.
        Manager::connect()?.stop(unit)?;
    }
    let Some(cgroup) = cgroup else {
        return Ok(());
    };
    let pids = if killed { Vec::new() } else { left(&cgroup)? };
    match &entry.damage {
        _ if pids.is_empty() => Ok(cgroup.delete()?),
        Some(reason) => Err(OciError::Unknown {
            id: id.clone(),
            reason: reason.clone(),
            pids,
        }),
        None => {
            context.log.warning(&format!(
                "container {id}: its cgroup stays, others use it: processes {pids:?}"
            ));
            Ok(())
        }
    }
}

/// Its cgroup; of one whose state is damaged, where its configuration puts it.
fn cgroup(context: &Context<'_>, entry: &Entry) -> Result<Option<Cgroup>, OciError> {
    let found = match (&entry.damage, entry.spec()) {
        (None, _) | (Some(_), Err(_)) => entry.cgroup(),
        (Some(_), Ok(spec)) => {
            let path = create::cgroup(context, &entry.saved.id, &spec)?;
            path.map_or(Ok(None), |path| crate::store::open_cgroup(&path))
        }
    };
    match found {
        Err(OciError::Cgroup(error @ CgroupError::BadPath { .. })) => {
            context.log.warning(&error.to_string());
            Ok(None)
        }
        found => found,
    }
}

/// Whether the processes in the cgroup are the container's: its first one is among them, or was,
/// and the others need not have ended with it. Else they are somebody else's, who has the cgroup
/// now, or had it when the creation was refused for that and killed before it could say so.
pub fn holds(
    context: &Context<'_>,
    cgroup: &Cgroup,
    entry: &Entry,
    first: Option<i32>,
) -> Result<bool, OciError> {
    match first {
        Some(pid) => Ok(cgroup.procs()?.contains(&pid)),
        None if entry.saved.process.is_none() || own_pids(entry) => Ok(false),
        None => Ok(!context.store.has_successor(&entry.saved)?),
    }
}

/// Who is in the cgroup when those who end just now have ended.
fn left(cgroup: &Cgroup) -> Result<Vec<i32>, OciError> {
    let deadline = Instant::now() + PATIENCE / 2;
    loop {
        let pids = cgroup.procs()?;
        if pids.is_empty() || Instant::now() >= deadline {
            return Ok(pids);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
