//! `events`.

use super::list::say;
use super::{Context, freeze};
use crate::args;
use crate::error::OciError;
use crate::numbers::duration;
use container::Cgroup;
use container::cgroup::{Event, RuncEvent};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Instant;

pub fn run(context: &Context<'_>, args: &args::Events) -> Result<ExitCode, OciError> {
    let option = "--interval";
    let interval =
        duration(&args.interval).map_err(|reason| OciError::Option { option, reason })?;
    let entry = context.store.look(&args.id)?;
    let (_, pidfd) = entry.running()?;
    let cgroup = freeze::required(&entry)?;
    let saved = entry.unlock();
    if args.stats {
        print(&stats(&saved.id, &cgroup)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut events = cgroup.watch()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent spinning.
        let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut entries = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut entries, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                let step = "wait for events";
                return Err(OciError::System { step, errno });
            }
        }
        let ended = entries[0]
            .revents()
            .is_some_and(|events| !events.is_empty());
        let mut found = events.read()?;
        if ended {
            // What happened just before the end counts.
            found.extend(events.finish()?);
            report(&saved.id, &found)?;
            return Ok(ExitCode::SUCCESS);
        }
        report(&saved.id, &found)?;
        if found.contains(&Event::Removed) {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= next {
            print(&stats(&saved.id, &cgroup)?)?;
            next = Instant::now() + interval;
        }
    }
}

fn stats(id: &str, cgroup: &Cgroup) -> Result<RuncEvent, OciError> {
    Ok(RuncEvent::stats(id, &cgroup.stats()?))
}

fn report(id: &str, events: &[Event]) -> Result<(), OciError> {
    let killed = |event: &&Event| matches!(event, Event::OomKill(_));
    events
        .iter()
        .filter(killed)
        .try_for_each(|_| print(&RuncEvent::oom(id)))
}

/// One line each.
fn print(event: &RuncEvent) -> Result<(), OciError> {
    let json = serde_json::to_string(event).map_err(|error| OciError::Json {
        path: "stdout".into(),
        reason: error.to_string(),
    })?;
    say(&format!("{json}\n"))
}
