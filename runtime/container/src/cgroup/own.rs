//! The cgroups that a process is in, as a rule the calling one.

use super::dir::file_error;
use super::error::Result;
use super::layout::{Hierarchy, Version};
use crate::sys;
use std::path::{Component, Path, PathBuf};

/// What `/proc/<pid>/cgroup` says (cgroups(7)).
pub(super) struct OwnCgroups(Vec<(Vec<String>, PathBuf)>);

impl OwnCgroups {
    pub fn read() -> Result<Self> {
        Self::read_at(Path::new("/proc/self/cgroup"))
    }

    /// Those of another process.
    pub fn of(pid: i32) -> Result<Self> {
        Self::read_at(Path::new(&format!("/proc/{pid}/cgroup")))
    }

    fn read_at(path: &Path) -> Result<Self> {
        match sys::read_file(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(errno) => Err(file_error("read", path, None, errno)),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let controllers = controllers.split(',').filter(|c| !c.is_empty());
            Some((controllers.map(Into::into).collect(), path.into()))
        });
        Self(lines.collect())
    }

    /// Its path from the root of this hierarchy's mount, without the leading slash; `None` when
    /// it is not below that.
    pub fn below(&self, hierarchy: &Hierarchy) -> Option<PathBuf> {
        let mut lines = self.0.iter();
        let (_, path) = lines.find(|(controllers, _)| match hierarchy.version {
            Version::V1 => controllers
                .iter()
                .any(|c| hierarchy.controllers.contains(c)),
            Version::V2 => controllers.is_empty(),
        })?;
        let below = path.strip_prefix(&hierarchy.root).ok()?;
        // Above the root of the namespace, or removed.
        let usable = |c: Component<'_>| matches!(c, Component::Normal(_));
        let gone = below.to_string_lossy().ends_with(" (deleted)");
        (below.components().all(usable) && !gone).then(|| below.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_mount() {
        let own = OwnCgroups::parse(
            "4:memory:/docker/abc/x\n3:cpu,cpuacct:/../y\n1:name=systemd:/s (deleted)\n0::/u\n",
        );
        let hierarchy = |controllers: &[&str], root: &str| Hierarchy {
            version: if controllers.is_empty() {
                Version::V2
            } else {
                Version::V1
            },
            mountpoint: "/m".into(),
            root: root.into(),
            controllers: controllers.iter().map(|c| (*c).into()).collect(),
        };
        let below = |controllers: &[&str], root| own.below(&hierarchy(controllers, root));
        assert_eq!(below(&["memory"], "/docker/abc"), Some("x".into()));
        assert_eq!(below(&["memory"], "/"), Some("docker/abc/x".into()));
        assert_eq!(below(&["memory"], "/docker/other"), None);
        assert_eq!(below(&["cpu"], "/"), None);
        assert_eq!(below(&["name=systemd"], "/"), None);
        assert_eq!(below(&["pids"], "/"), None);
        assert_eq!(below(&[], "/"), Some("u".into()));
        assert_eq!(below(&[], "/u"), Some("".into()));
    }
}
