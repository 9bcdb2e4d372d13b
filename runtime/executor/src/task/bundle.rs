//! From a task's specification and its image to an OCI runtime specification.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use container::shim::Volume;
use container::{ContainerError, defaults};
use fairlead_api::v1;
use image::Image;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxSeccomp, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Spec,
};

use crate::model::TaskDef;
use crate::open_files;
use crate::validate::parse_capability;

/// Period of the CPU quota in microseconds: the kernel's default, and Docker's.
const CPU_PERIOD: u64 = 100_000;

/// What beside the specification decides how a task is run.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The task.
    pub def: &'a TaskDef,
    /// Its image.
    pub image: &'a Image,
    /// Its network namespace.
    pub netns: &'a Path,
    /// Directory with its `hosts`, `hostname` and `resolv.conf`.
    pub files: &'a Path,
    /// The volumes that its image wants.
    pub volumes: &'a [Volume],
}

/// A specification that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Neither the task nor its image says what to run.
    #[error("no command: neither the task nor image {0} names one")]
    NoCommand(String),
    /// The default specification lacks a part; cannot happen with the container crate's own.
    #[error("the default specification has no {0}")]
    Incomplete(&'static str),
    /// Names beside further groups.
    #[error("groups are supported only as numbers, beside a user given as uid or uid:gid")]
    GroupsByName,
    /// The image's stop signal.
    #[error("the image's stop signal {0:?} is no signal: set stop_signal in the task")]
    StopSignal(String),
    /// The task's own filter of system calls; checked when the task was assigned.
    #[error(transparent)]
    Seccomp(ContainerError),
}

/// The host name of the task: its own, else the beginning of its id, as Docker does.
#[must_use]
pub fn hostname(def: &TaskDef) -> String {
    let own = &def.container().hostname;
    if own.is_empty() {
        def.proto.id.chars().take(12).collect()
    } else {
        own.clone()
    }
}

/// Signal that asks the task to stop.
///
/// # Errors
/// The image names something that is none.
pub fn stop_signal(def: &TaskDef, image: &Image) -> Result<i32, BundleError> {
    if let Some(signal) = def.stop_signal {
        return Ok(signal);
    }
    match image.stop_signal() {
        None => Ok(libc::SIGTERM),
        Some(name) => crate::validate::parse_signal(name)
            .ok_or_else(|| BundleError::StopSignal(name.to_owned())),
    }
}

/// The specification for `config.json`.
///
/// # Errors
/// When there is nothing to run.
pub fn spec(inputs: &Inputs<'_>) -> Result<Spec, BundleError> {
    let def = inputs.def;
    let c = def.container();
    let mut spec = defaults::default_spec();
    let hostname = hostname(def);
    let mut process = spec
        .process()
        .clone()
        .ok_or(BundleError::Incomplete("process"))?;
    process
        .set_args(Some(command(c, inputs.image)?))
        .set_env(Some(environment(c, inputs.image, &hostname)))
        .set_cwd(working_dir(c, inputs.image))
        .set_capabilities(Some(defaults::capability_sets(capabilities(c))))
        .set_rlimits(rlimits(c));
    // Also where it is 0: the shim, whose child the task is, has a value of its own.
    process.set_oom_score_adj(i32::try_from(c.oom_score_adj).ok());
    if let User::Numbers(user) = user(c, inputs.image)? {
        process.set_user(user);
    }
    spec.set_process(Some(process))
        .set_hostname(Some(hostname))
        .set_annotations(Some(labels(def, inputs.image)));

    let mut linux = spec
        .linux()
        .clone()
        .ok_or(BundleError::Incomplete("linux"))?;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for namespace in &mut namespaces {
        if namespace.typ() == LinuxNamespaceType::Network {
            namespace.set_path(Some(inputs.netns.to_owned()));
        }
    }
    linux.set_namespaces(Some(namespaces));
    linux.set_seccomp(seccomp(c)?);
    let mut resources = linux.resources().clone().unwrap_or_default();
    limits(&mut resources, def);
    linux.set_resources(Some(resources));
    if !c.sysctls.is_empty() {
        linux.set_sysctl(Some(
            c.sysctls
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        ));
    }
    spec.set_linux(Some(linux));

    if let Some(root) = spec.root().clone() {
        let mut root = root;
        root.set_readonly(Some(c.read_only));
        spec.set_root(Some(root));
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let taken = |path: &str| {
        c.mounts
            .iter()
            .any(|m| Path::new(&m.target) == Path::new(path))
    };
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if !taken(&target) {
            let mut options = vec!["bind", "rprivate"];
            options.extend(c.read_only.then_some("ro"));
            mounts.push(mount(&target, "bind", &inputs.files.join(name), &options));
        }
    }
    // What a task mounts over one of the default places takes that place.
    let volumes = inputs.volumes;
    mounts.retain(|m| {
        let own = c.mounts.iter().map(|own| Path::new(&own.target));
        let wanted = volumes.iter().map(|volume| volume.destination.as_path());
        !own.chain(wanted).any(|target| target == m.destination())
    });
    mounts.extend(c.mounts.iter().map(own_mount));
    mounts.extend(volumes.iter().map(|volume| {
        let target = volume.destination.to_string_lossy();
        mount(&target, "bind", &volume.source, &["bind", "rprivate"])
    }));
    // A mount below another one must come after it.
    let fixed = defaults::mounts().len().min(mounts.len());
    if let Some(rest) = mounts.get_mut(fixed..) {
        rest.sort_by_key(|m| m.destination().components().count());
    }
    spec.set_mounts(Some(mounts));
    Ok(spec)
}

