//! One cgroup in all hierarchies: what is in it and where it is.

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::layout::{Hierarchy, Layout, LayoutKind, Version};
use super::path::CgroupPath;
use super::resources;
use super::walk::{collect_procs, remove_tree, split};
use oci_spec::runtime::LinuxResources;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long [`Cgroup::kill`] and [`Cgroup::delete`] go on before they give up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// One cgroup in all hierarchies of the machine.
#[derive(Clone, Debug)]
pub struct Cgroup {
    pub(super) places: Vec<Place>,
    pub(super) kind: LayoutKind,
}

/// Its directory in one hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub hierarchy: Hierarchy,
    /// From the root of the mount, without the leading slash.
    pub path: PathBuf,
}

impl Place {
    /// For messages, and for who mounts it.
    pub fn full_path(&self) -> PathBuf {
        self.hierarchy.mountpoint.join(&self.path)
    }

    pub fn open(&self) -> Result<Dir> {
        Dir::mount(&self.hierarchy)?.open(&self.path)
    }

    /// `None` when it is gone.
    pub fn find(&self) -> Result<Option<Dir>> {
        Dir::mount(&self.hierarchy)?.find(&self.path)
    }

    fn has(&self, controller: &str) -> bool {
        self.hierarchy.controllers.iter().any(|c| c == controller)
    }
}

impl Cgroup {
    pub(super) fn of(layout: Layout, path: &CgroupPath) -> Result<Self> {
        let kind = layout.kind();
        let places = layout.hierarchies.into_iter().map(|hierarchy| {
            let path = path.in_hierarchy(&hierarchy)?;
            Ok(Place { hierarchy, path })
        });
        Ok(Self {
            places: places.collect::<Result<_>>()?,
            kind,
        })
    }

    /// A cgroup that was made before, by this process or another.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] when no hierarchy has it.
    pub fn open(parent: &str, name: &str) -> Result<Self> {
        super::path::components(parent)?; // the root is no parent here
        Self::open_at(&CgroupPath::new(parent, name))
    }

    /// As [`Cgroup::open`]. Hierarchies without it, as [`Cgroup::create_best_effort`] leaves
    /// them, are not part of the result.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] when no hierarchy has it.
    pub fn open_at(path: &CgroupPath) -> Result<Self> {
        let mut cgroup = Self::of(Layout::detect()?, path)?;
        let mut found = Vec::new();
        for place in cgroup.places {
            if place.find()?.is_some() {
                found.push(place);
            }
        }
        if found.is_empty() {
            return Err(CgroupError::NotFound(path.to_string().into()));
        }
        cgroup.places = found;
        Ok(cgroup)
    }

    /// Changes the limits that are given, in place; the others stay. 0 is "not given", as
    /// everywhere in the specification's resources.
    ///
    /// # Errors
    /// The first limit that is refused, by its field and file. Those written before it stay.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let layout = self.layout();
        let needs = resources::check(&layout, resources)?;
        for place in self.of_version(Version::V2) {
            // A limit that is new may be of a controller that was not handed down yet.
            super::create::hand_down(place, &needs, true)?;
        }
        resources::apply(self, resources)
    }

    /// Moves a process into it, in every hierarchy.
    ///
    /// # Errors
    /// The kernel refuses, or the process is gone.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let mut places = self.places.iter();
        places.try_for_each(|place| place.open()?.write("cgroup.procs", &pid.to_string()))
    }

    /// As [`Cgroup::attach`], only where a process cannot be born into it.
    pub(crate) fn attach_v1(&self, pid: i32) -> Result<()> {
        self.of_version(Version::V1)
            .try_for_each(|place| place.open()?.write("cgroup.procs", &pid.to_string()))
    }

    /// Its directory in the version 2 hierarchy, opened for `clone3`.
    pub(crate) fn open_v2(&self) -> Result<Option<OwnedFd>> {
        Ok(self.v2_dir()?.map(Dir::into_fd))
    }

    /// Name and directory in each version 1 hierarchy; with a version 2 hierarchy beside them
    /// that one too. Empty on a machine with version 2 alone.
    pub(crate) fn v1_directories(&self) -> Vec<(String, PathBuf)> {
        if self.kind == LayoutKind::V2 {
            return Vec::new();
        }
        let places = self.places.iter();
        places
            .map(|place| (place.hierarchy.name(), place.full_path()))
            .collect()
    }

    /// All processes in it and below it.
    ///
    /// # Errors
    /// A list cannot be read.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for place in &self.places {
            if let Some(dir) = place.find()? {
                collect_procs(&dir, &mut pids)?;
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes it and everything below it, also when it was there before it was used: as with
    /// runc, a container's cgroup goes with the container. Processes must be gone; those just
    /// ended may keep it busy for a moment, which is waited for, within bounds. What is gone
    /// already is no error. Every hierarchy is tried.
    ///
    /// # Errors
    /// It stays busy, because processes are in it.
    pub fn delete(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut result = Ok(());
        for place in &self.places {
            let (parent, name) = split(&place.path);
            let removed = Dir::mount(&place.hierarchy)
                .and_then(|mount| mount.find(parent))
                .and_then(|parent| match parent {
                    Some(parent) => remove_tree(&parent, &name, deadline),
                    None => Ok(()),
                });
            result = result.and(removed);
        }
        result
    }

    /// How many of its processes the kernel has killed for lack of memory; 0 where it does not
    /// count them.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some((version, dir)) = self.controller_dir("memory")? else {
            return Ok(0);
        };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        // Without the file, version 2 does not hand the controller down to here.
        let content = dir.read_if(file)?.unwrap_or_default();
        let count = content
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0))
    }

    /// Memory in use, in bytes; `None` where it is not accounted.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn memory_current(&self) -> Result<Option<u64>> {
        let Some((version, dir)) = self.controller_dir("memory")? else {
            return Ok(None);
        };
        let file = match version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let used = dir.read_if(file)?;
        Ok(used.and_then(|used| used.trim().parse().ok()))
    }

    /// Its directory in the hierarchy that has this controller, where any has.
    pub fn controller(&self, name: &str) -> Option<(Version, PathBuf)> {
        let place = self.place(name)?;
        Some((place.hierarchy.version, place.full_path()))
    }

    pub(super) fn place(&self, controller: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.has(controller))
    }

    /// As [`Cgroup::controller`], open.
    pub(super) fn controller_dir(&self, name: &str) -> Result<Option<(Version, Dir)>> {
        let place = self.place(name);
        place
            .map(|place| Ok((place.hierarchy.version, place.open()?)))
            .transpose()
    }

    /// Its directory in the version 2 hierarchy, where there is one.
    pub(crate) fn v2_directory(&self) -> Option<PathBuf> {
        self.of_version(Version::V2).map(Place::full_path).next()
    }

    pub(super) fn v2_dir(&self) -> Result<Option<Dir>> {
        let mut places = self.of_version(Version::V2);
        places.next().map(Place::open).transpose()
    }

    pub(super) fn of_version(&self, version: Version) -> impl Iterator<Item = &Place> {
        self.places
            .iter()
            .filter(move |place| place.hierarchy.version == version)
    }

    /// The hierarchies that it is in.
    pub(super) fn layout(&self) -> Layout {
        let hierarchies = self.places.iter().map(|place| place.hierarchy.clone());
        Layout {
            hierarchies: hierarchies.collect(),
        }
    }

    /// For messages: its path in the first hierarchy.
    pub(super) fn shown(&self) -> PathBuf {
        self.places
            .first()
            .map(Place::full_path)
            .unwrap_or_default()
    }
}
