//! What a short-lived helper hangs on: its stdin, of which the daemon has the other end. When the daemon
//! has no use for it any more, or has been killed, the pipe is closed, and the helper ends.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::io::Write;
use std::os::fd::AsFd;

/// Whether nobody waits for this process any more.
pub fn is_cut() -> bool {
    let stdin = std::io::stdin();
    let mut entries = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut entries, PollTimeout::ZERO) {
        // Nothing is ever written to it.
        Ok(ready) => ready > 0,
        Err(Errno::EINTR) => false,
        Err(_) => true,
    }
}

/// The one line that a helper says. False when nobody listens.
pub fn report(value: &impl Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(value) else {
        return false;
    };
    line.push(b'\n');
    let mut stdout = std::io::stdout();
    stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .is_ok()
}
