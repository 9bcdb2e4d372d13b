//! Masked and read-only paths.

use crate::error::{Context, Setup, SetupFailure};
use crate::mounts::is_char_device;
use crate::root::{Links, Root};
use crate::sys::{self, FsContext, attr};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What files are masked with: the host's `/dev/null`, by descriptor and verified, never a path
/// inside the container, where an image could have put something else.
pub struct Null(OwnedFd);

impl Null {
    /// Opens it; called while the host's root is still `/`.
    pub fn open() -> Setup<Self> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open("/dev/null", flags, Mode::empty()).step("open", "/dev/null")?;
        if !is_char_device(&fd, 1, 3) {
            let reason = "it is not the null device (character device 1:3)";
            return Err(SetupFailure::because(
                "open",
                "the host's /dev/null",
                reason,
            ));
        }
        Ok(Self(fd))
    }
}

/// Hides files behind the null device and directories behind one empty read-only tmpfs (one for
/// all: each superblock makes the end of the container slower).
pub fn mask(root: &Root, paths: &[String], null: &Null) -> Setup<()> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some((target, is_dir)) = find(root, path)? else {
            continue;
        };
        let cover = match (&empty, is_dir) {
            (_, false) => sys::clone_tree_fd(&null.0, false),
            (Some(empty), true) => sys::clone_tree_fd(empty, false),
            (None, true) => empty_tmpfs(),
        };
        let cover = cover.step("mask", path)?;
        sys::move_mount(&cover, &target).step("mask", path)?;
        if is_dir && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// Makes each path, and what is mounted below it, read-only.
pub fn make_read_only(root: &Root, paths: &[String]) -> Setup<()> {
    for path in paths {
        let Some((target, _)) = find(root, path)? else {
            continue;
        };
        let tree = sys::clone_tree_fd(&target, true).step("make read-only", path)?;
        sys::mount_setattr(&tree, true, attr::RDONLY, 0, 0).step("make read-only", path)?;
        sys::move_mount(&tree, &target).step("make read-only", path)?;
    }
    Ok(())
}

/// A path that does not exist in this kernel or image needs no hiding.
fn find(root: &Root, path: &str) -> Setup<Option<(OwnedFd, bool)>> {
    let target = match root.locate(Path::new(path), Links::Follow) {
        Ok(target) => target,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(SetupFailure::new("find", path, errno)),
    };
    let mode = sys::fstat(&target).step("stat", path)?.st_mode;
    let is_dir = mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    Ok(Some((target, is_dir)))
}

/// A new file system that is empty, read-only and small.
pub fn empty_tmpfs() -> Result<OwnedFd, Errno> {
    let context = FsContext::open("tmpfs")?;
    context.set("mode", "755")?;
    context.set("nr_inodes", "2")?;
    context.create()?;
    context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
}
