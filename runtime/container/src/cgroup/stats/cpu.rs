//! Processing time.

use super::parse::{flat, number};
use super::pressure::Pressure;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;
use crate::cgroup::layout::Version;

/// Processing time of a cgroup. All times are in nanoseconds; version 2 counts microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuStats {
    /// All that was used, nanoseconds.
    pub usage: u64,
    /// Of that by programs, nanoseconds.
    pub user: u64,
    /// Of that by the kernel for them, nanoseconds.
    pub system: u64,
    /// The same by CPU; in version 1 alone.
    pub per_cpu: Vec<CpuTime>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those of them in which the quota was used up.
    pub throttled_periods: u64,
    /// How long tasks had to wait for that, nanoseconds, summed over CPUs.
    pub throttled: u64,
    /// How long tasks waited for a CPU; `None` where the kernel does not count it.
    pub pressure: Option<Pressure>,
}

/// Time used on one CPU, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// All; counted exactly, while the next two are counted by ticks and need not add up to it.
    pub usage: u64,
    /// By programs.
    pub user: u64,
    /// By the kernel for them.
    pub system: u64,
}

/// The flags and lists of a cpuset of version 1 (cpuset(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpusetStats {
    /// The CPUs that may be used.
    pub cpus: Vec<u16>,
    /// The memory nodes that may be used.
    pub mems: Vec<u16>,
    /// `cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// `mem_hardwall`.
    pub mem_hardwall: u64,
    /// `mem_exclusive`.
    pub mem_exclusive: u64,
    /// `memory_migrate`.
    pub memory_migrate: u64,
    /// `memory_spread_page`.
    pub memory_spread_page: u64,
    /// `memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `memory_pressure`: attempts to free memory, per second times 1000.
    pub memory_pressure: u64,
    /// `sched_load_balance`.
    pub sched_load_balance: u64,
    /// `sched_relax_domain_level`, -1 for the system's default.
    pub sched_relax_domain_level: i64,
}

pub fn throttling(stats: &mut CpuStats, version: Version, dir: &Dir) -> Result<()> {
    let text = dir.read_if("cpu.stat")?.unwrap_or_default();
    for (key, value) in flat(&text) {
        match (key, version) {
            ("nr_periods", _) => stats.periods = value,
            ("nr_throttled", _) => stats.throttled_periods = value,
            ("throttled_time", Version::V1) => stats.throttled = value,
            ("throttled_usec", Version::V2) => stats.throttled = value.saturating_mul(1000),
            _ => {}
        }
    }
    Ok(())
}

pub fn usage_v2(stats: &mut CpuStats, dir: &Dir) -> Result<()> {
    let text = dir.read_if("cpu.stat")?.unwrap_or_default();
    for (key, value) in flat(&text) {
        let nanoseconds = value.saturating_mul(1000);
        match key {
            "usage_usec" => stats.usage = nanoseconds,
            "user_usec" => stats.user = nanoseconds,
            "system_usec" => stats.system = nanoseconds,
            _ => {}
        }
    }
    Ok(())
}

pub fn usage_v1(stats: &mut CpuStats, dir: &Dir) -> Result<()> {
    stats.usage = number(dir, "cpuacct.usage")?.unwrap_or(0);
    stats.user = number(dir, "cpuacct.usage_user")?.unwrap_or(0);
    stats.system = number(dir, "cpuacct.usage_sys")?.unwrap_or(0);
    let usage = dir.read_if("cpuacct.usage_percpu")?.unwrap_or_default();
    let table = dir.read_if("cpuacct.usage_all")?.unwrap_or_default();
    // "cpu user system", then a line for each.
    let mut parts = table.lines().skip(1).map(|line| {
        let mut fields = line.split_whitespace().skip(1).map(str::parse);
        let mut next = || fields.next().and_then(|field| field.ok()).unwrap_or(0);
        (next(), next())
    });
    stats.per_cpu = usage
        .split_whitespace()
        .map(|usage| {
            let (user, system) = parts.next().unwrap_or_default();
            CpuTime {
                usage: usage.parse().unwrap_or(0),
                user,
                system,
            }
        })
        .collect();
    Ok(())
}

pub fn cpuset_v1(stats: &mut CpusetStats, dir: &Dir) -> Result<()> {
    let list =
        |file| -> Result<Vec<u16>> { Ok(numbers(dir.read_if(file)?.unwrap_or_default().trim())) };
    stats.cpus = list("cpuset.cpus")?;
    stats.mems = list("cpuset.mems")?;
    let flag =
        |name: &str| -> Result<u64> { Ok(number(dir, &format!("cpuset.{name}"))?.unwrap_or(0)) };
    stats.cpu_exclusive = flag("cpu_exclusive")?;
    stats.mem_hardwall = flag("mem_hardwall")?;
    stats.mem_exclusive = flag("mem_exclusive")?;
    stats.memory_migrate = flag("memory_migrate")?;
    stats.memory_spread_page = flag("memory_spread_page")?;
    stats.memory_spread_slab = flag("memory_spread_slab")?;
    stats.memory_pressure = flag("memory_pressure")?;
    stats.sched_load_balance = flag("sched_load_balance")?;
    let level = dir.read_if("cpuset.sched_relax_domain_level")?;
    stats.sched_relax_domain_level = level.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
    Ok(())
}

/// `0-3,6`, each number by itself.
fn numbers(list: &str) -> Vec<u16> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(numbers("0-3,6"), [0, 1, 2, 3, 6]);
        assert_eq!(numbers("7"), [7]);
        assert!(numbers("").is_empty());
    }
}
