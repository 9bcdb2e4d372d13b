//! The two containers that are measured, the same for all runtimes.

use container::defaults;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    PosixRlimitBuilder, PosixRlimitType, Spec,
};
use std::path::Path;

/// Their names, in the order of the table.
pub const NAMES: [&str; 2] = ["plain", "full"];

/// The parent of all cgroups: that of everything that `scripts/bench` makes.
pub const CGROUP_PARENT: &str = "/fairlead-bench";

/// How much memory, processor time and how many processes the full one may have.
pub const MEMORY: i64 = 256 << 20;
pub const QUOTA: i64 = 100_000;
pub const PERIOD: u64 = 100_000;
pub const PIDS: i64 = 100;

/// The one by this name, executing `/bin/true`.
///
/// `plain` is what `runc spec` writes: three capabilities, a limit of open files, rules for
/// devices, masked and read-only paths, a read-only root. `full` is a container of Docker: fourteen
/// capabilities, the default filter of system calls, limits of memory, processor time and processes.
pub fn spec(name: &str, rootfs: &Path, cgroup: &str) -> Spec {
    let mut spec = defaults::default_spec();
    // The one that all runtimes know.
    spec.set_version("1.0.2".into());
    spec.set_hostname(Some("bench".into()));
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.into());
        root.set_readonly(Some(name == "plain"));
    }
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["/bin/true".into()]));
        if name == "plain" {
            let three = [
                Capability::AuditWrite,
                Capability::Kill,
                Capability::NetBindService,
            ];
            let three: Capabilities = three.into_iter().collect();
            process.set_capabilities(Some(defaults::capability_sets(three)));
            let files = PosixRlimitBuilder::default()
                .typ(PosixRlimitType::RlimitNofile)
                .soft(1024u64)
                .hard(1024u64)
                .build();
            process.set_rlimits(files.ok().map(|files| vec![files]));
        }
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(format!("{CGROUP_PARENT}/{cgroup}").into()));
        if name == "plain" {
            linux.set_seccomp(None);
        } else if let Some(resources) = linux.resources_mut() {
            let cpu = LinuxCpuBuilder::default().quota(QUOTA).period(PERIOD);
            resources.set_cpu(cpu.build().ok());
            resources.set_memory(LinuxMemoryBuilder::default().limit(MEMORY).build().ok());
            resources.set_pids(LinuxPidsBuilder::default().limit(PIDS).build().ok());
        }
    }
    spec
}
