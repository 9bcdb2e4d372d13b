//! What happens to a cgroup: lack of memory, the last process gone, freezing.

use super::dir::{Dir, file_error};
use super::error::Result;
use super::group::Cgroup;
use super::layout::Version;
use super::stats::MemoryEvents;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// Something that has happened since the last time, with how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No memory could be had below the limit.
    Oom(u64),
    /// Processes were killed for that.
    OomKill(u64),
    /// `memory.high` was exceeded; version 2.
    High(u64),
    /// `memory.max` was met; version 2.
    Max(u64),
    /// Whether there are processes in it or below it; version 2.
    Populated(bool),
    /// Whether all of them have stopped; version 2.
    Frozen(bool),
    /// The cgroup is gone; told once, and nothing after it.
    Removed,
}

/// The events of one cgroup. Readable, for `poll(2)` and its like, when [`Events::read`] may have
/// something; in version 1 of memory, and in version 2 of all.
///
/// In version 1 the kernel tells of [`Event::Oom`] before it has killed, and not again after that:
/// the [`Event::OomKill`] is in one of the next [`Events::read`], or in [`Events::finish`].
#[derive(Debug)]
pub struct Events {
    /// Readable when one of the two below is.
    epoll: Epoll,
    inotify: Option<Inotify>,
    memory: Option<(Version, Dir)>,
    /// Notified of lack of memory in version 1.
    oom: Option<EventFd>,
    v2: Option<Dir>,
    seen: MemoryEvents,
    state: State,
    removed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    populated: bool,
    frozen: bool,
}

impl Cgroup {
    /// Watches it from now on.
    ///
    /// # Errors
    /// It is gone, or the kernel gives no more watches (`fs.inotify.max_user_instances`).
    pub fn watch(&self) -> Result<Events> {
        let system = |what: &'static str, errno| file_error(what, &self.shown(), None, errno);
        let mut events = Events {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
                .map_err(|errno| system("make event poll for", errno))?,
            inotify: None,
            memory: self.controller_dir("memory")?,
            oom: None,
            v2: self.v2_dir()?,
            seen: MemoryEvents::default(),
            state: State::default(),
            removed: false,
        };
        // First the watch, then the state: what happens in between is told, not lost.
        if let Some((Version::V1, dir)) = &events.memory {
            let oom = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(|errno| system("make event descriptor for", errno))?;
            let control = dir.file("memory.oom_control", OFlag::O_RDONLY)?;
            let line = format!("{} {}", oom.as_fd().as_raw_fd(), control.as_raw_fd());
            dir.write("cgroup.event_control", &line)?;
            events.add(&oom).map_err(|errno| system("poll", errno))?;
            events.oom = Some(oom);
        }
        if let Some(dir) = &events.v2 {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
                .map_err(|errno| system("make inotify descriptor for", errno))?;
            for name in ["cgroup.events", "memory.events"] {
                watch_file(&inotify, dir, name)?;
            }
            events
                .add(&inotify)
                .map_err(|errno| system("poll", errno))?;
            events.inotify = Some(inotify);
        }
        events.seen = events.memory_events()?.unwrap_or_default();
        events.state = events.cgroup_state()?.unwrap_or_default();
        Ok(events)
    }
}

fn watch_file(inotify: &Inotify, dir: &Dir, name: &str) -> Result<()> {
    let file = match dir.file(name, OFlag::O_PATH) {
        Ok(file) => file,
        Err(error) if error.is_gone() => return Ok(()), // no such controller here
        Err(error) => return Err(error),
    };
    // The kernel wants a path; this one is the file that was opened.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    inotify
        .add_watch(Path::new(&path), AddWatchFlags::IN_MODIFY)
        .map(drop)
        .map_err(|errno| file_error("watch", &dir.path().join(name), None, errno))
}

impl Events {
    /// What has happened since the last time; does not wait.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        if self.removed {
            return Ok(found);
        }
        let mut notified = 0;
        if let Some(oom) = &self.oom {
            notified = oom.read().unwrap_or(0); // 0: none, it does not block
        }
        if let Some(inotify) = &self.inotify {
            // Only to quiet the descriptor: what has changed is in the files.
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        let (memory, state) = (self.memory_events()?, self.cgroup_state()?);
        if self.memory.is_some() && memory.is_none() && self.is_removed()?
            || self.v2.is_some() && state.is_none()
        {
            self.removed = true;
            return Ok(vec![Event::Removed]);
        }
        if let Some(now) = memory {
            let seen = std::mem::replace(&mut self.seen, now);
            let version_1 = matches!(self.memory, Some((Version::V1, _)));
            let oom = if version_1 {
                notified
            } else {
                now.oom.saturating_sub(seen.oom)
            };
            let counts = [
                (
                    now.high.saturating_sub(seen.high),
                    Event::High as fn(u64) -> Event,
                ),
                (now.max.saturating_sub(seen.max), Event::Max),
                (oom, Event::Oom),
                (now.oom_kill.saturating_sub(seen.oom_kill), Event::OomKill),
            ];
            found.extend(
                counts
                    .into_iter()
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, event)| event(count)),
            );
        }
        if let Some(now) = state {
            let seen = std::mem::replace(&mut self.state, now);
            if seen.frozen != now.frozen {
                found.push(Event::Frozen(now.frozen));
            }
            if seen.populated != now.populated {
                found.push(Event::Populated(now.populated));
            }
        }
        Ok(found)
    }

    /// The last look, after the last process has ended and before the cgroup is deleted: what the
    /// kernel has counted and nobody has read yet.
    ///
    /// # Errors
    /// As [`Events::read`].
    pub fn finish(mut self) -> Result<Vec<Event>> {
        self.read()
    }

    fn add(&self, source: impl AsFd) -> Result<(), Errno> {
        self.epoll
            .add(source, EpollEvent::new(EpollFlags::EPOLLIN, 0))
    }

    /// `None` when it is gone, or not handed down to here.
    fn memory_events(&self) -> Result<Option<MemoryEvents>> {
        let Some((version, dir)) = &self.memory else {
            return Ok(None);
        };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Ok(dir.read_if(file)?.as_deref().map(MemoryEvents::parse))
    }

    fn is_removed(&self) -> Result<bool> {
        match &self.memory {
            Some((_, dir)) => Ok(dir.read_if("cgroup.procs")?.is_none()),
            None => Ok(false),
        }
    }

    fn cgroup_state(&self) -> Result<Option<State>> {
        let Some(dir) = &self.v2 else {
            return Ok(None);
        };
        let text = dir.read_if("cgroup.events")?;
        Ok(text.map(|text| State {
            populated: text.lines().any(|line| line == "populated 1"),
            frozen: text.lines().any(|line| line == "frozen 1"),
        }))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
