//! The child: from the clone to the exec of the program. As a rule it is process 1 of the
//! container.

use crate::cgroup::Cgroup;
use crate::error::{Context, Setup, SetupFailure};
use crate::fault::{self, Role};
use crate::gate::{ATTACHED, HOOKED, Report, Starter, await_word, tell};
use crate::hooks::{self, Identity, Point};
use crate::mask::{self, Null};
use crate::mounts::{self, CgroupView, Label, Sources, root_propagation};
use crate::namespaces::Namespaces;
use crate::procfs::ProcFs;
use crate::root::{Links, Root};
use crate::rootfs::{self, Rootfs};
use crate::seal::{self, Armed, ProcessPlan};
use crate::terminal::Pty;
use crate::user::{self, ResolvedUser};
use crate::{dev, sys};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use oci_spec::runtime::{ContainerState, LinuxNamespaceType, Spec};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Everything the child needs, made before the clone.
pub struct Plan<'a> {
    pub spec: &'a Spec,
    pub namespaces: &'a Namespaces,
    pub rootfs: &'a Rootfs,
    /// The root file system, where the creating process had to open it.
    pub root_mount: Option<OwnedFd>,
    pub sources: Sources,
    pub user: Option<&'a str>,
    pub cgroup: Option<&'a Cgroup>,
    /// Who the container is, for hooks.
    pub identity: Option<&'a Identity>,
    /// Where the terminal's other side goes.
    pub console: Option<&'a OwnedFd>,
    /// Where somebody else may start the program.
    pub listener: Option<&'a OwnedFd>,
    /// Whether the process shows itself until its ids are mapped ([`crate::stage::dumpable`]). Found
    /// out by the creator: whose id this process has changes while the maps are written.
    pub dumpable: libc::c_ulong,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub process: ProcessPlan<'a>,
}

/// Runs the child. Never returns.
pub fn run(plan: Plan<'_>, socket: OwnedFd) -> ! {
    fault::begin(Role::Inside);
    // A panic must not unwind into the code of the parent that this process is a copy of.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(plan, &socket)));
    let (socket, report) = result.unwrap_or_else(|_| {
        let failure = SetupFailure::because("set up", "container", "internal error");
        (None, Report::Failed(failure))
    });
    if let Some(socket) = socket {
        let _ = tell(&socket, &report); // the other side is gone: nobody is left to hear it
    }
    sys::exit_now(match report {
        Report::NotExecuted(failure) => failure.exit_code,
        _ => 125,
    })
}

/// Ends with a report, and where to send it.
fn child(plan: Plan<'_>, socket: &OwnedFd) -> (Option<OwnedFd>, Report) {
    let (spec, identity, listener) = (plan.spec, plan.identity, plan.listener);
    let to_creator = |report| (socket.try_clone().ok(), report);
    let mut warnings = Vec::new();
    let armed = match set_up(plan, socket, &mut warnings) {
        Ok(armed) => armed,
        Err(failure) => return to_creator(Report::Failed(failure)),
    };
    let mut needed = vec![socket];
    needed.extend(listener);
    if let Err(failure) = armed.shed(&needed) {
        return to_creator(Report::Failed(failure));
    }
    // What is missing now will hardly appear, and the creator is the one who can say so.
    if let Err(failure) = armed.probe() {
        return to_creator(Report::NotExecuted(failure));
    }
    if tell(socket, &Report::Ready { warnings }).is_err() {
        sys::exit_now(125);
    }
    let starter = match listener {
        Some(listener) => Starter::Anyone {
            creator: socket,
            listener,
        },
        None => Starter::Creator(socket),
    };
    let socket = match starter.wait() {
        Ok(socket) => socket,
        Err(failure) => return to_creator(Report::Failed(failure)),
    };
    let report = match run_hooks(spec, identity, Point::StartContainer) {
        Ok(()) => armed.execute(&socket),
        Err(failure) => Report::Failed(failure),
    };
    (Some(socket), report)
}

fn run_hooks(spec: &Spec, identity: Option<&Identity>, point: Point) -> Setup<()> {
    let Some(identity) = identity.filter(|_| !hooks::at(spec, point).is_empty()) else {
        return Ok(());
    };
    let status = match point {
        Point::StartContainer => ContainerState::Created,
        _ => ContainerState::Creating,
    };
    // Inside the container, the process id is the one that is seen there.
    let own = nix::unistd::getpid().as_raw();
    hooks::run(spec, point, &identity.state(spec, status, Some(own)))
}

