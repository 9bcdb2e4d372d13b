//! `linux.resources.memory`.

use super::{Setting, given, not_negative, or_max};
use crate::cgroup::Version;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::LinuxMemory;

pub fn asks(memory: &LinuxMemory) -> bool {
    let sizes = [
        memory.limit(),
        memory.reservation(),
        memory.swap(),
        memory.kernel_tcp(),
    ];
    sizes.into_iter().any(|size| given(size).is_some())
        || memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
        || memory.use_hierarchy() == Some(false)
}

pub fn check(memory: &LinuxMemory, version: Option<Version>) -> Result<()> {
    not_negative("memory.limit", memory.limit())?;
    not_negative("memory.reservation", memory.reservation())?;
    not_negative("memory.swap", memory.swap())?;
    not_negative("memory.kernelTCP", memory.kernel_tcp())?;
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap >= 0
        && (limit < 0 || swap < limit)
    {
        let reason = format!(
            "{swap}: it is memory and swap together, and must be at least memory.limit ({limit})"
        );
        return Err(CgroupError::invalid("memory.swap", reason));
    }
    if memory.kernel().is_some_and(|size| size != 0 && size != -1) {
        let reason = "kernels count this memory in memory.limit, and ignore a limit of its own since \
                      5.16; leave it out";
        return Err(CgroupError::unsupported("memory.kernel", reason));
    }
    if let Some(swappiness) = memory.swappiness().filter(|percent| *percent > 100) {
        let reason = format!("{swappiness} is not in 0..100");
        return Err(CgroupError::invalid("memory.swappiness", reason));
    }
    if version != Some(Version::V2) {
        return Ok(());
    }
    let absent = |field: &str, present: bool, reason| {
        if present {
            Err(CgroupError::unsupported(format!("memory.{field}"), reason))
        } else {
            Ok(())
        }
    };
    let none = "cgroup version 2 has none";
    let tcp = memory
        .kernel_tcp()
        .is_some_and(|size| size != 0 && size != -1);
    absent("kernelTCP", tcp, none)?;
    absent("swappiness", memory.swappiness().is_some(), none)?;
    let no_killer = memory.disable_oom_killer() == Some(true);
    absent("disableOOMKiller", no_killer, none)?;
    let flat = memory.use_hierarchy() == Some(false);
    absent("useHierarchy", flat, "cgroup version 2 is a hierarchy")
}

pub fn settings(memory: &LinuxMemory, version: Version, dir: &Dir) -> Result<Vec<Setting>> {
    match version {
        Version::V1 => Ok(settings_v1(memory)),
        Version::V2 => settings_v2(memory, dir),
    }
}

fn settings_v1(memory: &LinuxMemory) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |field: &str, file: &str, value: Option<String>| {
        if let Some(value) = value {
            let setting = Setting::new(format!("memory.{field}"), format!("memory.{file}"), value);
            settings.push(setting);
        }
    };
    let text = |size: Option<i64>| given(size).map(|size| size.to_string());
    let flag = |flag: Option<bool>| flag.map(|flag| u8::from(flag).to_string());
    set("limit", "limit_in_bytes", text(memory.limit()));
    set("swap", "memsw.limit_in_bytes", text(memory.swap()));
    set(
        "reservation",
        "soft_limit_in_bytes",
        text(memory.reservation()),
    );
    set(
        "kernelTCP",
        "kmem.tcp.limit_in_bytes",
        text(memory.kernel_tcp()),
    );
    set(
        "swappiness",
        "swappiness",
        memory.swappiness().map(|percent| percent.to_string()),
    );
    set(
        "disableOOMKiller",
        "oom_control",
        flag(memory.disable_oom_killer()),
    );
    if let Some(hierarchy) = memory.use_hierarchy() {
        let value = u8::from(hierarchy);
        let setting = Setting::new("memory.useHierarchy", "memory.use_hierarchy", value);
        settings.push(setting.optional(hierarchy));
    }
    // Without a limit of memory the older one of memory and swap would still hold.
    if memory.limit() == Some(-1) && given(memory.swap()).is_none() {
        let swap = Setting::new("memory.limit", "memory.memsw.limit_in_bytes", -1);
        settings.push(swap.optional(true));
    }
    settings
}

fn settings_v2(memory: &LinuxMemory, dir: &Dir) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let limit = given(memory.limit());
    if memory.check_before_update() == Some(true)
        && let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
    {
        // Version 1 refuses this itself; version 2 would kill.
        let current = dir.read("memory.current")?;
        if current.trim().parse::<u64>().is_ok_and(|used| used > limit) {
            let reason = format!(
                "{limit}: {} bytes are in use, and memory.checkBeforeUpdate is set",
                current.trim()
            );
            return Err(CgroupError::invalid("memory.limit", reason));
        }
    }
    if let Some(swap) = swap_alone(memory, dir)? {
        // Without the file there is no swap: none and any amount is the same.
        let vague = swap <= 0;
        settings.push(Setting::new("memory.swap", "memory.swap.max", or_max(swap)).optional(vague));
    }
    if let Some(limit) = limit {
        settings.push(Setting::new("memory.limit", "memory.max", or_max(limit)));
    }
    if let Some(low) = given(memory.reservation()) {
        settings.push(Setting::new(
            "memory.reservation",
            "memory.low",
            or_max(low),
        ));
    }
    Ok(settings)
}

/// The specification counts memory and swap together, version 2 swap alone. -1 is "no limit".
fn swap_alone(memory: &LinuxMemory, dir: &Dir) -> Result<Option<i64>> {
    let limit = given(memory.limit());
    match (given(memory.swap()), limit) {
        (None, Some(-1)) => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(swap), _) if swap < 0 => Ok(Some(-1)),
        (Some(swap), Some(limit)) => Ok(Some(swap.saturating_sub(limit))), // checked: not below 0
        (Some(swap), None) => {
            let current = dir.read("memory.max")?;
            let limit = current.trim().parse::<i64>().ok();
            let alone = limit.map(|limit| swap.saturating_sub(limit));
            alone.filter(|alone| *alone >= 0).map(Some).ok_or_else(|| {
                let reason = format!(
                    "{swap}: it is memory and swap together, and must be at least memory.limit, \
                     which is {}",
                    current.trim()
                );
                CgroupError::invalid("memory.swap", reason)
            })
        }
    }
}
