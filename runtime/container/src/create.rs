//! Creating a container in two phases, so that the caller can write down what exists before
//! anything of the image runs.

use crate::capability::CapabilitySets;
use crate::cgroup::{Cgroup, CgroupPath, Existing};
use crate::error::{ContainerError, SetupFailure};
use crate::gate::{self, ATTACHED, DETACHED, HOOKED, Report, hear, say};
use crate::hooks::{self, Identity, Point};
use crate::idmap::{self, IdMaps};
use crate::init::{self, Plan};
use crate::mounts::{self, Sources};
use crate::namespaces::Namespaces;
use crate::program::Program;
use crate::rootfs::{self, Rootfs};
use crate::seal::{self, ProcessPlan};
use crate::seccomp::{self, Agent, Filter};
use crate::sys::{self, Cloned};
use crate::{defaults, fault, process, rdt, stage, terminal, validate};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use oci_spec::runtime::{ContainerState, Linux, LinuxNamespaceType, LinuxResources, Process, Spec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// The program's standard descriptors. Pipes are given to the program's user.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// `/dev/null` three times.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn null() -> Result<Self, ContainerError> {
        let path = std::path::Path::new("/dev/null");
        let failed = |errno| ContainerError::Open {
            what: "stdio",
            path: path.into(),
            errno,
        };
        let copy = |fd: &OwnedFd| {
            let command = FcntlArg::F_DUPFD_CLOEXEC(3);
            fcntl(fd, command).map(sys::own_fd).map_err(failed)
        };
        let stdin = nix::fcntl::open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        let stdin = stdin.map_err(failed)?;
        Ok(Self {
            stdout: copy(&stdin)?,
            stderr: copy(&stdin)?,
            stdin,
        })
    }

    /// Those of the calling process.
    ///
    /// # Errors
    /// One of them is closed.
    pub fn inherit() -> Result<Self, ContainerError> {
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map_err(|error| ContainerError::System {
                    step: "duplicate standard descriptor",
                    errno: nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)),
                })
        };
        Ok(Self {
            stdin: duplicate(std::io::stdin().as_fd())?,
            stdout: duplicate(std::io::stdout().as_fd())?,
            stderr: duplicate(std::io::stderr().as_fd())?,
        })
    }
}

/// What the specification does not say.
#[derive(Debug)]
pub struct CreateOptions {
    /// Where the files come from; overrides `root.path`.
    pub rootfs: Rootfs,
    /// `name|uid[:group|gid]`, resolved in the image; overrides `process.user`.
    pub user: Option<String>,
    /// The cgroup to make; needed when the specification has resources. Overrides
    /// `linux.cgroupsPath`.
    pub cgroup: Option<CgroupPath>,
    /// What becomes of a cgroup that is there already.
    pub existing_cgroup: Existing,
    /// The standard descriptors; `/dev/null` without. With a terminal they are not used.
    pub stdio: Option<Stdio>,
    /// The connected socket that takes the other side of the terminal ([`crate::connect_console`]);
    /// needed when the specification wants one.
    pub console: Option<OwnedFd>,
    /// The filter of `linux.seccomp`, where it was compiled before; without, it is compiled here.
    pub seccomp: Option<Filter>,
    /// How many descriptors from 3 on the program inherits from this process.
    pub preserve_fds: u32,
    /// Who the container is; needed when the specification has hooks.
    pub identity: Option<Identity>,
    /// A socket to make, at which another process can start the program ([`crate::start_at`]).
    /// With one, only [`Created::detach`] makes sense.
    pub start_socket: Option<PathBuf>,
    /// Whether the root is changed by moving it over the old one: `pivot_root(2)` does not work
    /// where that is an initramfs.
    pub no_pivot: bool,
    /// Whether the program keeps the session keyring of this process.
    pub no_new_keyring: bool,
}

impl CreateOptions {
    /// Options with this root file system and nothing else.
    pub fn new(rootfs: Rootfs) -> Self {
        Self {
            rootfs,
            user: None,
            cgroup: None,
            existing_cgroup: Existing::Refuse,
            stdio: None,
            console: None,
            seccomp: None,
            preserve_fds: 0,
            identity: None,
            start_socket: None,
            no_pivot: false,
            no_new_keyring: false,
        }
    }
}

