//! The events that `runc events` prints, one JSON object each (runc: types/events.go): what
//! containerd and its like read.

use super::cpu::{CpuStats, CpusetStats};
use super::io::{IoEntry, IoOperation, IoStats};
use super::memory::{MemoryStats, Usage};
use super::pressure::Pressure;
use super::{HugetlbStats, Stats};
use crate::cgroup::layout::Version;
use serde::Serialize;
use std::collections::BTreeMap;

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct RuncEvent {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

impl RuncEvent {
    /// What the container `id` uses.
    pub fn stats(id: &str, stats: &Stats) -> Self {
        Self {
            kind: "stats",
            id: id.into(),
            data: Some(Data::of(stats)),
        }
    }

    /// The kernel has killed a process of the container `id` for lack of memory.
    pub fn oom(id: &str) -> Self {
        Self {
            kind: "oom",
            id: id.into(),
            data: None,
        }
    }
}

// Go leaves out a number that is 0 where the field says so; so does this.
fn zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Clone, Debug, Serialize)]
struct Data {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: Empty,
    network_interfaces: Option<()>,
}

#[derive(Clone, Debug, Serialize)]
struct Empty {}

#[derive(Clone, Debug, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Clone, Debug, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

impl Data {
    fn of(stats: &Stats) -> Self {
        let version = stats.memory.version;
        let hugetlb = stats.hugetlb.iter();
        Self {
            cpu: cpu(&stats.cpu),
            cpuset: cpuset(&stats.cpuset),
            memory: memory(&stats.memory, version),
            pids: Pids {
                current: stats.pids.current,
                limit: stats.pids.limit.unwrap_or(0),
            },
            blkio: blkio(&stats.io),
            hugetlb: hugetlb
                .map(|(size, stats)| (size.clone(), huge(stats)))
                .collect(),
            intel_rdt: Empty {},
            network_interfaces: None,
        }
    }
}

fn cpu(stats: &CpuStats) -> Cpu {
    let per_cpu = stats.per_cpu.iter();
    Cpu {
        usage: CpuUsage {
            total: stats.usage,
            percpu: per_cpu.clone().map(|t| t.usage).collect(),
            percpu_kernel: per_cpu.clone().map(|t| t.system).collect(),
            percpu_user: per_cpu.map(|t| t.user).collect(),
            kernel: stats.system,
            user: stats.user,
        },
        throttling: Throttling {
            periods: stats.periods,
            throttled_periods: stats.throttled_periods,
            throttled_time: stats.throttled,
        },
        psi: stats.pressure,
    }
}

fn cpuset(stats: &CpusetStats) -> Cpuset {
    Cpuset {
        cpus: stats.cpus.clone(),
        cpu_exclusive: stats.cpu_exclusive,
        mems: stats.mems.clone(),
        mem_hardwall: stats.mem_hardwall,
        mem_exclusive: stats.mem_exclusive,
        memory_migrate: stats.memory_migrate,
        memory_spread_page: stats.memory_spread_page,
        memory_spread_slab: stats.memory_spread_slab,
        memory_pressure: stats.memory_pressure,
        sched_load_balance: stats.sched_load_balance,
        sched_relax_domain_level: stats.sched_relax_domain_level,
    }
}

fn memory(stats: &MemoryStats, version: Option<Version>) -> Memory {
    let none = match version {
        // In whole pages, as its files have it.
        Some(Version::V1) => 0x7fff_ffff_ffff_f000,
        Some(Version::V2) => u64::MAX,
        None => 0,
    };
    let entry = |usage: &Usage| MemoryEntry {
        limit: usage.limit.unwrap_or(none),
        usage: usage.current,
        max: usage.peak.unwrap_or(0),
        failcnt: usage.failures,
    };
    let usage = entry(&stats.usage);
    let mut swap = entry(&stats.swap);
    let mut kernel = entry(&stats.kernel);
    let mut kernel_tcp = entry(&stats.kernel_tcp);
    if version != Some(Version::V1) {
        // Readers expect memory and swap together, as in version 1; the peaks do not add up.
        let limit = stats.swap.limit.zip(stats.usage.limit);
        swap = MemoryEntry {
            limit: limit.map_or(none, |(swap, memory)| swap.saturating_add(memory)),
            usage: swap.usage.saturating_add(usage.usage),
            ..MemoryEntry::default()
        };
        (kernel, kernel_tcp) = Default::default();
    }
    let failcnt = if version == Some(Version::V1) {
        usage.failcnt
    } else {
        0 // runc tells it of version 1 alone
    };
    Memory {
        cache: stats.cache,
        usage: MemoryEntry { failcnt, ..usage },
        swap,
        kernel,
        kernel_tcp,
        raw: stats.raw.clone(),
        psi: stats.pressure,
    }
}

fn blkio(stats: &IoStats) -> Blkio {
    let list = |entries: &[IoEntry]| {
        // Version 2 alone counts discards without a total, and runc leaves them out.
        let total = entries.iter().any(|e| e.operation == IoOperation::Total);
        let shown = entries
            .iter()
            .filter(|e| total || e.operation != IoOperation::Discard);
        let entries = shown.map(|entry| BlkioEntry {
            major: entry.major.into(),
            minor: entry.minor.into(),
            op: entry.operation.name(),
            value: entry.value,
        });
        entries.collect()
    };
    Blkio {
        io_service_bytes_recursive: list(&stats.bytes),
        io_serviced_recursive: list(&stats.operations),
        psi: stats.pressure,
    }
}

fn huge(stats: &HugetlbStats) -> Hugetlb {
    Hugetlb {
        usage: stats.usage,
        max: stats.peak.unwrap_or(0),
        failcnt: stats.failures,
    }
}
