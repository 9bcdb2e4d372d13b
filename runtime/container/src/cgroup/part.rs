//! A part of a cgroup for processes that must be found, and ended, apart from the others.

use super::error::Result;
use super::group::{Cgroup, Place};
use super::layout::Version;
use std::path::Path;

/// Made by [`Cgroup::part`].
#[derive(Debug)]
pub struct Part {
    /// Where a process goes: the part's own directory, and the others of the whole cgroup.
    whole: Cgroup,
    /// The one directory that the whole cgroup has not.
    own: Cgroup,
}

impl Cgroup {
    /// A child in one hierarchy only: version 2 where the machine has it. In all others, a process of
    /// the part is in the cgroup itself. So every limit holds for all together, nothing is counted
    /// apart, and yet the kernel knows who belongs to the part.
    ///
    /// In version 2 the child gets no controllers, without which the kernel lets processes be in a
    /// cgroup and in one below it.
    ///
    /// # Errors
    /// It cannot be made; the cgroup is gone.
    pub fn part(&self, name: &str) -> Result<Part> {
        let chosen = self.one_hierarchy();
        let mut whole = self.clone();
        let mut own = self.clone();
        own.places.clear();
        if let Some(place) = chosen.and_then(|at| whole.places.get_mut(at)) {
            place.open()?.make(Path::new(name))?;
            place.path.push(name);
            own.places.push(place.clone());
        }
        Ok(Part { whole, own })
    }

    /// The parts that are there, by the beginning of their names.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn parts(&self, beginning: &str) -> Result<Vec<Cgroup>> {
        let place = self.one_hierarchy().and_then(|at| self.places.get(at));
        let Some((place, dir)) = place.and_then(|p| Some((p, p.find().transpose()?))) else {
            return Ok(Vec::new());
        };
        let mut names = dir?.children()?;
        names.retain(|name| name.to_string_lossy().starts_with(beginning));
        let part = |name| Cgroup {
            places: vec![Place {
                hierarchy: place.hierarchy.clone(),
                path: place.path.join(name),
            }],
            kind: self.kind,
        };
        Ok(names.into_iter().map(part).collect())
    }

    /// By its place in the list. Of version 1, one in which a new child takes processes at once.
    fn one_hierarchy(&self) -> Option<usize> {
        let at = |fits: &dyn Fn(&Place) -> bool| self.places.iter().position(fits);
        at(&|place| place.hierarchy.version == Version::V2)
            .or_else(|| at(&|place| !place.hierarchy.controllers.iter().any(|c| c == "cpuset")))
    }
}

impl Part {
    /// Where a process of the part goes.
    pub fn place(&self) -> &Cgroup {
        &self.whole
    }

    /// Ends all its processes, and waits for that.
    ///
    /// # Errors
    /// As [`Cgroup::kill`].
    pub fn kill(&self) -> Result<()> {
        self.own.kill()
    }

    /// Ends all its processes and removes it.
    ///
    /// # Errors
    /// As [`Cgroup::kill`] and [`Cgroup::delete`].
    pub fn remove(self) -> Result<()> {
        self.own.kill()?;
        self.own.delete()
    }
}
