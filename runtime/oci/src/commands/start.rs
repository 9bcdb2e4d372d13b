//! `start`.

use super::Context;
use super::delete::destroy;
use super::freeze;
use crate::error::OciError;
use crate::store::{Entry, Saved};
use container::hooks::{self, Point};
use container::seccomp::Agent;
use oci_spec::runtime::{ContainerState, Spec};
use std::process::ExitCode;

pub fn run(context: &Context<'_>, id: &str) -> Result<ExitCode, OciError> {
    let entry = context.store.get(id)?;
    start(context, entry)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the container's process become the program.
fn start(context: &Context<'_>, entry: Entry) -> Result<(), OciError> {
    let wrong = |status| OciError::WrongStatus {
        id: entry.saved.id.clone(),
        status,
        wanted: "only one that was created and not yet started can be started",
    };
    let paused = || OciError::WrongStatus {
        id: entry.saved.id.clone(),
        status: "paused",
        wanted: "resume it first",
    };
    match entry.status()? {
        ContainerState::Created if freeze::is_frozen(&entry)? => return Err(paused()),
        ContainerState::Created => {}
        ContainerState::Stopped => return Err(wrong("stopped")),
        ContainerState::Creating => return Err(wrong("creating")),
        ContainerState::Running => return Err(wrong("running")),
    }
    let (pid, pidfd) = entry.running()?;
    let spec = entry.spec()?;
    let agent = Agent::of(
        &spec,
        Some(&entry.identity()),
        ContainerState::Creating,
        pid,
    )?;
    container::start_at(&entry.start_socket(), agent.as_ref(), &pidfd)?;
    let _ = std::fs::remove_file(entry.start_socket()); // nobody listens any more
    has_begun(context, &entry.unlock(), &spec, pid)
}

/// The program of a container runs: the hooks for that. They run without the lock: one of them may
/// be who asks for it, or hang.
pub fn has_begun(
    context: &Context<'_>,
    saved: &Saved,
    spec: &Spec,
    pid: i32,
) -> Result<(), OciError> {
    let identity = saved.identity();
    let state = identity.state(spec, ContainerState::Running, Some(pid));
    hooks::run(spec, Point::Poststart, &state).map_err(|failure| {
        // It must not run without what its hooks were to do (runtime.md, "Lifecycle", 9).
        let ended = match context.store.again(saved) {
            Ok(Some(entry)) => destroy(context, &entry),
            other => other.map(drop),
        };
        if let Err(error) = ended {
            context.log.warning(&error.to_string());
        }
        OciError::Hook {
            id: saved.id.clone(),
            failure,
        }
    })
}
