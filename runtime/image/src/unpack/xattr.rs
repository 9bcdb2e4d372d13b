//! Extended attributes of files that are known by an open directory and a name.
//!
//! Only paths reach those of links and devices before Linux 6.13 (setxattrat(2)), so the path goes
//! through the open directory's entry in /proc; its last component is a plain name.

use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
};

use nix::errno::Errno;

/// The kernel's bound on a list of names, and on a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` in
/// linux/limits.h), in bytes.
const MAX: usize = 64 << 10;

/// Sets an attribute on `name` itself, also when it is a link or a device.
pub(super) fn set(
    directory: impl AsFd,
    name: &OsStr,
    attribute: &[u8],
    value: &[u8],
) -> Result<(), Errno> {
    let path = path(directory, name)?;
    let attribute = CString::new(attribute).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both strings end in NUL and live through the call; the kernel reads `value.len()`
    // bytes of `value` and keeps no pointer.
    let result = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            attribute.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Copies the attributes of a directory to another one, as overlayfs does when it makes an upper
/// directory for a lower one: all but its own.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let here = OsStr::new(".");
    let source = path(from, here)?;
    let mut names = vec![0u8; MAX];
    // SAFETY: the path ends in NUL; the kernel writes at most `names.len()` bytes to `names`.
    let length =
        unsafe { libc::llistxattr(source.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = match Errno::result(length) {
        Ok(length) => usize::try_from(length).map_err(|_| Errno::EIO)?,
        // A file system without attributes.
        Err(Errno::EOPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut value = vec![0u8; MAX];
    for attribute in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if attribute.starts_with(b"trusted.overlay.") || attribute == b"security.selinux" {
            continue;
        }
        let name = CString::new(attribute).map_err(|_| Errno::EINVAL)?;
        // SAFETY: both strings end in NUL; the kernel writes at most `value.len()` bytes to
        // `value`.
        let length = unsafe {
            libc::lgetxattr(
                source.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        let length = usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?;
        set(&to, here, attribute, &value[..length])?;
    }
    Ok(())
}

fn path(directory: impl AsFd, name: &OsStr) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    CString::new(path).map_err(|_| Errno::EINVAL)
}
