//! `linux.intelRdt`: shares of caches and of memory bandwidth, by the file system resctrl
//! (config-linux.md, "IntelRdt"; kernel: Documentation/arch/x86/resctrl.rst).
//!
//! A class of service is a directory of resctrl. One that is named (`closID`) may be there already:
//! it is used, if it has the schemata asked for, and stays, because others may be in it. One without
//! a name has the container's, and goes with the container ([`remove`]), as its monitoring group does.

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::hooks::Identity;
use oci_spec::runtime::{Linux, LinuxIntelRdt, Spec};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where resctrl is mounted, by convention.
const MOUNT: &str = "/sys/fs/resctrl";

/// Refuses what cannot work, before anything is made.
pub(crate) fn check(linux: &Linux) -> Result<(), ContainerError> {
    match linux.intel_rdt() {
        Some(rdt) => check_at(rdt, Path::new(MOUNT)),
        None => Ok(()),
    }
}

fn check_at(rdt: &LinuxIntelRdt, root: &Path) -> Result<(), ContainerError> {
    let bad = |field: &str, reason: &str| {
        Err(ContainerError::invalid(
            format!("linux.intelRdt.{field}"),
            reason,
        ))
    };
    if let Some(name) = rdt.clos_id().as_deref().filter(|name| *name != "/")
        && !is_name(name)
    {
        return bad("closID", "neither a name of a directory nor \"/\"");
    }
    let old = rdt.l3_cache_schema().is_some() || rdt.mem_bw_schema().is_some();
    let new = rdt.schemata().as_deref().unwrap_or_default();
    if old && !new.is_empty() {
        return bad("schemata", "not together with l3CacheSchema or memBwSchema");
    }
    if new.iter().any(|line| line.contains('\n')) {
        return bad("schemata", "each element is one line");
    }
    if schemata(rdt).iter().any(|line| parts(line).is_none()) {
        return bad("schemata", "a line has the form L3:0=f;1=f");
    }
    if rdt.clos_id().as_deref() == Some("/") && !schemata(rdt).is_empty() {
        return bad(
            "schemata",
            "the root class is everybody's and is not changed",
        );
    }
    if root.join("schemata").exists() {
        return Ok(());
    }
    let reason = format!(
        "resctrl is not mounted at {}: this kernel or processor has no such control, or it wants \
         mount -t resctrl resctrl {0}",
        root.display()
    );
    Err(ContainerError::unsupported("linux.intelRdt", reason))
}

fn is_name(name: &str) -> bool {
    // These are resctrl's own.
    let own = [".", "..", "info", "mon_groups", "mon_data"];
    !name.is_empty()
        && name.len() < 256
        && !own.contains(&name)
        && !name.contains(|c: char| c == '/' || c.is_control())
}

/// What is asked for, line by line.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<&str> {
    let lines = rdt.schemata().iter().flatten().map(String::as_str);
    let bandwidth = rdt.mem_bw_schema().as_deref();
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default().lines();
    // The bandwidth's own field counts more than a line in the cache's.
    let cache = cache.filter(|line| bandwidth.is_none() || !line.trim().starts_with("MB:"));
    let all = lines
        .chain(cache)
        .chain(bandwidth.iter().flat_map(|text| text.lines()));
    all.map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// `L3:0=00f;1=f` as resource, and value by domain.
fn parts(line: &str) -> Option<(&str, BTreeMap<&str, &str>)> {
    let (resource, domains) = line.split_once(':')?;
    let domains = domains.split(';').map(|domain| {
        let (id, value) = domain.split_once('=')?;
        let (id, value) = (id.trim(), value.trim());
        let short = value.trim_start_matches('0');
        let value = if short.is_empty() { value } else { short };
        (!id.is_empty() && !value.is_empty()).then_some((id, value))
    });
    let domains = domains.collect::<Option<_>>()?;
    let resource = resource.trim();
    (!resource.is_empty()).then_some((resource, domains))
}

/// Whether what is there has everything that is asked for.
fn has(there: &str, asked: &[&str]) -> bool {
    let there: BTreeMap<_, _> = there.lines().filter_map(parts).collect();
    asked
        .iter()
        .filter_map(|line| parts(line))
        .all(|(resource, domains)| {
            there.get(resource).is_some_and(|values| {
                let mut domains = domains.iter();
                domains.all(|(id, value)| values.get(id) == Some(value))
            })
        })
}

