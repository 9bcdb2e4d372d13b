//! `kill`.

use super::Context;
use crate::args;
use crate::error::OciError;
use container::process;
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
    let entry = context.store.get(&args.id)?;
    let cgroup = entry.cgroup()?;
    if args.all {
        // Also where the first process has ended and others have not.
        if let Some(cgroup) = &cgroup {
            cgroup.signal(signal)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let (_, pidfd) = entry.running()?;
    if !process::signal(&pidfd, signal)? {
        return Err(OciError::NotRunning(args.id.clone()));
    }
    // Without a PID namespace of its own, the others do not end with the first.
    if signal == libc::SIGKILL
        && !own_pids(&entry.spec()?)
        && let Some(cgroup) = &cgroup
    {
        cgroup.signal(signal)?;
    }
    // A frozen process ends only when it is thawed.
    if signal == libc::SIGKILL
        && let Some(cgroup) = &cgroup
    {
        cgroup.thaw()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn own_pids(spec: &oci_spec::runtime::Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let mut list = namespaces.into_iter().flatten();
    list.any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none())
}
