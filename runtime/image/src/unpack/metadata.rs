//! Owner, mode and times.

use std::{ffi::OsStr, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::{
        stat::{self, FchmodatFlags, FileStat, Mode, UtimensatFlags},
        time::TimeSpec,
    },
    unistd::{self, Gid, Uid},
};

/// What every kind of file has.
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` for links, which have none of their own.
    pub(super) mode: Option<u32>,
    /// Seconds and nanoseconds since the epoch.
    pub(super) mtime: (i64, u32),
}

impl Metadata {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: Some(stat.st_mode & 0o7777),
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
        }
    }

    /// Sets everything but the time on an open file, whose `stat` is from before.
    pub(super) fn apply_to_file(&self, file: impl AsFd, stat: &FileStat) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        if (stat.st_uid, stat.st_gid) != (self.uid, self.gid) {
            unistd::fchown(&file, Some(uid), Some(gid))?;
        }
        match self.mode {
            Some(mode) => stat::fchmod(&file, Mode::from_bits_truncate(mode)),
            None => Ok(()),
        }
    }

    /// Sets everything on an open directory.
    pub(super) fn apply_to_directory(&self, directory: impl AsFd) -> Result<(), Errno> {
        let here = OsStr::new(".");
        self.set_owner(&directory, here)?;
        self.set_mode(&directory, here)?;
        set_times(&directory, here, self.mtime)
    }

    pub(super) fn set_owner(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        unistd::fchownat(
            directory,
            name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    }

    /// `name` must not be a link: there is no fchmodat(2) that would not follow it.
    pub(super) fn set_mode(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let Some(mode) = self.mode else { return Ok(()) };
        let mode = Mode::from_bits_truncate(mode);
        stat::fchmodat(directory, name, mode, FchmodatFlags::FollowSymlink)
    }
}

pub(super) fn set_times(
    directory: impl AsFd,
    name: &OsStr,
    mtime: (i64, u32),
) -> Result<(), Errno> {
    let time = TimeSpec::new(mtime.0, mtime.1.into());
    stat::utimensat(
        directory,
        name,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
}
