//! What this runtime can do, in the form of the specification (features.md, features-linux.md).

use crate::defaults;
use crate::hooks::Point;
use crate::mounts::OPTION_NAMES;
use oci_spec::runtime::{
    ApparmorBuilder, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder,
    LinuxFeatureBuilder, LinuxNamespaceType, MemoryPolicyBuilder, MountExtensionsBuilder,
    NetDevicesBuilder, SelinuxBuilder,
};

/// The lowest version of the specification whose configurations are taken.
const OLDEST: &str = "1.0.0";

/// What this runtime can do, whatever this kernel can.
pub fn features() -> Features {
    let text = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut linux = LinuxFeatureBuilder::default()
        .namespaces(namespaces())
        .capabilities(capabilities())
        .build()
        .unwrap_or_default();
    linux
        .set_cgroup(
            CgroupBuilder::default()
                .v1(true)
                .v2(true)
                .systemd(false)
                .systemd_user(false)
                .rdma(true)
                .build()
                .ok(),
        )
        .set_seccomp(Some(crate::seccomp::known()))
        .set_apparmor(ApparmorBuilder::default().enabled(true).build().ok())
        .set_selinux(SelinuxBuilder::default().enabled(true).build().ok())
        .set_intel_rdt(
            IntelRdtBuilder::default()
                .enabled(true)
                .schemata(true)
                .monitoring(true)
                .build()
                .ok(),
        )
        .set_net_devices(
            NetDevicesBuilder::default()
                .enabled(cfg!(feature = "net-devices"))
                .build()
                .ok(),
        )
        .set_memory_policy(
            MemoryPolicyBuilder::default()
                .modes(text(&MODES))
                .flags(text(&MODE_FLAGS))
                .build()
                .ok(),
        )
        .set_mount_extensions(
            IDMapBuilder::default()
                .enabled(true)
                .build()
                .and_then(|idmap| MountExtensionsBuilder::default().idmap(idmap).build())
                .ok(),
        );
    FeaturesBuilder::default()
        .oci_version_min(OLDEST)
        .oci_version_max(defaults::OCI_VERSION)
        .hooks(Point::ALL.map(|point| point.name().to_string()).to_vec())
        .mount_options(mount_options())
        .linux(linux)
        .build()
        .unwrap_or_default()
}

/// Those that are understood here, and those that the kernel understands for any file system
/// (`vfs_parse_sb_flag` in fs/fs_context.c).
fn mount_options() -> Vec<String> {
    let of_kernel = ["async", "dirsync", "lazytime", "nolazytime", "sync"];
    let all = OPTION_NAMES.iter().chain(&of_kernel);
    let mut all: Vec<String> = all.map(ToString::to_string).collect();
    all.sort();
    all
}

const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];

const MODE_FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

fn namespaces() -> Vec<LinuxNamespaceType> {
    use LinuxNamespaceType as T;
    vec![
        T::Cgroup,
        T::Ipc,
        T::Mount,
        T::Network,
        T::Pid,
        T::Time,
        T::User,
        T::Uts,
    ]
}

fn capabilities() -> Vec<String> {
    let mut names: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    names.sort();
    names
}
