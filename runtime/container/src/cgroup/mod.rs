//! Control groups: version 2, version 1, and machines that have controllers in both.

mod device;
mod error;
mod layout;
mod limits;
mod tree;

pub use error::CgroupError;
pub use layout::{Hierarchy, Layout, LayoutKind, Version};

use crate::sys;
use error::Result;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tree::{
    collect_procs, components, file_error, make_parents, read, relative, remove_tree, write,
};

/// How long [`Cgroup::kill`] and [`Cgroup::delete`] go on before they give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a cgroup is, the same in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPath {
    /// The parent, from the root of each hierarchy: `/fairlead`. May be shared.
    pub parent: String,
    /// The cgroup's own name.
    pub name: String,
}

impl CgroupPath {
    /// A path of these two.
    pub fn new(parent: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            parent: parent.into(),
            name: name.into(),
        }
    }
}

/// One cgroup in all hierarchies of the machine.
#[derive(Debug)]
pub struct Cgroup {
    layout: Layout,
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup, its parents where missing, and sets the limits.
    ///
    /// # Errors
    /// It exists already, a limit is refused, or a file could not be written; then nothing of it
    /// is left (parents stay, others may be using them; see [`remove_parent`]).
    pub fn create(parent: &str, name: &str, resources: &LinuxResources) -> Result<Self> {
        let cgroup = Self {
            layout: Layout::detect()?,
            path: relative(parent, name)?,
        };
        limits::check(&cgroup.layout, resources)?;
        for made in 0..cgroup.layout.hierarchies.len() {
            if let Err(error) = cgroup.make_directory(made) {
                // Only what was made here: a cgroup that was there before is somebody's.
                for hierarchy in cgroup.layout.hierarchies.iter().take(made) {
                    let _ = fs::remove_dir(hierarchy.mountpoint.join(&cgroup.path));
                }
                return Err(error);
            }
        }
        match limits::apply(&cgroup, resources) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                let _ = cgroup.delete();
                Err(error)
            }
        }
    }

    /// A cgroup that was made before, by this process or another.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] when no hierarchy has it.
    pub fn open(parent: &str, name: &str) -> Result<Self> {
        let cgroup = Self {
            layout: Layout::detect()?,
            path: relative(parent, name)?,
        };
        if cgroup.directories().any(|directory| directory.is_dir()) {
            Ok(cgroup)
        } else {
            Err(CgroupError::NotFound(cgroup.path))
        }
    }

    /// Moves a process into it, in every hierarchy.
    ///
    /// # Errors
    /// The kernel refuses, or the process is gone.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.directories()
            .try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// As [`Cgroup::attach`], only where a process cannot be born into it.
    pub(crate) fn attach_v1(&self, pid: i32) -> Result<()> {
        self.of_version(Version::V1)
            .try_for_each(|(_, dir)| write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Its directory in the version 2 hierarchy, opened for `clone3`.
    pub(crate) fn open_v2(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_directory() else {
            return Ok(None);
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(&dir, flags, Mode::empty())
            .map(Some)
            .map_err(|errno| file_error("open", &dir, None, errno.into()))
    }

    /// Name and directory in each version 1 hierarchy; with a version 2 hierarchy beside them
    /// that one too. Empty on a machine with version 2 alone.
    pub(crate) fn v1_directories(&self) -> Vec<(String, PathBuf)> {
        if self.layout.kind() == LayoutKind::V2 {
            return Vec::new();
        }
        let hierarchies = self.layout.hierarchies.iter();
        hierarchies
            .map(|h| (h.name(), h.mountpoint.join(&self.path)))
            .collect()
    }

    /// All processes in it and below it.
    ///
    /// # Errors
    /// A list cannot be read.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in self.directories() {
            collect_procs(&directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in it and below it and waits until none is left.
    ///
    /// # Errors
    /// [`CgroupError::Undead`] when some survive (stuck in the kernel) for some seconds.
    pub fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(v2) = self.v2_directory() {
                // Atomic: no process can fork its way out. Kernel 5.14; else one by one.
                let _ = fs::write(v2.join("cgroup.kill"), "1");
            }
            let pids = self.procs()?;
            if pids.is_empty() {
                return Ok(());
            }
            self.kill_each(&pids)?;
            if Instant::now() > deadline {
                return Err(CgroupError::Undead {
                    path: self.path.clone(),
                    pids,
                });
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// For each: first a pidfd, then a look whether the number still is in the cgroup. A number
    /// that was reused in between is either not in the list or one of ours.
    fn kill_each(&self, pids: &[i32]) -> Result<()> {
        let opened: Vec<_> = pids
            .iter()
            .filter_map(|pid| Some((*pid, sys::pidfd_open(*pid).ok()?)))
            .collect();
        let still = self.procs()?;
        for (_, pidfd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL); // gone is as good
        }
        if let Some(freezer) = self.layout.v1("freezer") {
            // A frozen process dies only when it is thawed.
            let state = freezer.mountpoint.join(&self.path).join("freezer.state");
            if fs::read_to_string(&state).is_ok_and(|s| s.trim() != "THAWED") {
                let _ = fs::write(&state, "THAWED");
            }
        }
        Ok(())
    }

    /// Removes it and everything below it. Processes must be gone; those just ended may keep it
    /// busy for a moment, which is waited for, within bounds. What is gone already is no error.
    ///
    /// # Errors
    /// It stays busy, because processes are in it.
    pub fn delete(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.directories()
            .try_for_each(|directory| remove_tree(&directory, deadline))
    }

    /// How many of its processes the kernel has killed for lack of memory; 0 where it does not
    /// count them.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some((version, dir)) = self.controller("memory") else {
            return Ok(0);
        };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let content = read(&dir.join(file))?;
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
        let Some((version, dir)) = self.controller("memory") else {
            return Ok(None);
        };
        let file = match version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        Ok(read(&dir.join(file))?.trim().parse().ok())
    }

    /// Its directory in the hierarchy that has this controller, where any has.
    pub fn controller(&self, name: &str) -> Option<(Version, PathBuf)> {
        let hierarchy = self.layout.with_controller(name)?;
        Some((hierarchy.version, hierarchy.mountpoint.join(&self.path)))
    }

    /// Its directory in the version 2 hierarchy, where there is one.
    pub(crate) fn v2_directory(&self) -> Option<PathBuf> {
        self.of_version(Version::V2)
            .map(|(_, directory)| directory)
            .next()
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.layout
            .hierarchies
            .iter()
            .map(|h| h.mountpoint.join(&self.path))
    }

    fn of_version(&self, version: Version) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let all = self.layout.hierarchies.iter();
        all.filter(move |h| h.version == version)
            .map(|h| (h, h.mountpoint.join(&self.path)))
    }

    fn make_directory(&self, index: usize) -> Result<()> {
        let Some(hierarchy) = self.layout.hierarchies.get(index) else {
            return Ok(());
        };
        // A parent that another deletes at this moment is made again.
        for last_try in [false, false, true] {
            make_parents(hierarchy, &self.path)?;
            let directory = hierarchy.mountpoint.join(&self.path);
            match fs::create_dir(&directory) {
                Ok(()) => return layout::prepare_cpuset(hierarchy, &directory),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // Whoever made it may not have come to this yet.
                    layout::prepare_cpuset(hierarchy, &directory)?;
                    return Err(CgroupError::Exists(directory));
                }
                Err(error) if error.kind() == ErrorKind::NotFound && !last_try => {}
                Err(error) => return Err(file_error("create", &directory, None, error)),
            }
        }
        Ok(())
    }
}

/// Makes a cgroup without limits where missing and moves a process into it: for the processes of
/// the runtime itself.
///
/// # Errors
/// The cgroup cannot be made or entered.
pub fn enter(parent: &str, name: &str, pid: i32) -> Result<()> {
    let cgroup = Cgroup {
        layout: Layout::detect()?,
        path: relative(parent, name)?,
    };
    for index in 0..cgroup.layout.hierarchies.len() {
        match cgroup.make_directory(index) {
            Ok(()) | Err(CgroupError::Exists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    cgroup.attach(pid)
}

/// Removes a parent and the empty cgroups in it, in every hierarchy.
///
/// # Errors
/// Processes are left somewhere below it.
pub fn remove_parent(parent: &str) -> Result<()> {
    let layout = Layout::detect()?;
    let path = components(parent)?;
    let deadline = Instant::now() + PATIENCE;
    let mut hierarchies = layout.hierarchies.iter();
    hierarchies.try_for_each(|h| remove_tree(&h.mountpoint.join(&path), deadline))
}
