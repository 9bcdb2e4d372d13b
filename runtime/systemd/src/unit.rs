//! Units by `linux.cgroupsPath`.

use crate::error::{Result, SystemdError};
use crate::user;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A unit of systemd and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPath {
    /// `machine.slice`.
    pub slice: String,
    /// `prefix-name.scope`, or a slice.
    pub unit: String,
}

impl UnitPath {
    /// From `slice:prefix:name`: the unit `prefix-name.scope` in that slice, or the unit `name`
    /// when that ends in `.slice`. An empty slice is `system.slice`, of an ordinary user
    /// `user.slice`; an empty prefix leaves only the name. Without a path it is the unit
    /// `fairlead-<id>.scope`.
    ///
    /// # Errors
    /// It has not these three parts, or one of them is no name of a unit.
    pub fn from_spec(path: Option<&str>, id: &str) -> Result<Self> {
        let default = format!(":fairlead:{id}");
        let path = path.filter(|path| !path.is_empty()).unwrap_or(&default);
        let bad = |reason| SystemdError::BadPath {
            path: path.into(),
            reason,
        };
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return Err(bad(
                "it has the form slice:prefix:name, where slice and prefix may be empty",
            ));
        };
        let slice = match *slice {
            "" if user::is_ordinary() => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        expand_slice(slice).map_err(bad)?;
        let unit = if name.ends_with(".slice") {
            expand_slice(name).map_err(bad)?;
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
        if unit.starts_with(['.', '@']) || unit.contains('@') && !is_template_instance(&unit) {
            return Err(bad("no name of a systemd unit"));
        }
        Ok(Self {
            slice: slice.into(),
            unit,
        })
    }

    /// Whether the unit is a slice itself, which holds no process of its own.
    pub fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }

    /// The slices above it, from the manager's own cgroup on.
    pub(crate) fn parents(&self) -> Result<PathBuf> {
        let expand = |slice: &str| {
            expand_slice(slice).map_err(|reason| SystemdError::BadPath {
                path: slice.into(),
                reason,
            })
        };
        if !self.is_slice() {
            return expand(&self.slice);
        }
        // A slice is in the slices that its own name tells, whatever it was to be in.
        let path = expand(&self.unit)?;
        Ok(path.parent().unwrap_or(Path::new("")).to_owned())
    }
}

/// `name@instance.scope`, with something before the `@`.
fn is_template_instance(unit: &str) -> bool {
    let parts = unit.split_once('@');
    parts.is_some_and(|(name, instance)| !name.is_empty() && !instance.starts_with('.'))
}

/// The slices that a slice is in are in its name: `a-b.slice` is `a.slice/a-b.slice`
/// (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf, &'static str> {
    let stem = slice
        .strip_suffix(".slice")
        .ok_or("a slice ends in \".slice\"")?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.\\".contains(c);
    let mut path = PathBuf::new();
    let mut so_far = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.starts_with('.') || !part.chars().all(allowed) {
            return Err("no name of a slice");
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push(format!("{so_far}.slice"));
    }
    if slice.len() > 255 {
        return Err("no name of a slice");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> UnitPath {
        UnitPath::from_spec(Some(path), "id").expect(path)
    }

    #[test]
    fn scopes() {
        let found = unit("machine-a.slice:libpod:abc");
        assert_eq!(found.slice, "machine-a.slice");
        assert_eq!(found.unit, "libpod-abc.scope");
        assert_eq!(
            found.parents().expect("path"),
            Path::new("machine.slice/machine-a.slice")
        );
        assert_eq!(unit("-.slice:p:n").parents().expect("path"), Path::new(""));
        assert_eq!(unit("a.slice::n").unit, "n.scope");
        assert_eq!(unit("a.slice:p:n.1_x").unit, "p-n.1_x.scope");
        assert_eq!(unit("a.slice:p:n@1").unit, "p-n@1.scope");
        assert_eq!(
            unit("a-b-c.slice:p:n").parents().expect("path"),
            Path::new("a.slice/a-b.slice/a-b-c.slice")
        );
    }

    #[test]
    fn slices() {
        let found = unit("system.slice::a-b.slice");
        assert_eq!(found.unit, "a-b.slice");
        assert!(found.is_slice());
        assert_eq!(found.parents().expect("path"), Path::new("a.slice"));
    }

    #[test]
    fn what_is_left_out() {
        let slice = match nix::unistd::geteuid().is_root() {
            true => "system.slice",
            false => "user.slice",
        };
        for path in [None, Some("")] {
            let found = UnitPath::from_spec(path, "web").expect("valid");
            assert_eq!(found.slice, slice);
            assert_eq!(found.unit, "fairlead-web.scope");
        }
        assert_eq!(unit(":docker:1").slice, slice);
    }

    #[test]
    fn refused() {
        let long = format!("a.slice:p:{}", "n".repeat(255));
        for bad in [
            "/a/b",
            "a.slice:b",
            "a:b:c",
            "a.slice:b:",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a-.slice:p:n",
            ".slice:p:n",
            "a.slice:p:n/m",
            "a.slice:p:n m",
            "a.slice:p:n\n",
            "a.slice:p:ä",
            "a.slice:p/q:n",
            "a/b.slice:p:n",
            "../x.slice:p:n",
            "...slice:p:n",
            "a.slice:b:c:d",
            "a.slice::.n",
            "a.slice::@n",
            "a.slice:p:a--b.slice",
            "::",
            &long,
        ] {
            assert!(UnitPath::from_spec(Some(bad), "id").is_err(), "{bad}");
        }
        assert!(UnitPath::from_spec(None, "../x").is_err());
    }
}
