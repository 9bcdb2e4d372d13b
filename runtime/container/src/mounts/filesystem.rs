//! Mounts of new file systems.

use super::options::MountOptions;
use super::{links_at, not_on_procfs, propagate, set_attributes, shown};
use crate::copy;
use crate::error::{Context, Setup, SetupFailure};
use crate::root::{Links, Root};
use crate::sys::{self, FsContext, attr};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};
use oci_spec::runtime::Mount;
use std::os::fd::{AsRawFd, OwnedFd};

/// File systems of the kernel's own, which are there before they are mounted: they take no label.
const SHARED: [&str; 3] = ["proc", "sysfs", "mqueue"];

/// The label of what is mounted.
#[derive(Clone, Copy)]
pub struct Label<'a> {
    /// The SELinux context of new file systems, `linux.mountLabel`; empty is none.
    pub context: &'a str,
    /// Whether the message queues are the container's own.
    pub own_queues: bool,
}

/// Mounts a new file system at the destination, and returns it.
pub fn mount(
    root: &Root,
    entry: &Mount,
    options: &MountOptions,
    label: Label<'_>,
) -> Setup<OwnedFd> {
    let what = shown(entry);
    let Some(fs_type) = entry.typ() else {
        return Err(SetupFailure::because("mount", what, "no type given"));
    };
    let source = entry.source().as_ref().and_then(|s| s.to_str());
    let mut data = options.data.clone();
    if options.set & attr::RDONLY != 0 && source.is_some_and(|s| s.starts_with('/')) {
        // A device that others may write to meanwhile, or that cannot be written.
        data.push(("ro".into(), None));
    }
    if !label.context.is_empty() && !SHARED.contains(&fs_type.as_str()) {
        data.push(("context".into(), Some(label.context.into())));
    }
    let links = match fs_type.as_str() {
        "tmpfs" => links_at(entry.destination()),
        _ => Links::Refuse,
    };
    if fs_type == "tmpfs" && !given(&data, "mode") {
        data.extend(covered_mode(root, entry, links)?);
    }
    let target = root.make_dir(entry.destination(), links)?;
    if links == Links::Follow {
        not_on_procfs(&target, entry)?;
    }
    // What is copied must be written first.
    let at_first = options.set & !if options.copy_up { attr::RDONLY } else { 0 };
    let mount = match new_file_system(fs_type, &data, source, at_first) {
        Ok(mount) => mount,
        Err(New::TooLong) => {
            let mount = by_mount(fs_type, &data, source, &what)?;
            // Those that it would have been born with.
            sys::mount_setattr(&mount, false, at_first, options.clear, 0)
                .step("set attributes of", &what)?;
            mount
        }
        Err(New::Failed(failure)) => return Err(failure.of(&what)),
    };
    if options.copy_up {
        copy::tree(&target, &mount, &what)?;
        copy_owner(&target, &mount, &data, &what)?;
        sys::mount_setattr(&mount, false, options.set, 0, 0).step("set attributes of", &what)?;
    }
    if fs_type == "mqueue" && label.own_queues && !label.context.is_empty() {
        // Or the container could make no queue.
        sys::set_attribute(&mount, c"security.selinux", label.context.as_bytes())
            .step("set label of", &what)?;
    }
    set_recursive(&mount, entry, options)?;
    sys::move_mount(&mount, &target).step("mount", &what)?;
    if !options.born_private {
        propagate(&mount, entry, options)?;
    }
    Ok(mount)
}

fn given(data: &[(String, Option<String>)], option: &str) -> bool {
    data.iter().any(|(name, _)| name == option)
}

/// A tmpfs has the mode of the directory that it covers, as with runc and crun: one that only its
/// owner may look into stays so. Where none is there yet, it is as the kernel makes it.
fn covered_mode(
    root: &Root,
    entry: &Mount,
    links: Links,
) -> Setup<Option<(String, Option<String>)>> {
    let covered = match root.locate(entry.destination(), links) {
        Ok(covered) => covered,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(SetupFailure::new("find place for", shown(entry), errno)),
    };
    let found = sys::fstat(&covered).step("stat destination of", shown(entry))?;
    let mode = format!("{:o}", found.st_mode & 0o7777);
    Ok(Some(("mode".into(), Some(mode))))
}

/// The owner too, where the options name none. One that is no id in the container's user namespace
/// cannot be had, as everywhere in it.
fn copy_owner(
    from: &OwnedFd,
    to: &OwnedFd,
    data: &[(String, Option<String>)],
    what: &str,
) -> Setup<()> {
    let found = sys::fstat(from).step("stat destination of", what)?;
    let uid = (!given(data, "uid")).then_some(Uid::from_raw(found.st_uid));
    let gid = (!given(data, "gid")).then_some(Gid::from_raw(found.st_gid));
    match fchownat(to, "", uid, gid, AtFlags::AT_EMPTY_PATH) {
        Err(Errno::EINVAL) => Ok(()),
        changed => changed.step("set owner of", what),
    }
}