/// The filter of the task's system calls: Docker's policy for the capabilities that it has, none,
/// or the task's own.
fn seccomp(c: &v1::ContainerSpec) -> Result<Option<LinuxSeccomp>, BundleError> {
    let privileges = c.privileges.as_ref();
    match privileges.map_or(v1::SeccompMode::Default, v1::Privileges::seccomp_mode) {
        v1::SeccompMode::Default => Ok(Some(defaults::seccomp(&capabilities(c)))),
        v1::SeccompMode::Unconfined => Ok(None),
        v1::SeccompMode::Custom => {
            let text = privileges.map_or(&[][..], |privileges| &privileges.seccomp_profile);
            let profile = container::seccomp::parse_docker(text, &capabilities(c));
            profile.map(Some).map_err(BundleError::Seccomp)
        }
    }
}

/// Who the program runs as.
#[derive(Debug, PartialEq, Eq)]
pub enum User {
    /// `name|uid[:group|gid]`, looked up in the image by the runtime; `None`: root.
    Lookup(Option<String>),
    /// All ids are known.
    Numbers(oci_spec::runtime::User),
}

/// The task's user, else the image's. Further groups are taken by number, and only beside a user
/// by number.
///
/// # Errors
/// Further groups for a user by name.
pub fn user(c: &v1::ContainerSpec, image: &Image) -> Result<User, BundleError> {
    let name = if c.user.is_empty() {
        image.user()
    } else {
        Some(c.user.as_str())
    };
    if c.groups.is_empty() {
        return Ok(User::Lookup(name.map(str::to_owned)));
    }
    let (uid, gid) = name
        .unwrap_or("0:0")
        .split_once(':')
        .unwrap_or((name.unwrap_or("0"), "0"));
    let groups: Result<Vec<u32>, _> = c.groups.iter().map(|group| group.parse()).collect();
    match (uid.parse(), gid.parse(), groups) {
        (Ok(uid), Ok(gid), Ok(groups)) => {
            let mut user = oci_spec::runtime::UserBuilder::default()
                .build()
                .unwrap_or_default();
            user.set_uid(uid)
                .set_gid(gid)
                .set_additional_gids(Some(groups));
            Ok(User::Numbers(user))
        }
        _ => Err(BundleError::GroupsByName),
    }
}

/// Docker's rules: the task's command replaces the image's entry point and forgets its default
/// arguments; the task's arguments replace the image's.
fn command(c: &v1::ContainerSpec, image: &Image) -> Result<Vec<String>, BundleError> {
    let all = if !c.command.is_empty() {
        [c.command.as_slice(), c.args.as_slice()].concat()
    } else if !c.args.is_empty() {
        [image.entrypoint(), c.args.as_slice()].concat()
    } else {
        image.command()
    };
    if all.is_empty() {
        Err(BundleError::NoCommand(c.image.clone()))
    } else {
        Ok(all)
    }
}

