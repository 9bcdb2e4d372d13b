//! `update`.

use super::{Context, freeze};
use crate::args;
use crate::bundle;
use crate::error::OciError;
use crate::numbers::size;
use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpu, LinuxMemory, LinuxPidsBuilder, LinuxResources,
};
use std::path::Path;
use std::process::ExitCode;
use systemd::Manager;

pub fn run(context: &Context<'_>, args: &args::Update) -> Result<ExitCode, OciError> {
    let resources = resources(args)?;
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        let warning = "--kernel-memory, --kernel-memory-tcp: kernels have no such limits any more";
        context.log.warning(warning);
    }
    let entry = context.store.get(&args.id)?;
    // Of one that has ended, another container may have the cgroup.
    let cgroup = freeze::alive(&entry)?;
    if let Some(unit) = &entry.saved.unit {
        // First: systemd writes the files when it is told, and not everything as exactly.
        Manager::connect()?.update(unit, &resources)?;
    }
    // As at the creation: rules that forbid everything do not mean /dev/null.
    cgroup.update(&container::defaults::with_own_devices(&resources))?;
    Ok(ExitCode::SUCCESS)
}

fn resources(args: &args::Update) -> Result<LinuxResources, OciError> {
    let mut resources: LinuxResources = match &args.resources {
        Some(path) if path == Path::new("-") => {
            let path = Path::new("stdin");
            bundle::parse(path, &bundle::limited(std::io::stdin(), path)?)?
        }
        Some(path) => bundle::parse(path, &bundle::read_any(path)?)?,
        None => LinuxResources::default(),
    };
    if let Some(memory) = memory(args, resources.memory().unwrap_or_default())? {
        resources.set_memory(Some(memory));
    }
    if let Some(cpu) = cpu(args, resources.cpu().clone().unwrap_or_default()) {
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = args.pids_limit {
        let pids = LinuxPidsBuilder::default().limit(limit).build();
        resources.set_pids(pids.ok());
    }
    if let Some(weight) = args.blkio_weight {
        let block = LinuxBlockIoBuilder::default().weight(weight).build();
        resources.set_block_io(block.ok());
    }
    Ok(resources)
}

fn memory(args: &args::Update, mut memory: LinuxMemory) -> Result<Option<LinuxMemory>, OciError> {
    let before = memory;
    let parse = |option: &'static str, text: &str| {
        size(text).map_err(|reason| OciError::Option { option, reason })
    };
    if let Some(text) = &args.memory {
        memory.set_limit(Some(parse("--memory", text)?));
    }
    if let Some(text) = &args.memory_reservation {
        memory.set_reservation(Some(parse("--memory-reservation", text)?));
    }
    if let Some(text) = &args.memory_swap {
        memory.set_swap(Some(parse("--memory-swap", text)?));
    }
    Ok((memory != before).then_some(memory))
}

fn cpu(args: &args::Update, mut cpu: LinuxCpu) -> Option<LinuxCpu> {
    let before = cpu.clone();
    if args.cpu_share.is_some() {
        cpu.set_shares(args.cpu_share);
    }
    if args.cpu_period.is_some() {
        cpu.set_period(args.cpu_period);
    }
    if args.cpu_quota.is_some() {
        cpu.set_quota(args.cpu_quota);
    }
    if args.cpu_burst.is_some() {
        cpu.set_burst(args.cpu_burst);
    }
    if args.cpu_rt_period.is_some() {
        cpu.set_realtime_period(args.cpu_rt_period);
    }
    if args.cpu_rt_runtime.is_some() {
        cpu.set_realtime_runtime(args.cpu_rt_runtime);
    }
    if args.cpu_idle.is_some() {
        cpu.set_idle(args.cpu_idle);
    }
    if args.cpuset_cpus.is_some() {
        cpu.set_cpus(args.cpuset_cpus.clone());
    }
    if args.cpuset_mems.is_some() {
        cpu.set_mems(args.cpuset_mems.clone());
    }
    (cpu != before).then_some(cpu)
}
