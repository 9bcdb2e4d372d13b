//! Giving a cgroup to a user.

use super::error::Result;
use super::group::Cgroup;
use super::layout::LayoutKind;
use crate::sys;
use std::path::Path;

/// The files that go with the directory, where the kernel does not say which.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Gives it to a user, who may then make cgroups below it and move processes among them, but not
    /// change its limits (config-linux.md, "Cgroup ownership"; cgroups(7), "Cgroup delegation").
    /// Only on a machine with version 2 alone: in version 1 that is not safe.
    ///
    /// The group too, as with crun: from inside the user namespace, a file can be written only if
    /// both of its ids are known there.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(dir) = self.v2_dir()?.filter(|_| self.kind == LayoutKind::V2) else {
            return Ok(());
        };
        let listed = sys::read_file(Path::new("/sys/kernel/cgroup/delegate")).ok();
        let listed = listed.as_ref().map(|text| text.lines().collect());
        let listed = listed.unwrap_or_else(|| FILES.to_vec());
        for file in listed.into_iter().chain(["."]) {
            match dir.give(file, uid, gid) {
                // Of a controller that this cgroup does not have; or an ordinary user's, who cannot
                // give it away.
                Err(error) if error.is_gone() || error.is_denied() => {}
                given => given?,
            }
        }
        Ok(())
    }
}
