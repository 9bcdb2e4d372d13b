//! Killing all processes of a cgroup, frozen or not.

use super::error::{CgroupError, Result};
use super::freezer;
use super::group::{Cgroup, PATIENCE};
use super::layout::Version;
use super::walk::Pause;
use crate::sys;
use std::time::Instant;

impl Cgroup {
    /// Sends a signal to every process in it and below it, once. One that starts meanwhile may
    /// not get it.
    ///
    /// # Errors
    /// The list of processes cannot be read.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.signal_each(&self.procs()?, signal)
    }

    /// Kills every process in it and below it and waits until none is left. What is frozen is
    /// thawed, since in version 1 it would not die.
    ///
    /// # Errors
    /// [`CgroupError::Undead`] when some survive (stuck in the kernel) for some seconds.
    pub fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Pause::default();
        loop {
            for place in self.of_version(Version::V2) {
                if let Some(dir) = place.find()? {
                    // Atomic: no process can fork its way out, and none has to be thawed. Kernel
                    // 5.14; else one by one.
                    let _ = dir.write("cgroup.kill", "1");
                }
            }
            let pids = self.procs()?;
            if pids.is_empty() {
                return Ok(());
            }
            self.kill_each(&pids)?;
            if !pause.sleep(deadline) {
                return Err(CgroupError::Undead {
                    path: self.shown(),
                    pids,
                });
            }
        }
    }

    /// For each: first a pidfd, then a look whether the number still is in the cgroup. A number
    /// that was reused in between is either not in the list or one of ours.
    fn signal_each(&self, pids: &[i32], signal: i32) -> Result<()> {
        let opened: Vec<_> = pids
            .iter()
            .filter_map(|pid| Some((*pid, sys::pidfd_open(*pid).ok()?)))
            .collect();
        let still = self.procs()?;
        for (_, pidfd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            let _ = sys::pidfd_send_signal(pidfd, signal); // gone is as good
        }
        Ok(())
    }

    fn kill_each(&self, pids: &[i32]) -> Result<()> {
        self.signal_each(pids, libc::SIGKILL)?;
        if let Some(place) = self.place("freezer")
            && let Some(dir) = place.find()?
        {
            freezer::thaw_tree_v1(&dir)?;
        }
        Ok(())
    }
}
