//! Filters of system calls: `linux.seccomp` of the specification.
//!
//! A profile is compiled by libseccomp into a classic BPF program *before* the container's process
//! is cloned ([`compile`]), or taken from a [`Cache`] or a file ([`Filter::from_bytes`]). The child
//! installs it by `seccomp(2)` itself.
//!
//! # When the filter is installed, and what it has to allow
//!
//! As late as possible, after the word to start, so that a profile need not allow what only the
//! runtime does: the only call left is `execve`, one for each directory of `PATH` that has the
//! program. If the exec fails, `write` reports it and `exit_group` ends the process; where the
//! filter forbids them the failure is seen as the process's end.
//!
//! With an agent (`SCMP_ACT_NOTIFY`), one `write` comes first of all, without asking for memory: it
//! tells the number of the filter's listener. A `read` then waits until the listener has been
//! handed on; `execve` follows. Whoever gave the word to start takes the listener by
//! `pidfd_getfd(2)` and sends it to the agent, so nothing of the hand-over is subject to the filter
//! but that `write`: a profile that asks the agent about it could never be answered and is refused.
//! All that follows may ask the agent. (Sent by the process itself, the listener would need
//! `sendmsg` in addition.) `pidfd_getfd` needs `CAP_SYS_PTRACE`, since the process is not dumpable,
//! and `kernel.yama.ptrace_scope` below 3.
//!
//! Without `no_new_privs` installing needs `CAP_SYS_ADMIN`, which is kept in effect until the exec
//! takes it away, so no call for that has to be allowed either.
//!
//! Signals are reset, descriptors marked and the program is looked up before. Docker's default
//! policy ([`crate::defaults::seccomp`]) allows all of it. Calls of the memory allocator (`brk`,
//! `mmap`) are possible before the exec; no program starts without them.
//!
//! # What profiles mean here
//!
//! * Rules that contradict each other are refused, not resolved silently.
//! * A call by the rules of an architecture that is not listed ends the process, not the thread.
//! * `errnoRet` with an action that takes none is refused, as the specification asks.
//! * As with runc, calls newer than all that the profile names return `ENOSYS` (unless the
//!   default is `SCMP_ACT_ALLOW`, `LOG` or `TRACE`), a profile without `flags` gets `SPEC_ALLOW`,
//!   and conditions on the same argument stand each for itself.

mod action;
mod arch;
mod assemble;
mod cache;
mod compile;
mod digest;
mod docker;
mod filter;
mod flags;
mod known;
mod notify;
mod parse;
mod program;
mod rules;

pub use cache::Cache;
pub use filter::{Filter, Listener};
pub use known::known;
pub use notify::Agent;
pub use parse::{parse, parse_docker};

pub(crate) use arch::native as native_arch;

use crate::error::ContainerError;
use compile::Checked;
use oci_spec::runtime::{Linux, LinuxSeccomp, LinuxSeccompAction};

/// Compiles a profile. Takes tens of milliseconds for one with hundreds of calls on three
/// architectures, which [`Cache`] saves.
///
/// # Errors
/// What [`check`] refuses; a profile whose program is longer than the kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, ContainerError> {
    Checked::new(profile)?.compile(profile)
}

/// The filter for `linux.seccomp`: the one given, if it is of that profile, else compiled now.
pub(crate) fn filter_of(
    linux: &Linux,
    given: Option<Filter>,
) -> Result<Option<Filter>, ContainerError> {
    let refused = |reason| Err(ContainerError::invalid("linux.seccomp", reason));
    match (linux.seccomp(), given) {
        (None, None) => Ok(None),
        (None, Some(_)) => refused("missing, but a compiled filter was given"),
        (Some(profile), Some(filter)) if filter.is_for(profile) => Ok(Some(filter)),
        (Some(_), Some(_)) => {
            refused("the compiled filter given is of another profile, or of another version")
        }
        (Some(profile), None) => compile(profile).map(Some),
    }
}

/// Where a profile's questions go, if it asks any.
fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, ContainerError> {
    let notify = LinuxSeccompAction::ScmpActNotify;
    let mut entries = profile.syscalls().iter().flatten();
    if !entries.any(|entry| entry.action() == notify) {
        return Ok(None); // the rest is checked before anything is made
    }
    Ok(Checked::new(profile)?.into_listener())
}

/// Checks a profile without compiling it.
///
/// # Errors
/// A value that makes no sense, or an action, flag or architecture that the running kernel or
/// libseccomp does not offer, named by its field: `linux.seccomp.syscalls[3].args[0].index`.
pub fn check(profile: &LinuxSeccomp) -> Result<(), ContainerError> {
    Checked::new(profile).map(drop)
}

#[cfg(test)]
mod tests;
