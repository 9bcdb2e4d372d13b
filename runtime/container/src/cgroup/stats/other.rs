//! Tasks, huge pages and RDMA devices.

use super::parse::{flat, number, pairs};
use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;
use crate::cgroup::layout::Version;
use std::collections::BTreeMap;
use std::path::Path;

/// Tasks of a cgroup; threads count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` without a limit.
    pub limit: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// In use.
    pub usage: u64,
    /// The most that was ever in use; version 1.
    pub peak: Option<u64>,
    /// How often the limit was met.
    pub failures: u64,
}

/// One RDMA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaUsage {
    /// Handles of the device in use.
    pub handles: u64,
    /// Objects of the device in use.
    pub objects: u64,
    /// Handles that may be in use; `None` without a limit.
    pub handle_limit: Option<u64>,
    /// Objects that may be in use; `None` without a limit.
    pub object_limit: Option<u64>,
}

pub fn pids(stats: &mut PidsStats, dir: &Dir) -> Result<()> {
    stats.current = number(dir, "pids.current")?.unwrap_or(0);
    stats.limit = number(dir, "pids.max")?;
    Ok(())
}

pub fn hugetlb(version: Version, dir: &Dir) -> Result<BTreeMap<String, HugetlbStats>> {
    let mut all = BTreeMap::new();
    for size in sizes() {
        let read = |file: &str| number(dir, &format!("hugetlb.{size}.{file}"));
        let stats = match version {
            Version::V1 => read("usage_in_bytes")?.map(|usage| {
                Ok(HugetlbStats {
                    usage,
                    peak: read("max_usage_in_bytes")?,
                    failures: read("failcnt")?.unwrap_or(0),
                })
            }),
            Version::V2 => read("current")?.map(|usage| {
                let events = dir.read_if(&format!("hugetlb.{size}.events"))?;
                let events = events.unwrap_or_default();
                let failures = flat(&events).find(|(key, _)| *key == "max");
                Ok(HugetlbStats {
                    usage,
                    peak: None,
                    failures: failures.map_or(0, |(_, n)| n),
                })
            }),
        };
        if let Some(stats) = stats.transpose()? {
            all.insert(size, stats);
        }
    }
    Ok(all)
}

/// The sizes of huge pages that this kernel has, as the controller writes them.
fn sizes() -> Vec<String> {
    // Directories are named hugepages-2048kB.
    let Ok(entries) = std::fs::read_dir(Path::new("/sys/kernel/mm/hugepages")) else {
        return Vec::new(); // none
    };
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kilobytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        kilobytes.parse().ok().map(size_name)
    });
    names.collect()
}

fn size_name(kilobytes: u64) -> String {
    match kilobytes {
        n if n >= 1 << 20 => format!("{}GB", n >> 20),
        n if n >= 1 << 10 => format!("{}MB", n >> 10),
        n => format!("{n}KB"),
    }
}

pub fn rdma(dir: &Dir) -> Result<BTreeMap<String, RdmaUsage>> {
    let mut all = BTreeMap::new();
    let used = dir.read_if("rdma.current")?.unwrap_or_default();
    for (name, handles, objects) in devices(&used) {
        let usage: &mut RdmaUsage = all.entry(name.to_string()).or_default();
        usage.handles = handles.unwrap_or(0);
        usage.objects = objects.unwrap_or(0);
    }
    let limits = dir.read_if("rdma.max")?.unwrap_or_default();
    for (name, handles, objects) in devices(&limits) {
        let usage = all.entry(name.to_string()).or_default();
        usage.handle_limit = handles;
        usage.object_limit = objects;
    }
    Ok(all)
}

/// Lines like `mlx4_0 hca_handle=2 hca_object=max`.
fn devices(text: &str) -> impl Iterator<Item = (&str, Option<u64>, Option<u64>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        let (mut handles, mut objects) = (None, None);
        for (key, value) in pairs(fields) {
            match key {
                "hca_handle" => handles = value.parse().ok(),
                "hca_object" => objects = value.parse().ok(),
                _ => {}
            }
        }
        Some((name, handles, objects))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sizes() {
        assert_eq!(size_name(64), "64KB");
        assert_eq!(size_name(2048), "2MB");
        assert_eq!(size_name(1 << 20), "1GB");
    }

    #[test]
    fn lines_of_rdma() {
        let found: Vec<_> = devices("mlx4_0 hca_handle=2 hca_object=max\n").collect();
        assert_eq!(found, [("mlx4_0", Some(2), None)]);
    }
}
