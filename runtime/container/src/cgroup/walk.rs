//! Going through a cgroup and all below it. Whoever is in a container may nest cgroups as deeply
//! as the kernel allows, so neither the stack nor the number of open files grows with the depth.

use super::dir::{Dir, file_error};
use super::error::Result;
use nix::errno::Errno;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Calls `visit` for `top` and everything below it, from above. What is removed meanwhile is left
/// out.
pub fn walk(top: &Dir, mut visit: impl FnMut(&Dir) -> Result<()>) -> Result<()> {
    visit(top)?;
    let children = top.children()?;
    if children.is_empty() {
        return Ok(());
    }
    let mut here = top.open(Path::new(""))?;
    // For each level the children that are still to be seen.
    let mut levels = vec![children];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.pop() else {
            levels.pop();
            if !levels.is_empty() {
                here = here.up()?;
            }
            continue;
        };
        let Some(child) = here.find(&name)? else {
            continue;
        };
        visit(&child)?;
        levels.push(match child.children() {
            Ok(names) => names,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error),
        });
        here = child;
    }
    Ok(())
}

/// Removes the child `name` of `parent` with everything below it, from below.
pub fn remove_tree(parent: &Dir, name: &Path, deadline: Instant) -> Result<()> {
    // As a rule nothing is below it, and nothing in it.
    if let Ok(()) | Err(Errno::ENOENT) = parent.remove(name) {
        return Ok(());
    }
    let Some(mut here) = parent.find(name)? else {
        return Ok(());
    };
    let mut names = vec![name.to_owned()];
    let mut pause = Pause::default();
    loop {
        match here.children() {
            Ok(mut children) => {
                if let Some(name) = children.pop() {
                    if let Some(child) = here.find(&name)? {
                        here = child;
                        names.push(name);
                    }
                    continue;
                }
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
        let Some(name) = names.pop() else {
            return Ok(());
        };
        let up = if names.is_empty() {
            parent.open(Path::new(""))?
        } else {
            here.up()?
        };
        match up.remove(&name) {
            Ok(()) | Err(Errno::ENOENT) if names.is_empty() => return Ok(()),
            Ok(()) | Err(Errno::ENOENT) => here = up,
            // Busy for a moment after its last process has ended, or it has a new child.
            Err(Errno::EBUSY) if pause.sleep(deadline) => names.push(name),
            Err(errno) => return Err(file_error("remove", &up.path().join(&name), None, errno)),
        }
    }
}

/// Removes the child `name` of `parent` only when nothing is below it.
pub fn remove_empty(parent: &Dir, name: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Pause::default();
    loop {
        match parent.remove(name) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if pause.sleep(deadline) => {}
            Err(errno) => return Err(file_error("remove", &parent.path().join(name), None, errno)),
        }
    }
}

/// Longer and longer pauses, from 1 to 100 ms.
#[derive(Default)]
pub struct Pause(Option<Duration>);

impl Pause {
    /// False, and no pause, when the deadline has passed.
    pub fn sleep(&mut self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let pause = self.0.unwrap_or(Duration::from_millis(1));
        sleep(pause);
        self.0 = Some((pause * 2).min(Duration::from_millis(100)));
        true
    }
}

/// The processes in `top` and below it, as far as their numbers can be read.
pub fn collect_procs(top: &Dir, pids: &mut Vec<i32>) -> Result<()> {
    walk(top, |dir| {
        // A threaded cgroup lists its processes in an ancestor, which is in the walk as well.
        let list = dir.read_if("cgroup.procs")?.unwrap_or_default();
        pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
        Ok(())
    })
}

/// Parent and last name of a path.
pub fn split(path: &Path) -> (&Path, PathBuf) {
    let parent = path.parent().unwrap_or(Path::new(""));
    (parent, path.file_name().unwrap_or_default().into())
}
