//! What is refused before anything is made: fields that are not supported, by name, and values
//! that make no sense.

use crate::error::ContainerError;
use crate::mounts::{MountOptions, root_propagation};
use crate::namespaces::{Namespaces, check_offsets};
use crate::procfs::{check_sysctl, namespace_of};
use crate::{hooks, lsm, placement};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
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
    hooks::check(spec)?;
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
    check_shared_mounts(spec, linux)?;
    check_uts(spec, linux)?;
    lsm::check(spec, process)?;
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

pub fn check_process(process: &Process) -> Result<()> {
    absent("process.commandLine", process.command_line().is_some())?;
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
    let user = process.user();
    for (field, id) in [("uid", user.uid()), ("gid", user.gid())] {
        // To setresuid(2) this number means "as it is": root.
        if id == u32::MAX {
            let field = format!("process.user.{field}");
            return Err(ContainerError::invalid(field, "4294967295 is no id"));
        }
    }
    placement::check(process)
}

fn set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn absolute(field: impl Into<String>, path: &Path) -> Result<()> {
    let clean = !path
        .components()
        .any(|c| c == std::path::Component::ParentDir);
    if path.is_absolute() && clean && !holds_nul(path) {
        Ok(())
    } else {
        let reason = format!(
            "\"{}\" is not an absolute path without \"..\"",
            path.display()
        );
        Err(ContainerError::invalid(field, reason))
    }
}

fn holds_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

fn check_linux(linux: &Linux) -> Result<()> {
    if let Some(profile) = linux.seccomp() {
        crate::seccomp::check(profile)?;
    }
    crate::rdt::check(linux)?;
    placement::check_linux(linux)?;
    check_net_devices(linux)?;
    if root_propagation(linux.rootfs_propagation().as_deref()).is_none() {
        return Err(ContainerError::unsupported(
            "linux.rootfsPropagation",
            "only private, slave, shared and unbindable, and these with an r",
        ));
    }
    check_namespaces(linux)?;
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        check_sysctl(name, |kind| namespace(linux, kind))
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
        // More the kernel would cut off, and make another device (linux/kdev_t.h).
        for (field, number, most) in [
            ("major", device.major(), 0xfff),
            ("minor", device.minor(), 0xf_ffff),
        ] {
            if !(0..=most).contains(&number) {
                let reason = format!("{number} is not in 0..{most}");
                let field = format!("linux.devices[{i}].{field}");
                return Err(ContainerError::invalid(field, reason));
            }
        }
    }
    Ok(())
}

#[cfg(feature = "net-devices")]
fn check_net_devices(linux: &Linux) -> Result<()> {
    crate::netdev::check(linux).map_err(|(field, reason)| ContainerError::invalid(field, reason))
}

#[cfg(not(feature = "net-devices"))]
fn check_net_devices(linux: &Linux) -> Result<()> {
    let devices = linux.net_devices().as_ref();
    absent("linux.netDevices", devices.is_some_and(|d| !d.is_empty()))
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
        if let Some(path) = entry.path() {
            absolute(format!("{field}.path"), path)?;
        }
    }
    let maps = has_any(linux.uid_mappings()) || has_any(linux.gid_mappings());
    match (new(linux, LinuxNamespaceType::User), maps) {
        (true, false) => {
            let reason = "missing, though a user namespace is made";
            return Err(ContainerError::invalid("linux.uidMappings", reason));
        }
        (false, true) if !namespace(linux, LinuxNamespaceType::User) => {
            let reason = "there is no user namespace for it";
            return Err(ContainerError::invalid("linux.uidMappings", reason));
        }
        _ => {}
    }
    let offsets = linux.time_offsets().as_ref().filter(|o| !o.is_empty());
    match offsets {
        Some(_) if !new(linux, LinuxNamespaceType::Time) => {
            let reason = "needs a new time namespace";
            Err(ContainerError::invalid("linux.timeOffsets", reason))
        }
        Some(offsets) => check_offsets(offsets),
        None => Ok(()),
    }
}

/// Whether the container gets a new namespace of this kind.
fn new(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    let mut list = linux.namespaces().iter().flatten();
    list.any(|n| n.typ() == kind && n.path().is_none())
}