/// A container whose first process is set up and waits. Dropped, it is unmade.
#[derive(Debug)]
pub struct Created {
    made: Made,
    agent: Option<Agent>,
    socket: OwnedFd,
    warnings: Vec<SetupFailure>,
}

/// A container whose program runs, or waits to be started by somebody else.
#[derive(Debug)]
pub struct Started {
    /// Process id of its first process, as this process sees it.
    pub pid: i32,
    /// The same process, safe against reuse of the number.
    pub pidfd: OwnedFd,
    /// Its cgroup. Whoever waits for the process deletes it afterwards.
    pub cgroup: Option<Cgroup>,
    /// What was asked for and could not be had, though the program runs.
    pub warnings: Vec<SetupFailure>,
}

/// Makes a container of `spec` up to the point where only the program's start is missing.
///
/// # Errors
/// A specification that is refused, or a step that failed; in each case nothing is left behind.
/// The caller must have one thread.
pub fn create(spec: &Spec, options: CreateOptions) -> Result<Created, ContainerError> {
    if !sys::is_single_threaded() {
        return Err(ContainerError::Multithreaded);
    }
    seal::check_preserved(options.preserve_fds)?;
    validate::check(spec)?;
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else {
        return Err(ContainerError::invalid("process", "missing")); // checked above
    };
    check_options(spec, linux, &options)?;
    terminal::check(process, options.console.is_some())?;
    let env = process.env().as_deref().unwrap_or_default();
    let program = Program::new(process.args().as_deref().unwrap_or_default(), env)
        .ok_or_else(|| ContainerError::invalid("process.args", "no program given"))?;
    let capabilities = CapabilitySets::from_spec(process.capabilities().as_ref())?;
    let filter = seccomp::filter_of(linux, options.seccomp)?;
    let status = ContainerState::Creating;
    Agent::of(spec, options.identity.as_ref(), status, 0)?; // refused now rather than at the start
    let namespaces = Namespaces::open(linux)?;
    validate::check_joined(spec, linux, &namespaces)?;
    let maps = IdMaps::new("linux.", linux.uid_mappings(), linux.gid_mappings())?;
    let maps = match (maps, namespaces.joined_fd(LinuxNamespaceType::User)) {
        (Some(given), Some(namespace)) => Some(idmap::of_joined(given, namespace)?),
        (maps, _) => maps,
    };
    // An ordinary user has no privileges here that the container's root would lack.
    let outside = namespaces.has(LinuxNamespaceType::User) && nix::unistd::geteuid().is_root();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let sources = Sources::open_outside(mounts, maps.as_ref(), outside)?;
    let root_mount = (outside && namespaces.makes(LinuxNamespaceType::Mount))
        .then(|| rootfs::open(&options.rootfs))
        .transpose()?;
    let stdio = match options.stdio {
        Some(stdio) => stdio,
        None => Stdio::null()?,
    };
    let mut made = Made {
        child: None,
        cgroup: make_cgroup(linux, options.cgroup.as_ref(), options.existing_cgroup)?,
        rdt: None,
        #[cfg(feature = "net-devices")]
        devices: None,
        start_socket: None,
    };
    if let (Some(cgroup), Some(maps)) = (&made.cgroup, &maps)
        && namespaces.makes(LinuxNamespaceType::Cgroup)
        && mounts::writable_cgroups(mounts)
    {
        give(cgroup, maps, process)?;
    }
    let listener = match options.start_socket {
        Some(path) => {
            let listener = gate::listen_at(&path)?;
            made.start_socket = Some(path);
            Some(listener)
        }
        None => None,
    };
    let (ours, theirs) = gate::pair()?;
    // One that is joined has its maps.
    let own_maps = maps
        .as_ref()
        .filter(|_| namespaces.makes(LinuxNamespaceType::User));
    let birthplace = made
        .cgroup
        .as_ref()
        .map(Cgroup::open_v2)
        .transpose()?
        .flatten();
    let plan = Plan {
        spec,
        namespaces: &namespaces,
        rootfs: &options.rootfs,
        root_mount,
        sources,
        user: options.user.as_deref(),
        cgroup: made.cgroup.as_ref(),
        identity: options.identity.as_ref(),
        console: options.console.as_ref(),
        listener: listener.as_ref(),
        // With a stage, it is the stage whose ids are mapped.
        dumpable: stage::dumpable(own_maps.is_some() && !namespaces.need_stage()),
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        process: ProcessPlan {
            process,
            linux,
            capabilities,
            stdio: &stdio,
            preserve_fds: options.preserve_fds,
            affinity: None,
            filter: filter.as_ref(),
            program,
        },
    };
    let cgroup = birthplace.as_ref().map(AsFd::as_fd);
    let (pid, pidfd) = match clone(&namespaces, own_maps, cgroup)? {
        Cloned::Child => {
            drop(ours); // or the end of the parent would go unnoticed
            init::run(plan, theirs)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, plan));
    made.child = Some(Child { pid, pidfd });
    if let Some(maps) = maps.filter(|_| !namespaces.need_stage()) {
        maps.write(pid)?;
    }
    if let Some(cgroup) = &made.cgroup {
        cgroup.attach_v1(pid)?;
    }
    made.rdt = rdt::join(linux, options.identity.as_ref(), pid)?;
    #[cfg(feature = "net-devices")]
    {
        made.devices = crate::netdev::move_in(linux, &namespaces, pid)?;
    }
    say(&ours, ATTACHED)?;
    let warnings = attend(&mut made, &ours, spec, options.identity.as_ref(), pid)?;
    Ok(Created {
        agent: Agent::of(spec, options.identity.as_ref(), status, pid)?,
        made,
        socket: ours,
        warnings,
    })
}

