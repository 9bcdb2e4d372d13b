//! Limits as properties of a unit (systemd.resource-control(5)).
//!
//! systemd writes what it knows into the same files as the library `container` does after it, by
//! the same formulas. It is told nevertheless: what it does not know it may take back, when it is
//! reloaded or another unit changes. What it has no property for stays as it was written.

use crate::device;
use crate::error::Result;
use crate::unit::UnitPath;
use crate::wire::Value;
use container::cgroup::{Layout, Version, cpu_weight, io_weight};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// systemd's "infinity".
const INFINITY: u64 = u64::MAX;

/// The kernel's period for CPU quotas, in microseconds, where none was given.
const PERIOD: u64 = 100_000;

/// A property with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// As systemd names it over D-Bus.
    pub name: String,
    /// Without the variant around it.
    pub value: Value,
}

impl Property {
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }

    fn number(name: &str, number: u64) -> Self {
        Self::new(name, Value::U64(number))
    }
}

/// As `a(sv)`.
pub fn list(properties: Vec<Property>) -> Value {
    let pairs = properties.into_iter().map(|property| {
        let value = Value::Variant(Box::new(property.value));
        Value::Struct(vec![Value::Str(property.name), value])
    });
    Value::Array("(sv)".into(), pairs.collect())
}

/// What decides which properties there are.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// systemd's.
    pub version: u32,
    memory: Option<Version>,
    cpu: Option<Version>,
    cpuset: Option<Version>,
    io: Option<Version>,
    devices: Option<Version>,
}

impl Machine {
    pub fn new(version: u32, layout: &Layout) -> Self {
        let of = |controller| layout.with_controller(controller).map(|h| h.version);
        Self {
            version,
            memory: of("memory"),
            cpu: of("cpu"),
            cpuset: of("cpuset"),
            io: of("io").or(of("blkio")),
            devices: of("devices"),
        }
    }
}

/// What every unit gets.
pub fn fixed(unit: &UnitPath, id: &str, machine: &Machine) -> Vec<Property> {
    let yes = |name| Property::new(name, Value::Bool(true));
    let description = format!("Container {id}");
    let mut properties = vec![
        Property::new("Description", Value::text(description)),
        // It must not end before those that have to do with it are told.
        Property::new("DefaultDependencies", Value::Bool(false)),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes("TasksAccounting"),
    ];
    properties.push(yes(match machine.io {
        Some(Version::V1) => "BlockIOAccounting",
        _ => "IOAccounting",
    }));
    if unit.is_slice() {
        let slices = vec![Value::text(&unit.slice)];
        let wants = Value::Array("s".into(), slices);
        properties.push(Property::new("Wants", wants));
    } else {
        properties.push(Property::new("Slice", Value::text(&unit.slice)));
        // What is below it is ours: the container's own cgroups, and all controllers.
        properties.push(yes("Delegate"));
    }
    if machine.version >= 236 {
        // One that fails leaves nothing to be reset, whoever deletes it.
        let mode = Value::text("inactive-or-failed");
        properties.push(Property::new("CollectMode", mode));
    }
    properties
}

/// The limits that systemd knows. What makes no sense is left out: the library `container` refuses
/// it, by its field.
pub fn of_resources(resources: &LinuxResources, machine: &Machine) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    if let Some(memory) = resources.memory() {
        properties.extend(of_memory(memory, machine));
    }
    if let Some(cpu) = resources.cpu() {
        properties.extend(of_cpu(cpu, machine));
    }
    if let Some(limit) = resources.pids().and_then(|pids| limit(Some(pids.limit()))) {
        properties.push(Property::number("TasksMax", limit));
    }
    if let Some(io) = resources.block_io() {
        properties.extend(of_io(io, machine));
    }
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        for property in of_file(file, value.trim(), machine) {
            // The file is the more exact word.
            properties.retain(|known| known.name != property.name);
            properties.push(property);
        }
    }
    // Version 2 has no files for devices: the filter is a program beside systemd's own, which
    // stays. In version 1 systemd writes the files, and allows everything unless told otherwise.
    if machine.devices == Some(Version::V1) {
        properties.extend(device::properties(resources)?);
    }
    Ok(properties)
}

/// A limit of the specification: 0 is none given, -1 is infinity.
fn limit(number: Option<i64>) -> Option<u64> {
    match number? {
        0 => None,
        -1 => Some(INFINITY),
        number => u64::try_from(number).ok(),
    }
}

fn of_memory(memory: &LinuxMemory, machine: &Machine) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut set = |name: &str, value: Option<u64>| {
        properties.extend(value.map(|value| Property::number(name, value)));
    };
    let max = limit(memory.limit());
    if machine.memory == Some(Version::V1) {
        set("MemoryLimit", max);
        return properties;
    }
    set("MemoryMax", max);
    set("MemoryLow", limit(memory.reservation()));
    let swap = match (limit(memory.swap()), max) {
        (Some(INFINITY), _) => Some(INFINITY),
        // Together with memory here, alone there.
        (Some(swap), Some(max)) => swap.checked_sub(max),
        (None, Some(INFINITY)) => Some(INFINITY),
        _ => None,
    };
    set("MemorySwapMax", swap);
    properties
}