/// Attributes for the mount and all below it; those of the mount alone a new one is born with.
pub fn set_recursive(mount: &OwnedFd, entry: &Mount, options: &MountOptions) -> Setup<()> {
    let (set, clear) = (options.recursive_set, options.recursive_clear);
    if set | clear == 0 {
        return Ok(());
    }
    sys::mount_setattr(mount, true, set, clear, 0).step("set attributes of", shown(entry))
}

/// Why there is no new file system.
pub enum New {
    /// The kernel takes an option only by way of mount(2): fsconfig(2) has 255 bytes for one.
    TooLong,
    /// A step failed.
    Failed(NewFailure),
}

/// The step and its object; what is being mounted follows.
pub struct NewFailure {
    step: &'static str,
    object: String,
    errno: Errno,
    said: String,
}

impl NewFailure {
    /// With the name of the mount.
    pub fn of(self, what: &str) -> SetupFailure {
        let object = match self.object.as_str() {
            "" => what.to_string(),
            object => format!("{object} of {what}"),
        };
        SetupFailure {
            reason: self.said,
            ..SetupFailure::new(self.step, object, self.errno)
        }
    }
}

/// A detached mount of a new file system.
pub fn new_file_system(
    fs_type: &str,
    data: &[(String, Option<String>)],
    source: Option<&str>,
    attributes: u64,
) -> Result<OwnedFd, New> {
    let plain = |step, object: &str| {
        let object = object.to_string();
        move |errno| {
            New::Failed(NewFailure {
                step,
                object,
                errno,
                said: String::new(),
            })
        }
    };
    let too_long = |value: &str| value.len() > 255;
    if source.is_some_and(too_long) || data.iter().any(|(_, v)| v.as_deref().is_some_and(too_long))
    {
        return Err(New::TooLong);
    }
    let context = FsContext::open(fs_type).map_err(plain("open file system", ""))?;
    // The kernel says in words what is wrong with an option.
    let explained = |step, object: &str, errno| {
        New::Failed(NewFailure {
            step,
            object: object.into(),
            errno,
            said: context.complaint(),
        })
    };
    if let Some(source) = source {
        context
            .set("source", source)
            .map_err(|errno| explained("set source", "", errno))?;
    }
    for (key, value) in data {
        let result = match value {
            Some(value) => context.set(key, value),
            None => context.flag(key),
        };
        result.map_err(|errno| explained("set option", key, errno))?;
    }
    context
        .create()
        .map_err(|errno| explained("mount", "", errno))?;
    context.mount(attributes).map_err(plain("mount", ""))
}

/// The same by mount(2), which needs a place. That is one which nobody can reach: to find the mount
/// again at its destination would be to trust a name that others may give to something else.
fn by_mount(
    fs_type: &str,
    data: &[(String, Option<String>)],
    source: Option<&str>,
    what: &str,
) -> Setup<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = || -> Result<_, Errno> {
        let context = FsContext::open("tmpfs")?;
        context.create()?;
        let room = context.mount(0)?;
        // On the host's root, below which paths still start.
        let root = nix::fcntl::open("/", flags, Mode::empty())?;
        sys::move_mount(&room, &root)?;
        mkdirat(&room, "place", Mode::S_IRWXU)?;
        let place = openat(&room, "place", flags, Mode::empty())?;
        Ok((room, place))
    };
    let (room, place) = open().step("make a place for", what)?;
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let text: Vec<String> = (data.iter())
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    let text = text.join(",");
    let none = MsFlags::empty();
    let mounted = nix::mount::mount(
        source,
        path(&place).as_str(),
        Some(fs_type),
        none,
        Some(text.as_str()),
    );
    mounted.step("mount", what)?;
    let mount = openat(&room, "place", flags, Mode::empty())
        .and_then(|mount| sys::clone_tree_fd(&mount, false))
        .step("find", what)?;
    umount2(path(&room).as_str(), MntFlags::MNT_DETACH).step("remove the place of", what)?;
    Ok(mount)
}

/// Changes what is mounted at the destination: `known`, or what came with the root file system.
pub fn remount(
    root: &Root,
    entry: &Mount,
    options: &MountOptions,
    known: Option<&OwnedFd>,
) -> Setup<()> {
    let what = shown(entry);
    let found;
    let mount = match known {
        Some(mount) => mount,
        None => {
            let links = links_at(entry.destination());
            found = root
                .locate(entry.destination(), links)
                .step("find", &what)?;
            &found
        }
    };
    if !options.bind && !options.data.is_empty() {
        let context = FsContext::pick(mount).step("open file system of", &what)?;
        for (key, value) in &options.data {
            let result = match value {
                Some(value) => context.set(key, value),
                None => context.flag(key),
            };
            result.map_err(|errno| SetupFailure {
                reason: context.complaint(),
                ..SetupFailure::new("set option", format!("{key} of {what}"), errno)
            })?;
        }
        context.reconfigure().step("reconfigure", &what)?;
    }
    set_attributes(mount, entry, options)?;
    match options.propagation {
        Some(_) => propagate(mount, entry, options),
        None => Ok(()),
    }
}
