//! `linux.resources.cpu`.

use super::{Setting, given, not_negative};
use crate::cgroup::Version;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::LinuxCpu;

/// The most shares that version 1 knows; more would be cut down to it without a word.
const MAX_SHARES: u64 = 262_144;

pub fn asks_time(cpu: &LinuxCpu) -> bool {
    given(cpu.shares()).is_some()
        || given(cpu.quota()).is_some()
        || given(cpu.period()).is_some()
        || cpu.burst().is_some()
        || cpu.idle().is_some()
        || given(cpu.realtime_runtime()).is_some()
        || given(cpu.realtime_period()).is_some()
}

pub fn asks_set(cpu: &LinuxCpu) -> bool {
    let set = |list: &Option<String>| list.as_ref().is_some_and(|list| !list.is_empty());
    set(cpu.cpus()) || set(cpu.mems())
}

pub fn check(cpu: &LinuxCpu, version: Option<Version>) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares > MAX_SHARES) {
        let reason = format!("{shares} is not in 2..{MAX_SHARES}");
        return Err(CgroupError::invalid("cpu.shares", reason));
    }
    not_negative("cpu.quota", cpu.quota())?;
    not_negative("cpu.realtimeRuntime", cpu.realtime_runtime())?;
    if let Some(idle) = cpu.idle().filter(|idle| !(0..=1).contains(idle)) {
        return Err(CgroupError::invalid(
            "cpu.idle",
            format!("{idle} is neither 0 nor 1"),
        ));
    }
    if version == Some(Version::V2) {
        let reason = "cgroup version 2 does not divide real-time processing time";
        for (field, present) in [
            ("realtimeRuntime", given(cpu.realtime_runtime()).is_some()),
            ("realtimePeriod", given(cpu.realtime_period()).is_some()),
        ] {
            if present {
                return Err(CgroupError::unsupported(format!("cpu.{field}"), reason));
            }
        }
    }
    for (field, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !is_list(list)) {
            let reason = format!("\"{list}\" is no list like \"0-3,6\"");
            return Err(CgroupError::invalid(format!("cpu.{field}"), reason));
        }
    }
    Ok(())
}

/// Numbers and ranges, with strides (cpuset(7), "List format"); or nothing.
fn is_list(list: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => number(first)
            .zip(number(last))
            .is_some_and(|(first, last)| first <= last),
        None => number(text).is_some(),
    };
    let entry = |text: &str| match text.split_once(':') {
        Some((whole, stride)) => {
            let (used, of) = stride.split_once('/').unwrap_or(("", ""));
            range(whole) && number(used).is_some() && number(of).is_some()
        }
        None => range(text),
    };
    list.trim().is_empty() || list.trim().split(',').all(|text| entry(text.trim()))
}

/// The files of the controller `cpu`.
pub fn settings(cpu: &LinuxCpu, version: Version, dir: &Dir) -> Result<Vec<Setting>> {
    match version {
        Version::V1 => Ok(settings_v1(cpu)),
        Version::V2 => settings_v2(cpu, dir),
    }
}

/// The files of the controller `cpuset`, the same in both versions.
pub fn set_settings(cpu: &LinuxCpu) -> Vec<Setting> {
    let lists = [("cpus", cpu.cpus()), ("mems", cpu.mems())];
    lists
        .into_iter()
        .filter_map(|(name, list)| {
            let list = list.as_deref().map(str::trim).filter(|l| !l.is_empty())?;
            let (field, file) = (format!("cpu.{name}"), format!("cpuset.{name}"));
            Some(Setting::new(field, file, list))
        })
        .collect()
}

fn settings_v1(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |field: &str, file: &str, value: Option<String>| {
        if let Some(value) = value {
            let setting = Setting::new(format!("cpu.{field}"), format!("cpu.{file}"), value);
            settings.push(setting);
        }
    };
    let signed = |value: Option<i64>| given(value).map(|value| value.to_string());
    let unsigned = |value: Option<u64>| given(value).map(|value| value.to_string());
    // The kernel has no 1, the specification does not exclude it.
    let shares = given(cpu.shares()).map(|shares| shares.max(2));
    set("shares", "shares", unsigned(shares));
    set("idle", "idle", cpu.idle().map(|idle| idle.to_string()));
    set("period", "cfs_period_us", unsigned(cpu.period()));
    set("quota", "cfs_quota_us", signed(cpu.quota()));
    set(
        "realtimePeriod",
        "rt_period_us",
        unsigned(cpu.realtime_period()),
    );
    set(
        "realtimeRuntime",
        "rt_runtime_us",
        signed(cpu.realtime_runtime()),
    );
    settings.extend(burst(cpu, "cpu.cfs_burst_us"));
    settings
}

fn settings_v2(cpu: &LinuxCpu, dir: &Dir) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(weight) = cpu.shares().and_then(weight) {
        settings.push(Setting::new("cpu.shares", "cpu.weight", weight));
    }
    if let Some(idle) = cpu.idle() {
        // Kernel 5.15; before, no cgroup is idle.
        settings.push(Setting::new("cpu.idle", "cpu.idle", idle).optional(idle == 0));
    }
    let quota = given(cpu.quota()).map(super::or_max);
    match (quota, given(cpu.period())) {
        (Some(quota), Some(period)) => {
            let value = format!("{quota} {period}");
            settings.push(Setting::new("cpu.quota", "cpu.max", value));
        }
        // One number alone leaves the period.
        (Some(quota), None) => settings.push(Setting::new("cpu.quota", "cpu.max", quota)),
        (None, Some(period)) => {
            let current = dir.read("cpu.max")?;
            let quota = current.split_whitespace().next().unwrap_or("max");
            let value = format!("{quota} {period}");
            settings.push(Setting::new("cpu.period", "cpu.max", value));
        }
        (None, None) => {}
    }
    settings.extend(burst(cpu, "cpu.max.burst"));
    Ok(settings)
}

fn burst(cpu: &LinuxCpu, file: &str) -> Option<Setting> {
    // Kernel 5.14; before, there is no burst.
    cpu.burst()
        .map(|burst| Setting::new("cpu.burst", file, burst).optional(burst == 0))
}

/// Shares of version 1 (2..262144, default 1024) as a weight of version 2 (1..10000, default
/// 100). The curve is the one of runc 1.3.2 and crun 1.23: it maps both ends and the default
/// exactly. `None` for 0, which means "not set".
pub fn weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        MAX_SHARES.. => Some(10_000),
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

    #[test]
    fn lists() {
        for good in ["", "0", "0-3", "0-3,6", "1,2,9-10", "0-31:2/16", "0\n"] {
            assert!(is_list(good), "{good:?}");
        }
        for bad in ["x", "0-", "-1", "3-1", "0,,1", "0-3:2", "0;1", "1-2-3", ","] {
            assert!(!is_list(bad), "{bad:?}");
        }
    }
}
