//! Paths in a hierarchy, and the directories and files behind them.

use super::error::{CgroupError, Result};
use super::layout::{self, Hierarchy};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn components(path: &str) -> Result<PathBuf> {
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

pub(super) fn relative(parent: &str, name: &str) -> Result<PathBuf> {
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
pub(super) fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
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

pub(super) fn collect_procs(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
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

pub(super) fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
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

pub(super) fn file_error(
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

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    // Never creates: a file that is missing is a controller that is missing.
    let open = fs::OpenOptions::new().write(true).open(path);
    open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| file_error("write", path, Some(value), error))
}

pub(super) fn read(path: &Path) -> Result<String> {
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
