//! Copies of single files.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::{self, FileStat, Mode, SFlag},
    unistd,
};

use super::{
    metadata::{Metadata, set_times},
    tree, xattr,
};

/// A name in an open directory.
type At<'a, F> = (&'a F, &'a OsStr);

/// Copies what is at `from`, which is no directory and was found to be `stat`, with owner, mode, attributes
/// and time. Nothing is at `to`.
pub(super) fn copy<F: AsFd, T: AsFd>(
    from: At<'_, F>,
    stat: &FileStat,
    to: At<'_, T>,
) -> Result<(), Errno> {
    let kind = tree::file_type(stat);
    match kind {
        SFlag::S_IFREG => file(from, stat, to)?,
        SFlag::S_IFLNK => {
            let target: OsString = fcntl::readlinkat(from.0, from.1)?;
            unistd::symlinkat(target.as_os_str(), to.0, to.1)?;
        }
        _ => {
            let private = Mode::S_IRUSR | Mode::S_IWUSR;
            stat::mknodat(to.0, to.1, kind, private, stat.st_rdev)?;
        }
    }
    let mut metadata = Metadata::of(stat);
    if kind == SFlag::S_IFLNK {
        metadata.mode = None;
    }
    metadata.set_owner(to.0, to.1)?;
    metadata.set_mode(to.0, to.1)?;
    xattr::copy_at(from, to)?;
    set_times(to.0, to.1, metadata.mtime)
}

fn file<F: AsFd, T: AsFd>(from: At<'_, F>, stat: &FileStat, to: At<'_, T>) -> Result<(), Errno> {
    let common = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let from = fcntl::openat(from.0, from.1, common | OFlag::O_RDONLY, Mode::empty())?;
    let to = fcntl::openat(
        to.0,
        to.1,
        common | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?;
    // SAFETY: FICLONE (linux/fs.h) takes a descriptor by value; both are open.
    let cloned = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if cloned == 0 {
        return Ok(());
    }
    copy_data(from.into(), to.into(), stat.st_size.unsigned_abs())
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Copies content, and leaves holes where there are holes.
fn copy_data(mut from: File, mut to: File, size: u64) -> io::Result<()> {
    let mut position = 0;
    while position < size {
        let Some((begin, end)) = data(&from, position, size)? else {
            break;
        };
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        // By copy_file_range(2) where the kernel can.
        let copied = io::copy(&mut (&from).take(end - begin), &mut to)?;
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position = begin + copied;
    }
    to.set_len(size)
}

/// The next piece at or after `position` that is no hole.
fn data(file: &File, position: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        unistd::lseek(file, from, whence).map(i64::unsigned_abs)
    };
    match seek(position, unistd::Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(None),
        // A file system that does not know.
        Err(Errno::EINVAL) => Ok(Some((position, size))),
        Err(errno) => Err(errno.into()),
        Ok(begin) => Ok(Some((
            begin,
            seek(begin, unistd::Whence::SeekHole)?.min(size),
        ))),
    }
}
