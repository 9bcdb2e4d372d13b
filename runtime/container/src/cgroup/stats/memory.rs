//! Memory.

use super::parse::{flat, number};
use super::pressure::Pressure;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;
use crate::cgroup::layout::Version;
use std::collections::BTreeMap;

/// What version 1 shows for "no limit": the largest number of bytes in whole pages of 4 KiB or
/// more.
const UNLIMITED_V1: u64 = 0x7fff_ffff_ffff_0000;

/// Memory of a cgroup, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStats {
    /// Memory; with the kernel's for it.
    pub usage: Usage,
    /// Swap: in version 1 memory and swap together, in version 2 swap alone, as their limits are.
    pub swap: Usage,
    /// The kernel's memory, which is part of `usage`; version 1.
    pub kernel: Usage,
    /// Buffers of TCP; version 1.
    pub kernel_tcp: Usage,
    /// Contents of files, bytes; part of `usage`.
    pub cache: u64,
    /// `memory.stat` as it is: bytes, and counts of events for keys beginning with `pg`,
    /// `workingset_` and `thp_`.
    pub raw: BTreeMap<String, u64>,
    /// How often limits were met.
    pub events: MemoryEvents,
    /// How long tasks waited for memory; `None` where the kernel does not count it.
    pub pressure: Option<Pressure>,
    /// Of which version the numbers are.
    pub(super) version: Option<Version>,
}

/// Use of one kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub current: u64,
    /// The most that was ever in use; `None` where it is not counted (before kernel 5.19, of swap
    /// 6.5).
    pub peak: Option<u64>,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// How often the limit was met.
    pub failures: u64,
}

/// How often limits of memory were met (`memory.events`; of version 1 `oom_kill` alone).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Memory below `memory.low` was taken back.
    pub low: u64,
    /// `memory.high` was exceeded.
    pub high: u64,
    /// `memory.max` was met.
    pub max: u64,
    /// No memory could be had below `memory.max`.
    pub oom: u64,
    /// Processes that were killed for that.
    pub oom_kill: u64,
    /// Times that the whole cgroup was killed for that; kernel 5.17.
    pub oom_group_kill: u64,
}

impl MemoryEvents {
    /// From the text of `memory.events` or `memory.oom_control`.
    pub(in crate::cgroup) fn parse(text: &str) -> Self {
        let mut events = Self::default();
        for (key, value) in flat(text) {
            let counter = match key {
                "low" => &mut events.low,
                "high" => &mut events.high,
                "max" => &mut events.max,
                "oom" => &mut events.oom,
                "oom_kill" => &mut events.oom_kill,
                "oom_group_kill" => &mut events.oom_group_kill,
                _ => continue,
            };
            *counter = value;
        }
        events
    }
}

pub fn read(stats: &mut MemoryStats, version: Version, dir: &Dir) -> Result<()> {
    stats.version = Some(version);
    let text = dir.read_if("memory.stat")?.unwrap_or_default();
    stats.raw = flat(&text).map(|(key, n)| (key.into(), n)).collect();
    let raw = |key: &str| stats.raw.get(key).copied().unwrap_or(0);
    match version {
        Version::V1 => {
            stats.cache = raw("cache");
            stats.usage = usage_v1(dir, "")?;
            stats.swap = usage_v1(dir, "memsw.")?;
            stats.kernel = usage_v1(dir, "kmem.")?;
            stats.kernel_tcp = usage_v1(dir, "kmem.tcp.")?;
            let control = dir.read_if("memory.oom_control")?.unwrap_or_default();
            stats.events = MemoryEvents::parse(&control);
        }
        Version::V2 => {
            stats.cache = raw("file");
            stats.usage = usage_v2(dir, "")?;
            stats.swap = usage_v2(dir, "swap.")?;
            let events = dir.read_if("memory.events")?.unwrap_or_default();
            stats.events = MemoryEvents::parse(&events);
            stats.usage.failures = stats.events.max;
            let swap = dir.read_if("memory.swap.events")?.unwrap_or_default();
            stats.swap.failures = MemoryEvents::parse(&swap).max;
        }
    }
    Ok(())
}

fn usage_v1(dir: &Dir, kind: &str) -> Result<Usage> {
    let read = |file: &str| number(dir, &format!("memory.{kind}{file}"));
    Ok(Usage {
        current: read("usage_in_bytes")?.unwrap_or(0),
        peak: read("max_usage_in_bytes")?,
        limit: read("limit_in_bytes")?.filter(|limit| *limit < UNLIMITED_V1),
        failures: read("failcnt")?.unwrap_or(0),
    })
}

fn usage_v2(dir: &Dir, kind: &str) -> Result<Usage> {
    let read = |file: &str| number(dir, &format!("memory.{kind}{file}"));
    Ok(Usage {
        current: read("current")?.unwrap_or(0),
        peak: read("peak")?,
        limit: read("max")?,
        failures: 0,
    })
}
