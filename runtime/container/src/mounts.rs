//! The mounts of the specification, each attached by descriptor to a place inside the root.

use crate::cgroup::Cgroup;
use crate::error::{Context, Setup, SetupFailure};
use crate::mountopt::MountOptions;
use crate::root::{Links, Root};
use crate::sys::{self, FsContext, attr};
use nix::sys::stat::{Mode, SFlag, fstat};
use oci_spec::runtime::Mount;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What the container may see at `/sys/fs/cgroup`.
#[derive(Clone, Copy)]
pub struct CgroupView<'a> {
    /// The container's own cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// Whether a cgroup namespace makes that the root.
    pub own_namespace: bool,
}

/// Mounts all of them in order.
pub fn mount_all(root: &Root, mounts: &[Mount], cgroup: CgroupView<'_>) -> Setup<()> {
    for entry in mounts {
        let options = MountOptions::parse(entry.options().as_deref().unwrap_or_default())
            .map_err(|reason| SetupFailure::because("mount", shown(entry), reason))?;
        if is_bind(entry, &options) {
            bind(root, entry, &options)?;
        } else if matches!(entry.typ().as_deref(), Some("cgroup" | "cgroup2")) {
            cgroups(root, entry, &options, cgroup)?;
        } else {
            file_system(root, entry, &options)?;
        }
    }
    Ok(())
}

/// Whether an entry is a bind mount: by its type or by its options.
pub fn is_bind(entry: &Mount, options: &MountOptions) -> bool {
    options.bind || entry.typ().as_deref() == Some("bind")
}

fn shown(entry: &Mount) -> String {
    let kind = entry.typ().as_deref().unwrap_or("bind");
    format!("{kind} at {}", entry.destination().display())
}

/// Places whose meaning is fixed may not be redirected by a link in the image.
fn links_at(destination: &Path) -> Links {
    let fixed = ["/proc", "/sys", "/dev"];
    if fixed.iter().any(|fixed| destination.starts_with(fixed)) {
        Links::Refuse
    } else {
        Links::Follow
    }
}

fn bind(root: &Root, entry: &Mount, options: &MountOptions) -> Setup<()> {
    let Some(source) = entry.source() else {
        return Err(SetupFailure::because(
            "mount",
            shown(entry),
            "a bind mount needs a source",
        ));
    };
    let tree = sys::clone_tree(source, options.recursive)
        .step("open source of bind mount", source.display())?;
    // What was opened decides, not a second look at the path.
    let kind = fstat(&tree).step("stat", source.display())?.st_mode;
    let links = links_at(entry.destination());
    let target = if SFlag::from_bits_truncate(kind & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
        root.make_dir(entry.destination(), links)?
    } else {
        root.make_file(entry.destination(), links)?
    };
    set_attributes(&tree, entry, options)?;
    sys::move_mount(&tree, &target).step("mount", shown(entry))?;
    propagate(&tree, entry, options)
}

fn set_attributes(mount: &OwnedFd, entry: &Mount, options: &MountOptions) -> Setup<()> {
    if options.set | options.clear != 0 {
        sys::mount_setattr(mount, false, options.set, options.clear, 0)
            .step("set attributes of", shown(entry))?;
    }
    if options.recursive_set != 0 {
        sys::mount_setattr(mount, true, options.recursive_set, 0, 0)
            .step("set attributes of", shown(entry))?;
    }
    Ok(())
}

fn propagate(mount: &OwnedFd, entry: &Mount, options: &MountOptions) -> Setup<()> {
    use nix::mount::MsFlags;
    let (kind, recursive) = options
        .propagation
        .unwrap_or((MsFlags::MS_PRIVATE.bits(), true));
    sys::mount_setattr(mount, recursive, 0, 0, kind).step("set propagation of", shown(entry))
}

