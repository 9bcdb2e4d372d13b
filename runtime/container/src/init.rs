//! The child: from the clone to the exec of the program. Runs as process 1 of the container.

use crate::capability::CapabilitySets;
use crate::cgroup::Cgroup;
use crate::create::Stdio;
use crate::error::{Context, Setup, SetupFailure};
use crate::exec::{self, ExecFailure, Program};
use crate::mask::{self, Null};
use crate::mountopt::root_propagation;
use crate::mounts::CgroupView;
use crate::procfs::ProcFs;
use crate::root::{Links, Root};
use crate::rootfs::{self, Rootfs};
use crate::user::{self, ResolvedUser};
use crate::{dev, mounts, sys};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Linux, PosixRlimitType, Process, Spec};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What the child tells the creating process, one datagram each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// All is set up; the child waits for [`START`].
    Ready { warnings: Vec<SetupFailure> },
    /// A step failed; the child ends.
    Failed(SetupFailure),
    /// The program could not be executed; the child ends.
    NotExecuted(ExecFailure),
}

/// Sent to the child once it is in its cgroups.
pub const ATTACHED: &[u8] = b"a";
/// Sent to the child when the program may run.
pub const START: &[u8] = b"s";
/// Longer reports are cut; so is what is read.
pub const MAX_REPORT: usize = 64 << 10;

/// Everything the child needs, made before the clone.
pub struct Plan<'a> {
    pub spec: &'a Spec,
    pub linux: &'a Linux,
    pub process: &'a Process,
    pub rootfs: &'a Rootfs,
    pub user: Option<&'a str>,
    pub cgroup: Option<&'a Cgroup>,
    pub capabilities: &'a CapabilitySets,
    pub join: &'a [(OwnedFd, CloneFlags, String)],
    pub own_cgroup_namespace: bool,
    pub stdio: &'a Stdio,
    pub program: Program,
}

/// Runs the child. Never returns.
pub fn run(plan: Plan<'_>, socket: OwnedFd) -> ! {
    // A panic must not unwind into the code of the parent that this process is a copy of.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(plan, &socket)));
    let report = match result {
        Ok(report) => report,
        Err(_) => Report::Failed(SetupFailure::because(
            "set up",
            "container",
            "internal error",
        )),
    };
    let _ = tell(&socket, &report); // the parent is gone: nobody is left to hear it
    sys::exit_now(match report {
        Report::NotExecuted(failure) => failure.exit_code,
        _ => 125,
    })
}

/// Sends one report.
fn tell(socket: &OwnedFd, report: &Report) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(report).map_err(|_| Errno::EINVAL)?;
    let bytes = if bytes.len() <= MAX_REPORT {
        bytes
    } else {
        let reason = "the report is too long to be sent";
        let short = Report::Failed(SetupFailure::because("set up", "container", reason));
        serde_json::to_vec(&short).map_err(|_| Errno::EINVAL)?
    };
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// Waits for one word; a parent that is gone ends the child.
fn await_word(socket: &OwnedFd, word: &[u8]) {
    let mut buffer = [0u8; 8];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(n) if buffer.get(..n) == Some(word) => return,
            Err(Errno::EINTR) => {}
            _ => sys::exit_now(125),
        }
    }
}

fn child(mut plan: Plan<'_>, socket: &OwnedFd) -> Report {
    let mut warnings = Vec::new();
    if let Err(failure) = set_up(&mut plan, socket, &mut warnings) {
        return Report::Failed(failure);
    }
    if tell(socket, &Report::Ready { warnings }).is_err() {
        sys::exit_now(125);
    }
    await_word(socket, START);
    if let Err(errno) = exec::prepare() {
        return Report::Failed(SetupFailure::new(
            "mark close-on-exec",
            "descriptors",
            errno,
        ));
    }
    Report::NotExecuted(plan.program.exec())
}

fn set_up(plan: &mut Plan<'_>, socket: &OwnedFd, warnings: &mut Vec<SetupFailure>) -> Setup<()> {
    // Before any namespace is shared with others: nobody in it may look into this process, whose
    // memory and executable are those of the runtime.
    sys::prctl(libc::PR_SET_DUMPABLE, 0).step("make", "process non-dumpable")?;
    await_word(socket, ATTACHED);
    nix::unistd::setsid().step("start", "a new session")?;
    join_namespaces(plan)?;

    let procfs = ProcFs::new()?;
    let (root, user) = build_root(plan)?;
    kernel_settings(plan, &procfs, warnings)?;
    rootfs::enter(&root)?;
    if plan
        .spec
        .root()
        .as_ref()
        .and_then(|root| root.readonly())
        .unwrap_or(false)
    {
        rootfs::make_read_only(&root)?;
    }
    drop(root);
    set_rlimits(plan.process)?;
    install_stdio(plan.stdio, user.uid)?;
    sys::reset_affinity().step("reset", "CPU affinity")?;
    plan.program.default_env("HOME", &user.home);
    become_user(plan, &user)
}

fn join_namespaces(plan: &Plan<'_>) -> Setup<()> {
    for (fd, kind, path) in plan.join {
        setns(fd, *kind).step("join namespace", path)?;
    }
    if plan.own_cgroup_namespace {
        // Only now: its root is the cgroup that the process is in at this moment.
        unshare(CloneFlags::CLONE_NEWCGROUP).step("make", "cgroup namespace")?;
    }
    Ok(())
}

