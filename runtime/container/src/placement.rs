//! How the kernel treats the process: limits, scheduling, priorities, memory policy, execution
//! domain (config.md, "POSIX process", "Linux Process"; config-linux.md, "Memory Policy").

use crate::cpulist;
use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::sys::{self, SchedAttr};
use nix::errno::Errno;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process,
    Scheduler,
};

/// Refuses values that make no sense.
pub fn check(process: &Process) -> Result<(), ContainerError> {
    let invalid = |field: &str, reason: String| {
        Err(ContainerError::invalid(format!("process.{field}"), reason))
    };
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (i, limit) in limits.iter().enumerate() {
        let field = format!("rlimits[{i}]");
        if limit.soft() > limit.hard() {
            return invalid(&field, "the soft limit is above the hard one".into());
        }
        let before = limits.iter().take(i);
        if before.into_iter().any(|before| before.typ() == limit.typ()) {
            return invalid(&field, format!("a second {}", limit.typ()));
        }
    }
    if let Some(adj) = process.oom_score_adj()
        && !(-1000..=1000).contains(&adj)
    {
        return invalid("oomScoreAdj", format!("{adj} is not in -1000..1000"));
    }
    if let Some(priority) = process.io_priority()
        && !(0..=7).contains(&priority.priority())
    {
        let reason = format!("{} is not in 0..7", priority.priority());
        return invalid("ioPriority.priority", reason);
    }
    if let Some(scheduler) = process.scheduler() {
        scheduling(scheduler)?;
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        let lists = [
            ("initial", affinity.initial()),
            ("final", affinity.cpu_affinity_final()),
        ];
        for (field, list) in lists {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                cpulist::parse(list).map_err(|reason| {
                    ContainerError::invalid(format!("process.execCPUAffinity.{field}"), reason)
                })?;
            }
        }
    }
    Ok(())
}

/// Checks what is in `linux`.
pub fn check_linux(linux: &Linux) -> Result<(), ContainerError> {
    if let Some(personality) = linux.personality()
        && personality.flags().as_ref().is_some_and(|f| !f.is_empty())
    {
        let reason = "the specification knows no flag yet";
        return Err(ContainerError::unsupported(
            "linux.personality.flags",
            reason,
        ));
    }
    linux
        .memory_policy()
        .as_ref()
        .map_or(Ok(()), |policy| memory_policy(policy).map(drop))
}

/// Applies all of it to the calling process, which still has every privilege. `warnings` takes
/// what could not be had though the program can run.
pub fn apply(
    process: &Process,
    linux: &Linux,
    procfs: &ProcFs,
    warnings: &mut Vec<SetupFailure>,
) -> Setup<()> {
    if let Some(adj) = process.oom_score_adj() {
        match procfs.write("self/oom_score_adj", &adj.to_string()) {
            Ok(()) => {}
            // Below the inherited value only with CAP_SYS_RESOURCE; the program runs without.
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                warnings.push(SetupFailure::new("set oom_score_adj to", adj, errno));
            }
            Err(errno) => return Err(SetupFailure::new("set oom_score_adj to", adj, errno)),
        }
    }
    set_rlimits(process)?;
    if let Some(scheduler) = process.scheduler() {
        let attr = scheduling(scheduler).map_err(|error| {
            SetupFailure::because("set scheduler to", scheduler.policy(), error.to_string())
        })?;
        sys::sched_setattr(attr).step("set scheduler to", scheduler.policy())?;
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u16::try_from(priority.priority()).unwrap_or(0); // checked
        sys::ioprio_set(class, level).step("set I/O priority to", priority.class())?;
    }
    if let Some(personality) = linux.personality() {
        // linux/personality.h
        let persona = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        sys::personality(persona).step("set personality to", personality.domain())?;
    }
    if let Some(policy) = linux.memory_policy() {
        let (mode, nodes) = memory_policy(policy).map_err(|error| {
            SetupFailure::because("set memory policy", policy.mode(), error.to_string())
        })?;
        sys::set_mempolicy(mode, &nodes).step("set memory policy", policy.mode())?;
    }
    Ok(())
}

