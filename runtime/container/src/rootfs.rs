//! The root file system: mounted inside the container's own mount namespace only, then made `/`.

use crate::error::{Context, Setup, SetupFailure};
use crate::leave;
use crate::mounts::Recursive;
use crate::procfs::ProcFs;
use crate::root::Root;
use crate::sys::{self, FsContext, attr};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a container's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// A directory as it is; what the container writes stays in it.
    Directory(PathBuf),
    /// An overlay, mounted where nobody but the container sees it.
    Overlay {
        /// Read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// Takes what the container writes.
        upper: PathBuf,
        /// An empty directory on the file system of `upper`, for the kernel's use.
        work: PathBuf,
    },
}

/// A detached mount of the root file system, opened in the creating process: inside a user
/// namespace the container's root may not even reach it.
///
/// # Errors
/// It cannot be mounted.
pub fn open(rootfs: &Rootfs) -> Setup<OwnedFd> {
    match rootfs {
        Rootfs::Directory(path) => {
            sys::clone_tree(path, true).step("bind root file system", path.display())
        }
        Rootfs::Overlay { lower, upper, work } => overlay(lower, upper, work),
    }
}

/// Lets go of the host: nothing that is mounted from here on reaches it, but what it unmounts
/// goes away here too, so that a container does not pin the host's file systems.
pub fn leave_host() -> Setup<()> {
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).step("make mounts slaves of", "/")
}

/// Attaches the root file system, from where [`enter`] makes it the root. The mounts of the host
/// stay reachable, and as sources of bind mounts.
pub fn attach(fd: OwnedFd, rootfs: &Rootfs, propagation: (u64, Recursive)) -> Setup<Root> {
    let (private, slave) = (MsFlags::MS_PRIVATE.bits(), MsFlags::MS_SLAVE.bits());
    let set = |all: bool, kind| {
        sys::mount_setattr(&fd, all, 0, 0, kind).step("set propagation of", "the root file system")
    };
    let directory = matches!(rootfs, Rootfs::Directory(_));
    match propagation {
        // Now or never: what was private once has nobody to be a slave of. Mounts below come from
        // the host as well, and are treated alike. An overlay is new and has no master.
        (kind, _) if kind == slave => set(directory, slave)?,
        // What the container mounts has its own options; these are the mounts that are there. The
        // root follows when it is entered: pivot_root(2) wants none that is shared.
        (kind, Recursive::Yes) if kind != private => {
            set(directory, private)?;
            set(directory, kind)?;
            set(false, private)?;
        }
        _ => set(directory, private)?,
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |path: &Path| nix::fcntl::open(path, flags, Mode::empty());
    let place = match rootfs {
        // On itself, where hooks look for it. Whoever may not reach it needs no hook there.
        Rootfs::Directory(path) => open(path).or_else(|_| open(Path::new("/"))),
        // On the old root: paths that begin with "/" still start below it.
        Rootfs::Overlay { .. } => open(Path::new("/")),
    };
    let place = place.step("open place for", "the root file system")?;
    sys::move_mount(&fd, &place).step("attach", "the root file system")?;
    Ok(Root::new(fd))
}

/// Makes the attached root file system `/` and lets go of the host's.
pub fn enter(
    root: &Root,
    (propagation, _): (u64, Recursive),
    no_pivot: bool,
    procfs: &ProcFs,
) -> Setup<()> {
    nix::unistd::fchdir(root.fd()).step("change directory to", "the root file system")?;
    if no_pivot {
        move_over_root(root, procfs)?;
    } else {
        pivot()?;
    }
    nix::unistd::chdir("/").step("change directory to", "/")?;
    if [MsFlags::MS_PRIVATE, MsFlags::MS_SLAVE]
        .map(|kind| kind.bits())
        .contains(&propagation)
    {
        return Ok(()); // it is that already
    }
    sys::mount_setattr(root.fd(), false, 0, 0, propagation)
        .step("set propagation of", "the root file system")
}

/// The host's root stays below, where no path leads: the way of switch_root(8). What else the host
/// has mounted must go: the kernel looks at mounts, not at paths.
fn move_over_root(root: &Root, procfs: &ProcFs) -> Setup<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = nix::fcntl::open("/", flags, Mode::empty()).step("open", "/")?;
    match sys::move_mount(root.fd(), &old) {
        // It was attached there, where its own directory could not be.
        Ok(()) | Err(Errno::ELOOP) => {}
        Err(errno) => {
            let object = "the root file system";
            return Err(SetupFailure::new("move over the old root", object, errno));
        }
    }
    leave::mounts_below(&old, root, procfs)?;
    nix::unistd::chroot(".").step("change root to", "the root file system")
}

