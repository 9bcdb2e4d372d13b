//! Resource limits: what `linux.resources` asks for, in the files of either version.
//!
//! Everything is applied or refused by name. As runc has it, a number of 0 means "not set" (that
//! is what its clients send for what they leave out), and -1 "no limit"; only `cpu.burst`,
//! `cpu.idle`, `memory.swappiness` and the rates of `blockIO` have a 0 that says something.

mod block_io;
mod cpu;
mod hugetlb;
mod memory;
mod network;
mod pids;
mod rdma;
mod setting;
mod unified;

use super::device;
use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::layout::{Layout, Version};
use oci_spec::runtime::LinuxResources;
use setting::{Setting, settle};

pub use block_io::cost_weight as io_weight;
pub use cpu::weight as cpu_weight;

/// The bits of a list of CPUs or memory nodes such as `0-3,7`, the lowest first; `None` when it is
/// none.
pub fn cpu_list(list: &str) -> Option<Vec<u8>> {
    crate::cpulist::parse(list).ok()
}

/// The controllers that resources need, each with the field that asks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs(Vec<(String, String)>);

impl Needs {
    /// What these resources need, beside the filter of devices.
    pub fn of(resources: &LinuxResources) -> Self {
        let mut needs = Self::default();
        let mut need = |controller: &str, field: &str, wanted: bool| {
            if wanted {
                needs.0.push((controller.into(), field.into()));
            }
        };
        let memory = resources.memory().as_ref();
        need("memory", "memory", memory.is_some_and(memory::asks));
        let cpu = resources.cpu().as_ref();
        need("cpu", "cpu", cpu.is_some_and(cpu::asks_time));
        need("cpuset", "cpu", cpu.is_some_and(cpu::asks_set));
        let pids = resources.pids().as_ref();
        need("pids", "pids", pids.is_some_and(pids::asks));
        let io = resources.block_io().as_ref();
        need("io", "blockIO", io.is_some_and(block_io::asks));
        let huge = resources.hugepage_limits().iter().flatten().next();
        need("hugetlb", "hugepageLimits", huge.is_some());
        let network = resources.network().as_ref();
        need(
            "net_cls",
            "network.classID",
            network.is_some_and(network::asks_class),
        );
        need(
            "net_prio",
            "network.priorities",
            network.is_some_and(network::asks_priorities),
        );
        let rdma = resources.rdma().iter().flatten().next();
        need("rdma", "rdma", rdma.is_some());
        for key in resources.unified().iter().flatten().map(|(key, _)| key) {
            if let Some(controller) = unified::controller(key) {
                need(controller, &format!("unified.{key}"), true);
            }
        }
        needs
    }

    /// The field that asks for this controller. The controller of block devices is known by its
    /// name in either version.
    pub fn field(&self, controller: &str) -> Option<&str> {
        let name = if controller == "blkio" {
            "io"
        } else {
            controller
        };
        let mut needs = self.0.iter();
        needs
            .find(|(needed, _)| needed == name)
            .map(|(_, field)| field.as_str())
    }

    /// The controllers by the names of version 2.
    pub fn controllers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(controller, _)| controller.as_str())
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Refuses what cannot be applied, before anything is made or changed.
pub(super) fn check(layout: &Layout, resources: &LinuxResources) -> Result<Needs> {
    let version = |controller: &str| layout.with_controller(controller).map(|h| h.version);
    if let Some(memory) = resources.memory() {
        memory::check(memory, version("memory"))?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::check(cpu, version("cpu"))?;
    }
    if let Some(pids) = resources.pids() {
        pids::check(pids)?;
    }
    if let Some(io) = resources.block_io() {
        block_io::check(io, version("io").or(version("blkio")))?;
    }
    hugetlb::check(resources.hugepage_limits().as_deref().unwrap_or_default())?;
    if let Some(network) = resources.network() {
        network::check(network)?;
    }
    for (name, _) in resources.rdma().iter().flatten() {
        rdma::check(name)?;
    }
    for (key, value) in resources.unified().iter().flatten() {
        unified::check(key, value)?;
    }
    device::check(resources.devices().as_deref().unwrap_or_default())?;
    let needs = Needs::of(resources);
    present(layout, resources, &needs)?;
    Ok(needs)
}

