//! Processes: `clone3`, pidfds, limits, and what is reset before a program is executed.

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which side of [`clone3`] this is.
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `struct clone_args` of `linux/sched.h`, version 2 (with `cgroup`).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whose child the new process is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// That of the caller.
    Caller,
    /// That of the caller's own parent (`CLONE_PARENT`).
    Callers,
}

/// Copies this process into new namespaces and, where given, into a cgroup (v2) at birth.
///
/// The caller must have one thread: the child goes on with a copy of its memory, in which locks
/// held by other threads would stay locked. [`is_single_threaded`] tells.
pub fn clone3(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    parent: Parent,
) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if parent == Parent::Callers {
        args.flags |= libc::CLONE_PARENT as u64;
        args.exit_signal = 0; // the caller's own, which is SIGCHLD too
    }
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP does not fit libc's c_int
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args; without CLONE_VM and without a stack this is a fork.
    // The caller has one thread (see above), so the child's memory is consistent.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match Errno::result(result)? {
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor of ours there.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent {
                pid: pid as i32,
                pidfd,
            })
        }
    }
}

/// Whether this process has exactly one thread: `/proc/self/task` has one entry.
pub fn is_single_threaded() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/task").is_ok_and(|m| m.nlink() == 3)
}

/// Ends this process at once: no destructors, no exit handlers of the parent it was cloned from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Joins a new session keyring (`keyctl(2)`, `KEYCTL_JOIN_SESSION_KEYRING`).
pub fn join_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name means a keyring without one.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) };
    Errno::result(result).map(drop)
}

/// `pidfd_open(2)`.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(2)`; signal 0 only checks.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means "as kill(2) would".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Reaps one child, whichever: its pid and its status as of `wait(2)`; `None` when none has ended.
pub fn reap_any() -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some((pid, status))),
    }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no pointers; nothing is closed before an exec.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(result).map(drop)
}

/// `prctl(2)` with one number.
pub fn prctl(option: i32, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: used only with options that take numbers.
    Errno::result(unsafe { libc::prctl(option, value, 0, 0, 0) }).map(drop)
}

/// Sets a resource limit by its `RLIMIT_*` number.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is a valid rlimit.
    Errno::result(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// Default action for every signal, none blocked.
pub fn reset_signals() {
    // The kernel's `struct sigaction`, all zero: SIG_DFL, no flags, empty mask. The raw call,
    // since the C library keeps two signals to itself, which may be inherited as ignored.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: a valid kernel sigaction; SIGKILL and SIGSTOP refuse the change.
        unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8)
        };
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Has a command start with the default action for every signal and none blocked, whatever this
/// process ignores and blocks, and be killed when this one ends before it.
pub fn set_apart(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        reset_signals();
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
        match std::os::unix::process::parent_id() == parent {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()), // it has ended already
        }
    };
    // SAFETY: nothing but system calls, which are allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// `setgroups(2)`.
pub fn setgroups(gids: &[u32]) -> Result<(), Errno> {
    // SAFETY: pointer and length belong together.
    Errno::result(unsafe { libc::setgroups(gids.len(), gids.as_ptr()) }).map(drop)
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &str) -> Result<(), Errno> {
    // SAFETY: pointer and length belong together.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// The working directory as the kernel sees it: "(unreachable)..." when it is outside the root.
pub fn getcwd() -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is as long as said. The raw call, since the C library hides the prefix.
    let length = Errno::result(unsafe {
        libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len())
    })?;
    buffer.truncate((length as usize).saturating_sub(1));
    Ok(buffer)
}

/// Executes the program behind a descriptor.
pub fn fexecve(fd: impl AsFd, argv: &[std::ffi::CString], envp: &[std::ffi::CString]) -> Errno {
    let pointers = |strings: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays end with null and their strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Takes ownership of a descriptor that a call of the `nix` crate has just returned as a number.
pub fn own_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with the result of F_DUPFD_CLOEXEC, a new descriptor that is ours.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The flags of a descriptor (`FD_CLOEXEC`); `EBADF` where the number is none.
pub fn descriptor_flags(fd: RawFd) -> Result<i32, Errno> {
    // SAFETY: no pointers, and nothing is changed.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })
}

/// Whether a descriptor becomes readable within `timeout` milliseconds (-1: for ever).
pub fn poll_readable(fd: RawFd, timeout: i32) -> Result<bool, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    Errno::result(unsafe { libc::poll(&raw mut entry, 1, timeout) }).map(|ready| ready > 0)
}

/// Waits for the child behind a pidfd and reaps it.
pub fn waitid_pidfd(pidfd: BorrowedFd<'_>) -> Result<crate::process::Exit, Errno> {
    // SAFETY: `info` is plain data that the kernel fills; on success it describes a child's end,
    // so reading its status is valid.
    let (code, status) = unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let id = pidfd.as_raw_fd() as libc::id_t;
        Errno::result(libc::waitid(
            libc::P_PIDFD,
            id,
            &raw mut info,
            libc::WEXITED,
        ))?;
        (info.si_code, info.si_status())
    };
    Ok(match code {
        libc::CLD_EXITED => crate::process::Exit::Code(status),
        _ => crate::process::Exit::Signal(status),
    })
}

/// Closes the descriptors `first..=last`; none where the range is empty.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the caller owns none of these through a safe type; see `process::close_all_but`.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}
