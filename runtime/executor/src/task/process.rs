//! A task's shim, seen from the daemon: found by what it wrote, never by its number alone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;

use container::process::{self, ProcessError};
use container::shim::{ExitStatus, ShimOptions, ShimState};
use netdp::dns::{Server, Sockets, View};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{ResolvConf, StepError, blocking};
use crate::node::Node;
use crate::record::Local;

/// Handles on a task that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// Readable when the shim has ended: then the exit status is on disk.
    shim: AsyncFd<OwnedFd>,
    /// Answers the task's DNS queries.
    _dns: Option<Server>,
}

impl Running {
    pub(super) fn new(pidfd: OwnedFd, dns: Option<Server>) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
        let shim = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { shim, _dns: dns })
    }

    /// Until the shim has ended.
    pub(super) async fn ended(&self) -> Result<(), StepError> {
        self.shim
            .readable()
            .await
            .map(drop)
            .map_err(|e| StepError::of(&e))
    }
}

/// What there is of a task's process.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing: no shim lives, and none has left a status.
    Nothing,
    /// A shim is beginning: it holds the lock but has not said more yet.
    Beginning,
    /// The shim lives.
    Alive(ShimState, OwnedFd),
    /// It has ended.
    Ended(ExitStatus),
}

/// Looks for the task's shim.
pub(super) fn find(node: &Node, task: &str) -> Result<Found, StepError> {
    let (run, state) = (
        node.options.task_run_dir(task),
        node.options.task_state_dir(task),
    );
    let before: Option<ExitStatus> = read_json(&state.join("exit.json"))?;
    if let Some(exit) = before {
        return Ok(Found::Ended(exit));
    }
    let shim: Option<ShimState> = read_json(&run.join("shim-state.json"))?;
    if let Some(shim) = shim {
        match process::open_verified(shim.shim_pid, shim.shim_start_time) {
            Ok(pidfd) => return Ok(Found::Alive(shim, pidfd)),
            Err(ProcessError::Gone { .. } | ProcessError::Reused { .. }) => {}
            Err(error) => return Err(StepError::of(&error)),
        }
    }
    // Also where a former one has left its state: the next may not have written its own yet.
    if is_locked(&run.join("shim.lock"))? {
        return Ok(Found::Beginning);
    }
    // It may have ended between the two looks.
    let exit: Option<ExitStatus> = read_json(&state.join("exit.json"))?;
    Ok(exit.map_or(Found::Nothing, Found::Ended))
}

/// A file of JSON; `None` where there is no file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
) -> Result<Option<T>, StepError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| StepError::fatal(format!("{} is damaged: {e}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(super::prepare::file("read", path)(error)),
    }
}

fn is_locked(path: &Path) -> Result<bool, StepError> {
    match File::open(path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(super::prepare::file("lock", path)(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(super::prepare::file("open", path)(error)),
    }
}

/// Takes the lock that says that a shim of this task lives. It is the shim's from the moment it is
/// born, because it inherits the descriptor, and free when it has ended, in whatever way.
pub(super) fn lock(run: &Path) -> Result<File, StepError> {
    let path = run.join("shim.lock");
    let file = File::create(&path).map_err(super::prepare::file("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StepError::transient(
            "another shim of this task has not ended yet",
        )),
        Err(TryLockError::Error(error)) => Err(super::prepare::file("lock", &path)(error)),
    }
}

/// Starts the shim with the descriptors at their numbers; where its one line will come from.
///
/// What is started here ends at once: the shim itself is its child, and nobody's here.
pub(super) fn spawn(
    shim: &Path,
    bundle: &Path,
    errors: File,
    held: Vec<OwnedFd>,
) -> Result<ChildStdout, StepError> {
    let numbers: Vec<RawFd> = held.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(shim);
    command
        .arg("run")
        .arg(bundle)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        // A signal from the daemon's terminal is not meant for its tasks.
        .process_group(0);
    // SAFETY: between fork and exec the closure calls only fcntl(2), which is async-signal-safe,
    // on descriptors that `held` keeps open until the child has been started.
    unsafe {
        command.pre_exec(move || {
            for number in &numbers {
                if libc::fcntl(*number, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .map_err(super::prepare::file("execute", shim))?;
    drop(held);
    child.wait().map_err(|e| StepError::of(&e))?;
    child
        .stdout
        .take()
        .ok_or_else(|| StepError::fatal("internal error: the shim has no stdout"))
}

/// A descriptor of another process, duplicated (pidfd_getfd(2), kernel 5.6).
fn descriptor_of(pidfd: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: three plain integers; the kernel checks them.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the task's DNS server knows and whom it asks.
pub(super) fn dns_view(node: &Node, local: &Local) -> View {
    let text = fs::read_to_string(&node.options.resolv_conf).unwrap_or_default();
    let c = local.def.container();
    let conf = ResolvConf::parse(&text).for_task(c.dns_config.as_ref());
    let own = c
        .dns_config
        .as_ref()
        .is_some_and(|dns| !dns.nameservers.is_empty());
    let networks = local
        .networks
        .iter()
        .filter(|network| !network.proto.ingress);
    View {
        networks: networks.map(|network| network.proto.id.clone()).collect(),
        // Without a way out a name of the outside is of no use.
        upstreams: if local.gateway.is_empty() {
            Vec::new()
        } else {
            conf.servers.clone()
        },
        upstreams_from: own
            .then(|| {
                node.plane()
                    .ok()
                    .map(|p| p.sandbox_path(&local.def.proto.id))
            })
            .flatten(),
        ndots: conf.ndots().unwrap_or(0),
    }
}

/// Starts to serve the task's names on its sockets.
pub(super) fn serve_dns(node: &Node, local: &Local, sockets: Sockets) -> Result<Server, StepError> {
    let directory = node.plane()?.directory();
    Server::start(sockets, dns_view(node, local), directory).map_err(|e| StepError::of(&e))
}

/// Takes over a task whose shim another daemon has started: its names are served again on the
/// sockets that the shim has held meanwhile. Where they cannot be had, the task goes on without
/// answers to its queries: that is no reason to end it.
pub(super) async fn adopt(
    node: &Arc<Node>,
    local: &Arc<Local>,
    pidfd: OwnedFd,
) -> Result<Running, StepError> {
    let path = node
        .options
        .task_run_dir(&local.def.proto.id)
        .join("shim.json");
    let (pidfd, sockets) = blocking(move || {
        let sockets = sockets_of(&pidfd, &path);
        Ok((pidfd, sockets))
    })
    .await?;
    let dns = sockets.and_then(|sockets| {
        sockets
            .map(|sockets| serve_dns(node, local, sockets))
            .transpose()
    });
    let dns = dns.unwrap_or_else(|error| {
        let task = &local.def.proto.id;
        tracing::error!(task, error = error.message, "its names are not answered");
        None
    });
    Running::new(pidfd, dns).map_err(|e| StepError::of(&e))
}

/// Copies of the sockets that a shim holds, as its options tell.
fn sockets_of(pidfd: &OwnedFd, options: &Path) -> Result<Option<Sockets>, StepError> {
    let options: Option<ShimOptions> = read_json(options)?;
    let held = options.map(|options| options.hold_fds).unwrap_or_default();
    let [udp, tcp, ..] = held.as_slice() else {
        return Ok(None);
    };
    Ok(Some(Sockets {
        udp: descriptor_of(pidfd, *udp).map_err(|e| StepError::of(&e))?,
        tcp: descriptor_of(pidfd, *tcp).map_err(|e| StepError::of(&e))?,
    }))
}
