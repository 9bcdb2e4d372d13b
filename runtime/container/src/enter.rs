//! Another program in a container that runs.

use crate::capability::CapabilitySets;
use crate::cgroup::Cgroup;
use crate::create::{Started, Stdio};
use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::fault::{self, Role};
use crate::gate::{self, ATTACHED, Report, Starter, await_word, hear, say, tell};
use crate::hooks::Identity;
use crate::init::{become_root_inside, join_keyring};
use crate::procfs::ProcFs;
use crate::program::Program;
use crate::root::Root;
use crate::seal::{self, Armed, ProcessPlan};
use crate::seccomp::{self, Agent, Filter};
use crate::sys::{self, Cloned};
use crate::terminal::{self, Pty};
use crate::{namespaces, placement, process, stage, user, validate};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use oci_spec::runtime::{ContainerState, Linux, LinuxNamespaceType, Process, Spec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The container to enter.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its specification.
    pub spec: &'a Spec,
    /// Process id of its first process.
    pub pid: i32,
    /// The same process, verified ([`process::open_verified`]).
    pub pidfd: &'a OwnedFd,
    /// The cgroup for the new process: the container's, or one below it.
    pub cgroup: Option<&'a Cgroup>,
    /// Who the container is; needed when an agent answers for its system calls.
    pub identity: Option<&'a Identity>,
}

/// How the program is run.
#[derive(Debug, Default)]
pub struct EnterOptions {
    /// As in [`crate::CreateOptions`].
    pub stdio: Option<Stdio>,
    /// As in [`crate::CreateOptions`].
    pub console: Option<OwnedFd>,
    /// As in [`crate::CreateOptions`].
    pub preserve_fds: u32,
    /// As in [`crate::CreateOptions`].
    pub seccomp: Option<Filter>,
}

/// Runs a program in a container, in the container's namespaces and cgroup.
///
/// # Errors
/// A `process` that is refused, a container that is gone, a step that failed, or a program that
/// cannot be executed; then no process is left. The caller must have one thread.
pub fn enter(
    target: &Target<'_>,
    process: &Process,
    options: EnterOptions,
) -> Result<Started, ContainerError> {
    if !sys::is_single_threaded() {
        return Err(ContainerError::Multithreaded);
    }
    seal::check_preserved(options.preserve_fds)?;
    validate::check_process(process)?;
    terminal::check(process, options.console.is_some())?;
    let Some(linux) = target.spec.linux() else {
        return Err(ContainerError::invalid("linux", "missing"));
    };
    let env = process.env().as_deref().unwrap_or_default();
    let program = Program::new(process.args().as_deref().unwrap_or_default(), env)
        .ok_or_else(|| ContainerError::invalid("process.args", "no program given"))?;
    let capabilities = CapabilitySets::from_spec(process.capabilities().as_ref())?;
    let stdio = match options.stdio {
        Some(stdio) => stdio,
        None => Stdio::null()?,
    };
    let filter = seccomp::filter_of(linux, options.seccomp)?;
    let root = open_root(target, linux)?;
    let cgroup_namespace = open_cgroup_namespace(target, linux)?;
    let birthplace = target.cgroup.map(Cgroup::open_v2).transpose()?.flatten();
    let affinity = process.exec_cpu_affinity().as_ref();
    let (ours, theirs) = gate::pair()?;
    let plan = Plan {
        process: ProcessPlan {
            process,
            linux,
            capabilities,
            stdio: &stdio,
            preserve_fds: options.preserve_fds,
            affinity: affinity.map(|a| a.cpu_affinity_final().as_deref().unwrap_or_default()),
            filter: filter.as_ref(),
            program,
        },
        console: options.console.as_ref(),
        root: root.as_ref(),
        cgroup_namespace: cgroup_namespace.as_ref(),
        user_namespace: validate::namespace(linux, LinuxNamespaceType::User),
    };
    let kinds = kinds(linux);
    let initial = affinity.and_then(|affinity| affinity.initial().as_deref());
    let clone = |cgroup: Option<&OwnedFd>| {
        stage::run(None, cgroup.map(AsFd::as_fd), 0, |_| {
            if let Some(list) = initial.filter(|list| !list.is_empty()) {
                placement::set_affinity(Some(list))?;
            }
            // To join none is an error to the kernel.
            match kinds {
                0 => Ok(()),
                kinds => {
                    sys::setns(target.pidfd, kinds).step("join namespaces of", "the container")
                }
            }
        })
    };
    let cloned = match clone(birthplace.as_ref()) {
        Err(error) if is_busy(&error) => match first_cgroup(target)? {
            Some(cgroup) => clone(Some(&cgroup)),
            None => Err(error),
        },
        cloned => cloned,
    };
    let (pid, pidfd) = match cloned? {
        Cloned::Child => {
            drop(ours);
            run(plan, theirs)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, plan));
    let entered = Entered(Some(pidfd));
    if let Some(cgroup) = target.cgroup {
        cgroup.attach_v1(pid)?;
    }
    crate::rdt::follow(linux, target.identity, pid)?;
    say(&ours, ATTACHED)?;
    let warnings = match hear(&ours)? {
        Some(Report::Ready { warnings }) => warnings,
        Some(Report::Failed(failure)) => return Err(failure.into()),
        Some(Report::NotExecuted(failure)) => return Err(ContainerError::not_executed(failure)),
        _ => return Err(entered.vanished()),
    };
    let status = ContainerState::Running;
    let agent = Agent::of(target.spec, target.identity, status, target.pid)?;
    let agent = agent.map(|agent| agent.for_process(pid));
    gate::start_over(&ours, agent.as_ref(), entered.pidfd()?)?;
    Ok(Started {
        pid,
        pidfd: entered.keep()?,
        cgroup: None,
        warnings,
    })
}