fn clone(
    namespaces: &Namespaces,
    maps: Option<&IdMaps>,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<Cloned, ContainerError> {
    if namespaces.need_stage() {
        return stage::clone(namespaces, maps, cgroup);
    }
    fault::step("clone container process")
        .and_then(|()| sys::clone3(namespaces.clone_flags(), cgroup, sys::Parent::Caller))
        .map_err(|errno| ContainerError::System {
            step: "clone container process",
            errno,
        })
}

/// Waits until the child is ready, and runs the hooks in between.
fn attend(
    made: &mut Made,
    socket: &OwnedFd,
    spec: &Spec,
    identity: Option<&Identity>,
    pid: i32,
) -> Result<Vec<SetupFailure>, ContainerError> {
    loop {
        match hear(socket)? {
            Some(Report::Ready { warnings }) => return Ok(warnings),
            Some(Report::Prepared) => {
                if let Some(identity) = identity {
                    let state = identity.state(spec, ContainerState::Creating, Some(pid));
                    hooks::run(spec, Point::Prestart, &state)?;
                    hooks::run(spec, Point::CreateRuntime, &state)?;
                }
                say(socket, HOOKED)?;
            }
            Some(Report::Failed(failure)) => return Err(failure.into()),
            Some(Report::NotExecuted(failure)) => {
                return Err(ContainerError::not_executed(failure));
            }
            Some(Report::Unmapped | Report::Born { .. } | Report::Listening { .. }) | None => {
                return Err(made.vanished("setup"));
            }
        }
    }
}

impl Created {
    /// Process id of the container's first process.
    pub fn pid(&self) -> i32 {
        self.made.child.as_ref().map_or(0, |child| child.pid)
    }

    /// What was asked for and could not be had, though the program can run.
    pub fn warnings(&self) -> &[SetupFailure] {
        &self.warnings
    }

    /// Runs the program. The hooks for afterwards ([`Point::Poststart`], [`Point::Poststop`]) are
    /// the caller's.
    ///
    /// # Errors
    /// [`ContainerError::Exec`] when it cannot be executed; then nothing is left behind.
    pub fn start(mut self) -> Result<Started, ContainerError> {
        let Some(child) = &self.made.child else {
            return Err(self.made.vanished("start"));
        };
        gate::start_over(&self.socket, self.agent.as_ref(), &child.pidfd)?;
        self.keep()
    }

    /// Lets go of it: it waits for whoever comes to its start socket. Until then it ends with this
    /// process.
    ///
    /// # Errors
    /// It has ended.
    pub fn detach(self) -> Result<Started, ContainerError> {
        say(&self.socket, DETACHED)?;
        self.keep()
    }

    fn keep(mut self) -> Result<Started, ContainerError> {
        let Some(child) = self.made.child.take() else {
            return Err(self.made.vanished("start"));
        };
        self.made.start_socket = None;
        if let Some(class) = self.made.rdt.take() {
            class.keep();
        }
        #[cfg(feature = "net-devices")]
        if let Some(devices) = self.made.devices.take() {
            devices.keep();
        }
        let cgroup = self.made.cgroup.take();
        let warnings = std::mem::take(&mut self.warnings);
        Ok(Started {
            pid: child.pid,
            pidfd: child.pidfd,
            cgroup,
            warnings,
        })
    }
}

#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

/// What exists so far; dropped, it is taken back.
#[derive(Debug)]
struct Made {
    child: Option<Child>,
    cgroup: Option<Cgroup>,
    rdt: Option<rdt::Class>,
    #[cfg(feature = "net-devices")]
    devices: Option<crate::netdev::Moved>,
    start_socket: Option<PathBuf>,
}

impl Made {
    fn end_child(&mut self) -> Option<process::Exit> {
        let child = self.child.take()?;
        // Already dead is as good.
        let _ = sys::pidfd_send_signal(&child.pidfd, libc::SIGKILL);
        process::wait_child(&child.pidfd).ok()
    }

    fn vanished(&mut self, phase: &'static str) -> ContainerError {
        let status = self
            .child
            .take()
            .and_then(|c| process::wait_child(&c.pidfd).ok());
        let status = status.map_or("status unknown".to_string(), |exit| exit.to_string());
        ContainerError::Vanished { phase, status }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.end_child();
        // The error that led here is the one to report.
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill();
            let _ = cgroup.delete();
        }
        if let Some(path) = self.start_socket.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What the specification asks for and only the options can give.
fn check_options(
    spec: &Spec,
    linux: &Linux,
    options: &CreateOptions,
) -> Result<(), ContainerError> {
    let hooked = Point::ALL
        .iter()
        .find(|at| !hooks::at(spec, **at).is_empty());
    if let Some(point) = hooked.filter(|_| options.identity.is_none()) {
        let reason = "hooks are told who the container is, and the caller does not say it";
        let field = format!("hooks.{}", point.name());
        return Err(ContainerError::unsupported(field, reason));
    }
    if linux.cgroups_path().is_some() && options.cgroup.is_none() {
        let reason = "the caller names the cgroup in the options of create";
        return Err(ContainerError::unsupported("linux.cgroupsPath", reason));
    }
    let user_namespace = validate::namespace(linux, LinuxNamespaceType::User);
    if user_namespace && matches!(options.rootfs, Rootfs::Overlay { .. }) {
        let reason = "with a user namespace, the root file system must be a directory";
        return Err(ContainerError::unsupported("linux.namespaces", reason));
    }
    Ok(())
}

fn make_cgroup(
    linux: &Linux,
    path: Option<&CgroupPath>,
    existing: Existing,
) -> Result<Option<Cgroup>, ContainerError> {
    match (path, linux.resources()) {
        (Some(path), resources) => {
            let resources = resources.clone().unwrap_or_default();
            let resources = defaults::with_devices(&resources);
            cgroup_at(path, existing, &resources)
        }
        (None, Some(resources)) if *resources != LinuxResources::default() => Err(
            ContainerError::invalid("linux.resources", "limits need a cgroup, none was named"),
        ),
        (None, _) => Ok(None),
    }
}

/// In a user namespace, the container's user can use a cgroup that it may write only if it is its
/// own (config-linux.md, "Cgroup ownership").
fn give(cgroup: &Cgroup, maps: &IdMaps, process: &Process) -> Result<(), ContainerError> {
    let user = process.user();
    match maps.outside(user.uid(), user.gid()) {
        Some((uid, gid)) => Ok(cgroup.give_to(uid, gid)?),
        None => Ok(()),
    }
}

fn cgroup_at(
    path: &CgroupPath,
    existing: Existing,
    resources: &LinuxResources,
) -> Result<Option<Cgroup>, ContainerError> {
    if crate::user::is_root() {
        Ok(Some(Cgroup::create_at(path, resources, existing)?))
    } else {
        Ok(Cgroup::create_best_effort(path, resources, existing)?)
    }
}