/// The image's environment, changed by the task's; a name without value takes it away.
fn environment(c: &v1::ContainerSpec, image: &Image, hostname: &str) -> Vec<String> {
    let mut all: Vec<String> = vec![defaults::PATH.to_owned(), format!("HOSTNAME={hostname}")];
    fn name(entry: &str) -> &str {
        entry.split_once('=').map_or(entry, |(name, _)| name)
    }
    for entry in image.env().iter().chain(&c.env) {
        match all.iter().position(|e| name(e) == name(entry)) {
            Some(at) if entry.contains('=') => all[at] = entry.clone(),
            Some(at) => {
                all.remove(at);
            }
            None if entry.contains('=') => all.push(entry.clone()),
            None => {}
        }
    }
    all
}

fn working_dir(c: &v1::ContainerSpec, image: &Image) -> PathBuf {
    let own = (!c.dir.is_empty()).then_some(c.dir.as_str());
    PathBuf::from(own.or(image.working_dir()).unwrap_or("/"))
}

/// The capabilities of the task's processes.
pub fn capabilities(c: &v1::ContainerSpec) -> Capabilities {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let named = |list: &[String]| -> Capabilities {
        list.iter()
            .filter_map(|name| parse_capability(name))
            .collect()
    };
    let (add, drop) = (named(&c.capability_add), named(&c.capability_drop));
    let base = if c.capability_add.iter().any(is_all) {
        all_capabilities()
    } else if c.capability_drop.iter().any(is_all) {
        return add;
    } else {
        defaults::capabilities()
    };
    base.difference(&drop).chain(&add).copied().collect()
}

/// Every capability that this daemon could hand on: asking for "all" means these.
fn all_capabilities() -> Capabilities {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| bounding & (1 << bit) != 0)
        .map(|(_, capability)| *capability)
        .collect()
}

/// By number (linux/capability.h).
const CAPABILITIES: [Capability; 41] = {
    use Capability as C;
    [
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::Kill,
        C::Setgid,
        C::Setuid,
        C::Setpcap,
        C::LinuxImmutable,
        C::NetBindService,
        C::NetBroadcast,
        C::NetAdmin,
        C::NetRaw,
        C::IpcLock,
        C::IpcOwner,
        C::SysModule,
        C::SysRawio,
        C::SysChroot,
        C::SysPtrace,
        C::SysPacct,
        C::SysAdmin,
        C::SysBoot,
        C::SysNice,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Mknod,
        C::Lease,
        C::AuditWrite,
        C::AuditControl,
        C::Setfcap,
        C::MacOverride,
        C::MacAdmin,
        C::Syslog,
        C::WakeAlarm,
        C::BlockSuspend,
        C::AuditRead,
        C::Perfmon,
        C::Bpf,
        C::CheckpointRestore,
    ]
};

fn rlimits(c: &v1::ContainerSpec) -> Option<Vec<PosixRlimit>> {
    let limit = |typ, soft, hard| {
        let limit = PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard);
        limit.build().ok()
    };
    let given = c.ulimits.iter().filter_map(|given| {
        let name = format!("RLIMIT_{}", given.name.to_ascii_uppercase());
        let typ = serde_json::from_value(name.into()).ok()?;
        // -1 is RLIM_INFINITY as an unsigned number.
        limit(typ, given.soft.cast_unsigned(), given.hard.cast_unsigned())
    });
    let mut limits: Vec<PosixRlimit> = given.collect();
    let files = PosixRlimitType::RlimitNofile;
    if let Some((soft, hard)) = open_files::inherited()
        && !limits.iter().any(|limit| limit.typ() == files)
    {
        limits.extend(limit(files, soft, hard));
    }
    (!limits.is_empty()).then_some(limits)
}

