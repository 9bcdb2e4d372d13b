//! What is refused before anything is made: fields that are not supported, by name, and values
//! that make no sense.

use crate::error::ContainerError;
use crate::mountopt::{MountOptions, root_propagation};
use crate::procfs::{OwnNamespaces, check_sysctl};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};
use std::path::Path;

type Result<T> = std::result::Result<T, ContainerError>;

/// Checks a specification. What passes is applied completely.
pub fn check(spec: &Spec) -> Result<()> {
    if !spec.version().starts_with("1.") {
        return Err(ContainerError::invalid(
            "ociVersion",
            format!(
                "\"{}\" is not a version 1 of the specification",
                spec.version()
            ),
        ));
    }
    absent("hooks", spec.hooks().as_ref().is_some_and(has_hooks))?;
    absent("solaris", spec.solaris().is_some())?;
    absent("windows", spec.windows().is_some())?;
    absent("vm", spec.vm().is_some())?;
    absent("zos", spec.zos().is_some())?;
    absent("uidMappings", has_any(spec.uid_mappings()))?;
    absent("gidMappings", has_any(spec.gid_mappings()))?;
    let Some(process) = spec.process() else {
        return Err(ContainerError::invalid("process", "missing"));
    };
    check_process(process)?;
    let Some(linux) = spec.linux() else {
        return Err(ContainerError::invalid(
            "linux",
            "missing: it names the namespaces",
        ));
    };
    check_linux(linux)?;
    check_uts(spec, linux)?;
    spec.mounts()
        .iter()
        .flatten()
        .enumerate()
        .try_for_each(|(i, m)| check_mount(i, m))
}

fn absent(field: &str, present: bool) -> Result<()> {
    if present {
        Err(ContainerError::unsupported(field, ""))
    } else {
        Ok(())
    }
}

fn has_any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

#[allow(deprecated)] // prestart is deprecated, but a bundle may have it
fn has_hooks(hooks: &oci_spec::runtime::Hooks) -> bool {
    [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ]
    .into_iter()
    .any(has_any)
}

fn check_process(process: &Process) -> Result<()> {
    absent("process.terminal", process.terminal().unwrap_or(false))?;
    absent("process.commandLine", process.command_line().is_some())?;
    absent("process.apparmorProfile", set(process.apparmor_profile()))?;
    absent("process.selinuxLabel", set(process.selinux_label()))?;
    absent("process.ioPriority", process.io_priority().is_some())?;
    absent("process.scheduler", process.scheduler().is_some())?;
    absent(
        "process.execCPUAffinity",
        process.exec_cpu_affinity().is_some(),
    )?;
    absent("process.user.username", set(process.user().username()))?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(ContainerError::invalid("process.args", "no program given"));
    }
    let strings = [("args", process.args()), ("env", process.env())];
    for (field, list) in strings {
        if list.iter().flatten().any(|s| s.contains('\0')) {
            return Err(ContainerError::invalid(
                format!("process.{field}"),
                "holds a NUL byte",
            ));
        }
    }
    if let Some(bad) = process.env().iter().flatten().find(|v| !v.contains('=')) {
        return Err(ContainerError::invalid(
            "process.env",
            format!("\"{bad}\" has no \"=\""),
        ));
    }
    absolute("process.cwd", process.cwd())?;
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        if limit.soft() > limit.hard() {
            return Err(ContainerError::invalid(
                format!("process.rlimits[{i}]"),
                "the soft limit is above the hard one",
            ));
        }
    }
    if let Some(adj) = process.oom_score_adj()
        && !(-1000..=1000).contains(&adj)
    {
        return Err(ContainerError::invalid(
            "process.oomScoreAdj",
            format!("{adj} is not in -1000..1000"),
        ));
    }
    Ok(())
}

fn set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn absolute(field: impl Into<String>, path: &Path) -> Result<()> {
    let clean = !path
        .components()
        .any(|c| c == std::path::Component::ParentDir);
    if path.is_absolute() && clean && !path.as_os_str().as_encoded_bytes().contains(&0) {
        Ok(())
    } else {
        let reason = format!(
            "\"{}\" is not an absolute path without \"..\"",
            path.display()
        );
        Err(ContainerError::invalid(field, reason))
    }
}

