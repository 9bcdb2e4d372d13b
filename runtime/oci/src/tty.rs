//! A terminal in between: what is typed here goes to the container's, what that shows comes here.

use crate::error::OciError;
use container::{ContainerError, Stdio};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A console socket of our own: the end for the container's process, and ours.
pub fn console() -> Result<(OwnedFd, OwnedFd), OciError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(|errno| {
        OciError::System {
            step: "make console socket",
            errno,
        }
    })
}

/// Our standard descriptors for a program without a terminal. With one it gets none of them, not
/// even until it starts: whoever reads what we say must see its end when we end.
pub fn stdio(terminal: bool) -> Result<Option<Stdio>, ContainerError> {
    (!terminal).then(Stdio::inherit).transpose()
}

/// The terminal's other side, as it comes out of a console socket.
pub fn receive(console: &OwnedFd) -> Result<OwnedFd, OciError> {
    let system = |errno| OciError::System {
        step: "receive terminal",
        errno,
    };
    let mut name = [0u8; 64];
    let mut parts = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<()>(console.as_raw_fd(), &mut parts, Some(&mut space), flags).map_err(system)?;
    let received = message
        .cmsgs()
        .map_err(system)?
        .find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
    let fd = received.ok_or(system(Errno::EPROTO))?;
    // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The caller's terminal without echo and line editing: those are the container's now. Restored
/// when dropped.
pub struct Raw(Option<Termios>);

impl Raw {
    pub fn set() -> Self {
        let stdin = std::io::stdin();
        // Not a terminal: nothing to do.
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Copies both ways until told otherwise.
pub struct Relay {
    master: OwnedFd,
    stdin: bool,
    /// Whether the container's side may still have something to show.
    pub open: bool,
}

impl Relay {
    pub fn new(master: OwnedFd) -> Self {
        let relay = Self {
            master,
            stdin: true,
            open: true,
        };
        relay.resize();
        relay
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        // Where ours is no terminal, the container's keeps its own.
        if let Ok(size) = container::size_of_terminal(std::io::stdin()) {
            let _ = container::resize_terminal(&self.master, size);
        }
    }

    /// What to wait for: the master and, while it is open, stdin.
    pub fn descriptors<'a>(&'a self, stdin: &'a impl AsFd) -> Vec<PollFd<'a>> {
        let mut list = Vec::new();
        if self.open {
            list.push(PollFd::new(self.master.as_fd(), PollFlags::POLLIN));
        }
        if self.stdin {
            list.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        list
    }

    /// Moves what is there, without waiting.
    pub fn copy(&mut self) {
        if self.open && ready(&self.master) {
            self.open = forward(&self.master, std::io::stdout());
        }
        if self.stdin && ready(std::io::stdin()) {
            self.stdin = forward(std::io::stdin(), &self.master);
        }
    }
}

fn ready(fd: impl AsFd) -> bool {
    let mut entry = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut entry, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// One piece; `false` at the end, which for a pty is the error EIO.
fn forward(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0u8; 16 << 10];
    let length = match nix::unistd::read(&from, &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::EINTR | Errno::EAGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..length).unwrap_or_default();
    while !rest.is_empty() {
        match nix::unistd::write(&to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}
