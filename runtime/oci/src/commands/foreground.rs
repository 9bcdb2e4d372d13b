//! Staying until a program has ended: signals go to it, its terminal comes here.

use crate::error::OciError;
use crate::tty::{Raw, Relay};
use container::process::{self, Exit};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// Signals that are about this process, not about the program.
const OWN: [Signal; 5] = [
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGURG,
];

fn system(step: &'static str) -> impl Fn(Errno) -> OciError {
    move |errno| OciError::System { step, errno }
}

/// Before the program exists: no signal may be lost between its start and the waiting.
pub fn prepare(subreaper: bool) -> Result<(), OciError> {
    SigSet::all()
        .thread_block()
        .map_err(system("block signals"))?;
    if subreaper {
        process::become_subreaper()?;
    }
    Ok(())
}

/// Waits for a child, and reaps whatever else ends.
pub fn wait(pid: i32, pidfd: &OwnedFd, mut relay: Option<Relay>) -> Result<Exit, OciError> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags).map_err(system("watch signals"))?;
    let _raw = relay.as_ref().map(|_| Raw::set());
    let stdin = std::io::stdin();
    loop {
        // It may have ended before anybody looked.
        if let Some(exit) = reap(pid)? {
            drain(&mut relay);
            return Ok(exit);
        }
        let mut entries = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(relay) = &relay {
            entries.extend(relay.descriptors(&stdin));
        }
        match poll(&mut entries, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(system("wait for container")(errno)),
        }
        while let Ok(Some(info)) = signals.read_signal() {
            pass_on(info.ssi_signo as i32, pidfd, relay.as_ref())?;
        }
        if let Some(relay) = &mut relay {
            relay.copy();
        }
    }
}

fn reap(pid: i32) -> Result<Option<Exit>, OciError> {
    let mut ended = None;
    while let Some((reaped, exit)) = process::reap_any()? {
        if reaped == pid {
            ended = Some(exit);
        }
    }
    Ok(ended)
}

fn pass_on(signal: i32, pidfd: &OwnedFd, relay: Option<&Relay>) -> Result<(), OciError> {
    if signal == libc::SIGWINCH
        && let Some(relay) = relay
    {
        relay.resize();
        return Ok(());
    }
    if OWN.iter().any(|own| *own as i32 == signal) {
        return Ok(());
    }
    process::signal(pidfd, signal)?; // one that has just ended needs none
    Ok(())
}

/// What the program said last is still in the terminal.
fn drain(relay: &mut Option<Relay>) {
    let Some(relay) = relay else { return };
    while relay.open {
        let stdin = std::io::stdin();
        let mut entries = relay.descriptors(&stdin);
        entries.truncate(1); // the master
        match poll(&mut entries, PollTimeout::from(100u8)) {
            Ok(0) | Err(_) => return, // somebody else holds it open, silently
            Ok(_) => {}
        }
        drop(entries);
        relay.copy();
    }
}

/// 128 and the signal's number, where a signal ended it.
pub fn exit_code(exit: Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.code()).unwrap_or(255))
}
