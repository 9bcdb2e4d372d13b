//! The file-descriptor based mount interface (`linux/mount.h`, kernel 5.2 and 5.12).

use super::cstring;
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// `MOUNT_ATTR_*` of `linux/mount.h`.
pub mod attr {
    pub const RDONLY: u64 = 0x01;
    pub const NOSUID: u64 = 0x02;
    pub const NODEV: u64 = 0x04;
    pub const NOEXEC: u64 = 0x08;
    /// The field of access-time modes; `relatime` is its zero value.
    pub const ATIME_MASK: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn new_fd(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)? as RawFd;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn text(value: &str) -> Result<CString, Errno> {
    CString::new(value).map_err(|_| Errno::EINVAL)
}

/// A new file system that is being configured.
pub struct FsContext(OwnedFd);

impl FsContext {
    /// `fsopen(2)`.
    pub fn open(fs_type: &str) -> Result<Self, Errno> {
        let name = text(fs_type)?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        new_fd(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    fn config(
        &self,
        cmd: libc::c_uint,
        key: Option<&CString>,
        value: Option<&CString>,
    ) -> Result<(), Errno> {
        let key = key.map_or(std::ptr::null(), |k| k.as_ptr());
        let value = value.map_or(std::ptr::null(), |v| v.as_ptr());
        // SAFETY: both pointers are null or point to NUL-terminated strings that outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), cmd, key, value, 0) };
        Errno::result(result).map(drop)
    }

    /// Sets `key=value`. The kernel takes at most 255 bytes of value.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Errno> {
        self.config(FSCONFIG_SET_STRING, Some(&text(key)?), Some(&text(value)?))
    }

    /// Sets a flag.
    pub fn flag(&self, key: &str) -> Result<(), Errno> {
        self.config(FSCONFIG_SET_FLAG, Some(&text(key)?), None)
    }

    /// The file system of a mount, to be reconfigured (`fspick(2)`).
    pub fn pick(mount: impl AsFd) -> Result<Self, Errno> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        let dir = mount.as_fd().as_raw_fd();
        // SAFETY: the path is the empty string.
        new_fd(unsafe { libc::syscall(libc::SYS_fspick, dir, c"".as_ptr(), flags) }).map(Self)
    }

    /// Creates the superblock.
    pub fn create(&self) -> Result<(), Errno> {
        self.config(FSCONFIG_CMD_CREATE, None, None)
    }

    /// Applies what was set to a file system that was picked.
    pub fn reconfigure(&self) -> Result<(), Errno> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None)
    }

    /// What the kernel says about the last failure; empty where it says nothing.
    pub fn complaint(&self) -> String {
        let mut buffer = [0u8; 512];
        let messages = std::iter::from_fn(|| {
            let length = nix::unistd::read(&self.0, &mut buffer).ok()?;
            let text = String::from_utf8_lossy(buffer.get(..length)?).into_owned();
            // "e " is an error, others are warnings and information.
            Some(text.strip_prefix("e ").unwrap_or(&text).trim().to_string())
        });
        messages.collect::<Vec<_>>().join("; ")
    }

    /// A detached mount of the superblock with these `attr` flags.
    pub fn mount(self, attrs: u64) -> Result<OwnedFd, Errno> {
        // SAFETY: no pointers.
        new_fd(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attrs as libc::c_uint,
            )
        })
    }
}

/// Attaches the mount `from` on the place `to`; no path is looked up.
pub fn move_mount(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    // SAFETY: both paths are the empty string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_fd().as_raw_fd(),
            c"".as_ptr(),
            to.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Clones the mount (and with `recursive` all below it) at `path`: a detached bind mount.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(libc::AT_FDCWD, &cstring(path)?, recursive, 0)
}

/// As [`clone_tree`], from a descriptor.
pub fn clone_tree_fd(fd: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(
        fd.as_fd().as_raw_fd(),
        c"",
        recursive,
        libc::AT_EMPTY_PATH as libc::c_uint,
    )
}

fn open_tree(
    dir: RawFd,
    path: &std::ffi::CStr,
    recursive: bool,
    extra: libc::c_uint,
) -> Result<OwnedFd, Errno> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive | extra;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Changes attributes and, where not zero, the propagation (`MS_PRIVATE`...) of a mount.
pub fn mount_setattr(
    mount: impl AsFd,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    setattr(mount, recursive, &attr)
}

/// Maps the ids of a detached mount through those of a user namespace (`MOUNT_ATTR_IDMAP`).
pub fn mount_idmap(mount: impl AsFd, recursive: bool, namespace: impl AsFd) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: attr::IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_fd().as_raw_fd() as u64,
    };
    setattr(mount, recursive, &attr)
}

fn setattr(mount: impl AsFd, recursive: bool, attr: &MountAttr) -> Result<(), Errno> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty, `attr` is a valid `struct mount_attr` of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}