fn of_cpu(cpu: &LinuxCpu, machine: &Machine) -> Vec<Property> {
    let mut properties = Vec::new();
    let shares = cpu.shares().filter(|shares| *shares != 0);
    match (shares, machine.cpu) {
        (Some(shares), Some(Version::V1)) => {
            properties.push(Property::number("CPUShares", shares.clamp(2, 262_144)));
        }
        (Some(shares), _) => {
            let weight = cpu_weight(shares);
            properties.extend(weight.map(|weight| Property::number("CPUWeight", weight)));
        }
        (None, _) => {}
    }
    if cpu.idle() == Some(1) && machine.cpu == Some(Version::V2) && machine.version >= 252 {
        // An idle cgroup has no weight.
        properties.retain(|property| property.name != "CPUWeight");
        properties.push(Property::number("CPUWeight", 0));
    }
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(period) = period {
        properties.extend(period_of(period, machine));
    }
    match cpu.quota() {
        Some(-1) => properties.push(Property::number("CPUQuotaPerSecUSec", INFINITY)),
        Some(quota) => {
            let quota = u64::try_from(quota).ok().filter(|quota| *quota != 0);
            properties.extend(quota.and_then(|quota| quota_of(quota, period)));
        }
        None => {}
    }
    let set = |name: &str, list: &Option<String>| set_of(name, list.as_deref()?, machine);
    properties.extend(set("AllowedCPUs", cpu.cpus()));
    properties.extend(set("AllowedMemoryNodes", cpu.mems()));
    properties
}

fn period_of(period: u64, machine: &Machine) -> Option<Property> {
    (machine.version >= 242).then(|| Property::number("CPUQuotaPeriodUSec", period))
}

/// Time per second. systemd counts in hundredths of a CPU; it gets what is not less.
fn quota_of(quota: u64, period: Option<u64>) -> Option<Property> {
    let period = u128::from(period.unwrap_or(PERIOD));
    let per_second = (u128::from(quota) * 1_000_000).checked_div(period)?;
    let per_second = u64::try_from(per_second).ok()?;
    let rounded = per_second.checked_next_multiple_of(10_000)?.max(10_000);
    Some(Property::number("CPUQuotaPerSecUSec", rounded))
}

/// CPUs or memory nodes; version 1 of cpuset is not systemd's matter.
fn set_of(name: &str, list: &str, machine: &Machine) -> Option<Property> {
    if machine.cpuset != Some(Version::V2) || machine.version < 244 || list.trim().is_empty() {
        return None;
    }
    let bits = container::cgroup::cpu_list(list)?;
    let bytes = bits.into_iter().map(Value::Byte).collect();
    Some(Property::new(name, Value::Array("y".into(), bytes)))
}

fn of_io(io: &LinuxBlockIo, machine: &Machine) -> Option<Property> {
    let weight = io.weight().filter(|weight| (10..=1000).contains(weight))?;
    Some(match machine.io {
        Some(Version::V1) => Property::number("BlockIOWeight", weight.into()),
        _ => Property::number("IOWeight", io_weight(weight)),
    })
}

/// Of a file of version 2 (`linux.resources.unified`).
fn of_file(file: &str, value: &str, machine: &Machine) -> Vec<Property> {
    let number = |text: &str| match text {
        "max" => Some(INFINITY),
        text => text.parse().ok(),
    };
    let one = |name: &str| {
        let number = number(value).map(|number| Property::number(name, number));
        number.into_iter().collect()
    };
    match file {
        "memory.min" => one("MemoryMin"),
        "memory.low" => one("MemoryLow"),
        "memory.high" => one("MemoryHigh"),
        "memory.max" => one("MemoryMax"),
        "memory.swap.max" => one("MemorySwapMax"),
        "pids.max" => one("TasksMax"),
        "cpu.weight" => one("CPUWeight"),
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let quota = words.next().and_then(number);
            let period = words.next().and_then(number).filter(|period| *period != 0);
            let quota = quota.and_then(|quota| match quota {
                INFINITY => Some(Property::number("CPUQuotaPerSecUSec", INFINITY)),
                quota => quota_of(quota, period),
            });
            let period = period.and_then(|period| period_of(period, machine));
            period.into_iter().chain(quota).collect()
        }
        "cpuset.cpus" => set_of("AllowedCPUs", value, machine).into_iter().collect(),
        "cpuset.mems" => {
            let property = set_of("AllowedMemoryNodes", value, machine);
            property.into_iter().collect()
        }
        // For a single device it has properties of another form.
        "io.weight" if !value.contains(':') => {
            let number = number(value.trim_start_matches("default").trim());
            let number = number.map(|number| Property::number("IOWeight", number));
            number.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "property/tests.rs"]
mod tests;
