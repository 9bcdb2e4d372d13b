//! `linux.resources.unified`: files of version 2 by their names.

use super::Setting;
use crate::cgroup::error::{CgroupError, Result};
use std::collections::{BTreeMap, HashMap};

/// Files that do not limit but act: on processes, or on how the tree is built.
const ACTIONS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

pub fn check(key: &str, value: &str) -> Result<()> {
    let bad = |reason: &str| Err(CgroupError::invalid(format!("unified.{key}"), reason));
    let part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let (controller, file) = key.split_once('.').unwrap_or_default();
    if key.contains('/') || key.contains("..") || !part(controller) || !part(file) {
        return bad("the key is no file name of the form controller.file");
    }
    if ACTIONS.contains(&key) {
        return bad("this file is no limit; the runtime writes it itself");
    }
    if value.trim().is_empty() {
        return bad("empty value, which the kernel would ignore");
    }
    Ok(())
}

/// The controller that has this file; `None` for those that every cgroup has.
pub fn controller(key: &str) -> Option<&str> {
    let (controller, file) = key.split_once('.')?;
    let core = controller == "cgroup" || file == "pressure";
    (!core).then_some(controller)
}

pub fn settings(map: &HashMap<String, String>) -> Vec<Setting> {
    // By name, so that an error is the same each time.
    let sorted: BTreeMap<_, _> = map.iter().collect();
    let mut settings = Vec::new();
    for (key, value) in sorted {
        // Nested keys (io.max, rdma.max) take one line at a time.
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            settings.push(Setting::new(format!("unified.{key}"), key, line));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in [
            "memory.high",
            "hugetlb.2MB.max",
            "io.bfq.weight",
            "cgroup.max.depth",
            "misc.max",
        ] {
            assert!(check(good, "1").is_ok(), "{good}");
        }
        for bad in [
            "",
            "memory",
            "memory.",
            ".max",
            "../memory.max",
            "a/memory.max",
            "memory..max",
            "memory.max\n",
            "cgroup.procs",
            "cgroup.kill",
            "cgroup.subtree_control",
        ] {
            assert!(check(bad, "1").is_err(), "{bad}");
        }
        assert!(check("memory.high", " ").is_err());
        assert_eq!(controller("hugetlb.2MB.max"), Some("hugetlb"));
        assert_eq!(controller("cgroup.max.depth"), None);
        assert_eq!(controller("cpu.pressure"), None);
    }
}
