//! Making a cgroup: its parents, the controllers that it needs, its own directories.

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::freezer;
use super::group::{Cgroup, Place};
use super::layout::{Layout, Version};
use super::own::OwnCgroups;
use super::path::{CgroupPath, components};
use super::resources::{self, Needs};
use super::walk::{collect_procs, split};
use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;
use std::path::Path;

/// What becomes of a cgroup that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refused: for who makes all cgroups below a parent and never one twice.
    Refuse,
    /// Used when it has no process and is not frozen, otherwise refused: for clients that make
    /// the cgroup before they call the runtime. Limits that it has and that are not given stay.
    UseEmpty,
    /// Used with the process that holds it, and made where it is missing: for callers that have
    /// systemd make it.
    Managed,
}

/// The controllers that are handed down in version 2, asked for or not, so that what is used can
/// be counted and limits can be set later. Memory first: it is the one that refuses a cgroup with
/// processes before anything about that cgroup is changed.
const MANAGED: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

/// Handed down as well, as runc does, where nothing is in the way: else what they count is 0.
const COUNTED: [&str; 3] = ["io", "hugetlb", "rdma"];

impl Cgroup {
    /// Makes the cgroup, its parents where missing, and sets the limits.
    ///
    /// # Errors
    /// It exists already, a limit is refused, or a file could not be written; then nothing of it
    /// is left (parents stay, others may be using them; see [`super::remove_parent`]).
    pub fn create(parent: &str, name: &str, resources: &LinuxResources) -> Result<Self> {
        components(parent)?; // the root is no parent here
        Self::create_at(&CgroupPath::new(parent, name), resources, Existing::Refuse)
    }

    /// As [`Cgroup::create`], at any path.
    ///
    /// # Errors
    /// As there; and the path is that of a cgroup that the caller itself is in, at any height
    /// ([`CgroupError::OwnAncestor`]).
    pub fn create_at(
        path: &CgroupPath,
        resources: &LinuxResources,
        existing: Existing,
    ) -> Result<Self> {
        let (layout, needs) = prepare(resources)?;
        Self::of(layout, path)?.make(resources, &needs, existing, false)
    }

    /// As [`Cgroup::create_at`], for a caller who may have no right to any cgroup, as an ordinary
    /// user without delegation. Hierarchies that cannot be written and of which nothing is asked
    /// are left out; `None` when none is left.
    ///
    /// Rules for devices are no limit in this sense: loading the filter needs privileges that
    /// such a caller lacks, and without them it can make no device either.
    ///
    /// # Errors
    /// A limit is asked for that needs a right which is missing; else as [`Cgroup::create_at`].
    pub fn create_best_effort(
        path: &CgroupPath,
        resources: &LinuxResources,
        existing: Existing,
    ) -> Result<Option<Self>> {
        let (layout, needs) = match prepare(resources) {
            Err(CgroupError::NoHierarchy) if Needs::of(resources).is_empty() => return Ok(None),
            prepared => prepared?,
        };
        let cgroup = Self::of(layout, path)?.make(resources, &needs, existing, true)?;
        Ok(Some(cgroup).filter(|cgroup| !cgroup.places.is_empty()))
    }

    fn make(
        mut self,
        resources: &LinuxResources,
        needs: &Needs,
        existing: Existing,
        best_effort: bool,
    ) -> Result<Self> {
        refuse_own(&self)?;
        let mut places = Vec::new();
        let mut made: Vec<Place> = Vec::new();
        // Only what was made here: a cgroup that was there before is somebody's.
        let undo = |made: &[Place]| {
            for place in made {
                let (parent, name) = split(&place.path);
                let parent = Dir::mount(&place.hierarchy).and_then(|mount| mount.open(parent));
                let _ = parent.map(|parent| parent.remove(&name));
            }
        };
        for place in self.places {
            match make_place(&place, needs, existing, best_effort) {
                Ok(true) => {
                    made.push(place.clone());
                    places.push(place);
                }
                Ok(false) => places.push(place),
                Err(error) if best_effort && error.is_denied() && !wanted(&place, needs) => {}
                Err(error) => {
                    undo(&made);
                    return Err(error);
                }
            }
        }
        self.places = places;
        let devices = resources.devices().iter().flatten().next().is_some();
        let applied = match resources::apply(&self, resources) {
            Err(CgroupError::DeviceFilter {
                errno: Errno::EPERM,
                ..
            }) if best_effort && devices => Ok(()),
            applied => applied,
        };
        if let Err(error) = applied {
            undo(&made);
            return Err(error);
        }
        Ok(self)
    }
}

fn prepare(resources: &LinuxResources) -> Result<(Layout, Needs)> {
    let layout = Layout::detect()?;
    let needs = resources::check(&layout, resources)?;
    Ok((layout, needs))
}

/// Whether a limit is asked for that this hierarchy applies.
fn wanted(place: &Place, needs: &Needs) -> bool {
    let mut controllers = place.hierarchy.controllers.iter();
    controllers.any(|controller| needs.field(controller).is_some())
}

/// A container that could be given the runtime's own cgroup, or one above it, would limit, freeze
/// and kill more than itself.
fn refuse_own(cgroup: &Cgroup) -> Result<()> {
    let own = OwnCgroups::read()?;
    for place in &cgroup.places {
        let own = own.below(&place.hierarchy);
        if own.is_some_and(|own| own.starts_with(&place.path)) {
            return Err(CgroupError::OwnAncestor(place.full_path()));
        }
    }
    Ok(())
}