/// Every controller that is needed is mounted.
fn present(layout: &Layout, resources: &LinuxResources, needs: &Needs) -> Result<()> {
    let has_v2 = layout.hierarchies.iter().any(|h| h.version == Version::V2);
    let missing = |field: &str, controller: &str| CgroupError::NoController {
        field: field.into(),
        controller: controller.into(),
    };
    if !has_v2 && let Some((key, _)) = resources.unified().iter().flatten().next() {
        let field = format!("unified.{key}");
        let reason = "it is for cgroup version 2, which is not mounted here";
        return Err(CgroupError::unsupported(field, reason));
    }
    for (controller, field) in &needs.0 {
        let found = match controller.as_str() {
            "io" => layout
                .with_controller("io")
                .or(layout.with_controller("blkio")),
            name => layout.with_controller(name),
        };
        // A key of `unified` is a file of version 2 whatever version 1 has.
        let in_v1 = found.is_some_and(|h| h.version == Version::V1);
        if found.is_none() || in_v1 && field.starts_with("unified.") {
            return Err(missing(field, controller));
        }
    }
    // Version 2 filters by program and needs no controller.
    let rules = resources.devices().iter().flatten().next();
    if rules.is_some() && !has_v2 && layout.with_controller("devices").is_none() {
        return Err(missing("devices", "devices"));
    }
    Ok(())
}

/// Writes all limits that are given; what is not given stays. On an error what was written before
/// stays as well.
pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let each =
        |name: &str, settings: &dyn Fn(Version, &super::dir::Dir) -> Result<Vec<Setting>>| {
            match cgroup.controller_dir(name)? {
                Some((version, dir)) => settle(&dir, settings(version, &dir)?),
                None => Ok(()), // checked before: nothing is asked of it
            }
        };
    if let Some(memory) = resources.memory() {
        each("memory", &|version, dir| {
            memory::settings(memory, version, dir)
        })?;
    }
    if let Some(cpu) = resources.cpu() {
        each("cpu", &|version, dir| cpu::settings(cpu, version, dir))?;
        each("cpuset", &|_, _| Ok(cpu::set_settings(cpu)))?;
    }
    if let Some(pids) = resources.pids() {
        each("pids", &|_, _| Ok(pids::settings(pids)))?;
    }
    if let Some(io) = resources.block_io() {
        each("blkio", &|_, dir| Ok(block_io::settings_v1(io, dir)))?;
        each("io", &|_, dir| Ok(block_io::settings_v2(io, dir)))?;
    }
    let huge = resources.hugepage_limits().as_deref().unwrap_or_default();
    if !huge.is_empty() {
        each("hugetlb", &|version, dir| {
            hugetlb::settings(huge, version, dir)
        })?;
    }
    if let Some(network) = resources.network() {
        each("net_cls", &|_, _| Ok(network::class_settings(network)))?;
        each("net_prio", &|_, _| Ok(network::priority_settings(network)))?;
    }
    if let Some(rdma) = resources.rdma() {
        each("rdma", &|_, _| Ok(rdma::settings(rdma)))?;
    }
    if let (Some(map), Some(dir)) = (resources.unified(), cgroup.v2_dir()?) {
        settle(&dir, unified::settings(map))?;
    }
    device::apply(cgroup, resources.devices().as_deref().unwrap_or_default())
}

/// A number of the specification whose 0 means "not set".
fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// `max` for -1, which is the only negative number that gets this far.
fn or_max(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

/// Refuses a number below -1.
fn not_negative(field: &str, value: Option<i64>) -> Result<()> {
    match value {
        Some(value) if value < -1 => Err(CgroupError::invalid(
            field,
            format!("{value}: negative, other than -1 for \"no limit\""),
        )),
        _ => Ok(()),
    }
}
