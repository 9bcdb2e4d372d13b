//! The settings of a namespace.

use std::path::Path;

use super::handle::{Namespace, Synced};
use super::spec::{Spec, Sysctl};
use crate::error::NetdpError;

impl Namespace {
    pub(super) fn sync_sysctls(
        &self,
        spec: &Spec,
        which: fn(&Sysctl) -> bool,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        if !spec.sysctls.iter().any(which) {
            return Ok(());
        }
        let outcome = self.netns.run(|| {
            let mut changed = Vec::new();
            let mut errors = Vec::new();
            for sysctl in spec.sysctls.iter().filter(|sysctl| which(sysctl)) {
                match write_sysctl(sysctl, spec.shared) {
                    Ok(true) => changed.push(format!("sysctl {}", sysctl.path)),
                    Ok(false) => {}
                    Err(error) => errors.push(error),
                }
            }
            (changed, errors)
        })?;
        synced.changes.extend(outcome.0);
        synced.errors.extend(outcome.1);
        Ok(())
    }
}

/// Writes a setting if it differs; whether it did.
///
/// What is `shared` with other people of the namespace is told, because it stays: whoever began to
/// route since then has found it switched on, and would be cut off (docs/operations.md).
fn write_sysctl(sysctl: &Sysctl, shared: bool) -> Result<bool, NetdpError> {
    let path = Path::new("/proc/sys").join(&sysctl.path);
    match std::fs::read_to_string(&path) {
        Ok(value) if value.trim() == sysctl.value => return Ok(false),
        Ok(was) if shared && !sysctl.is_of_a_link() => {
            let (setting, was, now) = (&sysctl.path, was.trim(), sysctl.value);
            tracing::info!(setting, was, now, "set for the whole node, and it stays so");
        }
        Err(error) if sysctl.optional && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        _ => {}
    }
    if sysctl.path == "net/ipv6/conf/all/forwarding" {
        keep_router_advertisements();
    }
    std::fs::write(&path, sysctl.value).map_err(NetdpError::file("write", path))?;
    Ok(true)
}

/// A link that takes its routes from router advertisements stops doing so when forwarding is
/// switched on, unless it is told to go on (`accept_ra` 2, Linux ip-sysctl). What cannot be told
/// is left: forwarding matters more, and a link that vanishes meanwhile is none of ours.
fn keep_router_advertisements() {
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten();
    for link in links.filter(|link| link.file_name() != "all" && link.file_name() != "default") {
        let path = link.path().join("accept_ra");
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            let _ = std::fs::write(&path, "2");
        }
    }
}
