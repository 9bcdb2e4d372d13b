//! From the command line to a running task.

use crate::files::{Durability, now, read_json, write_json};
use crate::log::LogFile;
use crate::pump::Stream;
use crate::supervise::{Task, supervise};
use container::seccomp::Filter;
use container::shim::{
    ExitStatus, ShimOptions, ShimState, StartFailure, StartReport, StartedReport,
};
use container::{ContainerError, CreateOptions, Started, Stdio, cgroup, create, process};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, fork, pipe2, setsid};
use oci_spec::runtime::Spec;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// What went wrong before the program ran.
type Failed<T> = Result<T, StartFailure>;

fn failure(step: &str, message: impl std::fmt::Display) -> StartFailure {
    StartFailure {
        step: step.into(),
        message: message.to_string(),
        exit_code: 125,
    }
}

fn container_failure(error: &ContainerError) -> StartFailure {
    StartFailure {
        step: error.step().into(),
        message: error.to_string(),
        exit_code: error.exit_code(),
    }
}

/// Starts the task of a bundle and, in a process of its own, supervises it to its end.
pub fn run(bundle: &Path) -> ExitCode {
    // SAFETY: this process has one thread, so the child may go on as usual.
    match unsafe { fork() } {
        // The daemon reaps this one at once and owes the rest nothing.
        Ok(ForkResult::Parent { .. }) => return ExitCode::SUCCESS,
        Ok(ForkResult::Child) => {}
        Err(errno) => {
            eprintln!("fairlead-shim: fork: {errno}");
            return ExitCode::FAILURE;
        }
    }
    let Ok(report) = std::io::stdout().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let options = match read_json::<ShimOptions>(&bundle.join("shim.json")) {
        Ok(options) => options,
        Err(message) => {
            tell(report, &StartReport::Failed(failure("options", message)));
            return ExitCode::FAILURE;
        }
    };
    let started = detach(&options, &report).and_then(|()| start(bundle, &options));
    match started {
        Ok((task, said)) => {
            tell(report, &StartReport::Started(said));
            release_memory();
            supervise(task, options)
        }
        Err(failed) => {
            let status = ExitStatus {
                exit_code: failed.exit_code,
                signal: None,
                oom_killed: false,
                finished_at_unix_nanos: now(),
                failed: Some(failed.clone()),
                dropped_log_lines: 0,
            };
            // The report may find nobody; the file stays.
            if let Err(error) = write_json(&options.exit_path, &status, Durability::Disk) {
                tell(report, &StartReport::Failed(failure("exit status", error)));
                return ExitCode::FAILURE;
            }
            tell(report, &StartReport::Failed(failed));
            ExitCode::SUCCESS
        }
    }
}

/// One line, then the end of the stream. A daemon that is gone reads the files instead.
fn tell(report: OwnedFd, value: &StartReport) {
    if let Ok(mut line) = serde_json::to_vec(value) {
        line.push(b'\n');
        let _ = File::from(report).write_all(&line);
    }
}

/// Leaves behind everything of the daemon: session, signals, descriptors, directory, cgroup.
fn detach(options: &ShimOptions, report: &OwnedFd) -> Failed<()> {
    let step = |what: &'static str| {
        move |errno: nix::errno::Errno| failure("detach", format!("{what}: {errno}"))
    };
    setsid().map_err(step("start a session"))?;
    // Nothing interrupts a supervisor: the daemon signals the task itself. Children are reported
    // through a descriptor.
    SigSet::all()
        .thread_block()
        .map_err(step("block signals"))?;
    nix::unistd::chdir("/").map_err(step("change directory"))?;
    for fd in &options.hold_fds {
        if *fd < 3 || std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
            return Err(failure(
                "hold_fds",
                format!("descriptor {fd} was not inherited"),
            ));
        }
    }
    let mut keep = options.hold_fds.clone();
    keep.push(report.as_raw_fd());
    process::close_all_but(&keep).map_err(|e| failure("detach", e))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| failure("detach", format!("open /dev/null: {e}")))?;
    nix::unistd::dup2_stdin(&null).map_err(step("replace stdin"))?;
    nix::unistd::dup2_stdout(&null).map_err(step("replace stdout"))?;
    nix::unistd::dup2_stderr(&null).map_err(step("replace stderr"))?;
    process::become_supervisor().map_err(|e| failure("detach", e))?;
    let own = std::process::id() as i32;
    cgroup::enter(&options.cgroup_parent, cgroup::SHIMS, own).map_err(|e| failure("cgroup", e))?;
    // The last to go when memory is short, where that is allowed: its task would be orphaned.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    Ok(())
}