#[allow(deprecated)] // what the old fields ask for, a monitoring group gives
fn monitored(rdt: &LinuxIntelRdt) -> bool {
    let fields = [rdt.enable_monitoring(), rdt.enable_cmt(), rdt.enable_mbm()];
    fields.into_iter().any(|field| *field == Some(true))
}

/// The directories of the class and of the monitoring group.
fn places(rdt: &LinuxIntelRdt, id: &str, root: &Path) -> (PathBuf, Option<PathBuf>) {
    let class = match rdt.clos_id().as_deref() {
        Some("/") => root.to_owned(),
        Some(name) => root.join(name),
        None => root.join(id),
    };
    let group = monitored(rdt).then(|| class.join("mon_groups").join(id));
    (class, group)
}

/// What was made for a container. Dropped, it is removed; [`Class::keep`] leaves it.
#[derive(Debug, Default)]
pub(crate) struct Class(Vec<PathBuf>);

impl Class {
    /// The container stands.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            let _ = fs::remove_dir(directory); // the error that led here is the one to report
        }
    }
}

/// Puts a container's first process into its class, which is made where it is missing.
pub(crate) fn join(linux: &Linux, identity: Option<&Identity>, pid: i32) -> Setup<Option<Class>> {
    match linux.intel_rdt() {
        Some(rdt) => join_at(rdt, id_of(identity)?, pid, Path::new(MOUNT)).map(Some),
        None => Ok(None),
    }
}

/// Puts a further process into the container's class.
pub(crate) fn follow(linux: &Linux, identity: Option<&Identity>, pid: i32) -> Setup<()> {
    let Some(rdt) = linux.intel_rdt() else {
        return Ok(());
    };
    let (class, group) = places(rdt, id_of(identity)?, Path::new(MOUNT));
    attach(&class, group.as_deref(), pid)
}

fn id_of(identity: Option<&Identity>) -> Setup<&str> {
    let reason = "the caller does not say who the container is";
    let missing = || SetupFailure::because("name", "class of linux.intelRdt", reason);
    identity
        .map(|identity| identity.id.as_str())
        .ok_or_else(missing)
}

fn join_at(rdt: &LinuxIntelRdt, id: &str, pid: i32, root: &Path) -> Setup<Class> {
    let (class, group) = places(rdt, id, root);
    let asked = schemata(rdt);
    let mut made = Class::default();
    let file = class.join("schemata");
    let named = rdt.clos_id().is_some();
    if named && asked.is_empty() && !class.is_dir() {
        let reason = "there is no such class of service, and no schemata to make it with";
        return Err(SetupFailure::because("use", class.display(), reason));
    }
    match fs::create_dir(&class) {
        Ok(()) => {
            made.0.push(class.clone());
            if !asked.is_empty() {
                let text = format!("{}\n", asked.join("\n"));
                fs::write(&file, text).step("write schemata to", file.display())?;
            }
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && named => {
            let there = fs::read_to_string(&file).step("read", file.display())?;
            if !has(&there, &asked) {
                let reason = format!("it has other schemata than {}", asked.join(", "));
                return Err(SetupFailure::because("use", class.display(), reason));
            }
        }
        Err(error) => return Err(error).step("make", class.display()),
    }
    if let Some(group) = &group {
        // resctrl makes the directory above; only the group is ours.
        fs::create_dir(group).step("make", group.display())?;
        made.0.push(group.clone());
    }
    attach(&class, group.as_deref(), pid)?;
    Ok(made)
}

fn attach(class: &Path, group: Option<&Path>, pid: i32) -> Setup<()> {
    for directory in std::iter::once(class).chain(group) {
        let tasks = directory.join("tasks");
        fs::write(&tasks, pid.to_string()).step("write process to", tasks.display())?;
    }
    Ok(())
}

/// Removes what a container had of its own: its monitoring group, and the class that has its name.
///
/// # Errors
/// A directory that is there cannot be removed.
pub fn remove(spec: &Spec, id: &str) -> Result<(), ContainerError> {
    let linux = spec.linux().as_ref();
    match linux.and_then(|linux| linux.intel_rdt().as_ref()) {
        Some(rdt) => Ok(remove_at(rdt, id, Path::new(MOUNT))?),
        None => Ok(()),
    }
}

fn remove_at(rdt: &LinuxIntelRdt, id: &str, root: &Path) -> Setup<()> {
    let (class, group) = places(rdt, id, root);
    let class = Some(class).filter(|_| rdt.clos_id().is_none());
    for directory in group.into_iter().chain(class) {
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.step("remove", directory.display())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
