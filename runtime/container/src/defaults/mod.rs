//! Docker's defaults, as values of the specification.

mod seccomp;

pub use seccomp::seccomp;

use crate::user;
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder,
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources, LinuxResourcesBuilder, Mount,
    MountBuilder, Process, ProcessBuilder, Root, RootBuilder, Spec, SpecBuilder,
};
use std::path::PathBuf;

/// The version of the specification that this crate speaks.
pub const OCI_VERSION: &str = "1.3.0";

/// `PATH` of a program whose image names none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capabilities of a container's root.
pub fn capabilities() -> Capabilities {
    use Capability as C;
    [
        C::Chown,
        C::DacOverride,
        C::Fsetid,
        C::Fowner,
        C::Mknod,
        C::NetRaw,
        C::Setgid,
        C::Setuid,
        C::Setfcap,
        C::Setpcap,
        C::NetBindService,
        C::SysChroot,
        C::Kill,
        C::AuditWrite,
    ]
    .into_iter()
    .collect()
}

/// The five sets for a list of capabilities: none is inheritable or ambient.
pub fn capability_sets(list: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilitiesBuilder::default()
        .build()
        .unwrap_or_default();
    sets.set_bounding(Some(list.clone()))
        .set_effective(Some(list.clone()))
        .set_permitted(Some(list))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    sets
}

/// Paths that are hidden.
pub fn masked_paths() -> Vec<String> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .map(Into::into)
    .into()
}

/// Paths that are read-only.
pub fn readonly_paths() -> Vec<String> {
    [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
    .map(Into::into)
    .into()
}

/// The file systems that every container has.
pub fn mounts() -> Vec<Mount> {
    let mount = |to: &str, kind: &str, options: &[&str]| {
        let mut mount = MountBuilder::default().build().unwrap_or_default();
        mount
            .set_destination(PathBuf::from(to))
            .set_typ(Some(kind.into()))
            .set_source(Some(PathBuf::from(kind)))
            .set_options(Some(options.iter().map(|o| (*o).to_string()).collect()));
        mount
    };
    let none = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&none[..], more].concat();
    vec![
        mount("/proc", "proc", &none),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", &with(&["ro"])),
        mount("/sys/fs/cgroup", "cgroup", &with(&["ro"])),
        mount("/dev/mqueue", "mqueue", &none),
        mount("/dev/shm", "tmpfs", &with(&["mode=1777", "size=65536k"])),
    ]
}

/// The device rules: nothing, except what is harmless.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![device_rule(false, LinuxDeviceType::A, None, None, "rwm")];
    rules.extend(allowed_devices());
    rules
}

/// What every container may do with devices: nodes may be made (with `CAP_MKNOD`), and the devices
/// that every container has may be used.
pub fn allowed_devices() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType as T;
    let mut rules = vec![
        device_rule(true, T::C, None, None, "m"),
        device_rule(true, T::B, None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx, pts
    let used = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ];
    let used = used.map(|(major, minor)| device_rule(true, T::C, Some(major), Some(minor), "rwm"));
    rules.extend(used);
    rules.push(device_rule(true, T::C, Some(136), None, "rwm"));
    rules
}

/// These resources, with the rules for the devices that every container has after those that are
/// given (config-linux.md, "Default Devices"): callers of runc forbid everything and rely on that.
/// Where no rule is given, none is added.
pub fn with_own_devices(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    if let Some(rules) = resources.devices_mut().as_mut().filter(|r| !r.is_empty()) {
        rules.extend(allowed_devices());
    }
    resources
}

/// As [`with_own_devices`], for a container that is made: where no rule is given, the devices that
/// every container has may be used and no others. Else a node of the machine's disk would be one
/// call away. Whoever has no privileges on the machine can load no filter, and without them can make
/// no device either.
pub fn with_devices(resources: &LinuxResources) -> LinuxResources {
    let mut resources = with_own_devices(resources);
    let none = resources.devices().iter().flatten().next().is_none();
    if none && nix::unistd::geteuid().is_root() && user::in_initial_namespace() {
        resources.set_devices(Some(device_rules()));
    }
    resources
}

fn device_rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .build()
        .unwrap_or_default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.into()));
    rule
}

/// The namespaces of a container: all but the user's.
pub fn namespaces() -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    [T::Pid, T::Mount, T::Ipc, T::Uts, T::Cgroup, T::Network]
        .into_iter()
        .map(|kind| {
            let mut namespace = LinuxNamespaceBuilder::default().build().unwrap_or_default();
            namespace.set_typ(kind);
            namespace
        })
        .collect()
}

/// Limits: none but the device rules.
pub fn resources() -> LinuxResources {
    let mut resources = LinuxResourcesBuilder::default().build().unwrap_or_default();
    resources.set_devices(Some(device_rules()));
    resources
}

/// A shell as root in a container with all of the above, its network namespace new and empty.
pub fn default_spec() -> Spec {
    let mut process: Process = ProcessBuilder::default().build().unwrap_or_default();
    process
        .set_terminal(Some(false))
        .set_args(Some(vec!["/bin/sh".into()]))
        .set_env(Some(vec![PATH.into()]))
        .set_cwd("/".into())
        .set_capabilities(Some(capability_sets(capabilities())))
        .set_rlimits(None)
        .set_no_new_privileges(Some(true));
    let mut linux: Linux = LinuxBuilder::default().build().unwrap_or_default();
    linux
        .set_resources(Some(resources()))
        .set_namespaces(Some(namespaces()))
        .set_masked_paths(Some(masked_paths()))
        .set_readonly_paths(Some(readonly_paths()))
        .set_seccomp(Some(seccomp(&capabilities())))
        .set_devices(None);
    let mut root: Root = RootBuilder::default().build().unwrap_or_default();
    root.set_path("rootfs".into()).set_readonly(Some(false));
    let mut spec = SpecBuilder::default().build().unwrap_or_default();
    spec.set_version(OCI_VERSION.into())
        .set_process(Some(process))
        .set_root(Some(root))
        .set_hostname(None)
        .set_mounts(Some(mounts()))
        .set_linux(Some(linux));
    spec
}
