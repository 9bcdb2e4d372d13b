//! Volumes that begin with what the image has at their places.
//!
//! What the image has there can only be seen with all its layers on top of each other. They are mounted
//! read-only, in a mount namespace of the caller's own, so nothing is left of that when the caller ends,
//! in whatever way; and without the container's writable layer, so its own mount is not disturbed.

use crate::copy;
use crate::error::{Context, Setup, SetupFailure};
use crate::root::{Links, Root};
use crate::rootfs;
use crate::shim::{FillOptions, FillSource, Volume};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};

/// Fills new volumes; ends early with what `go_on` says. The caller leaves its mount namespace for
/// that, and must have one thread.
///
/// # Errors
/// What could not be read or copied, with its place. Volumes are then filled in part.
pub fn fill(options: &FillOptions, go_on: &dyn Fn() -> Setup<()>) -> Setup<()> {
    unshare(CloneFlags::CLONE_NEWNS).step("leave", "the mount namespace")?;
    rootfs::leave_host()?;
    let root = match &options.image {
        FillSource::Layers { lower, empty } => Root::new(rootfs::layers(lower, empty)?),
        FillSource::Directory(path) => {
            Root::open_host(path).step("open root file system", path.display())?
        }
    };
    let mut volumes = options.volumes.iter();
    volumes.try_for_each(|volume| one(&root, volume, go_on))
}

fn one(root: &Root, volume: &Volume, go_on: &dyn Fn() -> Setup<()>) -> Setup<()> {
    let place = volume.destination.as_path();
    let shown = format!("volume {}", place.display());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let from = match root.open(place, flags, Links::Follow) {
        Ok(from) => from,
        // An empty one; the place is made when the container is.
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR) => {
            let reason = "the image has something else than a directory there";
            return Err(SetupFailure::because("fill", shown, reason));
        }
        Err(errno) => return Err(SetupFailure::new("fill", shown, errno)),
    };
    let to = Root::open_host(&volume.source).step("open", volume.source.display())?;
    let to = to
        .fd()
        .try_clone_to_owned()
        .step("duplicate", "descriptor")?;
    copy::exact(&from, &to, &shown, go_on)
}