/// A detached mount of a new file system.
fn new_file_system(
    fs_type: &str,
    data: &[(String, Option<String>)],
    source: Option<&str>,
    attributes: u64,
    what: &str,
) -> Setup<OwnedFd> {
    let context = FsContext::open(fs_type).step("open file system", fs_type)?;
    if let Some(source) = source {
        context.set("source", source).step("set source of", what)?;
    }
    for (key, value) in data {
        let result = match value {
            Some(value) => context.set(key, value),
            None => context.flag(key),
        };
        result.step("set option", format!("{key} of {what}"))?;
    }
    context.mount(attributes).step("mount", what)
}

fn file_system(root: &Root, entry: &Mount, options: &MountOptions) -> Setup<()> {
    let Some(fs_type) = entry.typ() else {
        return Err(SetupFailure::because(
            "mount",
            shown(entry),
            "no type given",
        ));
    };
    let what = shown(entry);
    let source = entry.source().as_ref().and_then(|s| s.to_str());
    let mount = new_file_system(fs_type, &options.data, source, options.set, &what)?;
    let links = match fs_type.as_str() {
        "tmpfs" => links_at(entry.destination()),
        _ => Links::Refuse,
    };
    let target = root.make_dir(entry.destination(), links)?;
    sys::move_mount(&mount, &target).step("mount", &what)?;
    propagate(&mount, entry, options)
}

/// `/sys/fs/cgroup`: what the container may see of its own control group.
fn cgroups(root: &Root, entry: &Mount, options: &MountOptions, view: CgroupView<'_>) -> Setup<()> {
    let what = shown(entry);
    let target = root.make_dir(entry.destination(), Links::Refuse)?;
    let v1 = view.cgroup.map(Cgroup::v1_directories).unwrap_or_default();
    if v1.is_empty() {
        let mount = match view.cgroup.and_then(Cgroup::v2_directory) {
            // Without a namespace, a new mount would show all of the machine, and change the
            // options of the machine's own.
            Some(directory) if !view.own_namespace => {
                let tree = sys::clone_tree(&directory, false).step("open", directory.display())?;
                set_attributes(&tree, entry, options)?;
                tree
            }
            None if !view.own_namespace => {
                let reason = "it needs a cgroup or a cgroup namespace of the container's own";
                return Err(SetupFailure::because("mount", what, reason));
            }
            _ => new_file_system("cgroup2", &[], Some("cgroup"), options.set, &what)?,
        };
        return sys::move_mount(&mount, &target).step("mount", &what);
    }
    // Version 1 has a tree per controller: a small tmpfs holds a directory for each.
    let data = [
        ("mode".into(), Some("755".into())),
        ("size".into(), Some("64k".into())),
    ];
    let set = options.set & !attr::RDONLY;
    let tmpfs = new_file_system("tmpfs", &data, Some("cgroup"), set, &what)?;
    sys::move_mount(&tmpfs, &target).step("mount", &what)?;
    for (name, directory) in v1 {
        let tree = sys::clone_tree(&directory, false).step("open", directory.display())?;
        sys::mount_setattr(&tree, false, options.set, 0, 0)
            .step("set attributes of", directory.display())?;
        nix::sys::stat::mkdirat(&tmpfs, name.as_str(), Mode::from_bits_truncate(0o755))
            .step("create directory", format!("{name} of {what}"))?;
        let place = crate::root::beneath(&tmpfs, name.as_ref(), nix::fcntl::OFlag::O_PATH)
            .step("open directory", format!("{name} of {what}"))?;
        sys::move_mount(&tree, &place).step("mount", directory.display())?;
        // "cpu,cpuacct" is also known by each of its names.
        for alias in name.split(',').filter(|alias| *alias != name) {
            nix::unistd::symlinkat(name.as_str(), &tmpfs, alias)
                .step("link", format!("{alias} of {what}"))?;
        }
    }
    sys::mount_setattr(&tmpfs, false, options.set, 0, 0).step("set attributes of", what)
}

/// Whether `path` of the host is a character device with these numbers, as opened.
pub fn is_char_device(fd: &OwnedFd, major: u32, minor: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(copy) = fd.try_clone() else {
        return false;
    };
    // fstat works on an O_PATH descriptor.
    std::fs::File::from(copy).metadata().is_ok_and(|data| {
        data.file_type().is_char_device() && data.rdev() == libc::makedev(major, minor)
    })
}
