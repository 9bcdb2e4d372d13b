//! Resource limits: what the specification asks for, in the files of either version.

use super::error::{CgroupError, Result};
use super::tree::write;
use super::{Cgroup, Layout, Version, device};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::path::Path;

/// Refuses what cannot be applied, before anything is made.
pub(super) fn check(layout: &Layout, resources: &LinuxResources) -> Result<()> {
    let absent = |field: &str, present: bool| {
        let reason = "leave it out";
        if present {
            Err(CgroupError::Unsupported {
                field: field.into(),
                reason,
            })
        } else {
            Ok(())
        }
    };
    absent("blockIO", resources.block_io().is_some())?;
    absent(
        "hugepageLimits",
        resources
            .hugepage_limits()
            .as_ref()
            .is_some_and(|l| !l.is_empty()),
    )?;
    absent("network", resources.network().is_some())?;
    absent(
        "rdma",
        resources.rdma().as_ref().is_some_and(|r| !r.is_empty()),
    )?;
    absent(
        "unified",
        resources.unified().as_ref().is_some_and(|u| !u.is_empty()),
    )?;
    if let Some(memory) = resources.memory() {
        absent("memory.kernel", memory.kernel().is_some())?;
        absent("memory.kernelTCP", memory.kernel_tcp().is_some())?;
        for (field, value) in [
            ("memory.limit", memory.limit()),
            ("memory.reservation", memory.reservation()),
            ("memory.swap", memory.swap()),
        ] {
            if value.is_some_and(|value| value < -1) {
                let reason = "a negative size, other than -1 for \"no limit\"";
                return Err(CgroupError::Unsupported {
                    field: field.into(),
                    reason,
                });
            }
        }
        absent("memory.useHierarchy", memory.use_hierarchy() == Some(false))?;
    }
    if let Some(cpu) = resources.cpu() {
        absent("cpu.realtimeRuntime", cpu.realtime_runtime().is_some())?;
        absent("cpu.realtimePeriod", cpu.realtime_period().is_some())?;
    }
    needs(layout, resources)
}

fn needs(layout: &Layout, resources: &LinuxResources) -> Result<()> {
    let need = |field, controller, wanted: bool| {
        if wanted && layout.with_controller(controller).is_none() {
            Err(CgroupError::NoController { field, controller })
        } else {
            Ok(())
        }
    };
    let cpu = resources.cpu().as_ref();
    let set = cpu.is_some_and(|c| c.cpus().is_some() || c.mems().is_some());
    let time = cpu.is_some_and(|c| {
        c.shares().is_some() || c.quota().is_some() || c.period().is_some() || c.idle().is_some()
    });
    need("memory", "memory", resources.memory().is_some())?;
    need("cpu", "cpu", time)?;
    need("cpu", "cpuset", set)?;
    need("pids", "pids", resources.pids().is_some())?;
    let filter = resources
        .devices()
        .as_ref()
        .is_some_and(|rules| !rules.is_empty());
    // Version 2 filters by program and needs no controller.
    let has_v2 = layout.hierarchies.iter().any(|h| h.version == Version::V2);
    need("devices", "devices", filter && !has_v2)
}

/// Writes all limits.
pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    if let (Some(memory), Some((version, dir))) = (resources.memory(), cgroup.controller("memory"))
    {
        match version {
            Version::V1 => memory_v1(memory, &dir)?,
            Version::V2 => memory_v2(memory, &dir)?,
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some((version, dir)) = cgroup.controller("cpu") {
            match version {
                Version::V1 => cpu_v1(cpu, &dir)?,
                Version::V2 => cpu_v2(cpu, &dir)?,
            }
        }
        if let Some((_, dir)) = cgroup.controller("cpuset") {
            set_text(&dir, "cpuset.cpus", cpu.cpus().as_deref())?;
            set_text(&dir, "cpuset.mems", cpu.mems().as_deref())?;
        }
    }
    if let (Some(pids), Some((_, dir))) = (resources.pids(), cgroup.controller("pids")) {
        // Zero and below mean "no limit" to every other runtime.
        let limit = if pids.limit() > 0 {
            pids.limit().to_string()
        } else {
            "max".into()
        };
        write(&dir.join("pids.max"), &limit)?;
    }
    device::apply(cgroup, resources.devices().as_deref().unwrap_or_default())
}

