//! Names of entries, as paths below a layer's root.

use std::{ffi::OsStr, ops::Range, os::unix::ffi::OsStrExt};

use crate::LayerError;

/// Linux, `limits.h`: NAME_MAX and PATH_MAX, in bytes.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// A path below the root of a layer: no leading slash, no empty, `.` or `..` component. The root
/// itself has no components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Takes over a name from an archive.
    ///
    /// One that begins with slashes is meant from the layer's root: kaniko and Nix write such names.
    /// `..` is refused rather than bent into shape: no image builder writes it, and whoever does
    /// wants it to mean something else to somebody.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, LayerError> {
        let refuse = |reason| LayerError::Name {
            entry: display(name),
            reason,
        };
        if name.is_empty() {
            return Err(refuse("the name is empty"));
        }
        if name.contains(&0) {
            return Err(refuse("the name contains a NUL"));
        }
        if name.len() >= PATH_MAX {
            return Err(refuse("the name is longer than a path can be (4095 bytes)"));
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(refuse("the name climbs with `..`")),
                long if long.len() > NAME_MAX => {
                    return Err(refuse("a component is longer than 255 bytes"));
                }
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        Ok(Self(path))
    }

    /// The paths below this one, in their order.
    pub(crate) fn below(&self) -> Range<Self> {
        // In ASCII, `0` comes behind `/`.
        let with = |end: u8| Self([&self.0[..], &[end]].concat());
        with(b'/')..with(b'/' + 1)
    }

    /// The directory, and the name in it; `None` for the root.
    pub(crate) fn split(&self) -> Option<(EntryPath, &OsStr)> {
        if self.0.is_empty() {
            return None;
        }
        let at = self.0.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match at {
            None => (&[][..], &self.0[..]),
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
        };
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// This path and a name below it.
    pub(crate) fn join(&self, name: &OsStr) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Self(path)
    }

    pub(crate) fn components(&self) -> impl Iterator<Item = &OsStr> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|c| !c.is_empty())
            .map(OsStr::from_bytes)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// For system calls: `.` is the root.
    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(if self.0.is_empty() { b"." } else { &self.0 })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A name for messages: whatever a stranger put into it, one line, and not too long.
pub(crate) fn display(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let mut text: String = String::from_utf8_lossy(&name[..name.len().min(SHOWN)])
        .chars()
        .flat_map(char::escape_debug)
        .collect();
    if name.len() > SHOWN {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        for (name, path) in [
            ("a", "a"),
            ("./a//b/.", "a/b"),
            ("./", ""),
            (".", ""),
            ("a/", "a"),
            (".wh.x", ".wh.x"),
        ] {
            assert_eq!(
                EntryPath::parse(name.as_bytes()).expect(name).0,
                path.as_bytes()
            );
        }
    }

    #[test]
    fn refuses_what_leaves_the_root() {
        let long = format!("a/{}", "x".repeat(256));
        let deep = "a/".repeat(2100);
        for name in [
            "", "..", "/..", "/../etc", "a/../..", "a/..", "a\0b", &long, &deep,
        ] {
            let error = EntryPath::parse(name.as_bytes()).expect_err(name);
            assert!(matches!(error, LayerError::Name { .. }), "{error}");
        }
    }

    #[test]
    fn splits_and_joins() {
        let path = EntryPath::parse(b"a/b/c").expect("a proper path");
        let (parent, name) = path.split().expect("not the root");
        assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], OsStr::new("c")));
        assert_eq!(parent.join(name), path);
        assert!(EntryPath::default().split().is_none());
    }
}