/// The namespaces that the container does not share with the runtime, but for the cgroup
/// namespace, which is joined later.
fn kinds(linux: &Linux) -> u64 {
    let list = linux.namespaces().iter().flatten();
    let list = list.filter(|entry| entry.typ() != LinuxNamespaceType::Cgroup);
    list.fold(0, |all, entry| all | namespaces::flag(entry.typ()))
}

/// The process must not see more than the container. But it joins when it is in its cgroup: from
/// inside a cgroup namespace nobody can be born into a cgroup outside of its root.
fn open_cgroup_namespace(
    target: &Target<'_>,
    linux: &Linux,
) -> Result<Option<OwnedFd>, ContainerError> {
    if !validate::namespace(linux, LinuxNamespaceType::Cgroup) {
        return Ok(None);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let open = |path: &Path| nix::fcntl::open(path, flags, Mode::empty());
    of_first(target, "cgroup namespace of container", "ns/cgroup", open).map(Some)
}

/// The root directory of a container without a mount namespace of its own; with one, joining it
/// leads there.
fn open_root(target: &Target<'_>, linux: &Linux) -> Result<Option<Root>, ContainerError> {
    if validate::namespace(linux, LinuxNamespaceType::Mount) {
        return Ok(None);
    }
    let what = "root directory of container";
    of_first(target, what, "root", Root::open_host).map(Some)
}

/// Opens a file in the directory of the container's first process in procfs.
fn of_first<T>(
    target: &Target<'_>,
    what: &'static str,
    name: &str,
    open: impl FnOnce(&Path) -> Result<T, Errno>,
) -> Result<T, ContainerError> {
    let path = PathBuf::from(format!("/proc/{}/{name}", target.pid));
    let opened = open(&path).map_err(|errno| ContainerError::Open { what, path, errno })?;
    still_there(target)?;
    Ok(opened)
}

/// What was found by the number of the first process was that process's if it still is there.
fn still_there(target: &Target<'_>) -> Result<(), ContainerError> {
    match process::wait_ended(target.pidfd, Some(std::time::Duration::ZERO)) {
        Ok(false) => Ok(()),
        _ => Err(ContainerError::System {
            step: "enter container",
            errno: Errno::ESRCH,
        }),
    }
}

/// Version 2 lets nobody into a cgroup that hands controllers down: a container that has made
/// cgroups of its own, as systemd and dockerd do, has moved its processes into them.
fn is_busy(error: &ContainerError) -> bool {
    matches!(error, ContainerError::Setup(failure)
        if failure.step == "clone" && failure.errno == Errno::EBUSY as i32)
}

/// Where the first process has gone, below the cgroup that was meant (as with runc, issue 2356).
fn first_cgroup(target: &Target<'_>) -> Result<Option<OwnedFd>, ContainerError> {
    let Some(cgroup) = target.cgroup else {
        return Ok(None);
    };
    let found = cgroup.open_v2_of(target.pid)?;
    still_there(target)?;
    Ok(found)
}

/// A process that is killed and reaped unless it is kept.
struct Entered(Option<OwnedFd>);

impl Entered {
    fn pidfd(&self) -> Result<&OwnedFd, ContainerError> {
        self.0.as_ref().ok_or(ContainerError::System {
            step: "start process",
            errno: Errno::ESRCH,
        })
    }

    fn keep(mut self) -> Result<OwnedFd, ContainerError> {
        self.0.take().ok_or(ContainerError::System {
            step: "keep process",
            errno: Errno::ESRCH,
        })
    }

    fn vanished(mut self) -> ContainerError {
        let status = self.0.take().and_then(|fd| process::wait_child(&fd).ok());
        ContainerError::Vanished {
            phase: "setup",
            status: status.map_or("status unknown".into(), |exit| exit.to_string()),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL); // gone is as good
            let _ = process::wait_child(&pidfd);
        }
    }
}

