//! `start`.

use super::Context;
use super::delete::destroy;
use super::freeze;
use crate::error::OciError;
use crate::store::Entry;
use container::hooks::{self, Point};
use container::seccomp::Agent;
use oci_spec::runtime::{ContainerState, Spec};
use std::process::ExitCode;

pub fn run(context: &Context<'_>, id: &str) -> Result<ExitCode, OciError> {
    let entry = context.store.get(id)?;
    start(context, &entry)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the container's process become the program.
pub fn start(context: &Context<'_>, entry: &Entry) -> Result<(), OciError> {
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
        ContainerState::Created if freeze::is_frozen(entry)? => return Err(paused()),
        ContainerState::Created => {}
        ContainerState::Stopped => return Err(wrong("stopped")),
        _ => return Err(wrong("running")),
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
    has_begun(context, entry, &spec, pid)
}

/// The program of a container runs: the hooks for that.
pub fn has_begun(
    context: &Context<'_>,
    entry: &Entry,
    spec: &Spec,
    pid: i32,
) -> Result<(), OciError> {
    let identity = entry.identity();
    let state = identity.state(spec, ContainerState::Running, Some(pid));
    hooks::run(spec, Point::Poststart, &state).map_err(|failure| {
        // It must not run without what its hooks were to do (runtime.md, "Lifecycle", 9).
        if let Err(error) = destroy(context, entry) {
            context.log.warning(&error.to_string());
        }
        OciError::Hook {
            id: entry.saved.id.clone(),
            failure,
        }
    })
}
