//! Descriptors of files, without a path: the C library's `fstat`, and the standard library's way to
//! read a whole file, pass an empty one, for which the kernel takes and clears a page each time.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// `fstat(2)`. Works on an `O_PATH` descriptor.
pub fn fstat(fd: impl AsFd) -> Result<FileStat, Errno> {
    // SAFETY: plain data that the kernel fills; on success all of it.
    unsafe {
        let mut found = std::mem::zeroed::<FileStat>();
        let fd = fd.as_fd().as_raw_fd();
        Errno::result(libc::syscall(libc::SYS_fstat, fd, &raw mut found))?;
        Ok(found)
    }
}

/// The number of the mount that a descriptor is of, one of `O_PATH` too, as mountinfo has it
/// (`STATX_MNT_ID`, kernel 5.8).
pub fn mount_id(fd: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: plain data that the kernel fills; the path is the empty string.
    let found = unsafe {
        let mut found = std::mem::zeroed::<libc::statx>();
        let fd = fd.as_fd().as_raw_fd();
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_MNT_ID);
        Errno::result(libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut found))?;
        found
    };
    match found.stx_mask & libc::STATX_MNT_ID {
        0 => Err(Errno::EOPNOTSUPP),
        _ => Ok(found.stx_mnt_id),
    }
}

/// As [`read_text`], of a file of the host's `/proc`.
pub fn read_file(path: &Path) -> Result<String, Errno> {
    let fd = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    read_text(fd)
}

/// All of a file that the kernel writes as it is read, which is text.
pub fn read_text(fd: impl AsFd) -> Result<String, Errno> {
    let (mut text, mut length) = (Vec::new(), 0);
    loop {
        // Such files tell no size, and come in parts of a page.
        if text.len() - length < 2048 {
            text.resize(text.len().max(2048) * 2, 0);
        }
        match nix::unistd::read(&fd, text.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(|_| Errno::EIO)
}