fn limits(resources: &mut LinuxResources, def: &TaskDef) {
    let requirements = def.proto.resources.clone().unwrap_or_default();
    let limit = requirements.limits.unwrap_or_default();
    let reserved = requirements.reservations.unwrap_or_default();
    let mut memory = LinuxMemoryBuilder::default().build().unwrap_or_default();
    if limit.memory_bytes > 0 {
        memory.set_limit(Some(limit.memory_bytes));
        // The runtime specification counts memory and swap together; without a word on swap, as
        // much of it as memory (Docker).
        let swap = match requirements.swap_bytes {
            Some(-1) => -1,
            Some(swap) => limit.memory_bytes.saturating_add(swap),
            None => limit.memory_bytes.saturating_mul(2),
        };
        memory.set_swap(Some(swap));
    }
    if reserved.memory_bytes > 0 {
        memory.set_reservation(Some(reserved.memory_bytes));
    }
    if let Some(swappiness) = requirements.memory_swappiness {
        memory.set_swappiness(u64::try_from(swappiness).ok());
    }
    if memory != LinuxMemoryBuilder::default().build().unwrap_or_default() {
        resources.set_memory(Some(memory));
    }
    if limit.nano_cpus > 0 {
        let mut cpu = LinuxCpuBuilder::default().build().unwrap_or_default();
        cpu.set_period(Some(CPU_PERIOD))
            .set_quota(Some(limit.nano_cpus / 10_000));
        resources.set_cpu(Some(cpu));
    }
    let pids = def.container().pids_limit;
    if pids > 0 {
        resources.set_pids(LinuxPidsBuilder::default().limit(pids).build().ok());
    }
}

fn own_mount(m: &v1::Mount) -> Mount {
    if m.r#type() == v1::MountType::Tmpfs {
        let options = m.tmpfs_options.clone().unwrap_or_default();
        let mut list: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).into();
        list.extend(m.read_only.then(|| "ro".to_owned()));
        let mode = if options.mode == 0 {
            0o1777
        } else {
            options.mode
        };
        list.push(format!("mode={mode:o}"));
        if options.size_bytes > 0 {
            list.push(format!("size={}", options.size_bytes));
        }
        list.extend(options.options);
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        return mount(&m.target, "tmpfs", Path::new("tmpfs"), &list);
    }
    let options = m.bind_options.unwrap_or_default();
    let propagation = match options.propagation() {
        v1::Propagation::Rprivate => "rprivate",
        v1::Propagation::Private => "private",
        // Validation refuses the first two.
        v1::Propagation::Rshared | v1::Propagation::Shared | v1::Propagation::Rslave => "rslave",
        v1::Propagation::Slave => "slave",
    };
    // What is mounted below comes along, and is as read-only as the rest.
    let (bind, read_only) = if options.non_recursive {
        ("bind", "ro")
    } else {
        ("rbind", "rro")
    };
    let read_only = m.read_only.then_some(read_only);
    let list: Vec<&str> = [bind, propagation].into_iter().chain(read_only).collect();
    mount(&m.target, "bind", Path::new(&m.source), &list)
}

fn mount(target: &str, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = MountBuilder::default().build().unwrap_or_default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// Labels of the container, the later before the earlier: what the image, the task and the agent say,
/// and who it is (Docker's names).
fn labels(def: &TaskDef, image: &Image) -> HashMap<String, String> {
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut labels: HashMap<String, String> = image.labels().into_iter().map(text).collect();
    let own = def.container().labels.iter().chain(&def.proto.labels);
    labels.extend(own.map(|(name, value)| text((name, value))));
    let task = &def.proto;
    for (name, value) in [
        ("com.docker.swarm.task.id", task.id.clone()),
        ("com.docker.swarm.task.name", def.name()),
        ("com.docker.swarm.service.id", task.service_id.clone()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
    ] {
        if !value.is_empty() {
            labels.insert(name.to_owned(), value);
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Docker's form, as Swarm delivers it.
    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] }],
        "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {} },
            { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "99.0" } }
        ]
    }"#;

    #[test]
    fn a_profile_of_docker_is_for_the_tasks_capabilities() {
        let names = |add: &[&str]| {
            let c = v1::ContainerSpec {
                capability_add: add.iter().map(ToString::to_string).collect(),
                privileges: Some(v1::Privileges {
                    seccomp_mode: v1::SeccompMode::Custom.into(),
                    seccomp_profile: PROFILE.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let profile = seccomp(&c).expect("valid").expect("a profile");
            container::seccomp::check(&profile).expect("usable");
            let entries = profile.syscalls().clone().unwrap_or_default();
            let names = entries.iter().flat_map(|entry| entry.names().clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["read", "clone"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"]), ["read", "mount"]);
    }
}