/// Mounts everything; afterwards the root is complete but not yet entered.
fn build_root(plan: &Plan<'_>) -> Setup<(Root, ResolvedUser)> {
    let linux = plan.linux;
    let null = Null::open()?;
    let propagation = root_propagation(linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let root = rootfs::attach(plan.rootfs, propagation)?;
    let list = plan.spec.mounts().as_deref().unwrap_or_default();
    let view = CgroupView {
        cgroup: plan.cgroup,
        own_namespace: plan.own_cgroup_namespace,
    };
    mounts::mount_all(&root, list, view)?;
    if !list.iter().any(binds_dev) {
        dev::populate(&root, linux.devices().as_deref().unwrap_or_default())?;
    }
    root.make_dir(plan.process.cwd(), Links::Follow)?;
    let user = resolve_user(plan, &root)?;
    mask::make_read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    mask::mask(
        &root,
        linux.masked_paths().as_deref().unwrap_or_default(),
        &null,
    )?;
    Ok((root, user))
}

/// A `/dev` of the host is used as it is.
fn binds_dev(mount: &oci_spec::runtime::Mount) -> bool {
    mount.destination() == std::path::Path::new("/dev")
        && (mount.typ().as_deref() == Some("bind")
            || mount
                .options()
                .iter()
                .flatten()
                .any(|o| o == "bind" || o == "rbind"))
}

fn resolve_user(plan: &Plan<'_>, root: &Root) -> Setup<ResolvedUser> {
    if let Some(name) = plan.user {
        return user::resolve_in(root, name);
    }
    let user = plan.process.user();
    Ok(ResolvedUser {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        // An unreadable passwd is no reason not to start somebody given by number.
        home: user::home_of(root, user.uid()).unwrap_or_else(|_| "/".into()),
    })
}

fn kernel_settings(
    plan: &Plan<'_>,
    procfs: &ProcFs,
    warnings: &mut Vec<SetupFailure>,
) -> Setup<()> {
    if let Some(name) = plan.spec.hostname().as_deref().filter(|n| !n.is_empty()) {
        nix::unistd::sethostname(name).step("set hostname to", name)?;
    }
    if let Some(name) = plan.spec.domainname().as_deref().filter(|n| !n.is_empty()) {
        sys::setdomainname(name).step("set domain name to", name)?;
    }
    if let Some(sysctls) = plan.linux.sysctl() {
        procfs.set_sysctls(sysctls)?;
    }
    if let Some(adj) = plan.process.oom_score_adj() {
        match procfs.write("self/oom_score_adj", &adj.to_string()) {
            Ok(()) => {}
            // Below the inherited value only with CAP_SYS_RESOURCE; the program runs without.
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                warnings.push(SetupFailure::new("set oom_score_adj to", adj, errno));
            }
            Err(errno) => return Err(SetupFailure::new("set oom_score_adj to", adj, errno)),
        }
    }
    Ok(())
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

fn install_stdio(stdio: &Stdio, uid: u32) -> Setup<()> {
    // First all out of the way of 0, 1 and 2, so that no copy overwrites another's source.
    let spare = |fd: &OwnedFd| {
        let command = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3);
        nix::fcntl::fcntl(fd, command).step("duplicate", "standard descriptor")
    };
    let numbers = [
        spare(&stdio.stdin)?,
        spare(&stdio.stdout)?,
        spare(&stdio.stderr)?,
    ];
    let [stdin, stdout, stderr] = numbers.map(sys::own_fd);
    nix::unistd::dup2_stdin(&stdin).step("install", "stdin")?;
    nix::unistd::dup2_stdout(&stdout).step("install", "stdout")?;
    nix::unistd::dup2_stderr(&stderr).step("install", "stderr")?;
    if uid != 0 {
        // Programs open /dev/stdout anew, which asks for permission on the pipe itself.
        for fd in [&stdin, &stdout, &stderr] {
            if is_pipe(fd) {
                nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None)
                    .step("give to the user", "standard descriptor")?;
            }
        }
    }
    Ok(())
}

fn is_pipe(fd: impl AsFd) -> bool {
    use nix::sys::stat::{SFlag, fstat};
    fstat(fd).is_ok_and(|s| s.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits())
}

fn become_user(plan: &Plan<'_>, user: &ResolvedUser) -> Setup<()> {
    umask(Mode::from_bits_truncate(
        plan.process.user().umask().unwrap_or(0o022),
    ));
    plan.capabilities.limit_bounding()?;
    change_directory(plan.process)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).step("keep", "capabilities over the change of user")?;
    sys::setgroups(&user.additional_gids)
        .step("set groups", format!("{:?}", user.additional_gids))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    nix::unistd::setresgid(gid, gid, gid).step("set group", gid)?;
    nix::unistd::setresuid(uid, uid, uid).step("set user", uid)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0).step("reset", "keep-capabilities")?;
    plan.capabilities.apply()?;
    if plan.process.no_new_privileges().unwrap_or(false) {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).step("set", "no_new_privs")?;
    }
    Ok(())
}

fn change_directory(process: &Process) -> Setup<()> {
    let cwd = process.cwd();
    nix::unistd::chdir(cwd).step("change directory to", cwd.display())?;
    // A working directory outside the root (through a leaked descriptor) would be a way out.
    let seen = sys::getcwd().step("read", "working directory")?;
    if !seen.starts_with(b"/") {
        let reason = "it leads outside the container";
        return Err(SetupFailure::because(
            "change directory to",
            cwd.display(),
            reason,
        ));
    }
    Ok(())
}