fn set_text(dir: &Path, file: &str, value: Option<&str>) -> Result<()> {
    match value.filter(|value| !value.is_empty()) {
        Some(value) => write(&dir.join(file), value),
        None => Ok(()),
    }
}

fn set_number(dir: &Path, file: &str, value: Option<impl ToString>) -> Result<()> {
    value.map_or(Ok(()), |value| write(&dir.join(file), &value.to_string()))
}

fn memory_v1(memory: &LinuxMemory, dir: &Path) -> Result<()> {
    set_number(dir, "memory.limit_in_bytes", memory.limit())?;
    set_number(dir, "memory.soft_limit_in_bytes", memory.reservation())?;
    set_number(dir, "memory.memsw.limit_in_bytes", memory.swap())?;
    set_number(dir, "memory.swappiness", memory.swappiness())?;
    if memory.disable_oom_killer() == Some(true) {
        write(&dir.join("memory.oom_control"), "1")?;
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, dir: &Path) -> Result<()> {
    let unsupported = |field: &str, reason| CgroupError::Unsupported {
        field: format!("memory.{field}"),
        reason,
    };
    if memory.swappiness().is_some() {
        return Err(unsupported("swappiness", "cgroup version 2 has none"));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(unsupported("disableOOMKiller", "cgroup version 2 has none"));
    }
    let max = |value: i64| {
        if value < 0 {
            "max".to_string()
        } else {
            value.to_string()
        }
    };
    if let Some(swap) = memory.swap() {
        // The specification counts memory and swap together, the kernel swap alone.
        let swap = match (swap, memory.limit()) {
            (swap, _) if swap < 0 => -1,
            (swap, Some(limit)) if limit >= 0 && swap >= limit => swap - limit,
            _ => return Err(unsupported("swap", "it must be at least memory.limit")),
        };
        write(&dir.join("memory.swap.max"), &max(swap))?;
    }
    set_number(dir, "memory.max", memory.limit().map(max))?;
    set_number(dir, "memory.low", memory.reservation().map(max))
}

fn cpu_v1(cpu: &LinuxCpu, dir: &Path) -> Result<()> {
    set_number(
        dir,
        "cpu.shares",
        cpu.shares().filter(|shares| *shares != 0),
    )?;
    set_number(dir, "cpu.idle", cpu.idle())?;
    set_number(
        dir,
        "cpu.cfs_period_us",
        cpu.period().filter(|period| *period != 0),
    )?;
    set_number(
        dir,
        "cpu.cfs_quota_us",
        cpu.quota().filter(|quota| *quota != 0),
    )?;
    set_number(dir, "cpu.cfs_burst_us", cpu.burst())
}

fn cpu_v2(cpu: &LinuxCpu, dir: &Path) -> Result<()> {
    if let Some(weight) = cpu.shares().and_then(weight) {
        write(&dir.join("cpu.weight"), &weight.to_string())?;
    }
    set_number(dir, "cpu.idle", cpu.idle())?;
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota
            .filter(|quota| *quota > 0)
            .map_or("max".into(), |q| q.to_string());
        write(
            &dir.join("cpu.max"),
            &format!("{quota} {}", period.unwrap_or(100_000)),
        )?;
    }
    set_number(dir, "cpu.max.burst", cpu.burst())
}

/// Shares of version 1 (2..262144, default 1024) as a weight of version 2 (1..10000, default
/// 100). The curve is the one of runc 1.3.2 and crun 1.23: it maps both ends and the default
/// exactly. `None` for 0, which means "not set".
fn weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_to_weight() {
        for (shares, expected) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (1024, Some(100)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        let curve: Vec<_> = (2..262_144).step_by(97).filter_map(weight).collect();
        assert!(curve.is_sorted());
        assert!(curve.iter().all(|w| (1..=10_000).contains(w)));
    }
}
