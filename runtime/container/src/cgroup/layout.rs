//! Which hierarchies a machine has.

use super::dir::{Dir, file_error};
use super::error::{CgroupError, Result};
use crate::sys;
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
    /// The cgroup of the hierarchy that is the root of the mount, as `/proc/self/cgroup` counts:
    /// not `/` where only a part is mounted, as in a container without a cgroup namespace.
    pub root: PathBuf,
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

impl Layout {
    /// Reads it from the mount table and the kernel.
    ///
    /// # Errors
    /// The mount table cannot be read, or nothing usable is in it.
    pub fn detect() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo =
            sys::read_file(path).map_err(|errno| file_error("read", path, None, errno))?;
        let layout = Self::select(&mountinfo, |device, hierarchy| {
            // A mount may be hidden by a later one on the same place, or further up.
            let Ok(root) = Dir::mount(hierarchy) else {
                return false;
            };
            if !sys::fstat(&root).is_ok_and(|found| device == device_of(&found)) {
                return false;
            }
            if hierarchy.version == Version::V2 {
                let list = root.read("cgroup.controllers").unwrap_or_default();
                hierarchy.controllers = list.split_whitespace().map(Into::into).collect();
            }
            true
        });
        if layout.hierarchies.is_empty() {
            Err(CgroupError::NoHierarchy)
        } else {
            Ok(layout)
        }
    }

    /// Of each hierarchy in the text of `/proc/<pid>/mountinfo` the first mount that is `visible`,
    /// which is told its device and may complete what is known of it.
    fn select(mountinfo: &str, visible: impl Fn(&str, &mut Hierarchy) -> bool) -> Self {
        let mounts = parse(mountinfo).into_iter();
        let hierarchies = mounts.filter_map(|(device, mut mounts)| {
            let at = mounts.iter_mut().position(|one| visible(device, one))?;
            Some(mounts.swap_remove(at))
        });
        Self {
            hierarchies: hierarchies.collect(),
        }
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
}

/// The devices of all hierarchies and where each is mounted, those mounts first that show more of
/// it, from the text of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)). Of version 2 the
/// controllers are not in it.
fn parse(mountinfo: &str) -> Vec<(&str, Vec<Hierarchy>)> {
    let mut hierarchies: Vec<(&str, Vec<Hierarchy>)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let mut mount = mount.split(' ').skip(2);
        let (Some(device), Some(root), Some(mountpoint), Some(options)) =
            (mount.next(), mount.next(), mount.next(), mount.next())
        else {
            continue;
        };
        // What is mounted later on the same place hides what was there, of whatever kind.
        let place = unescape(mountpoint);
        hierarchies.retain_mut(|(_, mounts)| {
            mounts.retain(|hidden| hidden.mountpoint != place);
            !mounts.is_empty()
        });
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
        // Mounted read-only it is for looking at.
        if options.split(',').any(|o| o == "ro") {
            continue;
        }
        let controllers = match version {
            Version::V1 => super_options
                .split(',')
                .filter(|o| is_controller(o))
                .map(Into::into)
                .collect(),
            Version::V2 => Vec::new(),
        };
        let found = Hierarchy {
            version,
            mountpoint: place,
            root: unescape(root),
            controllers,
        };
        match hierarchies.iter_mut().find(|(seen, _)| *seen == device) {
            None => hierarchies.push((device, vec![found])),
            Some((_, mounts)) => {
                let less = |seen: &Hierarchy| {
                    seen.root != found.root && seen.root.starts_with(&found.root)
                };
                let at = mounts.iter().position(less).unwrap_or(mounts.len());
                mounts.insert(at, found);
            }
        }
    }
    hierarchies
}

/// As the mount table writes it.
fn device_of(found: &libc::stat) -> String {
    let (major, minor) = (libc::major(found.st_dev), libc::minor(found.st_dev));
    format!("{major}:{minor}")
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
pub fn unescape(text: &str) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where nothing hides anything.
    fn all(mountinfo: &str) -> Layout {
        Layout::select(mountinfo, |_, _| true)
    }

    #[test]
    fn version_1_alone() {
        let layout = all(
            "31 23 0:28 / /sys/fs/cgroup ro,relatime - tmpfs tmpfs ro,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset,clone_children\n",
        );
        assert_eq!(layout.kind(), LayoutKind::V1);
        let found = layout.hierarchies.iter().map(Hierarchy::name);
        assert_eq!(found.collect::<Vec<_>>(), ["systemd", "memory", "cpuset"]);
        assert!(layout.hierarchies.iter().all(|h| h.version == Version::V1));
        let cpuset = layout.with_controller("cpuset").expect("cpuset");
        assert_eq!(cpuset.controllers, ["cpuset"]);
    }

    #[test]
    fn of_several_mounts_the_visible_one() {
        let text = "30 23 0:26 / /old/memory rw - cgroup cgroup rw,memory\n\
             31 23 0:40 / /old rw - tmpfs tmpfs rw\n\
             32 23 0:26 /part /part rw - cgroup cgroup rw,memory\n\
             33 23 0:26 / /new/memory rw - cgroup cgroup rw,memory\n\
             34 23 0:27 / /old/pids rw - cgroup cgroup rw,pids\n";
        let mounted = |layout: &Layout| {
            let found = layout.with_controller("memory").cloned();
            found.map(|found| found.mountpoint)
        };
        assert_eq!(mounted(&all(text)), Some("/old/memory".into()));
        let layout = Layout::select(text, |device, hierarchy| {
            assert_eq!(
                device == "0:26",
                hierarchy.controllers == ["memory"],
                "{hierarchy:?}"
            );
            !hierarchy.mountpoint.starts_with("/old")
        });
        assert_eq!(mounted(&layout), Some("/new/memory".into()));
        assert_eq!(layout.hierarchies.len(), 1, "{layout:?}");
        let layout = Layout::select(text, |_, h| h.mountpoint.starts_with("/part"));
        assert_eq!(mounted(&layout), Some("/part".into()));
    }

    #[test]
    fn version_1_with_version_2_beside() {
        let layout = all(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             50 31 0:38 / /other\\040place rw - cgroup2 cgroup2 rw\n\
             51 31 0:39 / /looking ro - cgroup cgroup rw,pids\n\
             52 31 0:40 /part /part rw - cgroup cgroup rw,devices\n\
             53 31 0:40 / /whole rw - cgroup cgroup rw,devices\n\
             54 31 0:41 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
             55 54 0:41 /docker/abc /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n",
        );
        assert_eq!(layout.kind(), LayoutKind::Mixed);
        assert_eq!(layout.hierarchies.len(), 5);
        let mounted = |name| {
            let hierarchy = layout.with_controller(name).expect(name);
            (hierarchy.mountpoint.to_str(), hierarchy.root.to_str())
        };
        assert_eq!(mounted("devices"), (Some("/whole"), Some("/")));
        assert_eq!(
            mounted("blkio"),
            (Some("/sys/fs/cgroup/blkio"), Some("/docker/abc"))
        );
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
        assert_eq!(all(text).kind(), LayoutKind::V2);
        assert_eq!(unescape("/a\\040b\\134"), PathBuf::from("/a b\\"));
    }
}