fn check_linux(linux: &Linux) -> Result<()> {
    if linux.seccomp().is_some() {
        return Err(ContainerError::unsupported("linux.seccomp", "leave it out"));
    }
    absent("linux.uidMappings", has_any(linux.uid_mappings()))?;
    absent("linux.gidMappings", has_any(linux.gid_mappings()))?;
    absent("linux.mountLabel", set(linux.mount_label()))?;
    absent("linux.intelRdt", linux.intel_rdt().is_some())?;
    absent("linux.memoryPolicy", linux.memory_policy().is_some())?;
    absent("linux.personality", linux.personality().is_some())?;
    absent(
        "linux.timeOffsets",
        linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()),
    )?;
    absent(
        "linux.netDevices",
        linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()),
    )?;
    if linux.cgroups_path().is_some() {
        let reason = "the caller names the cgroup in the options of create";
        return Err(ContainerError::unsupported("linux.cgroupsPath", reason));
    }
    if root_propagation(linux.rootfs_propagation().as_deref()).is_none() {
        return Err(ContainerError::unsupported(
            "linux.rootfsPropagation",
            "only private and slave",
        ));
    }
    check_namespaces(linux)?;
    let own = OwnNamespaces {
        ipc: namespace(linux, LinuxNamespaceType::Ipc),
        net: namespace(linux, LinuxNamespaceType::Network),
    };
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        check_sysctl(name, &own)
            .map_err(|reason| ContainerError::invalid(format!("linux.sysctl.{name}"), reason))?;
    }
    let lists = [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ];
    for (field, list) in lists {
        for path in list.iter().flatten() {
            absolute(format!("linux.{field}"), Path::new(path))?;
        }
    }
    for (i, device) in linux.devices().iter().flatten().enumerate() {
        absolute(format!("linux.devices[{i}].path"), device.path())?;
        if device.major() < 0 || device.minor() < 0 {
            return Err(ContainerError::invalid(
                format!("linux.devices[{i}]"),
                "negative number",
            ));
        }
    }
    Ok(())
}

/// Whether the container has a namespace of this kind that is not the host's.
pub fn namespace(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|n| n.typ() == kind)
}

fn check_namespaces(linux: &Linux) -> Result<()> {
    let list = linux.namespaces().as_deref().unwrap_or_default();
    for (i, entry) in list.iter().enumerate() {
        let field = format!("linux.namespaces[{i}]");
        if list
            .iter()
            .take(i)
            .any(|before| before.typ() == entry.typ())
        {
            return Err(ContainerError::invalid(
                field,
                format!("a second {} namespace", entry.typ()),
            ));
        }
        let joined = entry.path().is_some();
        match entry.typ() {
            LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                return Err(ContainerError::unsupported(
                    field,
                    format!("type {}", entry.typ()),
                ));
            }
            LinuxNamespaceType::Mount | LinuxNamespaceType::Pid | LinuxNamespaceType::Cgroup
                if joined =>
            {
                let reason = format!("a path for a {} namespace", entry.typ());
                return Err(ContainerError::unsupported(field, reason));
            }
            _ => {}
        }
        if let Some(path) = entry.path() {
            absolute(format!("{field}.path"), path)?;
        }
    }
    if !namespace(linux, LinuxNamespaceType::Mount) {
        let reason = "a container needs a mount namespace of its own";
        return Err(ContainerError::invalid("linux.namespaces", reason));
    }
    Ok(())
}

fn check_uts(spec: &Spec, linux: &Linux) -> Result<()> {
    for (field, name) in [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if !namespace(linux, LinuxNamespaceType::Uts) {
            return Err(ContainerError::invalid(
                field,
                "needs a UTS namespace of its own",
            ));
        }
        if name.len() > 64 {
            return Err(ContainerError::invalid(field, "longer than 64 bytes"));
        }
    }
    Ok(())
}

fn check_mount(i: usize, mount: &Mount) -> Result<()> {
    let field = format!("mounts[{i}]");
    absolute(format!("{field}.destination"), mount.destination())?;
    absent(
        &format!("{field}.uidMappings"),
        has_any(mount.uid_mappings()),
    )?;
    absent(
        &format!("{field}.gidMappings"),
        has_any(mount.gid_mappings()),
    )?;
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default())
        .map_err(|reason| ContainerError::invalid(format!("{field}.options"), reason))?;
    if crate::mounts::is_bind(mount, &options) {
        match mount.source() {
            Some(source) => absolute(format!("{field}.source"), source)?,
            None => {
                return Err(ContainerError::invalid(
                    format!("{field}.source"),
                    "missing",
                ));
            }
        }
    }
    let destination = mount.destination();
    if destination.components().count() < 2 {
        return Err(ContainerError::invalid(
            format!("{field}.destination"),
            "is the root itself",
        ));
    }
    // Something over a file of procfs could pass for the kernel's answer.
    if destination.starts_with("/proc")
        && (destination != Path::new("/proc") || mount.typ().as_deref() != Some("proc"))
    {
        let reason = format!("{}: only procfs itself, at /proc", destination.display());
        return Err(ContainerError::unsupported(
            format!("{field}.destination"),
            reason,
        ));
    }
    Ok(())
}
