//! The cgroup of the runtime's own processes, beside those of the containers.

use super::create::ensure;
use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::group::{Cgroup, PATIENCE};
use super::layout::Layout;
use super::path::{CgroupPath, components};
use super::walk::{remove_empty, split};
use std::path::Path;
use std::time::Instant;

/// Name of the shims' cgroup: no task's, because an id begins with a letter or digit.
pub const SHIMS: &str = ".shims";

/// Makes a cgroup without limits where missing and moves a process into it: for the processes of
/// the runtime itself.
///
/// # Errors
/// The cgroup cannot be made or entered.
pub fn enter(parent: &str, name: &str, pid: i32) -> Result<()> {
    components(parent)?; // the root is no parent here
    let cgroup = Cgroup::of(Layout::detect()?, &CgroupPath::new(parent, name))?;
    // Whoever removes the last task may delete it before the process is in it.
    let mut tries = 3;
    loop {
        tries -= 1;
        ensure(&cgroup)?;
        match cgroup.attach(pid) {
            Err(error @ CgroupError::File { .. }) if tries > 0 && error.is_gone() => {}
            result => return result,
        }
    }
}

/// Removes a parent with the shims' cgroup in it, in every hierarchy, unless it is in use. What
/// else is in it is somebody's who has just made it.
///
/// # Errors
/// It is in use.
pub fn remove_parent(parent: &str) -> Result<()> {
    let layout = Layout::detect()?;
    let path = components(parent)?;
    let (above, name) = split(&path);
    let deadline = Instant::now() + PATIENCE;
    let mut hierarchies = layout.hierarchies.iter();
    hierarchies.try_for_each(|hierarchy| {
        let Some(above) = Dir::mount(hierarchy)?.find(above)? else {
            return Ok(());
        };
        if let Some(parent) = above.find(&name)? {
            remove_empty(&parent, Path::new(SHIMS), deadline)?;
        }
        remove_empty(&above, &name, deadline)
    })
}
