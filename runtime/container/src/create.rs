//! Creating a container in two phases, so that the caller can write down what exists before
//! anything of the image runs.

use crate::capability::CapabilitySets;
use crate::cgroup::{Cgroup, CgroupPath};
use crate::error::{ContainerError, SetupFailure};
use crate::exec::Program;
use crate::init::{self, ATTACHED, MAX_REPORT, Plan, Report, START};
use crate::rootfs::Rootfs;
use crate::sys::{self, Cloned};
use crate::{process, validate};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Spec};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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
        let open = || {
            let path = std::path::Path::new("/dev/null");
            nix::fcntl::open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(
                |errno| ContainerError::Open {
                    what: "stdio",
                    path: path.into(),
                    errno,
                },
            )
        };
        Ok(Self {
            stdin: open()?,
            stdout: open()?,
            stderr: open()?,
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
    /// The cgroup to make; needed when the specification has resources.
    pub cgroup: Option<CgroupPath>,
    /// The standard descriptors; `/dev/null` without.
    pub stdio: Option<Stdio>,
}

impl CreateOptions {
    /// Options with this root file system and nothing else.
    pub fn new(rootfs: Rootfs) -> Self {
        Self {
            rootfs,
            user: None,
            cgroup: None,
            stdio: None,
        }
    }
}

/// A container whose first process is set up and waits. Dropped, it is unmade.
#[derive(Debug)]
pub struct Created {
    made: Made,
    socket: OwnedFd,
    warnings: Vec<SetupFailure>,
}

/// A container whose program runs.
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
    validate::check(spec)?;
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else {
        return Err(ContainerError::invalid("process", "missing")); // checked above
    };
    let env = process.env().as_deref().unwrap_or_default();
    let program = Program::new(process.args().as_deref().unwrap_or_default(), env)
        .ok_or_else(|| ContainerError::invalid("process.args", "no program given"))?;
    let capabilities = CapabilitySets::from_spec(process.capabilities().as_ref())?;
    let join = open_namespaces(linux)?;
    let stdio = match options.stdio {
        Some(stdio) => stdio,
        None => Stdio::null()?,
    };
    let mut made = Made {
        child: None,
        cgroup: make_cgroup(linux, options.cgroup.as_ref())?,
    };
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| ContainerError::System {
        step: "make socket pair",
        errno,
    })?;
    let plan = Plan {
        spec,
        linux,
        process,
        rootfs: &options.rootfs,
        user: options.user.as_deref(),
        cgroup: made.cgroup.as_ref(),
        capabilities: &capabilities,
        join: &join,
        own_cgroup_namespace: validate::namespace(linux, LinuxNamespaceType::Cgroup),
        stdio: &stdio,
        program,
    };
    let birthplace = made
        .cgroup
        .as_ref()
        .map(Cgroup::open_v2)
        .transpose()?
        .flatten();
    let cloned =
        sys::clone3(clone_flags(linux), birthplace.as_ref().map(AsFd::as_fd)).map_err(|errno| {
            ContainerError::System {
                step: "clone container process",
                errno,
            }
        })?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            drop(ours); // or the end of the parent would go unnoticed
            init::run(plan, theirs)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    made.child = Some(Child { pid, pidfd });
    if let Some(cgroup) = &made.cgroup {
        cgroup.attach_v1(pid)?;
    }
    say(&ours, ATTACHED)?;
    match listen(&ours)? {
        Some(Report::Ready { warnings }) => Ok(Created {
            made,
            socket: ours,
            warnings,
        }),
        Some(Report::Failed(failure)) => Err(failure.into()),
        Some(Report::NotExecuted(_)) | None => Err(made.vanished("setup")),
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

    /// Runs the program.
    ///
    /// # Errors
    /// [`ContainerError::Exec`] when it cannot be executed; then nothing is left behind.
    pub fn start(mut self) -> Result<Started, ContainerError> {
        say(&self.socket, START)?;
        match listen(&self.socket)? {
            // The kernel closed the child's end: the exec took place.
            None => {}
            Some(Report::NotExecuted(failure)) => {
                return Err(ContainerError::Exec {
                    message: failure.message,
                    exit_code: failure.exit_code,
                    errno: Errno::from_raw(failure.errno),
                });
            }
            Some(Report::Failed(failure)) => return Err(failure.into()),
            Some(Report::Ready { .. }) => return Err(self.made.vanished("start")),
        }
        let Some(child) = self.made.child.take() else {
            return Err(self.made.vanished("start"));
        };
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
        if let Some(cgroup) = self.cgroup.take() {
            // The error that led here is the one to report.
            let _ = cgroup.kill();
            let _ = cgroup.delete();
        }
    }
}

fn make_cgroup(linux: &Linux, path: Option<&CgroupPath>) -> Result<Option<Cgroup>, ContainerError> {
    match (path, linux.resources()) {
        (Some(path), Some(resources)) => {
            Ok(Some(Cgroup::create(&path.parent, &path.name, resources)?))
        }
        (Some(path), None) => Ok(Some(Cgroup::create(
            &path.parent,
            &path.name,
            &LinuxResources::default(),
        )?)),
        (None, Some(resources)) if *resources != LinuxResources::default() => Err(
            ContainerError::invalid("linux.resources", "limits need a cgroup, none was named"),
        ),
        (None, _) => Ok(None),
    }
}

/// The namespaces that the clone makes; the cgroup namespace follows when the child is attached.
fn clone_flags(linux: &Linux) -> u64 {
    let list = linux.namespaces().iter().flatten();
    let new = list.filter(|n| n.path().is_none() && n.typ() != LinuxNamespaceType::Cgroup);
    new.map(|n| flag(n.typ()).bits() as u32 as u64)
        .fold(0, |all, one| all | one)
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        // Refused by the check of the specification.
        LinuxNamespaceType::User | LinuxNamespaceType::Time => CloneFlags::empty(),
    }
}

fn open_namespaces(linux: &Linux) -> Result<Vec<(OwnedFd, CloneFlags, String)>, ContainerError> {
    let mut opened = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        let Some(path) = namespace.path() else {
            continue;
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd =
            nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| ContainerError::Open {
                what: "namespace",
                path: path.clone(),
                errno,
            })?;
        opened.push((fd, flag(namespace.typ()), path.display().to_string()));
    }
    Ok(opened)
}

fn say(socket: &OwnedFd, word: &[u8]) -> Result<(), ContainerError> {
    match send(socket.as_raw_fd(), word, MsgFlags::MSG_NOSIGNAL) {
        // A child that has ended has left a report, or its absence says enough.
        Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        Err(errno) => Err(ContainerError::System {
            step: "signal container process",
            errno,
        }),
    }
}

/// One report; `None` when the other side is closed.
fn listen(socket: &OwnedFd) -> Result<Option<Report>, ContainerError> {
    let mut buffer = vec![0u8; MAX_REPORT];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(None),
            Ok(length) => break length,
            Err(errno) => {
                return Err(ContainerError::System {
                    step: "read report of container process",
                    errno,
                });
            }
        }
    };
    let report = buffer
        .get(..length)
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    report.map(Some).ok_or(ContainerError::System {
        step: "understand report of container process",
        errno: Errno::EPROTO,
    })
}
