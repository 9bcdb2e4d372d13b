//! Where a cgroup is: the rules of `linux.cgroupsPath`.

use super::error::{CgroupError, Result};
use super::layout::{Hierarchy, Layout, Version};
use super::own::OwnCgroups;
use crate::user;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The parent of containers whose specification has no `linux.cgroupsPath`. Of an ordinary user, also
/// one who is root of a user namespace, it is below the user's own cgroup.
pub const DEFAULT_PARENT: &str = "/fairlead-oci";

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
    /// - missing or empty: below [`DEFAULT_PARENT`].
    ///
    /// # Errors
    /// The path is not one (`..`, blanks, the root itself), or it is relative and the
    /// caller's own cgroup is not below what is mounted.
    pub fn from_spec(path: Option<&str>, id: &str) -> Result<Self> {
        let path = path.filter(|path| !path.is_empty());
        let (given, relative) = match path {
            Some(path) => (components(path)?, !path.starts_with('/')),
            None => (
                components(DEFAULT_PARENT)?.join(single(id)?),
                !user::is_root(),
            ),
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
        let path = CgroupPath::from_spec(Some("/a/b//c"), "id").expect("valid");
        assert_eq!(path, CgroupPath::new("/a/b", "c"));
        let at_the_root = CgroupPath::from_spec(Some("/c"), "id").expect("valid");
        assert_eq!(
            at_the_root.in_hierarchy(&hierarchy("pids")).expect("path"),
            Path::new("c")
        );
        for bad in ["/", "/..", "/a/../b", "../a", "/a b/c", "/a\n", "."] {
            assert!(CgroupPath::from_spec(Some(bad), "id").is_err(), "{bad}");
        }
        assert!(CgroupPath::from_spec(None, "../id").is_err());
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
}
