//! The settings of a namespace.

use std::collections::BTreeMap;
use std::path::Path;

use super::dump::FoundLink;
use super::handle::{Namespace, Synced};
use super::links;
use super::spec::{Spec, Sysctl};
use crate::error::NetdpError;

/// Makes a router of the namespace.
const FORWARDING: &str = "net/ipv6/conf/all/forwarding";

impl Namespace {
    pub(super) fn sync_sysctls(
        &mut self,
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
                    Ok(true) => changed.push(sysctl.path.as_str()),
                    Ok(false) => {}
                    Err(error) => errors.push(error),
                }
            }
            (changed, errors)
        })?;
        let (changed, errors) = outcome;
        self.router |= changed.contains(&FORWARDING);
        synced
            .changes
            .extend(changed.into_iter().map(changed_sysctl));
        synced.errors.extend(errors);
        Ok(())
    }

    /// Where it was us who made a router of the node, links that came later, or whose setting was
    /// put back, take their routes from router advertisements as they would without us. Ports of
    /// a bridge, and our own links, have no routes.
    pub(super) fn keep_routes(
        &mut self,
        spec: &Spec,
        found: &BTreeMap<String, FoundLink>,
        synced: &mut Synced,
    ) -> Result<(), NetdpError> {
        let forwards = spec.sysctls.iter().any(|sysctl| sysctl.path == FORWARDING);
        let keeps = self.router && forwards && spec.shared;
        // The next process must know it; not longer than there is anything of ours here.
        self.record.set_router(keeps);
        if keeps {
            let others = found.values().filter(|link| {
                link.master.is_none()
                    && !spec.has_link(&link.name)
                    && !link.alias.starts_with(links::OWNER)
            });
            let paths = others.map(|link| format!("net/ipv6/conf/{}/accept_ra", link.name));
            let paths: Vec<String> = paths.collect();
            let changed = self.netns.run(|| {
                let changed = paths.iter().filter(|path| keep_advertisements(path));
                changed.map(|path| changed_sysctl(path)).collect::<Vec<_>>()
            })?;
            synced.changes.extend(changed);
        }
        Ok(())
    }
}

fn changed_sysctl(path: &str) -> String {
    format!("sysctl {path}")
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
    if sysctl.path == FORWARDING {
        keep_all_advertisements();
    }
    std::fs::write(&path, sysctl.value).map_err(NetdpError::file("write", path))?;
    Ok(true)
}

fn keep_all_advertisements() {
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten();
    for link in links.map(|link| link.file_name()) {
        if let Some(link) = link
            .to_str()
            .filter(|link| *link != "all" && *link != "default")
        {
            keep_advertisements(&format!("net/ipv6/conf/{link}/accept_ra"));
        }
    }
}

/// A link that takes its routes from router advertisements stops doing so when forwarding is
/// switched on, unless it is told to go on (`accept_ra` 2, Linux ip-sysctl). What cannot be told
/// is left: forwarding matters more, and a link that vanishes meanwhile is none of ours. Whether the
/// setting was changed.
fn keep_advertisements(path: &str) -> bool {
    let path = Path::new("/proc/sys").join(path);
    let accepts = std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
    accepts && std::fs::write(&path, "2").is_ok()
}