fn start(bundle: &Path, options: &ShimOptions) -> Failed<(Task, StartedReport)> {
    let own = std::process::id() as i32;
    let start_time = process::start_time(own).map_err(|e| failure("state", e))?;
    let mut state = ShimState {
        shim_pid: own,
        shim_start_time: start_time,
        init_pid: None,
        init_start_time: None,
        started_at_unix_nanos: None,
    };
    // Before anything is made, so that a new daemon finds whoever may have made something.
    save(options, &state)?;
    let spec: Spec = read_json(&bundle.join("config.json")).map_err(|e| failure("spec", e))?;
    // The log first: a path that cannot be used is an error now; later it only costs lines.
    let log = LogFile::open(options.log.clone())
        .map_err(|e| failure("log", format!("open {}: {e}", options.log.path.display())))?;
    let (stdout, stdout_write) = output_pipe()?;
    let (stderr, stderr_write) = output_pipe()?;
    let null = File::open("/dev/null").map_err(|e| failure("stdio", e))?;
    let stdio = Stdio {
        stdin: null.into(),
        stdout: stdout_write,
        stderr: stderr_write,
    };
    let mut create_options = CreateOptions::new(options.rootfs.clone());
    create_options.user = options.user.clone();
    create_options.cgroup = Some(options.cgroup());
    create_options.stdio = Some(stdio);
    create_options.seccomp = filter(bundle, &spec);
    let created = create(&spec, create_options).map_err(|e| container_failure(&e))?;
    state.init_pid = Some(created.pid());
    state.init_start_time =
        Some(process::start_time(created.pid()).map_err(|e| failure("state", e))?);
    save(options, &state)?;
    let started = created.start().map_err(|e| container_failure(&e))?;
    state.started_at_unix_nanos = Some(now());
    if let Err(failed) = save(options, &state) {
        abandon(started);
        return Err(failed);
    }
    let warnings = started.warnings.iter().map(ToString::to_string).collect();
    let streams = [Stream::new("stdout", stdout), Stream::new("stderr", stderr)];
    let task = Task {
        pid: started.pid,
        cgroup: started.cgroup,
        streams,
        log,
    };
    Ok((task, StartedReport { state, warnings }))
}

/// What the daemon compiled, if it is of this version.
pub fn filter(bundle: &Path, spec: &Spec) -> Option<Filter> {
    let profile = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())?;
    let bytes = std::fs::read(bundle.join(container::shim::FILTER)).ok()?;
    let filter = Filter::from_bytes(&bytes).ok()?;
    filter.is_for(profile).then_some(filter)
}

/// A task that nobody could find again must not run.
fn abandon(started: Started) {
    let _ = process::signal(&started.pidfd, libc::SIGKILL);
    let _ = process::wait_child(&started.pidfd);
    if let Some(cgroup) = started.cgroup {
        let _ = cgroup.kill();
        let _ = cgroup.delete();
    }
}

fn save(options: &ShimOptions, state: &ShimState) -> Failed<()> {
    write_json(&options.state_path, state, Durability::Process).map_err(|e| {
        failure(
            "state",
            format!("write {}: {e}", options.state_path.display()),
        )
    })
}

/// A pipe of which only our end does not block.
fn output_pipe() -> Failed<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failure("stdio", e))?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| failure("stdio", e))?;
    Ok((read, write))
}

/// Gives back what reading the specification took: the shim stays as long as its task.
fn release_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}
