//! Extended attributes of what a descriptor stands for, one of `O_PATH` too: by its name in `/proc`.

use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

/// The kernel's bound on a list of names, and on a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 64 << 10;

/// Copies every attribute, as far as the other file system has such.
///
/// # Errors
/// They cannot be read or set.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let (from, to) = (name(from)?, name(to)?);
    let none = std::ptr::null_mut();
    // SAFETY: the path ends in NUL; with a length of 0 the kernel writes nothing.
    match Errno::result(unsafe { libc::listxattr(from.as_ptr(), none, 0) }) {
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut names = vec![0_u8; MAX];
    // SAFETY: the path ends in NUL; the kernel writes at most `names.len()` bytes to `names`.
    let length = unsafe { libc::listxattr(from.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?;
    names.truncate(length);
    let mut value = vec![0_u8; MAX];
    for attribute in names.split_inclusive(|byte| *byte == 0) {
        let attribute = CStr::from_bytes_with_nul(attribute).map_err(|_| Errno::EIO)?;
        let buffer = value.as_mut_ptr().cast();
        // SAFETY: both strings end in NUL; the kernel writes at most `value.len()` bytes to `value`.
        let length =
            unsafe { libc::getxattr(from.as_ptr(), attribute.as_ptr(), buffer, value.len()) };
        let length = match Errno::result(length) {
            Ok(length) => usize::try_from(length).map_err(|_| Errno::EIO)?,
            Err(Errno::ENODATA) => continue,
            Err(errno) => return Err(errno),
        };
        match set(&to, attribute, &value[..length]) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets one attribute.
///
/// # Errors
/// The file system has no such attribute, or this process may not set it.
pub fn set_attribute(of: impl AsFd, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
    set(&name(of)?, attribute, value)
}

fn set(path: &CStr, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
    let content = value.as_ptr().cast();
    // SAFETY: both strings end in NUL; the kernel reads as many bytes as `value` has.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), attribute.as_ptr(), content, value.len(), 0) };
    Errno::result(result).map(drop)
}

fn name(fd: impl AsFd) -> Result<CString, Errno> {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).map_err(|_| Errno::EINVAL)
}
