//! From a process that is in the container to one that is the program: its descriptors, its
//! user, its privileges.

use crate::capability::CapabilitySets;
use crate::create::Stdio;
use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::gate::{HANDED, Report, await_word, tell_listener};
use crate::procfs::ProcFs;
use crate::program::{self, ExecFailure, Program};
use crate::seccomp::Filter;
use crate::user::ResolvedUser;
use crate::{lsm, placement, process, sys, terminal};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Linux, Process};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// What a program's process needs, made before the clone.
pub struct ProcessPlan<'a> {
    pub process: &'a Process,
    pub linux: &'a Linux,
    pub capabilities: CapabilitySets,
    pub stdio: &'a Stdio,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// The CPUs it may use; all without, and with an empty list those that it has by then (config.md,
    /// "Linux Process", `execCPUAffinity`).
    pub affinity: Option<&'a str>,
    /// The filter of its system calls.
    pub filter: Option<&'a Filter>,
    pub program: Program,
}

/// Checks that the descriptors which a program is to inherit are there, before any is opened that
/// could take the number of one that is not. Those of the runtime are closed at an exec.
pub fn check_preserved(count: u32) -> Result<(), ContainerError> {
    for fd in (3..).take(count as usize) {
        if !matches!(sys::descriptor_flags(fd), Ok(flags) if flags & libc::FD_CLOEXEC == 0) {
            let reason = format!(
                "number {fd} is not open, or closed at an exec; whoever wants {count} of them from 3 \
                 on has to hand them on"
            );
            return Err(ContainerError::invalid("descriptor to preserve", reason));
        }
    }
    Ok(())
}

/// The step between "everything stands" and the exec; what is left for after the word to start.
pub struct Armed<'a> {
    plan: ProcessPlan<'a>,
}

/// Everything but the last: descriptors, limits, user, directory. Afterwards the process is the
/// user's, still with every capability that it may hold, and nobody may look into it.
pub fn arm<'a>(
    mut plan: ProcessPlan<'a>,
    user: &ResolvedUser,
    slave: Option<OwnedFd>,
    procfs: &ProcFs,
    warnings: &mut Vec<SetupFailure>,
) -> Setup<Armed<'a>> {
    plan.capabilities.limit_to_own()?;
    warnings.extend(plan.capabilities.warnings());
    placement::apply(plan.process, plan.linux, procfs, warnings)?;
    if plan.affinity != Some("") {
        placement::set_affinity(plan.affinity)?;
    }
    match slave {
        Some(slave) => {
            terminal::take(&slave, user.uid)?;
            install_stdio([&slave, &slave, &slave])?;
        }
        None => {
            let Stdio {
                stdin,
                stdout,
                stderr,
            } = plan.stdio;
            install_stdio([stdin, stdout, stderr])?;
            give_pipes([stdin, stdout, stderr], user.uid)?;
        }
    }
    plan.program.default_env("HOME", &user.home);
    // Before privileges go: it is the kernel's, by a handle that is verified.
    lsm::label(plan.process, procfs)?;
    become_user(&plan, user, procfs)?;
    Ok(Armed { plan })
}

impl Armed<'_> {
    /// Closes all descriptors that are not needed any more: those of the runtime lead to the host,
    /// and whoever in the container may look into this process could go through them
    /// (CVE-2024-21626). The locks that the runtime holds by them are not held on here either.
    pub fn shed(&self, needed: &[&OwnedFd]) -> Setup<()> {
        let inherited = (3..self.plan.preserve_fds.saturating_add(3)).map(|fd| fd as RawFd);
        let needed = needed.iter().map(|fd| fd.as_raw_fd());
        let keep: Vec<RawFd> = inherited.chain(needed).collect();
        process::close_all_but(&keep).map_err(|error| {
            SetupFailure::because("close", "descriptors of the runtime", error.to_string())
        })
    }

    /// Whether the program could be executed as it looks now; else why not.
    pub fn probe(&self) -> Result<(), ExecFailure> {
        self.plan.program.locate().map(drop)
    }

    /// Gives up privileges and becomes the program. Returns only when that failed. `socket` leads
    /// to whoever gave the word to start.
    pub fn execute(self, socket: &OwnedFd) -> Report {
        let places = match self.plan.program.locate() {
            Ok(places) => places,
            Err(failure) => return Report::NotExecuted(failure),
        };
        match self.seal(socket) {
            Ok(()) => Report::NotExecuted(self.plan.program.exec(&places)),
            Err(failure) => Report::Failed(failure),
        }
    }

    /// All that a filter should not have to allow, then the filter: see [`crate::seccomp`] for
    /// what may follow.
    fn seal(&self, socket: &OwnedFd) -> Setup<()> {
        let plan = &self.plan;
        let first = plan.preserve_fds.saturating_add(3);
        program::prepare(first).step("mark close-on-exec", "descriptors")?;
        let no_new_privileges = plan.process.no_new_privileges().unwrap_or(false);
        // Without no_new_privs, only CAP_SYS_ADMIN may install a filter. The exec takes it away.
        let keep_admin = plan.filter.is_some() && !no_new_privileges;
        plan.capabilities.apply(keep_admin)?;
        if no_new_privileges {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).step("set", "no_new_privs")?;
        }
        let Some(filter) = plan.filter else {
            return Ok(());
        };
        if let Some(listener) = filter.install()? {
            // The kernel closes it at the exec.
            tell_listener(socket, listener.into_raw_fd()).step("tell of", "seccomp listener")?;
            await_word(socket, HANDED);
        }
        Ok(())
    }
}

