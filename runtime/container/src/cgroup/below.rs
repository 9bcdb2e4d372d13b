//! A cgroup below another, made by whoever is in that.

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::group::Cgroup;
use super::layout::Version;
use super::own::OwnCgroups;
use super::path::components;
use std::os::fd::OwnedFd;

impl Cgroup {
    /// A cgroup below this one, which exists: `path` is from here.
    ///
    /// # Errors
    /// The path is not one, or no hierarchy has such a cgroup.
    pub fn below(&self, path: &str) -> Result<Self> {
        let path = components(path)?;
        let mut found = self.clone();
        let mut missing = Ok(());
        found.places.retain_mut(|place| {
            place.path.push(&path);
            match place.find() {
                Ok(directory) => directory.is_some(),
                Err(error) => {
                    missing = Err(error);
                    false
                }
            }
        });
        missing?;
        if found.places.is_empty() {
            return Err(CgroupError::NotFound(path));
        }
        Ok(found)
    }

    /// The cgroup that a process is in, in the version 2 hierarchy and opened for `clone3`; `None`
    /// where it is not below this one. Whoever is inside chooses it, so it is looked for from here.
    pub(crate) fn open_v2_of(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let Some(place) = self.of_version(Version::V2).next() else {
            return Ok(None);
        };
        let path = OwnCgroups::of(pid)?.below(&place.hierarchy);
        let below = path.as_ref().and_then(|p| p.strip_prefix(&place.path).ok());
        match below.filter(|below| !below.as_os_str().is_empty()) {
            Some(below) => Ok(place.open()?.find(below)?.map(Dir::into_fd)),
            None => Ok(None),
        }
    }
}
