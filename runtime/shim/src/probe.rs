//! `fairlead-shim probe <bundle>`: runs the health check of a task once, in the task's container.
//!
//! A process of its own, because only one with a single thread can enter a container. The probe is the
//! container's process in every respect, but in a part of its cgroup that ends with the probe: so no
//! process that it started is left, whatever became of the probe.

use crate::files::read_json;
use crate::lifeline;
use crate::start::filter;
use container::cgroup::Part;
use container::process::{self, Exit, ProcessError};
use container::shim::{
    HEALTH_CHECK, HealthCheck, PROBE_CGROUP, PROBE_OUTPUT, ProbeOutcome, ProbeReport, ShimOptions,
    ShimState, beginning,
};
use container::{Cgroup, CgroupError, EnterOptions, Started, Stdio, Target, enter, user};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use oci_spec::runtime::{Process, Spec};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// See the module.
pub fn run(bundle: &Path) -> ExitCode {
    let report = probe(bundle).unwrap_or_else(|failed| failed);
    if lifeline::report(&report) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Why there was no probe, as the report that says so.
type Ran<T> = Result<T, ProbeReport>;

fn not_run(code: i32, message: impl std::fmt::Display) -> ProbeReport {
    ProbeReport {
        outcome: ProbeOutcome::NotRun(code),
        output: text(message.to_string().as_bytes()),
    }
}

fn failed(step: &'static str) -> impl FnOnce(std::io::Error) -> ProbeReport {
    move |error| not_run(125, format!("{step}: {error}"))
}

fn no_task(message: impl std::fmt::Display) -> ProbeReport {
    ProbeReport {
        outcome: ProbeOutcome::NoTask,
        output: message.to_string(),
    }
}

fn probe(bundle: &Path) -> Ran<ProbeReport> {
    let check: HealthCheck = read(&bundle.join(HEALTH_CHECK))?;
    let options: ShimOptions = read(&bundle.join("shim.json"))?;
    let spec: Spec = read(&bundle.join("config.json"))?;
    let state: ShimState = read(&options.state_path)?;
    let (Some(pid), Some(start)) = (state.init_pid, state.init_start_time) else {
        return Err(no_task("it has no process yet"));
    };
    let pidfd = match process::open_verified(pid, start) {
        Ok(pidfd) => pidfd,
        Err(error @ (ProcessError::Gone { .. } | ProcessError::Reused { .. })) => {
            return Err(no_task(error));
        }
        Err(error) => return Err(not_run(125, error)),
    };
    let program = program(&check, &options, &spec, pid)?;
    let part = part(&options)?;
    let target = Target {
        spec: &spec,
        pid,
        pidfd: &pidfd,
        cgroup: Some(part.place()),
        identity: None,
    };
    let (output, stdio) = stdio().map_err(failed("make a pipe"))?;
    let options = EnterOptions {
        stdio: Some(stdio),
        seccomp: filter(bundle, &spec),
        ..EnterOptions::default()
    };
    let report = match enter(&target, &program, options) {
        Ok(started) => attend(
            &started,
            output,
            &part,
            Duration::from_nanos(check.timeout_nanos),
        ),
        Err(error) => match process::wait_ended(&pidfd, Some(Duration::ZERO)) {
            Ok(true) => Err(no_task(error)),
            _ => Err(not_run(error.exit_code(), error)),
        },
    };
    // Also when nobody waits: what it has started must not stay.
    if let Err(error) = part.remove() {
        eprintln!(
            "fairlead-shim: end the probe of task at {}: {error}",
            bundle.display()
        );
    }
    report
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Ran<T> {
    read_json(path).map_err(|message| match path.exists() {
        true => not_run(125, message),
        false => no_task(message),
    })
}

/// The task's own process, with another program.
fn program(check: &HealthCheck, options: &ShimOptions, spec: &Spec, pid: i32) -> Ran<Process> {
    let mut program = spec.process().clone().unwrap_or_default();
    program.set_args(Some(check.args.clone()));
    program.set_terminal(Some(false));
    if let Some(name) = &options.user {
        // The files of the task as they are now: it may have added the user itself.
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let found = user::resolve(&root, name).map_err(|error| not_run(126, error))?;
        let user = program.user_mut();
        user.set_uid(found.uid).set_gid(found.gid);
        user.set_additional_gids(Some(found.additional_gids));
    }
    Ok(program)
}

/// A part of the task's cgroup for this probe alone.
fn part(options: &ShimOptions) -> Ran<Part> {
    let name = format!("{PROBE_CGROUP}{}", std::process::id());
    Cgroup::open(&options.cgroup_parent, &options.cgroup_name)
        .and_then(|cgroup| cgroup.part(&name))
        .map_err(|error| match error {
            CgroupError::NotFound(_) => no_task(error),
            error => not_run(125, error),
        })
}

/// Nothing to read; what is written comes together, as in a terminal.
fn stdio() -> std::io::Result<(File, Stdio)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let stdio = Stdio {
        stdin: File::open("/dev/null")?.into(),
        stdout: write.try_clone()?,
        stderr: write,
    };
    Ok((read.into(), stdio))
}

/// Until the probe has ended, its time is over, or nobody waits for it.
fn attend(started: &Started, pipe: File, part: &Part, timeout: Duration) -> Ran<ProbeReport> {
    let deadline = Instant::now().checked_add(timeout);
    let mut output = Output {
        pipe: Some(pipe),
        kept: Vec::new(),
    };
    let ended = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) || lifeline::is_cut() {
            break false;
        }
        match wait(&started.pidfd, &output, left) {
            Ok(true) => break true,
            Ok(false) => output.read(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(not_run(125, format!("wait for the probe: {errno}"))),
        }
    };
    // Nobody is left who writes, so what is in the pipe is all.
    if let Err(error) = part.kill() {
        eprintln!("fairlead-shim: end a probe: {error}");
    }
    let exit = process::wait_child(&started.pidfd).map_err(|error| not_run(125, error))?;
    output.read();
    let outcome = match exit {
        _ if !ended => ProbeOutcome::TimedOut,
        Exit::Code(_) | Exit::Signal(_) => ProbeOutcome::Exited(exit.code()),
    };
    Ok(ProbeReport {
        outcome,
        output: text(&output.kept),
    })
}

