//! Handing the listener of a filter to the agent that answers for it.
//!
//! The agent waits on a Unix stream socket. Per container it gets one connection with the
//! *container process state* in JSON and, by `SCM_RIGHTS`, the listener; the connection is closed
//! then (config-linux.md of the specification, "The Container Process State").

use super::Listener;
use crate::defaults::OCI_VERSION;
use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::hooks::Identity;
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use oci_spec::runtime::{ContainerProcessState, ContainerState, SECCOMP_FD_NAME, Spec, State};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// How long an agent may take to accept and read, in seconds. It is a service of the host that
/// does nothing else; a start must not hang on one that hangs.
const PATIENCE: i64 = 10;

/// The agent of a container's filter, and what it is told.
#[derive(Clone, Debug)]
pub struct Agent {
    listener: Listener,
    state: State,
    pid: i32,
}

impl Agent {
    /// The agent of a specification, where its filter has one. `pid` is the container's first
    /// process; `status` is [`ContainerState::Creating`] for that, and `Running` for another one
    /// ([`Agent::for_process`]).
    ///
    /// # Errors
    /// The profile is refused, or the agent would have to be told an id that the caller does not
    /// say.
    pub fn of(
        spec: &Spec,
        identity: Option<&Identity>,
        status: ContainerState,
        pid: i32,
    ) -> Result<Option<Self>, ContainerError> {
        let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
        let Some(listener) = profile.map(super::listener).transpose()?.flatten() else {
            return Ok(None);
        };
        let Some(identity) = identity else {
            let reason = "an agent is told the container's id, and none was given";
            let field = "linux.seccomp.listenerPath";
            return Err(ContainerError::invalid(field, reason));
        };
        let state = identity.state(spec, status, Some(pid));
        Ok(Some(Self {
            listener,
            state,
            pid,
        }))
    }

    /// The same for another process of the container.
    #[must_use]
    pub fn for_process(self, pid: i32) -> Self {
        Self { pid, ..self }
    }

    /// Takes the listener with this number from the process behind `process` and sends it to the
    /// agent. No copy stays in this process.
    pub(crate) fn hand_over(&self, process: impl AsFd, number: RawFd) -> Setup<()> {
        let taken = sys::pidfd_getfd(process, number).map_err(|errno| {
            let mut failure = SetupFailure::new("take", "listener of seccomp filter", errno);
            if errno == Errno::EPERM {
                failure.reason = "needs CAP_SYS_PTRACE and kernel.yama.ptrace_scope below 3".into();
            }
            failure
        })?;
        let mut process_state = ContainerProcessState::default();
        process_state
            .set_version(OCI_VERSION.into())
            .set_fds(vec![SECCOMP_FD_NAME.into()])
            .set_pid(self.pid)
            .set_metadata(self.listener.metadata.clone())
            .set_state(self.state.clone());
        send_to_agent(&self.listener, &taken, &process_state)
    }
}

fn send_to_agent(listener: &Listener, fd: &OwnedFd, state: &ContainerProcessState) -> Setup<()> {
    let place = format!("{} (linux.seccomp.listenerPath)", listener.path.display());
    let step = "send seccomp listener to agent at";
    let text = serde_json::to_vec(state)
        .map_err(|error| SetupFailure::because(step, &place, error.to_string()))?;
    let agent = connected(listener).map_err(|errno| {
        let mut failure = SetupFailure::new("connect to seccomp agent at", &place, errno);
        failure.reason = match errno {
            Errno::ENOENT => "no such socket: is the agent running?",
            Errno::ECONNREFUSED => "nobody listens there: is the agent running?",
            Errno::EAGAIN => "the agent does not accept connections",
            Errno::EPROTOTYPE => "is not a stream socket",
            _ => "",
        }
        .into();
        failure
    })?;
    let descriptors = [fd.as_raw_fd()];
    let mut sent = sendmsg::<()>(
        agent.as_raw_fd(),
        &[IoSlice::new(&text)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .step(step, &place)?;
    // A long text may need several messages; the descriptor goes with the first only.
    while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += send(agent.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL).step(step, &place)?;
    }
    Ok(())
}

fn connected(listener: &Listener) -> Result<OwnedFd, Errno> {
    let agent = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // It holds for connecting, too.
    setsockopt(&agent, SendTimeout, &TimeVal::seconds(PATIENCE))?;
    connect(agent.as_raw_fd(), &UnixAddr::new(&listener.path)?)?;
    Ok(agent)
}
