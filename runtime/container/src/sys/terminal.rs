//! Pseudoterminals (pty(7), ioctl_tty(2)).

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Opens the other side of a pty's master, without a path (`TIOCGPTPEER`).
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags and returns a new descriptor.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Unlocks the other side (`TIOCSPTLCK`, as unlockpt(3)).
pub fn unlock(master: impl AsFd) -> Result<(), Errno> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    let result = unsafe {
        libc::ioctl(
            master.as_fd().as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlocked,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes it the controlling terminal of the caller's session, which must not have one.
pub fn set_controlling(terminal: impl AsFd) -> Result<(), Errno> {
    // SAFETY: the argument is a number.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// Sets rows and columns.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request reads one winsize.
    let result = unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSWINSZ,
            &raw const size,
        )
    };
    Errno::result(result).map(drop)
}

/// Rows and columns.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16), Errno> {
    // SAFETY: plain data, which the request fills.
    let (result, size) = unsafe {
        let mut size = std::mem::zeroed::<libc::winsize>();
        let fd = terminal.as_fd().as_raw_fd();
        (libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size), size)
    };
    Errno::result(result).map(|_| (size.ws_row, size.ws_col))
}
