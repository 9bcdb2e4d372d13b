//! Where a cgroup is: the rules of `linux.cgroupsPath`.

use super::error::{CgroupError, Result};
use super::layout::{Hierarchy, Layout, Version};
use super::own::OwnCgroups;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The parent of containers whose specification has no `linux.cgroupsPath`. Of an ordinary user it
/// is below the user's own cgroup.
pub const DEFAULT_PARENT: &str = "/fairlead-oci";

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This library, in the file system.
    Cgroupfs,
    /// systemd, as a transient unit.
    Systemd,
}

/// Where a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPath {
    /// The parent, from the root of each hierarchy as it is mounted here: `/fairlead`. May be
    /// shared.
    pub parent: String,
    /// The cgroup's own name.
    pub name: String,
    /// Where `parent` starts, by the name of the hierarchy ([`Hierarchy::name`]); those that are
    /// not in it start at their roots. Filled when the path was relative to the caller's own
    /// cgroup, which in version 1 is another one in each hierarchy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<String, String>,
}

impl CgroupPath {
    /// A path of these two, from the root of each hierarchy.
    pub fn new(parent: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            parent: parent.into(),
            name: name.into(),
            bases: BTreeMap::new(),
        }
    }

    /// The path that `linux.cgroupsPath` stands for, for the container `id`:
    ///
    /// - absolute: from the root of each hierarchy *as it is mounted here*, which in a cgroup
    ///   namespace or a bind mount is not the machine's;
    /// - relative: below the caller's own cgroup; in version 2 beside it, since a cgroup with
    ///   processes has no children with controllers there;
    /// - missing or empty: below [`DEFAULT_PARENT`];
    /// - with [`Driver::Systemd`]: `slice:prefix:name` is the unit `prefix-name.scope` in that
    ///   slice, or the unit `name` when that ends in `.slice`. An empty slice is `system.slice`,
    ///   of an ordinary user `user.slice` below the user's service manager.
    ///
    /// # Errors
    /// The path is not one (`..`, blanks, the root itself, not three parts for systemd), or it is
    /// relative and the caller's own cgroup is not below what is mounted.
    pub fn from_spec(path: Option<&str>, id: &str, driver: Driver) -> Result<Self> {
        let path = path.filter(|path| !path.is_empty());
        if driver == Driver::Systemd {
            return UnitPath::from_spec(path, id)?.cgroup();
        }
        let ordinary_user = !nix::unistd::geteuid().is_root();
        let (given, relative) = match path {
            Some(path) => (components(path)?, !path.starts_with('/')),
            None => (components(DEFAULT_PARENT)?.join(single(id)?), ordinary_user),
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut result = Self::new(
            format!("/{}", given.parent().map(text).unwrap_or_default()),
            given
                .file_name()
                .map(|n| text(n.as_ref()))
                .unwrap_or_default(),
        );
        if relative {
            result.bases = bases(&Layout::detect()?)?;
        }
        Ok(result)
    }

    /// From the root of this hierarchy's mount, without the leading slash.
    pub(super) fn in_hierarchy(&self, hierarchy: &Hierarchy) -> Result<PathBuf> {
        let mut path = PathBuf::new();
        if let Some(base) = self.bases.get(&hierarchy.name()) {
            path.push(clean(base)?);
        }
        path.push(clean(&self.parent)?);
        path.push(single(&self.name)?);
        Ok(path)
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.parent.trim_end_matches('/'), self.name)
    }
}

fn bases(layout: &Layout) -> Result<BTreeMap<String, String>> {
    let own = OwnCgroups::read()?;
    let mut bases = BTreeMap::new();
    for hierarchy in &layout.hierarchies {
        let Some(path) = own.below(hierarchy) else {
            return Err(CgroupError::OwnUnknown(hierarchy.mountpoint.clone()));
        };
        let base = match hierarchy.version {
            Version::V1 => path.as_path(),
            Version::V2 => path.parent().unwrap_or(Path::new("")),
        };
        bases.insert(hierarchy.name(), format!("/{}", base.to_string_lossy()));
    }
    Ok(bases)
}

/// A unit of systemd and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPath {
    /// `machine.slice`.
    pub slice: String,
    /// `prefix-name.scope`, or a slice.
    pub unit: String,
}

impl UnitPath {
    /// From `slice:prefix:name`.
    ///
    /// # Errors
    /// It has not these three parts, or one of them is no name of a unit.
    pub fn from_spec(path: Option<&str>, id: &str) -> Result<Self> {
        let default = format!(":fairlead:{id}");
        let path = path.unwrap_or(&default);
        let bad = |reason| CgroupError::BadPath {
            path: path.into(),
            reason,
        };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return Err(bad("with systemd it has the form slice:prefix:name"));
        };
        let slice = match *slice {
            "" if nix::unistd::geteuid().is_root() => "system.slice",
            "" => "user.slice",
            slice => slice,
        };
        expand_slice(slice)?;
        let unit = if name.ends_with(".slice") {
            expand_slice(name)?;
            (*name).to_string()
        } else if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        // systemd.unit(5): letters, digits, and these; at most 255 bytes.
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.is_empty() || unit.len() > 255 || !unit.chars().all(allowed) {
            return Err(bad("no name of a systemd unit"));
        }
        Ok(Self {
            slice: slice.into(),
            unit,
        })
    }

    /// Where systemd puts the unit.
    ///
    /// # Errors
    /// An ordinary user's service manager is not above the caller.
    pub fn cgroup(&self) -> Result<CgroupPath> {
        // A slice is in the slices that its own name tells, whatever it was to be in.
        let parent = if self.unit.ends_with(".slice") {
            let path = expand_slice(&self.unit)?;
            let above = path.parent().unwrap_or(Path::new(""));
            above.to_owned()
        } else {
            expand_slice(&self.slice)?
        };
        let mut path = CgroupPath::new(format!("/{}", parent.to_string_lossy()), &self.unit);
        if !nix::unistd::geteuid().is_root() {
            let own = OwnCgroups::read()?;
            for hierarchy in &Layout::detect()?.hierarchies {
                if let Some(manager) = own.below(hierarchy).as_deref().and_then(user_manager) {
                    let base = format!("/{}", manager.to_string_lossy());
                    path.bases.insert(hierarchy.name(), base);
                }
            }
        }
        Ok(path)
    }
}

