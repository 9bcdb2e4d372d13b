//! Stopping all processes of a cgroup, and letting them go on.

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::layout::Version;
use super::walk::walk;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long processes have to stop. One that is in the kernel and cannot be interrupted stops
/// when it comes back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the processes of a cgroup run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// Some have stopped, others are still to.
    Freezing,
    /// All have stopped.
    Frozen,
}

impl Cgroup {
    /// Stops every process in it and below it, and waits until all have stopped.
    ///
    /// # Errors
    /// Some do not stop within ten seconds; then all run again. No hierarchy can freeze. The
    /// cgroup is gone.
    pub fn freeze(&self) -> Result<()> {
        let (version, dir) = self.freezer()?;
        match version {
            Version::V1 => freeze_v1(&dir),
            Version::V2 => freeze_v2(&dir),
        }
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// No hierarchy can freeze. The cgroup is gone.
    pub fn thaw(&self) -> Result<()> {
        let (version, dir) = self.freezer()?;
        match version {
            Version::V1 => dir.write("freezer.state", "THAWED"),
            Version::V2 => dir.write("cgroup.freeze", "0"),
        }
    }

    /// Whether they run; also when it is a cgroup above that is frozen.
    ///
    /// # Errors
    /// No hierarchy can freeze. The cgroup is gone.
    pub fn freezer_state(&self) -> Result<FreezerState> {
        let (version, dir) = self.freezer()?;
        match version {
            Version::V1 => state_v1(&dir),
            Version::V2 => state_v2(&dir),
        }
    }

    fn freezer(&self) -> Result<(Version, Dir)> {
        if let Some(found) = self.controller_dir("freezer")? {
            return Ok(found);
        }
        // In version 2 every cgroup but the root can (kernel 5.2).
        let dir = self.v2_dir()?;
        dir.map(|dir| (Version::V2, dir))
            .ok_or_else(|| CgroupError::NoFreezer(self.shown()))
    }
}

/// Whether a cgroup is frozen or to be, by itself or from above. Of those that cannot be frozen:
/// no.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    if dir.has("freezer.state") {
        return Ok(state_v1(dir)? != FreezerState::Thawed);
    }
    if dir.has("cgroup.freeze") {
        return Ok(state_v2(dir)? != FreezerState::Thawed);
    }
    Ok(false)
}

/// Thaws a version 1 cgroup and all below it; what is gone or cannot be thawed is left.
pub(super) fn thaw_tree_v1(dir: &Dir) -> Result<()> {
    walk(dir, |dir| {
        if dir
            .read_if("freezer.state")?
            .is_some_and(|state| state.trim() != "THAWED")
        {
            let _ = dir.write("freezer.state", "THAWED");
        }
        Ok(())
    })
}

fn state_v1(dir: &Dir) -> Result<FreezerState> {
    Ok(match dir.read("freezer.state")?.trim() {
        "FROZEN" => FreezerState::Frozen,
        "FREEZING" => FreezerState::Freezing,
        _ => FreezerState::Thawed,
    })
}

/// `FREEZING` may last for ever when a process was forked or moved in just then, or when one is
/// ptraced. A brief thaw now and then lets it come to an end.
fn freeze_v1(dir: &Dir) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut tries = 0u32;
    let failed = loop {
        // Again each time: the kernel looks at each process only once.
        if let Err(error) = dir.write("freezer.state", "FROZEN") {
            break error;
        }
        match state_v1(dir) {
            Ok(FreezerState::Frozen) => return Ok(()),
            Ok(_) => {}
            Err(error) => break error,
        }
        if Instant::now() > deadline {
            break timed_out(dir);
        }
        tries += 1;
        if tries.is_multiple_of(25) {
            let _ = dir.write("freezer.state", "THAWED");
        }
        sleep(Duration::from_millis(if tries < 25 { 1 } else { 10 }));
    };
    let _ = dir.write("freezer.state", "THAWED"); // not half frozen
    Err(failed)
}

fn state_v2(dir: &Dir) -> Result<FreezerState> {
    let events = dir.read("cgroup.events")?;
    if events.lines().any(|line| line == "frozen 1") {
        return Ok(FreezerState::Frozen);
    }
    Ok(match dir.read("cgroup.freeze")?.trim() {
        "1" => FreezerState::Freezing,
        _ => FreezerState::Thawed,
    })
}

fn freeze_v2(dir: &Dir) -> Result<()> {
    // The kernel notes a change of this file as an exceptional condition.
    let events = dir.file("cgroup.events", OFlag::O_RDONLY)?;
    dir.write("cgroup.freeze", "1")?;
    let deadline = Instant::now() + PATIENCE;
    let failed = loop {
        match frozen_now(&events) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(errno) => {
                let path = dir.path().join("cgroup.events");
                break super::dir::file_error("read", &path, None, errno);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break timed_out(dir);
        }
        // Woken early it looks again, woken late nothing is lost.
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], wait);
    };
    let _ = dir.write("cgroup.freeze", "0"); // not half frozen
    Err(failed)
}

/// Reading also arms the next notification.
fn frozen_now(events: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = [0u8; 256];
    let length = nix::sys::uio::pread(events, &mut buffer, 0)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    Ok(text.lines().any(|line| line == "frozen 1"))
}

fn timed_out(dir: &Dir) -> CgroupError {
    CgroupError::NotFreezing {
        path: dir.path().into(),
        seconds: PATIENCE.as_secs(),
    }
}
