//! `kill`.

use super::Context;
use super::delete::holds;
use crate::args;
use crate::error::OciError;
use crate::store::Entry;
use container::cgroup::FreezerState;
use container::{Cgroup, process};
use oci_spec::runtime::LinuxNamespaceType;
use std::process::ExitCode;

pub fn run(context: &Context<'_>, args: &args::Kill) -> Result<ExitCode, OciError> {
    // 0 only asks whether it runs (kill(2)).
    let number = Some(0).filter(|_| args.signal == "0");
    let signal = number.or_else(|| process::parse_signal(&args.signal));
    let signal = signal.ok_or_else(|| OciError::Option {
        option: "SIGNAL",
        reason: format!("\"{}\" is no signal", args.signal),
    })?;
    let entry = context.store.look(&args.id)?;
    let cgroup = entry.cgroup()?;
    let first = entry.process()?;
    let pid = first.as_ref().map(|(pid, _)| *pid);
    // Another container may have the cgroup of one that has ended.
    let held = || match &cgroup {
        Some(cgroup) => holds(context, cgroup, &entry, pid),
        None => Ok(false),
    };
    if args.all
        && let Some(cgroup) = &cgroup
    {
        // Also where the first process has ended and others have not.
        if held()? {
            cgroup.signal(signal)?;
            return thaw_killed(cgroup, signal);
        }
        if first.is_none() {
            return Ok(ExitCode::SUCCESS); // all of them have ended
        }
    }
    let Some((_, pidfd)) = first else {
        return Err(OciError::NotRunning(args.id.clone()));
    };
    // Without a PID namespace of its own, the others do not end with the first.
    let others = signal == libc::SIGKILL && !own_pids(&entry) && held()?;
    if !process::signal(&pidfd, signal)? {
        return Err(OciError::NotRunning(args.id.clone()));
    }
    if others && let Some(cgroup) = &cgroup {
        cgroup.signal(signal)?;
    }
    match &cgroup {
        Some(cgroup) => thaw_killed(cgroup, signal),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A frozen process ends only when it is thawed.
fn thaw_killed(cgroup: &Cgroup, signal: i32) -> Result<ExitCode, OciError> {
    // One that cannot be frozen, or is gone by now, needs no thaw.
    if signal == libc::SIGKILL
        && cgroup
            .freezer_state()
            .is_ok_and(|state| state != FreezerState::Thawed)
    {
        cgroup.thaw()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether its processes end with the first: it has a PID namespace that was made for it.
pub fn own_pids(entry: &Entry) -> bool {
    let Ok(spec) = entry.spec() else {
        return false;
    };
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let mut list = namespaces.into_iter().flatten();
    list.any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none())
}
