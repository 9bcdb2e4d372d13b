//! What a cgroup uses and has used, from the files of either version.
//!
//! A counter that the kernel does not keep here (the controller is not mounted or not handed down,
//! the file came with a later kernel) is `None`, empty or 0, as its field says.

mod cpu;
mod io;
mod memory;
mod other;
mod parse;
mod pressure;
mod runc;

pub use cpu::{CpuStats, CpuTime, CpusetStats};
pub use io::{IoEntry, IoOperation, IoStats};
pub use memory::{MemoryEvents, MemoryStats, Usage};
pub use other::{HugetlbStats, PidsStats, RdmaUsage};
pub use pressure::{Pressure, Stall};
pub use runc::RuncEvent;

use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::layout::Version;
use std::collections::BTreeMap;

/// What a cgroup, with everything below it, uses and has used since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Processing time.
    pub cpu: CpuStats,
    /// The CPUs and memory nodes that may be used; version 1 alone has more than defaults here.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, by their size as the kernel writes it (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// RDMA devices, by their names.
    pub rdma: BTreeMap<String, RdmaUsage>,
}

impl Cgroup {
    /// Reads all counters. They are read one after the other, so they are not of one moment.
    ///
    /// # Errors
    /// The cgroup is gone, or a file that is there cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        let mut read = || -> Result<()> {
            // Version 1 may have these two mounted together or apart.
            if let Some((version, dir)) = self.controller_dir("cpu")? {
                cpu::throttling(&mut stats.cpu, version, &dir)?;
            }
            if let Some((Version::V1, dir)) = self.controller_dir("cpuacct")? {
                cpu::usage_v1(&mut stats.cpu, &dir)?;
            }
            if let Some((Version::V1, dir)) = self.controller_dir("cpuset")? {
                cpu::cpuset_v1(&mut stats.cpuset, &dir)?;
            }
            if let Some((version, dir)) = self.controller_dir("memory")? {
                memory::read(&mut stats.memory, version, &dir)?;
            }
            if let Some((_, dir)) = self.controller_dir("pids")? {
                other::pids(&mut stats.pids, &dir)?;
            }
            if let Some((Version::V1, dir)) = self.controller_dir("blkio")? {
                io::read_v1(&mut stats.io, &dir)?;
            }
            if let Some((_, dir)) = self.controller_dir("io")? {
                io::read_v2(&mut stats.io, &dir)?;
            }
            if let Some((version, dir)) = self.controller_dir("hugetlb")? {
                stats.hugetlb = other::hugetlb(version, &dir)?;
            }
            if let Some((_, dir)) = self.controller_dir("rdma")? {
                stats.rdma = other::rdma(&dir)?;
            }
            if let Some(dir) = self.v2_dir()? {
                // These are of every version 2 cgroup, with and without controllers.
                if self.place("cpuacct").is_none() {
                    cpu::usage_v2(&mut stats.cpu, &dir)?;
                }
                stats.cpu.pressure = pressure::read(&dir, "cpu.pressure")?;
                stats.memory.pressure = pressure::read(&dir, "memory.pressure")?;
                stats.io.pressure = pressure::read(&dir, "io.pressure")?;
            }
            Ok(())
        };
        match read() {
            Ok(()) => Ok(stats),
            Err(error) if error.is_gone() => Err(CgroupError::NotFound(self.shown())),
            Err(error) => Err(error),
        }
    }
}
