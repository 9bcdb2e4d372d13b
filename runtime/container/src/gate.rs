//! What a container's first process and those who create and start it tell each other: datagrams
//! over a socket.
//!
//! The creating process holds one end of a pair. Who starts the program later may be another
//! process: then the container's process listens at a socket with a name (`unix(7)`), and whoever
//! connects is told the outcome. All descriptors of this are closed by the exec of the program,
//! which is how the other side learns that it took place.

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::fault;
use crate::program::ExecFailure;
use crate::seccomp::Agent;
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen,
    recv, send, socket, socketpair,
};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// What the container's process reports, one datagram each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The namespaces and the mounts stand, the process is still in the host's root: the moment
    /// for hooks. It waits for [`HOOKED`].
    Prepared,
    /// All is set up; the process waits for [`START`].
    Ready { warnings: Vec<SetupFailure> },
    /// A step failed; the process ends.
    Failed(SetupFailure),
    /// The program could not be executed; the process ends.
    NotExecuted(ExecFailure),
    /// The program's filter of system calls is installed, and this is the number of its listener
    /// in the process, which waits for [`HANDED`].
    Listening { listener: RawFd },
    /// A stage asks for the maps of its user namespace, and waits for [`MAPPED`].
    Unmapped,
    /// A stage has cloned the container's process, and ends.
    Born { pid: i32 },
}

/// Sent to the process once it is in its cgroups, and its ids are mapped.
pub const ATTACHED: &[u8] = b"a";
/// Sent when the hooks of the runtime's namespaces have run.
pub const HOOKED: &[u8] = b"h";
/// Sent to a stage when its ids are mapped.
pub const MAPPED: &[u8] = b"m";
/// Sent when the program may run.
pub const START: &[u8] = b"s";
/// Sent when the creating process lets go, and somebody else may start the program.
pub const DETACHED: &[u8] = b"d";
/// Sent when the listener has been handed to its agent.
pub const HANDED: &[u8] = b"l";
/// Longer reports are cut; so is what is read.
const MAX_REPORT: usize = 64 << 10;

/// Two connected sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ContainerError> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let made = fault::step("make socket pair")
        .and_then(|()| socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC));
    made.map_err(|errno| ContainerError::System {
        step: "make socket pair",
        errno,
    })
}

fn unconnected(flags: SockFlag) -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    socket(family, kind, flags | SockFlag::SOCK_CLOEXEC, None)
}

/// A name of a socket may have 107 bytes; by way of its directory's descriptor it is short.
pub fn address(path: &Path) -> Result<(OwnedFd, UnixAddr), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let directory = nix::fcntl::open(parent, flags, nix::sys::stat::Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name.display());
    Ok((directory, UnixAddr::new(short.as_str())?))
}

/// A socket at `path` where somebody can start the program. It must not exist.
pub fn listen_at(path: &Path) -> Result<OwnedFd, ContainerError> {
    let open = || {
        let listener = unconnected(SockFlag::empty())?;
        let (_directory, address) = address(path)?;
        fault::step("bind start socket")?;
        bind(listener.as_raw_fd(), &address)?;
        let listening = fault::step("listen at start socket")
            .and_then(|()| listen(&listener, Backlog::new(4)?));
        if listening.is_err() {
            let _ = std::fs::remove_file(path); // the error that led here is the one to report
        }
        listening.map(|()| listener)
    };
    open().map_err(|errno| ContainerError::Open {
        what: "start socket",
        path: path.into(),
        errno,
    })
}

/// Whether a container's process waits at the socket `path`.
pub fn waits_at(path: &Path) -> bool {
    // It takes one that comes and says nothing for nobody. One that is stopped or frozen takes
    // nobody, and when its queue is full we would wait as long as it does.
    matches!(
        connected(path, SockFlag::SOCK_NONBLOCK),
        Ok(_) | Err(Errno::EAGAIN)
    )
}

