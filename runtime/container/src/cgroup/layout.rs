//! Which hierarchies a machine has, and what a new cgroup needs before it can be used.

use super::error::{CgroupError, Result};
use super::tree::{file_error, read, write};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use std::io;
use std::path::{Path, PathBuf};

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// cgroups(7), "Cgroups version 1".
    V1,
    /// cgroups(7), "Cgroups version 2".
    V2,
}

/// The kinds of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutKind {
    /// Version 2 alone.
    V2,
    /// Version 1 alone.
    V1,
    /// Version 1 with a version 2 hierarchy beside it.
    Mixed,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The controllers it has; of a named hierarchy its `name=...`.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// The name of its directory below `/sys/fs/cgroup`.
    pub fn name(&self) -> String {
        let name = self.mountpoint.file_name();
        name.map_or_else(
            || "unified".into(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

/// All hierarchies of a machine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// In the order of mounting.
    pub hierarchies: Vec<Hierarchy>,
}

/// The controllers that are handed down in version 2. Memory first: it is the one that refuses a
/// cgroup with processes before anything about that cgroup is changed.
const MANAGED: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

impl Layout {
    /// Reads it from the mount table and the kernel.
    ///
    /// # Errors
    /// The mount table cannot be read, or nothing usable is in it.
    pub fn detect() -> Result<Self> {
        let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
        let mut layout = Self::parse(&mountinfo);
        layout.hierarchies.retain_mut(|hierarchy| {
            // A mount may be hidden by a later one on the same place.
            let Ok(found) = statfs(&hierarchy.mountpoint) else {
                return false;
            };
            match hierarchy.version {
                Version::V1 => found.filesystem_type() == CGROUP_SUPER_MAGIC,
                Version::V2 => {
                    let list = read(&hierarchy.mountpoint.join("cgroup.controllers"));
                    hierarchy.controllers = list
                        .map(|list| list.split_whitespace().map(Into::into).collect())
                        .unwrap_or_default();
                    found.filesystem_type() == CGROUP2_SUPER_MAGIC
                }
            }
        });
        if layout.hierarchies.is_empty() {
            Err(CgroupError::NoHierarchy)
        } else {
            Ok(layout)
        }
    }

    /// From the text of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)). Of version 2 the
    /// controllers are not in it.
    fn parse(mountinfo: &str) -> Self {
        let mut seen = Vec::new();
        let mut hierarchies = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let mut mount = mount.split(' ').skip(2);
            let (Some(device), Some(_root), Some(mountpoint), Some(options)) =
                (mount.next(), mount.next(), mount.next(), mount.next())
            else {
                continue;
            };
            let mut filesystem = filesystem.split(' ');
            let (Some(kind), Some(_source), Some(super_options)) =
                (filesystem.next(), filesystem.next(), filesystem.next())
            else {
                continue;
            };
            let version = match kind {
                "cgroup" => Version::V1,
                "cgroup2" => Version::V2,
                _ => continue,
            };
            // Mounted read-only it is for looking at; mounted twice it is one hierarchy.
            if options.split(',').any(|o| o == "ro") || seen.contains(&device) {
                continue;
            }
            seen.push(device);
            let controllers = match version {
                Version::V1 => super_options
                    .split(',')
                    .filter(|o| is_controller(o))
                    .map(Into::into)
                    .collect(),
                Version::V2 => Vec::new(),
            };
            hierarchies.push(Hierarchy {
                version,
                mountpoint: unescape(mountpoint),
                controllers,
            });
        }
        Self { hierarchies }
    }

    /// What kind of machine this is.
    pub fn kind(&self) -> LayoutKind {
        let has = |version| self.hierarchies.iter().any(|h| h.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => LayoutKind::Mixed,
            (true, false) => LayoutKind::V1,
            (false, _) => LayoutKind::V2,
        }
    }

    /// The hierarchy with this controller.
    pub fn with_controller(&self, name: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|h| h.controllers.iter().any(|c| c == name))
    }

    pub(super) fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.with_controller(controller)
            .filter(|h| h.version == Version::V1)
    }
}

fn is_controller(option: &str) -> bool {
    let flags = [
        "rw",
        "ro",
        "xattr",
        "clone_children",
        "noprefix",
        "cpuset_v2_mode",
        "none",
    ];
    !flags.contains(&option) && !option.starts_with("release_agent=")
}

/// Octal escapes of blanks, tabs, newlines and backslashes.
fn unescape(text: &str) -> PathBuf {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        result.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                result.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                result.push('\\');
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result.into()
}

/// A new cpuset of version 1 has no CPU and no memory node and takes no process; it gets those
/// of its parent.
pub(super) fn prepare_cpuset(hierarchy: &Hierarchy, directory: &Path) -> Result<()> {
    if hierarchy.version != Version::V1 || !hierarchy.controllers.iter().any(|c| c == "cpuset") {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&directory.join(file))?.trim().is_empty() {
            write(&directory.join(file), read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// Hands the managed controllers down to the children of `directory` (version 2).
pub(super) fn enable_controllers(hierarchy: &Hierarchy, directory: &Path) -> Result<()> {
    if hierarchy.version != Version::V2 {
        return Ok(());
    }
    let available = read(&directory.join("cgroup.controllers"))?;
    let file = directory.join("cgroup.subtree_control");
    let enabled = read(&file)?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    for controller in MANAGED {
        if !has(&available, controller) || has(&enabled, controller) {
            continue;
        }
        match write(&file, &format!("+{controller}")) {
            Ok(()) => {}
            Err(CgroupError::File { source, .. }) if is_busy(&source) => {
                return Err(CgroupError::InternalProcesses {
                    controller: controller.into(),
                    path: directory.into(),
                });
            }
            // The cpu controller is refused where real-time threads run; limits that need it
            // fail then, by name.
            Err(CgroupError::File { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) => {}
            Err(CgroupError::File { source, .. }) => {
                return Err(file_error("write", &file, Some(controller), source));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_busy(error: &io::Error) -> bool {
    // The second is the answer once a controller that threads may share was enabled before.
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_with_version_2_beside() {
        let layout = Layout::parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             50 31 0:38 / /other\\040place rw - cgroup2 cgroup2 rw\n\
             51 31 0:39 / /looking ro - cgroup cgroup rw,pids\n",
        );
        assert_eq!(layout.kind(), LayoutKind::Mixed);
        assert_eq!(layout.hierarchies.len(), 3);
        assert_eq!(layout.hierarchies[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(layout.hierarchies[1].controllers, ["name=systemd"]);
        assert_eq!(
            layout.with_controller("cpu").map(|h| h.name()),
            Some("cpu,cpuacct".into())
        );
        assert!(layout.with_controller("pids").is_none());
    }

    #[test]
    fn version_2() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Layout::parse(text).kind(), LayoutKind::V2);
        assert_eq!(unescape("/a\\040b\\134"), PathBuf::from("/a b\\"));
    }
}
