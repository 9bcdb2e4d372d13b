//! `linux.resources.blockIO`.

use super::{Setting, given};
use crate::cgroup::Version;
use crate::cgroup::dir::Dir;
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

/// The range of weights in the specification, which is the one of version 1.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// A list of the specification, its name, its file in version 1, its key in `io.max`.
type Throttle<'a> = (
    &'a Option<Vec<LinuxThrottleDevice>>,
    &'static str,
    &'static str,
    &'static str,
);

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (
            io.throttle_read_bps_device(),
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            io.throttle_write_bps_device(),
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            io.throttle_read_iops_device(),
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            io.throttle_write_iops_device(),
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ]
}

pub fn asks(io: &LinuxBlockIo) -> bool {
    let throttled = |(list, ..): &Throttle<'_>| list.iter().flatten().next().is_some();
    given(io.weight()).is_some()
        || given(io.leaf_weight()).is_some()
        || io.weight_device().iter().flatten().next().is_some()
        || throttles(io).iter().any(throttled)
}

pub fn check(io: &LinuxBlockIo, version: Option<Version>) -> Result<()> {
    let weight = |field: &str, weight: Option<u16>| match given(weight) {
        Some(weight) if !WEIGHTS.contains(&weight) => Err(CgroupError::invalid(
            format!("blockIO.{field}"),
            format!("{weight} is not in 10..1000"),
        )),
        _ => Ok(()),
    };
    let leaf = |present: bool| {
        if present && version == Some(Version::V2) {
            let reason = "cgroup version 2 has no processes beside children to weigh";
            Err(CgroupError::unsupported("blockIO.leafWeight", reason))
        } else {
            Ok(())
        }
    };
    weight("weight", io.weight())?;
    weight("leafWeight", io.leaf_weight())?;
    leaf(given(io.leaf_weight()).is_some())?;
    for (i, device) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("weightDevice[{i}]");
        weight(&field, device.weight())?;
        weight(&field, device.leaf_weight())?;
        leaf(given(device.leaf_weight()).is_some())?;
        numbers(&field, device.major(), device.minor())?;
    }
    for (list, name, ..) in throttles(io) {
        for (i, device) in list.iter().flatten().enumerate() {
            numbers(&format!("{name}[{i}]"), device.major(), device.minor())?;
        }
    }
    Ok(())
}

fn numbers(field: &str, major: i64, minor: i64) -> Result<()> {
    if u32::try_from(major).is_ok() && u32::try_from(minor).is_ok() {
        Ok(())
    } else {
        let reason = format!("{major}:{minor} are no numbers of a device");
        Err(CgroupError::invalid(format!("blockIO.{field}"), reason))
    }
}

pub fn settings_v1(io: &LinuxBlockIo, dir: &Dir) -> Vec<Setting> {
    // The weights belong to a scheduler: CFQ had them until kernel 5.0, BFQ has them since.
    let prefix = if !dir.has("blkio.weight") && dir.has("blkio.bfq.weight") {
        "blkio.bfq"
    } else {
        "blkio"
    };
    let mut settings = Vec::new();
    let mut set = |field: String, file: String, value: String| {
        settings.push(Setting::new(format!("blockIO.{field}"), file, value));
    };
    if let Some(weight) = given(io.weight()) {
        set(
            "weight".into(),
            format!("{prefix}.weight"),
            weight.to_string(),
        );
    }
    if let Some(weight) = given(io.leaf_weight()) {
        set(
            "leafWeight".into(),
            "blkio.leaf_weight".into(),
            weight.to_string(),
        );
    }
    for (i, device) in io.weight_device().iter().flatten().enumerate() {
        let weights = [
            (device.weight(), format!("{prefix}.weight_device")),
            (device.leaf_weight(), "blkio.leaf_weight_device".into()),
        ];
        for (weight, file) in weights {
            if let Some(weight) = given(weight) {
                let value = format!("{}:{} {weight}", device.major(), device.minor());
                set(format!("weightDevice[{i}]"), file, value);
            }
        }
    }
    for (list, name, file, _) in throttles(io) {
        for (i, device) in list.iter().flatten().enumerate() {
            // 0 takes the limit away.
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            set(format!("{name}[{i}]"), file.into(), value);
        }
    }
    settings
}

pub fn settings_v2(io: &LinuxBlockIo, dir: &Dir) -> Vec<Setting> {
    // BFQ's weights where that scheduler is loaded, else those of the cost model.
    let bfq = dir.has("io.bfq.weight");
    let (file, weigh): (_, fn(u16) -> u64) = if bfq {
        ("io.bfq.weight", u64::from)
    } else {
        ("io.weight", cost_weight)
    };
    let mut settings = Vec::new();
    if let Some(weight) = given(io.weight()) {
        settings.push(Setting::new("blockIO.weight", file, weigh(weight)));
    }
    for (i, device) in io.weight_device().iter().flatten().enumerate() {
        if let Some(weight) = given(device.weight()) {
            let value = format!("{}:{} {}", device.major(), device.minor(), weigh(weight));
            settings.push(Setting::new(
                format!("blockIO.weightDevice[{i}]"),
                file,
                value,
            ));
        }
    }
    for (list, name, _, key) in throttles(io) {
        for (i, device) in list.iter().flatten().enumerate() {
            let rate = match device.rate() {
                0 => "max".into(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            settings.push(Setting::new(
                format!("blockIO.{name}[{i}]"),
                "io.max",
                value,
            ));
        }
    }
    settings
}

/// A weight of version 1 (10..1000) as one of `io.weight` (1..10000), on a straight line through
/// both ends, as runc and crun have it.
pub fn cost_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_weights() {
        assert_eq!(cost_weight(10), 1);
        assert_eq!(cost_weight(500), 4950);
        assert_eq!(cost_weight(1000), 10_000);
    }
}