/// Allows the CPUs of a list, or all: else they would be those of whoever started the runtime.
pub fn set_affinity(list: Option<&str>) -> Setup<()> {
    let mask = match list.filter(|list| !list.is_empty()) {
        Some(list) => cpulist::parse(list)
            .map_err(|reason| SetupFailure::because("set CPU affinity to", list, reason))?,
        None => vec![0xff; 1024],
    };
    sys::set_affinity(&mask).step("set CPU affinity to", list.unwrap_or("all CPUs"))
}

fn set_rlimits(process: &Process) -> Setup<()> {
    for limit in process.rlimits().iter().flatten() {
        let (soft, hard) = (limit.soft(), limit.hard());
        sys::setrlimit(rlimit_number(limit.typ()), soft, hard).map_err(|errno| {
            let object = format!("{} to {soft}:{hard}", limit.typ());
            let mut failure = SetupFailure::new("set limit", object, errno);
            if errno == Errno::EPERM {
                failure.reason = "the hard limit is above this process's own, and it lacks \
                                  CAP_SYS_RESOURCE to raise it"
                    .into();
            }
            failure
        })?;
    }
    Ok(())
}

fn rlimit_number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => libc::RLIMIT_CPU,
        T::RlimitFsize => libc::RLIMIT_FSIZE,
        T::RlimitData => libc::RLIMIT_DATA,
        T::RlimitStack => libc::RLIMIT_STACK,
        T::RlimitCore => libc::RLIMIT_CORE,
        T::RlimitRss => libc::RLIMIT_RSS,
        T::RlimitNproc => libc::RLIMIT_NPROC,
        T::RlimitNofile => libc::RLIMIT_NOFILE,
        T::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        T::RlimitAs => libc::RLIMIT_AS,
        T::RlimitLocks => libc::RLIMIT_LOCKS,
        T::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        T::RlimitNice => libc::RLIMIT_NICE,
        T::RlimitRtprio => libc::RLIMIT_RTPRIO,
        T::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// As sched_setattr(2) wants it; the numbers are of `linux/sched.h`.
fn scheduling(scheduler: &Scheduler) -> Result<SchedAttr, ContainerError> {
    use LinuxSchedulerFlag as F;
    use LinuxSchedulerPolicy as P;
    let invalid = |field: &str, reason: &str| {
        Err(ContainerError::invalid(
            format!("process.scheduler.{field}"),
            reason,
        ))
    };
    let policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => return invalid("policy", "SCHED_ISO is in no kernel"),
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let mut flags = 0;
    for flag in scheduler.flags().iter().flatten() {
        flags |= match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin | F::SchedFlagUtilClampMax => {
                return invalid("flags", "the specification has no values for clamps");
            }
        };
    }
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return invalid("nice", "not in -20..19");
    }
    if nice != 0 && !matches!(scheduler.policy(), P::SchedOther | P::SchedBatch) {
        return invalid("nice", "only SCHED_OTHER and SCHED_BATCH have it");
    }
    let priority = scheduler.priority().unwrap_or(0);
    let realtime = matches!(scheduler.policy(), P::SchedFifo | P::SchedRr);
    let Some(priority) = u32::try_from(priority).ok().filter(|p| match realtime {
        true => (1..=99).contains(p),
        false => *p == 0,
    }) else {
        return invalid("priority", "1 to 99 for SCHED_FIFO and SCHED_RR, else 0");
    };
    let times = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (field, time) in times {
        if time.is_some_and(|time| time != 0) && scheduler.policy() != &P::SchedDeadline {
            return invalid(field, "only SCHED_DEADLINE has it");
        }
    }
    Ok(SchedAttr {
        policy,
        flags,
        nice,
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedAttr::default()
    })
}

/// Mode and nodes as set_mempolicy(2) wants them; the numbers are of `linux/mempolicy.h`.
fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<(i32, Vec<libc::c_ulong>), ContainerError> {
    use MemoryPolicyFlagType as F;
    use MemoryPolicyModeType as M;
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten();
    let flags = flags.fold(0, |all, flag| {
        all | match flag {
            F::MpolFNumaBalancing => 1 << 13,
            F::MpolFRelativeNodes => 1 << 14,
            F::MpolFStaticNodes => 1 << 15,
        }
    });
    let nodes = match policy.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(nodes) => cpulist::parse(nodes)
            .map_err(|reason| ContainerError::invalid("linux.memoryPolicy.nodes", reason))?,
        None => Vec::new(),
    };
    Ok((mode | flags, cpulist::words(&nodes)))
}
