//! Ordinary files.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::{
        stat::{self, FileStat, Mode},
        time::TimeSpec,
    },
};

use super::{Place, Writer, metadata_of};
use crate::{
    LayerError,
    recipe::Recorder,
    tarball::{Entry, Extent, TarError, TarReader},
    unpack::{
        error::{CHANGE_OWNER, FIND_PATH, SET_TIME, WRITE_FILE},
        tree,
    },
};

/// Bytes that are written at once.
pub(super) const BUFFER: usize = 64 << 10;

impl Writer<'_> {
    /// Makes a file. Much of a layer is small files, so as few system calls as can be go to each.
    pub(super) fn file<R: Read>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        tar: &mut TarReader<Recorder<R>>,
    ) -> Result<(), LayerError> {
        let limit = self.budget.limits.file_bytes;
        if entry.size > limit {
            return Err(LayerError::Limit {
                what: "bytes in one file",
                limit,
            });
        }
        let file = self.new_file(place)?;
        let found = self.at(stat::fstat(&file), "looking at a new file")?;
        self.content(&file, &found, place, entry, tar)?;
        let metadata = metadata_of(entry);
        self.at(metadata.apply_to_file(&file, &found), CHANGE_OWNER)?;
        self.xattrs(&place.directory, place.name, entry)?;
        let (seconds, nanoseconds) = entry.mtime;
        let time = TimeSpec::new(seconds, nanoseconds.into());
        self.at(stat::futimens(&file, &time, &time), SET_TIME)
    }

    /// Opens a file that was not there; most are not.
    fn new_file(&mut self, place: &Place<'_>) -> Result<File, LayerError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = Mode::from_bits_truncate(0o600);
        let make = || fcntl::openat(&place.directory, place.name, flags, private);
        let made = match make() {
            Err(Errno::EEXIST) => {
                let existing = tree::look(&place.directory, place.name);
                let existing = self.at(existing, "looking at the name")?;
                self.clear(place, existing)?;
                make()
            }
            made => made,
        };
        self.at(made, "making a file").map(File::from)
    }

    fn content<R: Read>(
        &mut self,
        mut file: &File,
        found: &FileStat,
        place: &Place<'_>,
        entry: &Entry,
        tar: &mut TarReader<Recorder<R>>,
    ) -> Result<(), LayerError> {
        let whole = [Extent {
            offset: 0,
            length: entry.size,
        }];
        let extents = entry.extents.as_deref().unwrap_or(&whole);
        let io = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let home = match entry.data.1 {
            0 => None,
            _ => {
                let home = self.homes.of(place.directory.as_fd(), &place.path);
                self.at(home, FIND_PATH)?
            }
        };
        for extent in extents {
            if let Some(path) = &home {
                tar.stream()
                    .content(path, found.st_ino, extent.offset, extent.length)?;
            }
            if entry.extents.is_some() {
                let moved = file.seek(SeekFrom::Start(extent.offset)).map_err(io);
                self.at(moved, WRITE_FILE)?;
            }
            let mut left = extent.length;
            while left > 0 {
                let want = left.min(self.buffer.len() as u64) as usize;
                let count = tar.read_data(&mut self.buffer[..want])?;
                if count == 0 {
                    return Err(TarError::Truncated {
                        offset: entry.data.0,
                    }
                    .into());
                }
                let written = file.write_all(&self.buffer[..count]).map_err(io);
                self.at(written, WRITE_FILE)?;
                left -= count as u64;
            }
        }
        if entry.extents.is_some() {
            self.at(file.set_len(entry.size).map_err(io), WRITE_FILE)?;
        }
        Ok(())
    }
}
