//! `pause` and `resume`.

use super::Context;
use crate::error::OciError;
use crate::store::Entry;
use container::cgroup::FreezerState;
use container::{Cgroup, CgroupError};
use oci_spec::runtime::ContainerState;
use std::process::ExitCode;

pub fn pause(context: &Context<'_>, id: &str) -> Result<ExitCode, OciError> {
    alive(&context.store.get(id)?)?.freeze()?;
    Ok(ExitCode::SUCCESS)
}

pub fn resume(context: &Context<'_>, id: &str) -> Result<ExitCode, OciError> {
    let entry = context.store.get(id)?;
    let cgroup = alive(&entry)?;
    if cgroup.freezer_state()? == FreezerState::Thawed {
        return Err(OciError::WrongStatus {
            id: id.into(),
            status: "not paused",
            wanted: "there is nothing to resume",
        });
    }
    cgroup.thaw()?;
    Ok(ExitCode::SUCCESS)
}

/// The cgroup of a container that has processes.
pub fn alive(entry: &Entry) -> Result<Cgroup, OciError> {
    if entry.status()? == ContainerState::Stopped {
        return Err(OciError::NotRunning(entry.saved.id.clone()));
    }
    required(entry)
}

/// The container's cgroup, which the command is about.
pub fn required(entry: &Entry) -> Result<Cgroup, OciError> {
    entry.cgroup()?.ok_or_else(|| OciError::WrongStatus {
        id: entry.saved.id.clone(),
        status: "without a cgroup of its own",
        wanted: "this needs one",
    })
}

/// Whether a container that runs is paused; on a machine where none can be, it is not.
pub fn is_frozen(entry: &Entry) -> Result<bool, OciError> {
    let Some(cgroup) = entry.cgroup()? else {
        return Ok(false);
    };
    match cgroup.freezer_state() {
        Err(CgroupError::NoFreezer(_)) => Ok(false),
        state => Ok(state? != FreezerState::Thawed),
    }
}