/// The cgroup of the user's service manager, `.../user@1000.service`, when `own` is below it.
fn user_manager(own: &Path) -> Option<PathBuf> {
    let name = format!("user@{}.service", nix::unistd::geteuid());
    own.ancestors()
        .find(|path| path.file_name() == Some(name.as_ref()))
        .map(Path::to_owned)
}

/// The slices that a slice is in are in its name: `a-b.slice` is `a.slice/a-b.slice`
/// (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf> {
    let bad = |reason| CgroupError::BadPath {
        path: slice.into(),
        reason,
    };
    let Some(stem) = slice.strip_suffix(".slice") else {
        return Err(bad("a slice ends in \".slice\""));
    };
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut so_far = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains(['/', ':']) || part.bytes().any(|b| b <= b' ') {
            return Err(bad("no name of a slice"));
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push(format!("{so_far}.slice"));
    }
    Ok(path)
}

/// A path without `..`, `.`, double slashes and the leading one.
fn clean(path: &str) -> Result<PathBuf> {
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
    Ok(clean)
}

/// As [`clean`], and not the root.
pub(super) fn components(path: &str) -> Result<PathBuf> {
    let clean = clean(path)?;
    if clean.as_os_str().is_empty() {
        Err(CgroupError::BadPath {
            path: path.into(),
            reason: "empty, or the root",
        })
    } else {
        Ok(clean)
    }
}

/// One name.
fn single(name: &str) -> Result<PathBuf> {
    let path = components(name)?;
    if path.components().count() != 1 || name.contains('/') {
        return Err(CgroupError::BadPath {
            path: name.into(),
            reason: "not a single name",
        });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(name: &str) -> Hierarchy {
        Hierarchy {
            version: Version::V1,
            mountpoint: Path::new("/sys/fs/cgroup").join(name),
            root: "/".into(),
            controllers: vec![name.into()],
        }
    }

    #[test]
    fn absolute() {
        let path = CgroupPath::from_spec(Some("/a/b//c"), "id", Driver::Cgroupfs).expect("valid");
        assert_eq!(path, CgroupPath::new("/a/b", "c"));
        let at_the_root = CgroupPath::from_spec(Some("/c"), "id", Driver::Cgroupfs).expect("valid");
        assert_eq!(
            at_the_root.in_hierarchy(&hierarchy("pids")).expect("path"),
            Path::new("c")
        );
        for bad in ["/", "/..", "/a/../b", "../a", "/a b/c", "/a\n", "."] {
            assert!(
                CgroupPath::from_spec(Some(bad), "id", Driver::Cgroupfs).is_err(),
                "{bad}"
            );
        }
        assert!(CgroupPath::from_spec(None, "../id", Driver::Cgroupfs).is_err());
    }

    #[test]
    fn bases_differ_by_hierarchy() {
        let mut path = CgroupPath::new("/p", "c");
        path.bases.insert("memory".into(), "/session/1".into());
        let memory = path.in_hierarchy(&hierarchy("memory")).expect("path");
        assert_eq!(memory, Path::new("session/1/p/c"));
        let pids = path.in_hierarchy(&hierarchy("pids")).expect("path");
        assert_eq!(pids, Path::new("p/c"));
        path.bases.insert("memory".into(), "/../x".into());
        assert!(path.in_hierarchy(&hierarchy("memory")).is_err());
    }

    #[test]
    fn units() {
        let unit = UnitPath::from_spec(Some("machine-a.slice:libpod:abc"), "id").expect("valid");
        assert_eq!(
            (unit.slice.as_str(), unit.unit.as_str()),
            ("machine-a.slice", "libpod-abc.scope")
        );
        assert_eq!(
            expand_slice("machine-a.slice").expect("valid"),
            Path::new("machine.slice/machine-a.slice")
        );
        assert_eq!(expand_slice("-.slice").expect("valid"), Path::new(""));
        let slice = UnitPath::from_spec(Some("system.slice::a-b.slice"), "id").expect("valid");
        assert_eq!(slice.unit, "a-b.slice");
        for bad in [
            "/a/b",
            "a.slice:b",
            "a:b:c",
            "a.slice:b:",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a.slice:p:n/m",
            "a.slice:p:n m",
            "../x.slice:p:n",
            "a.slice:b:c:d",
        ] {
            assert!(UnitPath::from_spec(Some(bad), "id").is_err(), "{bad}");
        }
    }
}