/// The hooks inside the namespaces. Who waits for one hears nothing at the socket, so it is the
/// kernel that ends this process with its creator meanwhile.
fn run_inner_hooks(plan: &Plan<'_>, socket: &OwnedFd) -> Setup<()> {
    let point = Point::CreateContainer;
    if hooks::at(plan.spec, point).is_empty() {
        return Ok(());
    }
    let follow = |signal| {
        sys::prctl(libc::PR_SET_PDEATHSIG, signal).step("follow the end of", "the creating process")
    };
    follow(libc::SIGKILL as libc::c_ulong)?;
    // It says nothing now, so what can be read is that it has ended before.
    if sys::poll_readable(socket.as_raw_fd(), 0) != Ok(false) {
        sys::exit_now(125);
    }
    run_hooks(plan.spec, plan.identity, point)?;
    follow(0)
}

fn set_up<'a>(
    mut plan: Plan<'a>,
    socket: &OwnedFd,
    warnings: &mut Vec<SetupFailure>,
) -> Setup<Armed<'a>> {
    // Before any namespace is shared with others: nobody in it may look into this process, whose
    // memory and executable are those of the runtime.
    sys::prctl(libc::PR_SET_DUMPABLE, plan.dumpable).step("make", "process non-dumpable")?;
    await_word(socket, ATTACHED);
    umask(Mode::from_bits_truncate(0o022)); // what is made here is not the caller's
    nix::unistd::setsid().step("start", "a new session")?;
    if !plan.no_new_keyring {
        join_keyring(warnings)?;
    }
    enter_namespaces(&plan)?;

    let procfs = match needs_procfs(&plan) {
        true => ProcFs::new()?,
        false => ProcFs::later(),
    };
    let new_mounts = plan.namespaces.makes(LinuxNamespaceType::Mount);
    let root = if new_mounts {
        build_root(&mut plan, &procfs)?
    } else {
        shared_root(&plan)?
    };
    let user = resolve_user(&plan, &root, &procfs)?;
    let pty = match plan.console {
        Some(_) => Some(Pty::open(&root, plan.process.process, &procfs)?),
        None => None,
    };
    if new_mounts {
        if let Some(pty) = &pty {
            pty.mount_console(&root)?;
        }
        cover(&plan, &root)?;
    }
    let outside = [Point::Prestart, Point::CreateRuntime];
    if outside
        .iter()
        .any(|at| !hooks::at(plan.spec, *at).is_empty())
    {
        if tell(socket, &Report::Prepared).is_err() {
            sys::exit_now(125);
        }
        await_word(socket, HOOKED);
    }
    run_inner_hooks(&plan, socket)?;
    // After the hooks, as runc has it: one of them may bring the device that a setting is of.
    kernel_settings(&plan, &procfs)?;
    if new_mounts {
        let propagation = plan.process.linux.rootfs_propagation().as_deref();
        let propagation = root_propagation(propagation).unwrap_or_default();
        rootfs::enter(&root, propagation, plan.no_pivot, &procfs)?;
        if plan.spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
            rootfs::make_read_only(&root)?;
        }
    } else if !plan.namespaces.joins(LinuxNamespaceType::Mount) {
        rootfs::change_root(plan.rootfs)?;
    }
    drop(root);
    let slave = match (pty, plan.console) {
        (Some(pty), Some(console)) => Some(pty.send_master(console)?),
        _ => None,
    };
    seal::arm(plan.process, &user, slave, &procfs, warnings)
}

/// Whether anything is written through procfs, so that it must be mounted before the host's root is
/// left: inside a user namespace, the one of the container is the only one later, and with paths
/// that are masked no other may be mounted beside it.
fn needs_procfs(plan: &Plan<'_>) -> bool {
    let process = plan.process.process;
    let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    process.oom_score_adj().is_some()
        || set(process.apparmor_profile())
        || set(process.selinux_label())
        || plan.process.linux.sysctl().is_some()
        || plan.namespaces.has(LinuxNamespaceType::User)
        || !user::in_initial_namespace()
}

/// Else it would be that of whoever started the daemon, and the same for all containers.
pub fn join_keyring(warnings: &mut Vec<SetupFailure>) -> Setup<()> {
    match sys::join_session_keyring() {
        // A kernel without keyrings has none to share.
        Ok(()) | Err(Errno::ENOSYS) => Ok(()),
        // Inside another container, whose filter forbids it.
        Err(errno @ Errno::EPERM) => {
            warnings.push(SetupFailure::new("join", "a session keyring", errno));
            Ok(())
        }
        Err(errno) => Err(SetupFailure::new("join", "a session keyring", errno)),
    }
}

