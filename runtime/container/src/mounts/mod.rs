//! The mounts of the specification, each attached by descriptor to a place inside the root.

mod bind;
mod cgroup;
mod filesystem;
mod options;

pub use bind::Sources;
pub use cgroup::{CgroupView, writable as writable_cgroups};
pub use filesystem::Label;
pub use options::{MountOptions, OPTION_NAMES, Recursive, root_propagation};

use crate::error::{Context, Setup, SetupFailure};
use crate::root::{Links, Root};
use crate::sys;
use nix::mount::MsFlags;
use nix::sys::stat::SFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::Mount;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Mounts all of them in order.
pub fn mount_all(
    root: &mut Root,
    mounts: &[Mount],
    mut sources: Sources,
    cgroup: CgroupView<'_>,
    label: Label<'_>,
) -> Setup<()> {
    // A new mount is private unless the one that it is put on is not, and the root is.
    let mut all_private = true;
    // What is changed afterwards is found by its descriptor, as who shares the root file system may
    // have exchanged the directory under it for another.
    let changed = |place: &Path| {
        let mut there = mounts.iter().filter(|entry| entry.destination() == place);
        there.any(|entry| parse(entry).is_ok_and(|options| options.remount))
    };
    let mut kept: Vec<(&Path, OwnedFd)> = Vec::new();
    for (i, entry) in mounts.iter().enumerate() {
        let mut options = parse(entry)?;
        all_private &= options.propagation.is_none() && !options.remount;
        options.born_private = all_private;
        let mount = if options.remount {
            let known = kept
                .iter()
                .rfind(|(place, _)| entry.destination() == *place);
            filesystem::remount(root, entry, &options, known.map(|(_, mount)| mount))?;
            continue;
        } else if options.bind {
            bind::attach(root, entry, &options, sources.take(i))?
        } else if matches!(entry.typ().as_deref(), Some("cgroup" | "cgroup2")) {
            cgroup::mount(root, entry, &options, cgroup)?
        } else {
            filesystem::mount(root, entry, &options, label)?
        };
        if changed(entry.destination()) {
            let mount = mount.try_clone().step("keep", shown(entry))?;
            kept.push((entry.destination(), mount));
        }
        let mut fixed = FIXED.iter().map(Path::new);
        if let Some(place) = fixed.find(|place| entry.destination() == *place) {
            root.fix(place, mount);
        }
    }
    Ok(())
}

fn parse(entry: &Mount) -> Setup<MountOptions> {
    MountOptions::of(entry).map_err(|reason| SetupFailure::because("mount", shown(entry), reason))
}

fn shown(entry: &Mount) -> String {
    let kind = entry.typ().as_deref().unwrap_or("bind");
    format!("{kind} at {}", entry.destination().display())
}

/// Places whose meaning is fixed.
const FIXED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// They may not be redirected by a link in the image.
fn links_at(destination: &Path) -> Links {
    if FIXED.iter().any(|fixed| destination.starts_with(fixed)) {
        Links::Refuse
    } else {
        Links::Follow
    }
}

/// Nor may a link lead there from elsewhere: what lies over procfs could pass for the kernel's
/// answer.
fn not_on_procfs(target: &OwnedFd, entry: &Mount) -> Setup<()> {
    let found = fstatfs(target).step("stat destination of", shown(entry))?;
    if found.filesystem_type() != PROC_SUPER_MAGIC {
        return Ok(());
    }
    let reason = "a symbolic link in the image leads the destination into procfs";
    Err(SetupFailure::because("mount", shown(entry), reason))
}

fn set_attributes(mount: &OwnedFd, entry: &Mount, options: &MountOptions) -> Setup<()> {
    let attributes = [
        (false, options.set, options.clear),
        (true, options.recursive_set, options.recursive_clear),
    ];
    for (recursive, set, clear) in attributes {
        if set | clear != 0 {
            sys::mount_setattr(mount, recursive, set, clear, 0)
                .step("set attributes of", shown(entry))?;
        }
    }
    Ok(())
}

/// Private, with all below it, where nothing is said.
fn propagate(mount: &OwnedFd, entry: &Mount, options: &MountOptions) -> Setup<()> {
    let (kind, recursive) = options
        .propagation
        .unwrap_or((MsFlags::MS_PRIVATE.bits(), Recursive::Yes));
    sys::mount_setattr(mount, recursive == Recursive::Yes, 0, 0, kind)
        .step("set propagation of", shown(entry))
}

/// Whether a descriptor is of a character device with these numbers.
pub fn is_char_device(fd: &OwnedFd, major: u32, minor: u32) -> bool {
    // fstat works on an O_PATH descriptor.
    sys::fstat(fd).is_ok_and(|found| {
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        kind == SFlag::S_IFCHR && found.st_rdev == libc::makedev(major, minor)
    })
}