struct Plan<'a> {
    process: ProcessPlan<'a>,
    console: Option<&'a OwnedFd>,
    root: Option<&'a Root>,
    cgroup_namespace: Option<&'a OwnedFd>,
    user_namespace: bool,
}

/// The new process, already inside. Never returns.
fn run(plan: Plan<'_>, socket: OwnedFd) -> ! {
    fault::begin(Role::Inside);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut warnings = Vec::new();
        let armed = match set_up(plan, &socket, &mut warnings) {
            Ok(armed) => armed,
            Err(failure) => return Report::Failed(failure),
        };
        if let Err(failure) = armed.shed(&[&socket]) {
            return Report::Failed(failure);
        }
        if let Err(failure) = armed.probe() {
            return Report::NotExecuted(failure);
        }
        if tell(&socket, &Report::Ready { warnings }).is_err() {
            sys::exit_now(125);
        }
        match Starter::Creator(&socket).wait() {
            Ok(socket) => armed.execute(&socket),
            Err(failure) => Report::Failed(failure),
        }
    }));
    let report = result.unwrap_or_else(|_| {
        Report::Failed(SetupFailure::because("set up", "process", "internal error"))
    });
    let _ = tell(&socket, &report); // the other side is gone: nobody is left to hear it
    sys::exit_now(match report {
        Report::NotExecuted(failure) => failure.exit_code,
        _ => 125,
    })
}

fn set_up<'a>(
    plan: Plan<'a>,
    socket: &OwnedFd,
    warnings: &mut Vec<SetupFailure>,
) -> Setup<Armed<'a>> {
    await_word(socket, ATTACHED);
    if let Some(namespace) = plan.cgroup_namespace {
        let kind = namespaces::flag(LinuxNamespaceType::Cgroup);
        sys::setns(namespace, kind).step("join", "cgroup namespace of the container")?;
    }
    umask(Mode::from_bits_truncate(0o022));
    nix::unistd::setsid().step("start", "a new session")?;
    join_keyring(warnings)?;
    if plan.user_namespace {
        become_root_inside()?;
    }
    let procfs = ProcFs::new()?;
    if let Some(root) = plan.root {
        nix::unistd::fchdir(root.fd()).step("change directory to", "the container's root")?;
        nix::unistd::chroot(".").step("change root to", "the container's root")?;
    }
    let root = Root::open_host(Path::new("/")).step("open", "/")?;
    let user = user::numeric(plan.process.process.user(), &root, &procfs);
    let slave = match plan.console {
        Some(console) => {
            let pty = Pty::open(&root, plan.process.process, &procfs)?;
            Some(pty.send_master(console)?)
        }
        None => None,
    };
    seal::arm(plan.process, &user, slave, &procfs, warnings)
}
