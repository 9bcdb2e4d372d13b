//! `state`.

use super::Context;
use crate::error::OciError;
use crate::store::Entry;
use oci_spec::runtime::ContainerState;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// The state of the specification (runtime.md, "State"), and what runc tells beside it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub oci_version: &'static str,
    pub id: String,
    /// 0 when there is no process.
    pub pid: i32,
    /// `paused` beside those of the specification.
    pub status: &'static str,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

pub fn run(context: &Context<'_>, id: &str) -> Result<ExitCode, OciError> {
    print(&shown(&context.store.get(id)?)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn shown(entry: &Entry) -> Result<Shown, OciError> {
    let status = status(entry)?;
    let alive = status != "stopped";
    let annotations = entry
        .spec()
        .ok()
        .and_then(|spec| spec.annotations().clone());
    let owner = nix::unistd::User::from_uid(entry.saved.owner.into())
        .ok()
        .flatten();
    Ok(Shown {
        oci_version: container::defaults::OCI_VERSION,
        id: entry.saved.id.clone(),
        pid: entry
            .saved
            .process
            .filter(|_| alive)
            .map_or(0, |(pid, _)| pid),
        status,
        bundle: entry.saved.bundle.clone(),
        rootfs: entry.saved.rootfs.clone(),
        created: entry.saved.created.clone(),
        owner: owner.map_or_else(|| entry.saved.owner.to_string(), |user| user.name),
        annotations: annotations.unwrap_or_default(),
    })
}

/// Where it is in its life, with the one word that the specification lacks.
pub fn status(entry: &Entry) -> Result<&'static str, OciError> {
    Ok(match entry.status()? {
        ContainerState::Creating => "creating",
        ContainerState::Created => "created",
        ContainerState::Stopped => "stopped",
        ContainerState::Running if super::freeze::is_frozen(entry)? => "paused",
        ContainerState::Running => "running",
    })
}

/// As JSON, for people to read too.
pub fn print(value: &impl Serialize) -> Result<(), OciError> {
    let json = serde_json::to_string_pretty(value).map_err(|error| OciError::Json {
        path: "stdout".into(),
        reason: error.to_string(),
    })?;
    super::list::say(&format!("{json}\n"))
}