/// Makes it in one hierarchy; false when it was there and may be used.
fn make_place(place: &Place, needs: &Needs, existing: Existing, best_effort: bool) -> Result<bool> {
    // A parent that another deletes at this moment is made again.
    let mut tries = 3;
    loop {
        tries -= 1;
        let made = make_parents(place, needs, best_effort).and_then(|parent| {
            let (_, name) = split(&place.path);
            let made = parent.make(&name)?;
            let opened = parent.open(&name).and_then(|dir| {
                // Also when it was there: whoever made it may not have come to this yet.
                prepare_cpuset(place, &parent, &dir)?;
                Ok(dir)
            });
            if made && opened.is_err() {
                let _ = parent.remove(&name); // the error that led here is the one to report
            }
            Ok((made, opened?))
        });
        match made {
            Ok((true, _)) => return Ok(true),
            Ok((false, _)) if existing == Existing::Refuse => {
                return Err(CgroupError::Exists(place.full_path()));
            }
            Ok((false, _)) if existing == Existing::Managed => return Ok(false),
            Ok((false, dir)) => return usable(place, &dir).map(|()| false),
            Err(error) if error.is_gone() && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

fn usable(place: &Place, dir: &Dir) -> Result<()> {
    let mut pids = Vec::new();
    collect_procs(dir, &mut pids)?;
    if !pids.is_empty() {
        let path = place.full_path();
        return Err(CgroupError::InUse { path, pids });
    }
    if freezer::is_frozen(dir)? {
        return Err(CgroupError::Frozen(place.full_path()));
    }
    Ok(())
}

/// Makes the cgroup without limits where it is missing, whatever is in it.
pub(super) fn ensure(cgroup: &Cgroup) -> Result<()> {
    for place in &cgroup.places {
        match make_place(place, &Needs::default(), Existing::Refuse, false) {
            Ok(_) | Err(CgroupError::Exists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The parents, with what their children need: CPUs and memory nodes (version 1), the controllers
/// (version 2). Returns the last.
fn make_parents(place: &Place, needs: &Needs, best_effort: bool) -> Result<Dir> {
    let (parents, _) = split(&place.path);
    let mut dir = Dir::mount(&place.hierarchy)?;
    enable_controllers(place, &dir, needs, best_effort)?;
    for component in parents.components() {
        let name = Path::new(component.as_os_str());
        // Looked for first: above a delegated cgroup nothing may be made.
        let child = match dir.find(name)? {
            Some(child) => child,
            None => {
                dir.make(name)?;
                dir.open(name)?
            }
        };
        prepare_cpuset(place, &dir, &child)?;
        enable_controllers(place, &child, needs, best_effort)?;
        dir = child;
    }
    Ok(dir)
}

/// Hands the controllers of new limits down to a version 2 cgroup that is there already.
pub(super) fn hand_down(place: &Place, needs: &Needs, best_effort: bool) -> Result<()> {
    make_parents(place, needs, best_effort).map(drop)
}

/// A new cpuset of version 1 has no CPU and no memory node and takes no process; it gets those
/// of its parent.
fn prepare_cpuset(place: &Place, parent: &Dir, dir: &Dir) -> Result<()> {
    let hierarchy = &place.hierarchy;
    if hierarchy.version != Version::V1 || !hierarchy.controllers.iter().any(|c| c == "cpuset") {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.read(file)?.trim().is_empty() {
            dir.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

/// Hands the managed controllers and those that are needed down to the children of `dir`
/// (version 2).
fn enable_controllers(place: &Place, dir: &Dir, needs: &Needs, best_effort: bool) -> Result<()> {
    if place.hierarchy.version != Version::V2 {
        return Ok(());
    }
    let file = "cgroup.subtree_control";
    let available = dir.read("cgroup.controllers")?;
    let enabled = dir.read(file)?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    let known = || MANAGED.into_iter().chain(COUNTED);
    let needed = needs.controllers().filter(|c| known().all(|k| k != *c));
    // In a mixed layout the others are in version 1.
    let here = |c: &&str| place.hierarchy.controllers.iter().any(|known| known == c);
    for controller in known().chain(needed).filter(here) {
        if has(&enabled, controller) {
            continue;
        }
        let error = if has(&available, controller) {
            match dir.write(file, &format!("+{controller}")) {
                Ok(()) => continue,
                Err(error) => error,
            }
        } else if needs.field(controller).is_some() {
            super::dir::file_error("write", &dir.path().join(file), None, Errno::ENOENT)
        } else {
            continue;
        };
        let asked = needs.field(controller);
        if asked.is_none() && COUNTED.contains(&controller) {
            continue;
        }
        match (error.errno(), asked) {
            // The second is the answer once a controller that threads may share was enabled.
            (Some(Errno::EBUSY | Errno::EOPNOTSUPP), _) if asked.is_some() || !best_effort => {
                return Err(CgroupError::InternalProcesses {
                    controller: controller.into(),
                    path: dir.path().into(),
                });
            }
            (Some(errno), Some(field)) => {
                return Err(CgroupError::NotDelegated {
                    field: field.into(),
                    controller: controller.into(),
                    path: dir.path().into(),
                    source: errno.into(),
                });
            }
            // The cpu controller is refused where real-time threads run.
            (Some(Errno::EINVAL), None) => {}
            (_, None) if best_effort || error.is_denied() => {}
            _ => return Err(error),
        }
    }
    Ok(())
}
