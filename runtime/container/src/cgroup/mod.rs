//! Control groups: version 2, version 1, and machines that have controllers in both.

mod device;
mod layout;
mod limits;

pub use layout::{Hierarchy, Layout, LayoutKind, Version};

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long [`Cgroup::kill`] and [`Cgroup::delete`] go on before they give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a cgroup could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted, or none that can be written.
    #[error("no writable cgroup hierarchy is mounted")]
    NoHierarchy,
    /// The parent or name is not one.
    #[error("\"{path}\" is not a usable cgroup path: {reason}")]
    BadPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cgroup of this name is there already.
    #[error("cgroup {} exists already", .0.display())]
    Exists(PathBuf),
    /// There is no such cgroup.
    #[error("cgroup {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// A limit was asked for that no mounted hierarchy can apply.
    #[error("linux.resources.{field}: this machine has no \"{controller}\" controller for it")]
    NoController {
        /// The field of the specification.
        field: &'static str,
        /// The controller it needs.
        controller: &'static str,
    },
    /// A limit that is not supported, here or at all.
    #[error("linux.resources.{field} is not supported: {reason}")]
    Unsupported {
        /// The field of the specification.
        field: String,
        /// Why.
        reason: &'static str,
    },
    /// A controller could not be handed down to the children of a cgroup.
    #[error(
        "enable controller \"{controller}\" for the children of {}: processes are in that cgroup \
         itself, and version 2 forbids both at once; move them into a child of it",
        .path.display()
    )]
    InternalProcesses {
        /// The controller.
        controller: String,
        /// The cgroup that holds processes.
        path: PathBuf,
    },
    /// A file of the hierarchy could not be read or written.
    #[error("{action} {}{}: {source}", .path.display(), value.as_ref().map(|v| format!(" ({v})")).unwrap_or_default())]
    File {
        /// "read", "write", "create", "remove".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What was to be written.
        value: Option<String>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device filter could not be loaded.
    #[error("attach device filter to {}: {errno}", .path.display())]
    DeviceFilter {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Processes are left although all were killed, for [`PATIENCE`].
    #[error("processes in {} do not die: {pids:?}", .path.display())]
    Undead {
        /// The cgroup.
        path: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
}

type Result<T> = std::result::Result<T, CgroupError>;

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
        let Some(dir) = self.v2() else {
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
            if let Some(v2) = self.v2() {
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

    fn v2(&self) -> Option<PathBuf> {
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

fn components(path: &str) -> Result<PathBuf> {
    let bad = |reason| CgroupError::BadPath {
        path: path.into(),
        reason,
    };
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) if name.as_encoded_bytes().iter().any(|b| *b <= b' ') => {
                return Err(bad("blanks and control characters"));
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(bad("\"..\"")),
        }
    }
    if clean.as_os_str().is_empty() {
        Err(bad("empty, or the root"))
    } else {
        Ok(clean)
    }
}

fn relative(parent: &str, name: &str) -> Result<PathBuf> {
    let single = components(name)?;
    if single.components().count() != 1 || name.contains('/') {
        return Err(CgroupError::BadPath {
            path: name.into(),
            reason: "not a single name",
        });
    }
    Ok(components(parent)?.join(single))
}

/// The parents of `path`, with what their children need: CPUs and memory nodes (version 1), the
/// controllers (version 2).
fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut directory = hierarchy.mountpoint.clone();
    let parents = path.parent().into_iter().flat_map(Path::components);
    layout::enable_controllers(hierarchy, &directory)?;
    for component in parents {
        directory.push(component);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error("create", &directory, None, error)),
        }
        layout::prepare_cpuset(hierarchy, &directory)?;
        layout::enable_controllers(hierarchy, &directory)?;
    }
    Ok(())
}

fn collect_procs(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let gone =
        |e: &io::Error| e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV);
    let file = directory.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(content) => pids.extend(content.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if gone(&error) => return Ok(()),
        // A threaded cgroup lists its processes in an ancestor.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(file_error("read", &file, None, error)),
    }
    for child in children(directory)? {
        collect_procs(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error("read", directory, None, error)),
    };
    let directories = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}

fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        for child in children(directory)? {
            remove_tree(&child, deadline)?;
        }
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(error) => return Err(file_error("remove", directory, None, error)),
        }
    }
}

fn file_error(
    action: &'static str,
    path: &Path,
    value: Option<&str>,
    source: io::Error,
) -> CgroupError {
    CgroupError::File {
        action,
        path: path.into(),
        value: value.map(Into::into),
        source,
    }
}

fn write(path: &Path, value: &str) -> Result<()> {
    // Never creates: a file that is missing is a controller that is missing.
    let open = fs::OpenOptions::new().write(true).open(path);
    open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| file_error("write", path, Some(value), error))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| file_error("read", path, None, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(relative("/a/b/", "c").expect("valid"), Path::new("a/b/c"));
        for (parent, name) in [
            ("/", "x"),
            ("", "x"),
            ("/a", ""),
            ("/a", "b/c"),
            ("/a/..", "x"),
            ("/a", ".."),
            ("/a b", "c"),
        ] {
            assert!(relative(parent, name).is_err(), "{parent} {name}");
        }
    }
}