fn pivot() -> Setup<()> {
    // With both arguments "." the old root ends up stacked on the new one, from where it is
    // detached: no directory for it is needed (pivot_root(2), "pivot_root(".", ".")").
    nix::unistd::pivot_root(".", ".").step("pivot_root to", "the root file system")?;
    umount2(".", MntFlags::MNT_DETACH).step("detach", "the host's root")
}

/// Makes a directory `/` in a mount namespace that the container shares.
pub fn change_root(rootfs: &Rootfs) -> Setup<()> {
    let Rootfs::Directory(path) = rootfs else {
        let reason = "it is an overlay, which needs a mount namespace of the container's own";
        return Err(SetupFailure::because(
            "change root to",
            "the root file system",
            reason,
        ));
    };
    nix::unistd::chroot(path).step("change root to", path.display())?;
    nix::unistd::chdir("/").step("change directory to", "/")
}

/// Makes the root itself read-only; mounts below it keep their own mode.
pub fn make_read_only(root: &Root) -> Setup<()> {
    sys::mount_setattr(root.fd(), false, attr::RDONLY, 0, 0).step("make read-only", "/")
}

/// A detached overlay mount.
///
/// The layers are named by descriptor: short, so that very many fit into the one page of options
/// that the kernel reads, and free of the characters that overlayfs treats as separators.
fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Setup<OwnedFd> {
    mount_overlay(lower, Some((upper, work)), upper)
}

/// The layers alone, read-only; `empty` is an empty directory, which takes the place of a layer: the
/// kernel wants two, and may need a place to mount on that only the caller's mount namespace has.
pub fn layers(lower: &[PathBuf], empty: &Path) -> Setup<OwnedFd> {
    let lower: Vec<PathBuf> = lower.iter().cloned().chain([empty.into()]).collect();
    mount_overlay(&lower, None, empty)
}

/// `place` is where it is mounted for a moment, if it has to be.
fn mount_overlay(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    place: &Path,
) -> Setup<OwnedFd> {
    if lower.is_empty() {
        return Err(SetupFailure::because(
            "mount overlay",
            "lower",
            "no layer given",
        ));
    }
    let open = |path: &Path| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).step("open layer", path.display())
    };
    let lower: Vec<OwnedFd> = lower.iter().map(|p| open(p)).collect::<Setup<_>>()?;
    let writable = match writable {
        Some((upper, work)) => Some((open(upper)?, open(work)?)),
        None => None,
    };
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<String> = lower.iter().map(name).collect();
    let writable_names = writable
        .as_ref()
        .map(|(upper, work)| (name(upper), name(work)));
    let writable_names = writable_names.as_ref();

    match by_context(&lower, writable_names) {
        Ok(fd) => return Ok(fd),
        // Up to 6.7 overlayfs takes the layers as one string, and fsconfig(2) at most 255 bytes
        // of it. mount(2) takes a page.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::E2BIG) => {}
        Err(errno) => {
            return Err(SetupFailure::new(
                "mount overlay on",
                place.display(),
                errno,
            ));
        }
    }
    let mut options = format!("lowerdir={}", lower.join(":"));
    let mut flags = MsFlags::MS_RDONLY;
    if let Some((upper, work)) = writable_names {
        options += &format!(",upperdir={upper},workdir={work}");
        flags = MsFlags::empty();
    }
    if options.len() >= 4096 {
        let reason = format!("{} layers are more than this kernel takes", lower.len());
        return Err(SetupFailure::because(
            "mount overlay on",
            place.display(),
            reason,
        ));
    }
    // It needs a place; this is one that surely exists, and only this namespace sees what is
    // mounted on it.
    mount(
        Some("overlay"),
        place,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )
    .step("mount overlay on", place.display())?;
    let fd = sys::clone_tree(place, false).step("open overlay at", place.display())?;
    umount2(place, MntFlags::MNT_DETACH).step("detach overlay from", place.display())?;
    Ok(fd)
}

fn by_context(lower: &[String], writable: Option<&(String, String)>) -> Result<OwnedFd, Errno> {
    let context = FsContext::open("overlay")?;
    let mut one_by_one = Ok(());
    for layer in lower {
        one_by_one = context.set("lowerdir+", layer);
        if one_by_one.is_err() {
            break;
        }
    }
    match one_by_one {
        Ok(()) => {}
        Err(Errno::EINVAL) => {
            let context = FsContext::open("overlay")?;
            context.set("lowerdir", &lower.join(":"))?;
            return finish(context, writable);
        }
        Err(errno) => return Err(errno),
    }
    finish(context, writable)
}

fn finish(context: FsContext, writable: Option<&(String, String)>) -> Result<OwnedFd, Errno> {
    if let Some((upper, work)) = writable {
        context.set("upperdir", upper)?;
        context.set("workdir", work)?;
    }
    context.create()?;
    context.mount(if writable.is_some() { 0 } else { attr::RDONLY })
}
