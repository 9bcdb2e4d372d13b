//! Letting go of the host's mounts where its root stays below the container's.
//!
//! The kernel lets whoever makes a user namespace mount a procfs or sysfs of its own if its mount
//! namespace holds one that can be seen in full (`mnt_already_visible` in `fs/namespace.c`). The
//! container's own are masked for that reason; the host's are not, and need no path to count.

use crate::cgroup::unescape;
use crate::error::{Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::root::Root;
use crate::{mask, sys};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    id: u64,
    parent: u64,
    place: PathBuf,
    kind: String,
}

/// Detaches what is mounted below the old root, on which `root` lies. It is still the root of this
/// process, so paths start below `root`. In a user namespace mounts of the host are locked and stay;
/// those that count are covered there.
pub fn mounts_below(old: &OwnedFd, root: &Root, procfs: &ProcFs) -> Setup<()> {
    // Nothing that the host mounts there later may come after.
    match sys::mount_setattr(old, false, 0, 0, MsFlags::MS_PRIVATE.bits()) {
        // The runtime is itself in a chroot(2), where nobody may make a user namespace.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => {
            let object = "the host's root";
            return Err(SetupFailure::new("set propagation of", object, errno));
        }
    }
    let id = |fd| sys::mount_id(fd).step("find mount of", "a root file system");
    let (old, root) = (id(std::os::fd::AsFd::as_fd(old))?, id(root.fd())?);
    let mut mounts = all(procfs)?;
    loop {
        let mut detached = false;
        for mount in mounts.iter().filter(|m| m.parent == old && m.id != root) {
            // One may lie on another's place, or hide it: that one goes in the next round.
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            detached |= umount2(&mount.place, flags).is_ok();
        }
        if !detached {
            break;
        }
        mounts = all(procfs)?;
    }
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.place.as_os_str().len()));
    let left = |mount: &&Mounted| ["proc", "sysfs"].contains(&mount.kind.as_str());
    for mount in mounts.iter().filter(left) {
        if !is_below(mount, root, &mounts) && !is_covered(mount, &mounts) {
            cover(mount)?;
        }
    }
    Ok(())
}

fn cover(mount: &Mounted) -> Setup<()> {
    let what = mount.place.display();
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(&mount.place, flags, Mode::empty());
    let place = match opened.and_then(|fd| Ok((sys::mount_id(&fd)?, fd))) {
        Ok((id, place)) if id == mount.id => place,
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
            let reason = "another mount hides it, and without pivot_root it would stay in the \
                          container's mount namespace";
            return Err(SetupFailure::because("cover the host's", what, reason));
        }
        Err(errno) => return Err(SetupFailure::new("find the host's", what, errno)),
    };
    let covered = mask::empty_tmpfs().and_then(|empty| sys::move_mount(empty, place));
    covered.step("cover the host's", what)
}

/// Whether another is mounted on its root, so that nothing of it can be seen.
fn is_covered(mount: &Mounted, all: &[Mounted]) -> bool {
    all.iter()
        .any(|other| other.parent == mount.id && other.place == mount.place)
}

/// Whether it is the mount `root` or one below that.
fn is_below(mount: &Mounted, root: u64, all: &[Mounted]) -> bool {
    let mut id = mount.id;
    // No chain is longer than the list.
    for _ in all {
        if id == root {
            return true;
        }
        match all.iter().find(|mount| mount.id == id) {
            Some(mount) => id = mount.parent,
            None => return false,
        }
    }
    false
}

fn all(procfs: &ProcFs) -> Setup<Vec<Mounted>> {
    let text = procfs.read("self/mountinfo");
    Ok(parse(&text.step("read", "/proc/self/mountinfo")?))
}

fn parse(mountinfo: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        Some(Mounted {
            id: fields.next()?.parse().ok()?,
            parent: fields.next()?.parse().ok()?,
            place: unescape(fields.nth(2)?),
            kind: filesystem.split(' ').next()?.into(),
        })
    };
    mountinfo.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_what_is_below() {
        let all = parse(
            "20 1 8:1 / / rw - ext4 /dev/sda rw\n\
             21 20 0:3 / /a\\040b rw master:3 - proc proc rw\n\
             22 21 0:4 / /a\\040b rw - tmpfs none rw\n\
             30 20 8:1 /r / rw - ext4 /dev/sda rw\n\
             31 30 0:3 / /proc rw - proc proc rw\n",
        );
        let [_, host, _, root, own] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(host.place, PathBuf::from("/a b"));
        assert_eq!(own.kind, "proc");
        assert!(is_covered(host, &all) && !is_covered(own, &all));
        assert!(is_below(own, root.id, &all) && is_below(root, root.id, &all));
        assert!(!is_below(host, root.id, &all));
    }
}
