//! `seccomp(2)` and what handing on its listener needs (`linux/seccomp.h`, `linux/filter.h`).

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;

/// `SECCOMP_FILTER_FLAG_*`.
pub mod filter_flag {
    pub const TSYNC: u32 = 1;
    pub const LOG: u32 = 1 << 1;
    pub const SPEC_ALLOW: u32 = 1 << 2;
    pub const NEW_LISTENER: u32 = 1 << 3;
    pub const TSYNC_ESRCH: u32 = 1 << 4;
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
}

/// One instruction of a classic BPF program (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

/// Puts this thread under a filter; returns the listener where `NEW_LISTENER` is set.
///
/// Allocates nothing and makes this one system call, so that what follows is up to the caller.
pub fn seccomp_set_filter(
    instructions: &[Instruction],
    flags: u32,
) -> Result<Option<OwnedFd>, Errno> {
    let program = Program {
        len: instructions.len().try_into().map_err(|_| Errno::E2BIG)?,
        filter: instructions.as_ptr(),
    };
    // SAFETY: `program` is a valid `struct sock_fprog` whose pointer and length belong together.
    let result = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })?;
    if flags & filter_flag::NEW_LISTENER != 0 {
        // SAFETY: with NEW_LISTENER the result is a new descriptor, close-on-exec, that is ours.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) }));
    }
    match result {
        0 => Ok(None),
        // The number of a thread that could not be brought under the same filter.
        _ => Err(Errno::ESRCH),
    }
}

/// Whether the kernel knows the action `SECCOMP_RET_*`.
pub fn seccomp_has_action(action: u32) -> bool {
    // SAFETY: the pointer leads to one u32, which is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

/// Whether the kernel knows these `SECCOMP_FILTER_FLAG_*`. Changes nothing: it checks the flags,
/// then fails to read the program, which is null.
pub fn seccomp_has_flags(flags: u32) -> bool {
    let nothing = std::ptr::null::<Program>();
    // SAFETY: the kernel checks the pointer and fails with EFAULT.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, nothing) };
    result == -1 && Errno::last() == Errno::EFAULT
}

/// `pidfd_getfd(2)`: a copy, close-on-exec, of the descriptor with this number of another process.
pub fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0)
    })?;
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
