//! The life of a task: its output, its orphans, its end.

use crate::files::{Durability, now, write_json};
use crate::log::{LogFile, entry};
use crate::pump::{MAX_LINE, Progress, Stream};
use crate::queue::LogQueue;
use container::process::Exit;
use container::shim::{ExitStatus, ShimOptions};
use container::{Cgroup, process};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the rest of the output, and then the disk, may take after the task has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// A task that runs.
pub struct Task {
    pub pid: i32,
    pub cgroup: Option<Cgroup>,
    pub streams: [Stream; 2],
    pub log: LogFile,
}

/// Stays until the task has ended, then records how.
pub fn supervise(task: Task, options: ShimOptions) -> ExitCode {
    let Task {
        pid,
        cgroup,
        mut streams,
        log,
    } = task;
    let mut queue = LogQueue::start(Some(log));
    let mut buffer = vec![0; MAX_LINE];
    let exit = until_end(pid, &mut streams, &mut queue, &mut buffer);
    let finished = now();
    // The counter dies with the cgroup, and is complete only now.
    let oom_killed = cgroup
        .as_ref()
        .is_some_and(|c| c.oom_kills().unwrap_or(0) > 0);
    if let Some(cgroup) = &cgroup {
        // With a PID namespace nobody is left; without one, this ends who holds the output open.
        let _ = cgroup.kill();
    }
    drain(&mut streams, &mut queue, &mut buffer);
    let status = ExitStatus {
        exit_code: exit.code(),
        signal: match exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) => None,
        },
        oom_killed,
        finished_at_unix_nanos: finished,
        failed: None,
        dropped_log_lines: queue.finish(DRAIN),
    };
    record(&options, &status);
    if let Some(cgroup) = cgroup {
        let _ = cgroup.delete(); // the daemon looks for what is left
    }
    ExitCode::SUCCESS
}

/// A disk that is full now may have room in a moment, and the status is worth waiting for.
fn record(options: &ShimOptions, status: &ExitStatus) {
    for attempt in 0..60u64 {
        if write_json(&options.exit_path, status, Durability::Disk).is_ok() {
            return;
        }
        if options
            .exit_path
            .parent()
            .is_some_and(|directory| !directory.exists())
        {
            return; // nobody wants it any more
        }
        std::thread::sleep(Duration::from_millis(100 * attempt.min(50)));
    }
}

fn until_end(pid: i32, streams: &mut [Stream; 2], queue: &mut LogQueue, buffer: &mut [u8]) -> Exit {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&children, flags).ok();
    // It may have ended before the descriptor existed.
    let mut ended = reap(pid);
    while ended.is_none() {
        let reading = queue.ready();
        let mut entries = Vec::with_capacity(3);
        if let Some(signals) = &signals {
            entries.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        }
        if reading {
            let open = streams.iter().filter_map(Stream::file);
            entries.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        }
        // Without a descriptor for signals one has to look; with a full queue, look again soon.
        let timeout = match (reading, &signals) {
            (false, _) => PollTimeout::from(5u8),
            (true, None) => PollTimeout::from(100u8),
            (true, Some(_)) => PollTimeout::NONE,
        };
        match poll(&mut entries, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(100)), // out of memory
        }
        if let Some(signals) = &signals {
            while let Ok(Some(_)) = signals.read_signal() {}
        }
        if reading {
            for stream in streams.iter_mut() {
                read_once(stream, queue, buffer);
            }
        }
        ended = reap(pid);
    }
    ended.unwrap_or(Exit::Code(125)) // not reached without
}

/// Reaps every child that has ended; orphans of the task come here too.
fn reap(pid: i32) -> Option<Exit> {
    let mut ended = None;
    while let Ok(Some((reaped, exit))) = process::reap_any() {
        if reaped == pid {
            ended = Some(exit);
        }
    }
    ended
}

fn read_once(stream: &mut Stream, queue: &mut LogQueue, buffer: &mut [u8]) -> Progress {
    let (name, time) = (stream.name, now());
    stream.read(buffer, |line| queue.push(entry(line, name, time)))
}

/// What is in the pipes still belongs in the log. Nobody writes any more, so they run dry.
fn drain(streams: &mut [Stream; 2], queue: &mut LogQueue, buffer: &mut [u8]) {
    let deadline = Instant::now() + DRAIN;
    for stream in streams {
        while Instant::now() < deadline {
            if !queue.ready() {
                std::thread::sleep(Duration::from_millis(1));
            } else if read_once(stream, queue, buffer) != Progress::Data {
                break;
            }
        }
    }
}