/// In a mount namespace that others share, nothing is mounted or hidden.
fn check_shared_mounts(spec: &Spec, linux: &Linux) -> Result<()> {
    if new(linux, LinuxNamespaceType::Mount) {
        return Ok(());
    }
    let read_only = spec.root().as_ref().and_then(|root| root.readonly());
    for (field, present) in [
        ("mounts", has_any(spec.mounts())),
        ("linux.devices", has_any(linux.devices())),
        ("linux.maskedPaths", has_any(linux.masked_paths())),
        ("linux.readonlyPaths", has_any(linux.readonly_paths())),
        ("linux.rootfsPropagation", set(linux.rootfs_propagation())),
        ("root.readonly", read_only == Some(true)),
    ] {
        if present {
            let reason = "needs a new mount namespace";
            return Err(ContainerError::invalid(field, reason));
        }
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
        if name.contains('\0') {
            return Err(ContainerError::invalid(field, "holds a NUL byte"));
        }
    }
    Ok(())
}

/// What belongs to a namespace is not set in one that is joined and turns out to be the runtime's
/// own: it would be set for the machine.
pub fn check_joined(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    use LinuxNamespaceType as T;
    let sysctls = linux.sysctl().iter().flatten().map(|(name, _)| name);
    let sysctls =
        sysctls.filter_map(|name| Some((format!("linux.sysctl.{name}"), namespace_of(name)?)));
    let names = [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ];
    let names = names.into_iter().filter(|(_, name)| set(name));
    let names = names.map(|(field, _)| (field.to_string(), T::Uts));
    for (field, kind) in sysctls.chain(names) {
        if namespaces.joins_own(kind) {
            let reason =
                format!("the {kind} namespace to join is the runtime's own; this would change it");
            return Err(ContainerError::invalid(field, reason));
        }
    }
    Ok(())
}

fn check_mount(i: usize, mount: &Mount) -> Result<()> {
    let field = format!("mounts[{i}]");
    absolute(format!("{field}.destination"), mount.destination())?;
    let options = MountOptions::of(mount)
        .map_err(|reason| ContainerError::invalid(format!("{field}.options"), reason))?;
    let bind = options.bind;
    let maps = has_any(mount.uid_mappings()) || has_any(mount.gid_mappings());
    if options.idmap.is_some() && !bind {
        let reason = "only a bind mount can be id-mapped";
        return Err(ContainerError::unsupported(
            format!("{field}.options"),
            reason,
        ));
    }
    if maps && options.idmap.is_none() {
        let reason = "they count only with the option \"idmap\" or \"ridmap\"";
        return Err(ContainerError::invalid(
            format!("{field}.uidMappings"),
            reason,
        ));
    }
    if options.copy_up && mount.typ().as_deref() != Some("tmpfs") {
        let reason = "tmpcopyup is for tmpfs";
        return Err(ContainerError::invalid(format!("{field}.options"), reason));
    }
    if bind && !options.remount {
        match mount.source() {
            // Of the host, and named by who may mount there: ".." has its usual meaning.
            Some(source) if source.is_absolute() && !holds_nul(source) => {}
            Some(source) => {
                let reason = format!("\"{}\" is not an absolute path", source.display());
                return Err(ContainerError::invalid(format!("{field}.source"), reason));
            }
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
    if destination.starts_with("/proc") && !may_cover(mount, destination, bind) {
        let reason = format!(
            "{}: only procfs itself at /proc, and files that tell of the machine's size and load",
            destination.display()
        );
        return Err(ContainerError::unsupported(
            format!("{field}.destination"),
            reason,
        ));
    }
    Ok(())
}

/// What lxcfs and the like replace.
const STATISTICS: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Anything else over a file of procfs could pass for the kernel's answer.
fn may_cover(mount: &Mount, destination: &Path, bind: bool) -> bool {
    if destination != Path::new("/proc") {
        return bind && STATISTICS.iter().any(|file| destination == Path::new(file));
    }
    let is_procfs = |source: &std::path::PathBuf| {
        statfs(source).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
    };
    match bind {
        true => mount.source().as_ref().is_some_and(is_procfs),
        false => mount.typ().as_deref() == Some("proc"),
    }
}
