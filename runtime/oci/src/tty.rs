//! A terminal in between: what is typed here goes to the container's, what that shows comes here.

use crate::error::OciError;
use container::{ContainerError, Stdio};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
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

/// How much is moved at once.
const PIECE: usize = 16 << 10;

/// Copies both ways until told otherwise.
pub struct Relay {
    /// Not blocking: a container that does not read what is typed may be waiting for us to read what
    /// it shows.
    master: OwnedFd,
    stdin: bool,
    /// What was typed and the master has not taken yet. Nothing more is read before.
    pending: Vec<u8>,
    /// Whether the container's side may still have something to show.
    pub open: bool,
}

impl Relay {
    pub fn new(master: OwnedFd) -> Result<Self, OciError> {
        let system = |errno| OciError::System {
            step: "make terminal non-blocking",
            errno,
        };
        let flags = fcntl(&master, FcntlArg::F_GETFL).map_err(system)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&master, FcntlArg::F_SETFL(flags)).map_err(system)?;
        let relay = Self {
            master,
            stdin: true,
            pending: Vec::new(),
            open: true,
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        // Where ours is no terminal, the container's keeps its own.
        if let Ok(size) = container::size_of_terminal(std::io::stdin()) {
            let _ = container::resize_terminal(&self.master, size);
        }
    }

    /// What to wait for: the master, while it is open, and stdin, while there is room for more.
    pub fn descriptors<'a>(&'a self, stdin: &'a impl AsFd) -> Vec<PollFd<'a>> {
        let mut list = Vec::new();
        if self.open {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, !self.pending.is_empty());
            list.push(PollFd::new(self.master.as_fd(), flags));
        }
        if self.stdin && self.pending.is_empty() {
            list.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        list
    }

    /// Moves what is there, without waiting for the container.
    pub fn copy(&mut self) {
        if self.open && ready(&self.master) {
            self.open = show(&self.master);
        }
        if self.stdin && self.pending.is_empty() && ready(std::io::stdin()) {
            let mut buffer = [0u8; PIECE];
            match read(std::io::stdin(), &mut buffer) {
                Some(typed) => self.pending.extend_from_slice(typed),
                None => self.stdin = false,
            }
        }
        if !self.pending.is_empty() {
            match nix::unistd::write(&self.master, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::EINTR | Errno::EAGAIN) if self.open => {}
                // Nobody takes it any more.
                Err(_) => {
                    self.pending.clear();
                    self.stdin = false;
                }
            }
        }
    }
}

fn ready(fd: impl AsFd) -> bool {
    let mut entry = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut entry, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What is there, perhaps nothing; `None` at the end, which for a pty is the error EIO.
fn read(from: impl AsFd, buffer: &mut [u8]) -> Option<&[u8]> {
    match nix::unistd::read(from, buffer) {
        Ok(0) => None,
        Ok(length) => buffer.get(..length),
        Err(Errno::EINTR | Errno::EAGAIN) => Some(&[]),
        Err(_) => None,
    }
}

/// One piece of what the container shows, to stdout; `false` at the end of either.
fn show(master: &OwnedFd) -> bool {
    let mut buffer = [0u8; PIECE];
    let Some(mut rest) = read(master, &mut buffer) else {
        return false;
    };
    while !rest.is_empty() {
        match nix::unistd::write(std::io::stdout(), rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            // Somebody else has made it non-blocking.
            Err(Errno::EAGAIN) => {
                let stdout = std::io::stdout();
                let mut entry = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut entry, PollTimeout::NONE);
            }
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}
