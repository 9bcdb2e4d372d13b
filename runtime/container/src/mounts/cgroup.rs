//! `/sys/fs/cgroup`: what the container may see of its own control group.

use super::filesystem::{New, new_file_system, set_recursive};
use super::{MountOptions, propagate, set_attributes, shown};
use crate::cgroup::Cgroup;
use crate::error::{Context, Setup, SetupFailure};
use crate::root::{Links, Root, beneath};
use crate::sys::{self, attr};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use oci_spec::runtime::Mount;
use std::os::fd::OwnedFd;

/// What the container may see.
#[derive(Clone, Copy)]
pub struct CgroupView<'a> {
    /// The container's own cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// Whether a cgroup namespace makes that the root.
    pub own_namespace: bool,
}

/// Whether the container may write in its cgroups.
pub fn writable(mounts: &[Mount]) -> bool {
    let mut cgroups = mounts.iter().filter_map(|entry| {
        let options = MountOptions::of(entry).ok()?;
        let kind = entry.typ().as_deref();
        (matches!(kind, Some("cgroup" | "cgroup2")) && !options.bind).then_some(options)
    });
    let last = cgroups.next_back();
    last.is_some_and(|options| (options.set | options.recursive_set) & attr::RDONLY == 0)
}

/// Mounts it, and returns the mount.
pub fn mount(
    root: &Root,
    entry: &Mount,
    options: &MountOptions,
    view: CgroupView<'_>,
) -> Setup<OwnedFd> {
    let what = shown(entry);
    let target = root.make_dir(entry.destination(), Links::Refuse)?;
    let v1 = view.cgroup.map(Cgroup::v1_directories).unwrap_or_default();
    if v1.is_empty() {
        let mount = version_2(entry, options, view, &what)?;
        sys::move_mount(&mount, &target).step("mount", &what)?;
        if !options.born_private {
            propagate(&mount, entry, options)?;
        }
        return Ok(mount);
    }
    // Version 1 has a tree per controller: a small tmpfs holds a directory for each.
    let data = [
        ("mode".into(), Some("755".into())),
        ("size".into(), Some("64k".into())),
    ];
    let set = options.set & !attr::RDONLY;
    let tmpfs = new("tmpfs", &data, set, &what)?;
    sys::move_mount(&tmpfs, &target).step("mount", &what)?;
    for (name, directory) in v1 {
        let tree = sys::clone_tree(&directory, false).step("open", directory.display())?;
        set_attributes(&tree, entry, options)?;
        mkdirat(&tmpfs, name.as_str(), Mode::from_bits_truncate(0o755))
            .step("create directory", format!("{name} of {what}"))?;
        let place = beneath(&tmpfs, name.as_ref(), OFlag::O_PATH)
            .step("open directory", format!("{name} of {what}"))?;
        sys::move_mount(&tree, &place).step("mount", directory.display())?;
        // "cpu,cpuacct" is also known by each of its names.
        for alias in name.split(',').filter(|alias| *alias != name) {
            nix::unistd::symlinkat(name.as_str(), &tmpfs, alias)
                .step("link", format!("{alias} of {what}"))?;
        }
    }
    set_attributes(&tmpfs, entry, options)?;
    propagate(&tmpfs, entry, options)?;
    Ok(tmpfs)
}

fn version_2(
    entry: &Mount,
    options: &MountOptions,
    view: CgroupView<'_>,
    what: &str,
) -> Setup<OwnedFd> {
    if view.own_namespace {
        let mount = new("cgroup2", &[], options.set, what)?;
        set_recursive(&mount, entry, options)?;
        return Ok(mount);
    }
    // Without a namespace, a new mount would show all of the machine, and change the options of
    // the machine's own.
    let Some(directory) = view.cgroup.and_then(Cgroup::v2_directory) else {
        let reason = "it needs a cgroup or a cgroup namespace of the container's own";
        return Err(SetupFailure::because("mount", what, reason));
    };
    let tree = sys::clone_tree(&directory, false).step("open", directory.display())?;
    set_attributes(&tree, entry, options)?;
    propagate(&tree, entry, options)?;
    Ok(tree)
}

fn new(
    fs_type: &str,
    data: &[(String, Option<String>)],
    attributes: u64,
    what: &str,
) -> Setup<OwnedFd> {
    new_file_system(fs_type, data, Some("cgroup"), attributes).map_err(|error| match error {
        New::Failed(failure) => failure.of(what),
        New::TooLong => SetupFailure::because("mount", what, "an option is too long"),
    })
}