/// Waits for anything; true when the probe has ended.
fn wait(pidfd: &OwnedFd, output: &Output, left: Option<Duration>) -> Result<bool, Errno> {
    let stdin = std::io::stdin();
    let mut entries = vec![
        PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(pipe) = &output.pipe {
        entries.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
    }
    // Rounded up: not to look again and again in the last millisecond.
    let millis = left.map(|left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX));
    let timeout = millis.map_or(PollTimeout::NONE, |millis| {
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    poll(&mut entries, timeout)?;
    let ended = entries.first().and_then(PollFd::any);
    Ok(ended == Some(true))
}

/// What the probe says.
struct Output {
    /// `None` once it was closed on the other side.
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Output {
    /// Takes what is there; what is too much is read and forgotten, so that the probe can go on.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded: a probe that never stops writing must not outlive its time here.
        for _ in 0..64 {
            let Some(pipe) = &mut self.pipe else {
                return;
            };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    // One more than is kept, to tell that there is more.
                    let room = (PROBE_OUTPUT + 1).saturating_sub(self.kept.len());
                    let part = buffer.get(..length.min(room)).unwrap_or_default();
                    self.kept.extend_from_slice(part);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// As text of at most [`PROBE_OUTPUT`] bytes; three dots stand for what is left out.
fn text(bytes: &[u8]) -> String {
    const DOTS: &str = "...";
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if text.len() > PROBE_OUTPUT {
        text.truncate(beginning(&text, PROBE_OUTPUT - DOTS.len()).len());
        text.push_str(DOTS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_stays_text() {
        assert_eq!(text(b"fine\n"), "fine\n");
        let exact = "x".repeat(PROBE_OUTPUT);
        assert_eq!(text(exact.as_bytes()), exact);
        for long in ["x".repeat(PROBE_OUTPUT + 1), "ä".repeat(PROBE_OUTPUT)] {
            let cut = text(long.as_bytes());
            assert!(
                cut.len() <= PROBE_OUTPUT && cut.ends_with("..."),
                "{}",
                cut.len()
            );
            assert!(long.starts_with(cut.trim_end_matches('.')));
        }
        // One byte of no text takes three as text.
        assert!(text(&[0xff; PROBE_OUTPUT]).len() <= PROBE_OUTPUT);
    }

    #[test]
    fn what_is_too_much_is_read_and_forgotten() {
        let (pipe, stdio) = stdio().expect("a pipe");
        let mut output = Output {
            pipe: Some(pipe),
            kept: Vec::new(),
        };
        for _ in 0..100 {
            nix::unistd::write(&stdio.stdout, &[b'x'; 1000]).expect("room in the pipe");
            output.read();
        }
        assert_eq!(output.kept.len(), PROBE_OUTPUT + 1);
        assert!(output.pipe.is_some());
        drop(stdio);
        output.read();
        assert!(output.pipe.is_none());
    }
}