fn enter_namespaces(plan: &Plan<'_>) -> Setup<()> {
    if plan.namespaces.has(LinuxNamespaceType::User) {
        become_root_inside()?;
    }
    plan.namespaces.join()?;
    if plan.namespaces.makes(LinuxNamespaceType::Cgroup) {
        // Only now: its root is the cgroup that the process is in at this moment.
        sys::unshare(libc::CLONE_NEWCGROUP as u64).step("make", "cgroup namespace")?;
    }
    Ok(())
}

/// In a user namespace a process has no id that it knows, until it takes one. A namespace that
/// has no root has none to take; its privileges the process holds either way.
pub fn become_root_inside() -> Setup<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    for changed in [setresgid(gid, gid, gid), setresuid(uid, uid, uid)] {
        match changed {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(SetupFailure::new("become", "root of the container", errno)),
        }
    }
    sys::prctl(libc::PR_SET_DUMPABLE, 0).step("make", "process non-dumpable")
}

/// Mounts everything; afterwards the root is complete but not yet entered.
fn build_root(plan: &mut Plan<'_>, procfs: &ProcFs) -> Setup<Root> {
    let list = plan.spec.mounts().as_deref().unwrap_or_default();
    plan.sources.open_rest(list)?;
    rootfs::leave_host()?;
    let mount = match plan.root_mount.take() {
        Some(mount) => mount,
        None => rootfs::open(plan.rootfs)?,
    };
    let linux = plan.process.linux;
    let propagation = root_propagation(linux.rootfs_propagation().as_deref());
    let mut root = rootfs::attach(mount, plan.rootfs, propagation.unwrap_or_default())?;
    let view = CgroupView {
        cgroup: plan.cgroup,
        own_namespace: plan.namespaces.makes(LinuxNamespaceType::Cgroup),
    };
    let label = Label {
        context: linux.mount_label().as_deref().unwrap_or_default(),
        own_queues: plan.namespaces.makes(LinuxNamespaceType::Ipc),
    };
    mounts::mount_all(
        &mut root,
        list,
        std::mem::take(&mut plan.sources),
        view,
        label,
    )?;
    if !list.iter().any(binds_dev) {
        let devices = linux.devices().as_deref().unwrap_or_default();
        dev::populate(&root, devices, procfs)?;
    }
    root.make_dir(plan.process.process.cwd(), Links::Follow)?;
    Ok(root)
}

/// The last mounts: what hides others.
fn cover(plan: &Plan<'_>, root: &Root) -> Setup<()> {
    let linux = plan.process.linux;
    let null = Null::open()?;
    mask::make_read_only(root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    mask::mask(
        root,
        linux.masked_paths().as_deref().unwrap_or_default(),
        &null,
    )
}

/// The root of a container whose mounts are not its own.
fn shared_root(plan: &Plan<'_>) -> Setup<Root> {
    let path = match plan.rootfs {
        _ if plan.namespaces.joins(LinuxNamespaceType::Mount) => Path::new("/"),
        Rootfs::Directory(path) => path,
        Rootfs::Overlay { upper, .. } => upper, // refused when it is entered
    };
    Root::open_host(path).step("open root file system", path.display())
}

/// A `/dev` of the host is used as it is.
fn binds_dev(mount: &oci_spec::runtime::Mount) -> bool {
    mount.destination() == Path::new("/dev")
        && (mount.typ().as_deref() == Some("bind")
            || mount
                .options()
                .iter()
                .flatten()
                .any(|o| o == "bind" || o == "rbind"))
}

fn resolve_user(plan: &Plan<'_>, root: &Root, procfs: &ProcFs) -> Setup<ResolvedUser> {
    match plan.user {
        Some(name) => user::resolve_in(root, name, procfs),
        None => Ok(user::numeric(plan.process.process.user(), root, procfs)),
    }
}

fn kernel_settings(plan: &Plan<'_>, procfs: &ProcFs) -> Setup<()> {
    if let Some(name) = plan.spec.hostname().as_deref().filter(|n| !n.is_empty()) {
        nix::unistd::sethostname(name).step("set hostname to", name)?;
    }
    if let Some(name) = plan.spec.domainname().as_deref().filter(|n| !n.is_empty()) {
        sys::setdomainname(name).step("set domain name to", name)?;
    }
    match plan.process.linux.sysctl() {
        Some(sysctls) => procfs.set_sysctls(sysctls),
        None => Ok(()),
    }
}
