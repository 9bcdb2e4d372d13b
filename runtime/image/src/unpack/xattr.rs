//! Extended attributes of files that are known by an open directory and a name.
//!
//! Only paths reach those of links and devices before Linux 6.13 (setxattrat(2)), so the path goes
//! through the open directory's entry in /proc; its last component is a plain name.

use std::{
    ffi::{CStr, CString, OsStr},
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
    let attribute = CString::new(attribute).map_err(|_| Errno::EINVAL)?;
    write(&path(directory, name)?, &attribute, value)
}

/// Whether a directory has the attribute with that value.
pub(super) fn is(directory: impl AsFd, attribute: &[u8], value: &[u8]) -> Result<bool, Errno> {
    let attribute = CString::new(attribute).map_err(|_| Errno::EINVAL)?;
    let mut found = vec![0; value.len() + 1];
    match read(&path(directory, OsStr::new("."))?, &attribute, &mut found) {
        Ok(length) => Ok(found[..length] == *value),
        // Also of a file system without attributes; or it is longer.
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ERANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Reads a value, and tells its length.
fn read(file: &CStr, attribute: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: both strings end in NUL; the kernel writes at most `value.len()` bytes to `value`.
    let length = unsafe {
        libc::lgetxattr(
            file.as_ptr(),
            attribute.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)
}

fn write(file: &CStr, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: both strings end in NUL and live through the call; the kernel reads `value.len()`
    // bytes of `value` and keeps no pointer.
    let result = unsafe {
        libc::lsetxattr(
            file.as_ptr(),
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
    copy_all(&path(from, here)?, &path(to, here)?)
}

/// Copies those of a name in one directory to one in another directory, which has none.
pub(super) fn copy_at(
    (from, name): (impl AsFd, &OsStr),
    (to, copy): (impl AsFd, &OsStr),
) -> Result<(), Errno> {
    copy_all(&path(from, name)?, &path(to, copy)?)
}

/// Like [`copy`], and removes those that only the other directory has.
pub(super) fn replace(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let here = OsStr::new(".");
    let (from, to) = (path(from, here)?, path(to, here)?);
    let wanted = names(&from)?;
    for attribute in names(&to)? {
        if is_own(&attribute) || wanted.contains(&attribute) {
            continue;
        }
        // SAFETY: both strings end in NUL and live through the call.
        let result = unsafe { libc::lremovexattr(to.as_ptr(), attribute.as_ptr()) };
        Errno::result(result)?;
    }
    copy_all(&from, &to)
}

/// What says something of a place, not of the file.
fn is_own(attribute: &CStr) -> bool {
    let attribute = attribute.to_bytes();
    attribute.starts_with(b"trusted.overlay.") || attribute == b"security.selinux"
}

fn copy_all(from: &CStr, to: &CStr) -> Result<(), Errno> {
    let attributes = names(from)?;
    let mut value = Vec::new();
    for attribute in attributes.iter().filter(|name| !is_own(name)) {
        value.resize(MAX, 0);
        let length = read(from, attribute, &mut value)?;
        write(to, attribute, &value[..length])?;
    }
    Ok(())
}

/// The names of a file's attributes.
fn names(file: &CStr) -> Result<Vec<CString>, Errno> {
    // SAFETY: the path ends in NUL; with a size of 0 nothing is written.
    let length = unsafe { libc::llistxattr(file.as_ptr(), std::ptr::null_mut(), 0) };
    match Errno::result(length) {
        // Also of a file system without attributes.
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        outcome => outcome.map(drop)?,
    }
    let mut list = vec![0u8; MAX];
    // SAFETY: the path ends in NUL; the kernel writes at most `list.len()` bytes to `list`.
    let length = unsafe { libc::llistxattr(file.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?);
    list.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| CString::new(name).map_err(|_| Errno::EINVAL))
        .collect()
}

fn path(directory: impl AsFd, name: &OsStr) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    CString::new(path).map_err(|_| Errno::EINVAL)
}
