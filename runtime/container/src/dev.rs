//! What the specification wants to find in `/dev`.

use crate::error::{Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::root::{Links, Root, beneath};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mknodat, umask};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchownat, geteuid, symlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::os::fd::AsFd;
use std::path::Path;

/// Name, major and minor number of the devices that every container has (config-linux.md,
/// "Default Devices"); mode 0666.
const DEFAULT_NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the default nodes and links and the devices that the specification lists.
pub fn populate(root: &Root, devices: &[LinuxDevice], procfs: &ProcFs) -> Setup<()> {
    let dev = root.make_dir(Path::new("/dev"), Links::Refuse)?;
    // Nothing of a new tmpfs changes what is made in it: no bit for the group, no list of access.
    let fresh = fstatfs(&dev).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
        && sys::fstat(&dev).is_ok_and(|found| found.st_mode & Mode::S_ISGID.bits() == 0)
        && geteuid().is_root();
    let before = umask(Mode::empty());
    let result = DEFAULT_NODES
        .into_iter()
        .try_for_each(|(name, major, minor)| {
            let node = Node {
                kind: SFlag::S_IFCHR,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            };
            if fresh && node.make_new(&dev, name) {
                return Ok(());
            }
            node.make(&dev, name, Path::new(&format!("/dev/{name}")), procfs)
        });
    umask(before);
    result?;
    for (target, name) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) => {}
            // An image may have its own; /dev is a fresh tmpfs as a rule.
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(SetupFailure::new("link", format!("/dev/{name}"), errno)),
        }
    }
    // The multiplexer of the container's own terminals is at the end of the link, whatever the
    // list says; those who give all devices of the host name it too.
    (devices.iter())
        .filter(|device| device.path() != Path::new("/dev/ptmx"))
        .try_for_each(|device| listed(root, device, procfs))
}

fn listed(root: &Root, device: &LinuxDevice, procfs: &ProcFs) -> Setup<()> {
    let path = device.path();
    let shown = path.display();
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(SetupFailure::because(
                "create device",
                shown,
                "the type \"a\" is no device",
            ));
        }
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Err(SetupFailure::because(
            "create device",
            shown,
            "not a path of a file",
        ));
    };
    let parent = root.make_dir(parent, Links::Refuse)?;
    let node = Node {
        kind,
        major: device.major() as u64,
        minor: device.minor() as u64,
        mode: device.file_mode().unwrap_or(0o666),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    };
    node.make(&parent, name, path, procfs)
}

struct Node {
    kind: SFlag,
    major: u64,
    minor: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Node {
    /// Whether it could be made with the mode that it is to have, belonging to the caller: what is
    /// left to [`Self::make`] is all that needs a second look.
    fn make_new(&self, dir: impl AsFd, name: &str) -> bool {
        let number = nix::sys::stat::makedev(self.major, self.minor);
        let mode = Mode::from_bits_truncate(self.mode);
        mknodat(&dir, name, self.kind, mode, number).is_ok()
    }

    fn make(&self, dir: impl AsFd, name: &str, path: &Path, procfs: &ProcFs) -> Setup<()> {
        let shown = path.display();
        let number = nix::sys::stat::makedev(self.major, self.minor);
        let mode = Mode::from_bits_truncate(self.mode);
        // It has its mode from the first moment on: whoever shares the directory may have put
        // something else under the name before a second call comes to it.
        let before = umask(Mode::empty());
        let made = mknodat(&dir, name, self.kind, mode, number);
        umask(before);
        match made {
            Ok(()) if self.uid == 0 && self.gid == 0 => return Ok(()),
            Ok(()) | Err(Errno::EEXIST) => {}
            // Inside a user namespace nobody may make one.
            Err(Errno::EPERM) if self.kind != SFlag::S_IFIFO => return self.bind(dir, name, path),
            Err(errno) => return Err(SetupFailure::new("create device", &shown, errno)),
        }
        // Looked at and changed by one descriptor, so that it is the same thing all the time.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = nix::fcntl::openat(&dir, name, flags, Mode::empty()).step("open", &shown)?;
        let data = fstat(&found).step("stat", &shown)?;
        if !self.is(&data) {
            let reason = "something else is there already";
            return Err(SetupFailure::because("create device", &shown, reason));
        }
        if (data.st_uid, data.st_gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            let itself = AtFlags::AT_EMPTY_PATH;
            fchownat(&found, "", Some(uid), Some(gid), itself).step("set owner of", &shown)?;
        }
        if data.st_mode & 0o7777 == mode.bits() {
            return Ok(());
        }
        procfs.set_mode(&found, mode).step("set mode of", &shown)
    }

    /// The host's node of the same path, which must be the same device, mounted over a file.
    fn bind(&self, dir: impl AsFd, name: &str, path: &Path) -> Setup<()> {
        let shown = path.display();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let host = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| SetupFailure {
            reason: "it may not be made in a user namespace, and the host's cannot be used".into(),
            ..SetupFailure::new("create device", &shown, errno)
        })?;
        if !self.is(&fstat(&host).step("stat", &shown)?) {
            let reason = "it may not be made in a user namespace, and the host's is another device";
            return Err(SetupFailure::because("create device", &shown, reason));
        }
        let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        nix::fcntl::openat(&dir, name, flags | OFlag::O_EXCL, Mode::S_IRUSR)
            .step("create file for device", &shown)?;
        let place = beneath(&dir, name.as_ref(), OFlag::O_PATH).step("open", &shown)?;
        let mount = sys::clone_tree_fd(&host, false).step("open device", &shown)?;
        sys::move_mount(&mount, &place).step("mount device", &shown)
    }

    fn is(&self, found: &FileStat) -> bool {
        let number = nix::sys::stat::makedev(self.major, self.minor);
        let same_kind = found.st_mode & SFlag::S_IFMT.bits() == self.kind.bits();
        same_kind && (self.kind == SFlag::S_IFIFO || found.st_rdev == number)
    }
}
