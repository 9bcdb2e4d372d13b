//! Namespaces: their kinds, and how a process comes into one.

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The kind of namespace that a file of `/proc/<pid>/ns` stands for, as its `CLONE_NEW*` flag
/// (ioctl_ns(2)).
pub fn namespace_type(fd: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE as _) };
    Errno::result(kind).map(|kind| kind as u32 as u64)
}

/// `setns(2)` with a descriptor of a namespace or a pidfd, and `CLONE_NEW*` flags.
pub fn setns(fd: impl AsFd, kinds: u64) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds as libc::c_int) }).map(drop)
}

/// `unshare(2)`.
pub fn unshare(kinds: u64) -> Result<(), Errno> {
    // SAFETY: no pointers; the caller has one thread.
    Errno::result(unsafe { libc::unshare(kinds as libc::c_int) }).map(drop)
}