fn install_stdio(stdio: [&OwnedFd; 3]) -> Setup<()> {
    // First all out of the way of 0, 1 and 2, so that no copy overwrites another's source.
    let spare = |fd: &OwnedFd| {
        let command = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3);
        nix::fcntl::fcntl(fd, command).step("duplicate", "standard descriptor")
    };
    let [stdin, stdout, stderr] = stdio;
    let numbers = [spare(stdin)?, spare(stdout)?, spare(stderr)?];
    let [stdin, stdout, stderr] = numbers.map(sys::own_fd);
    nix::unistd::dup2_stdin(&stdin).step("install", "stdin")?;
    nix::unistd::dup2_stdout(&stdout).step("install", "stdout")?;
    nix::unistd::dup2_stderr(&stderr).step("install", "stderr")
}

/// Programs open /dev/stdout anew, which asks for permission on the pipe itself.
fn give_pipes(stdio: [&OwnedFd; 3], uid: u32) -> Setup<()> {
    if uid == 0 {
        return Ok(());
    }
    for fd in stdio.into_iter().filter(|fd| is_pipe(fd)) {
        match nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None) {
            // Somebody's who is not mapped in the user namespace: who passes such a pipe wants it.
            Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
            Err(errno) => {
                let object = "standard descriptor";
                return Err(SetupFailure::new("give to the user", object, errno));
            }
        }
    }
    Ok(())
}

fn is_pipe(fd: impl AsFd) -> bool {
    use nix::sys::stat::SFlag;
    sys::fstat(fd).is_ok_and(|s| s.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits())
}

fn become_user(plan: &ProcessPlan<'_>, user: &ResolvedUser, procfs: &ProcFs) -> Setup<()> {
    umask(Mode::from_bits_truncate(
        plan.process.user().umask().unwrap_or(0o022),
    ));
    plan.capabilities.limit_bounding()?;
    // As root, who may enter more; but on a network file system root may be a stranger.
    let entered = match change_directory(plan.process) {
        Err(failure) if failure.errno == Errno::EACCES as i32 => false,
        entered => entered.map(|()| true)?,
    };
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).step("keep", "capabilities over the change of user")?;
    set_groups(user, procfs)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    nix::unistd::setresgid(gid, gid, gid).step("set group", gid)?;
    nix::unistd::setresuid(uid, uid, uid).step("set user", uid)?;
    if !entered {
        change_directory(plan.process)?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 0).step("reset", "keep-capabilities")
}

fn set_groups(user: &ResolvedUser, procfs: &ProcFs) -> Setup<()> {
    match sys::setgroups(&user.additional_gids) {
        // In the user namespace of an ordinary user nobody may; there are none but one's own.
        Err(Errno::EPERM)
            if user.additional_gids.is_empty()
                && procfs
                    .read("self/setgroups")
                    .is_ok_and(|answer| answer.trim() == "deny") =>
        {
            Ok(())
        }
        result => result.step("set groups", format!("{:?}", user.additional_gids)),
    }
}

fn change_directory(process: &Process) -> Setup<()> {
    let cwd = process.cwd();
    nix::unistd::chdir(cwd).step("change directory to", cwd.display())?;
    // A working directory outside the root (through a leaked descriptor) would be a way out.
    let seen = sys::getcwd().step("read", "working directory")?;
    if !seen.starts_with(b"/") {
        let reason = "it leads outside the container";
        return Err(SetupFailure::because(
            "change directory to",
            cwd.display(),
            reason,
        ));
    }
    Ok(())
}