fn connected(path: &Path, flags: SockFlag) -> Result<OwnedFd, Errno> {
    fault::step("connect to start socket")?;
    let socket = unconnected(flags)?;
    let (_directory, address) = address(path)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// Starts the program of a container that waits at the socket `path`.
///
/// `agent` is told of the filter of system calls that the program gets ([`Agent::of`]), and
/// `pidfd` is the container's process.
///
/// # Errors
/// [`ContainerError::Open`] when nobody waits there (the program runs already, or the process is
/// gone); else as [`crate::Created::start`].
pub fn start_at(path: &Path, agent: Option<&Agent>, pidfd: &OwnedFd) -> Result<(), ContainerError> {
    let socket = connected(path, SockFlag::empty()).map_err(|errno| ContainerError::Open {
        what: "start socket",
        path: path.into(),
        errno,
    })?;
    start_over(&socket, agent, pidfd)
}

/// Says [`START`] and waits for the outcome.
pub fn start_over(
    socket: &OwnedFd,
    agent: Option<&Agent>,
    pidfd: &OwnedFd,
) -> Result<(), ContainerError> {
    say(socket, START)?;
    loop {
        match (hear(socket)?, agent) {
            // The kernel closed the other end: the exec took place.
            (None, _) => return Ok(()),
            (Some(Report::Listening { listener }), Some(agent)) => {
                agent.hand_over(pidfd, listener)?;
                say(socket, HANDED)?;
            }
            (Some(Report::NotExecuted(failure)), _) => {
                return Err(ContainerError::not_executed(failure));
            }
            (Some(Report::Failed(failure)), _) => return Err(failure.into()),
            (Some(_), _) => {
                return Err(ContainerError::System {
                    step: "understand report of container process",
                    errno: Errno::EPROTO,
                });
            }
        }
    }
}

/// Tells the container's process to go on.
pub fn say(socket: &OwnedFd, word: &[u8]) -> Result<(), ContainerError> {
    let sent =
        fault::step("say").and_then(|()| send(socket.as_raw_fd(), word, MsgFlags::MSG_NOSIGNAL));
    match sent {
        // A process that has ended has left a report, or its absence says enough.
        Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        Err(errno) => Err(ContainerError::System {
            step: "signal container process",
            errno,
        }),
    }
}

/// One report; `None` when the other side is closed.
pub fn hear(socket: &OwnedFd) -> Result<Option<Report>, ContainerError> {
    // Its length first: reports are short as a rule, and memory for the longest would be pages that
    // this process takes for nothing.
    let Some(length) = receive(socket, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)? else {
        return Ok(None);
    };
    let mut buffer = vec![0u8; length.min(MAX_REPORT)];
    let Some(length) = receive(socket, &mut buffer, MsgFlags::empty())? else {
        return Ok(None);
    };
    let report = buffer
        .get(..length)
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    report.map(Some).ok_or(ContainerError::System {
        step: "understand report of container process",
        errno: Errno::EPROTO,
    })
}

/// `None` when the other side is closed.
fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<Option<usize>, ContainerError> {
    loop {
        let heard = fault::step("hear").and_then(|()| recv(socket.as_raw_fd(), buffer, flags));
        match heard {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(None),
            Ok(length) => return Ok(Some(length)),
            Err(errno) => {
                return Err(ContainerError::System {
                    step: "read report of container process",
                    errno,
                });
            }
        }
    }
}

/// Sends one report. By write(2) and not send(2): it may have to pass the program's filter.
pub fn tell(socket: impl AsFd, report: &Report) -> Result<(), Errno> {
    fault::step("tell")?;
    let bytes = serde_json::to_vec(report).map_err(|_| Errno::EINVAL)?;
    let bytes = if bytes.len() <= MAX_REPORT {
        bytes
    } else {
        let reason = "the report is too long to be sent";
        let short = Report::Failed(SetupFailure::because("set up", "container", reason));
        serde_json::to_vec(&short).map_err(|_| Errno::EINVAL)?
    };
    nix::unistd::write(socket, &bytes).map(drop)
}

/// Sends [`Report::Listening`] by write(2) alone: any other call may ask the agent, who cannot
/// answer yet, so not even memory may be asked for.
pub fn tell_listener(socket: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    let mut buffer = [0u8; 48];
    let mut rest = buffer.as_mut_slice();
    let text = write!(rest, "{{\"Listening\":{{\"listener\":{number}}}}}");
    let unused = rest.len();
    let used = buffer.len() - unused;
    text.map_err(|_| Errno::ENOBUFS)?;
    nix::unistd::write(socket, buffer.get(..used).unwrap_or_default()).map(drop)
}

/// Waits for one word; whether it came. `false` when the other side is closed.
fn heard(socket: &OwnedFd, word: &[u8]) -> bool {
    let mut buffer = [0u8; 8];
    loop {
        match nix::unistd::read(socket, &mut buffer) {
            Ok(n) => return buffer.get(..n) == Some(word),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Waits for one word; a creating process that is gone ends this one.
pub fn await_word(socket: &OwnedFd, word: &[u8]) {
    if !heard(socket, word) {
        sys::exit_now(125);
    }
}

/// Where the word to start comes from.
pub enum Starter<'a> {
    /// From the creating process, whose end ends this one.
    Creator(&'a OwnedFd),
    /// From whoever connects here, once the creating process has let go; before, its end ends this
    /// one. Who goes away without a word does not count.
    Anyone {
        creator: &'a OwnedFd,
        listener: &'a OwnedFd,
    },
}

impl Starter<'_> {
    /// Waits for the word, and returns where to tell the outcome.
    pub fn wait(&self) -> Setup<OwnedFd> {
        match self {
            Self::Creator(socket) => {
                await_word(socket, START);
                socket.try_clone().step("duplicate", "socket")
            }
            Self::Anyone { creator, listener } => {
                await_word(creator, DETACHED);
                accept_starter(listener)
            }
        }
    }
}

fn accept_starter(listener: &OwnedFd) -> Setup<OwnedFd> {
    loop {
        let flags = SockFlag::SOCK_CLOEXEC;
        match accept4(listener.as_raw_fd(), flags).map(sys::own_fd) {
            Ok(socket) if heard(&socket, START) => return Ok(socket),
            Ok(_) | Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(SetupFailure::new("wait at", "the start socket", errno)),
        }
    }
}
