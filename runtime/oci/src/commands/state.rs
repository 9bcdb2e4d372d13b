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
    print(&shown(&context.store.look(id)?)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn shown(entry: &Entry) -> Result<Shown, OciError> {
    let status = status(entry)?;
    let alive = status != "stopped";
    let annotations = entry
        .spec()
        .ok()
        .and_then(|spec| spec.annotations().clone());
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
        owner: user_name(entry.saved.owner),
        annotations: annotations.unwrap_or_default(),
    })
}

/// The name of a user in the machine's `/etc/passwd`, else the number. Other sources of users come
/// with libraries that this program would have to load.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    name_in(&String::from_utf8_lossy(&passwd), uid).unwrap_or_else(|| uid.to_string())
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == uid).then(|| name.into())
    })
}

/// Where it is in its life, with the one word that the specification lacks.
pub fn status(entry: &Entry) -> Result<&'static str, OciError> {
    Ok(match entry.status()? {
        ContainerState::Creating => "creating",
        ContainerState::Created => "created",
        ContainerState::Stopped => "stopped",
        ContainerState::Running => match super::freeze::is_frozen(entry) {
            Ok(true) => "paused",
            Ok(false) => "running",
            // Its cgroup may be removed while we look.
            Err(_) if entry.process()?.is_none() => "stopped",
            Err(error) => return Err(error),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\n:x:7:7\nweb:x:101:102::/srv:/bin/sh\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 101).as_deref(), Some("web"));
        assert_eq!(name_in(passwd, 7), None);
        assert_eq!(name_in(passwd, 102), None);
    }
}
