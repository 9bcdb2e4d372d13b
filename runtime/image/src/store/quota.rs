//! How much a snapshot may hold: quotas by project id (kernel `Documentation/filesystems/quota.rst`;
//! ext4 and XFS). The directories of a snapshot get an id that only it has, everything that is made in them
//! inherits it, and the file system counts.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::errno::Errno;

use super::records::State;
use crate::StoreError;

/// Of the first snapshot: "FL" and a number. The file system may count for others too, who begin low.
const FIRST: u32 = 0x464c_0000;

const PRJQUOTA: libc::c_int = 2;
/// linux/fs.h.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;

/// `struct fsxattr` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// What one snapshot may hold.
pub(super) struct Quota {
    quotas: Quotas,
    project: u32,
    bytes: u64,
}

impl Quota {
    /// `bytes` for a project that nothing on the file system of `path` belongs to; `next` makes sure that
    /// it is given away once.
    pub(super) fn new(
        path: &Path,
        state: &State,
        next: &AtomicU32,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let quotas = Quotas::of(path)?;
        if !quotas.enforced()? {
            return Err(quotas.failed(Errno::ENOTSUP));
        }
        let taken = |id| state.snapshots.values().any(|s| s.project() == Some(id));
        loop {
            let project = FIRST.wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            if !taken(project) && quotas.used(project)? == 0 {
                return Ok(Self {
                    quotas,
                    project,
                    bytes,
                });
            }
        }
    }

    pub(super) fn project(&self) -> u32 {
        self.project
    }

    /// Counts what will be made in an empty directory.
    pub(super) fn count(&self, directory: &Path) -> Result<(), StoreError> {
        self.quotas.mark(directory, self.project)
    }

    /// From here on no more than this is added to what is there.
    pub(super) fn enforce(&self) -> Result<(), StoreError> {
        let used = self.quotas.used(self.project)?;
        let limit = used.saturating_add(self.bytes);
        self.quotas.limit(self.project, limit)
    }
}

/// Takes the limit away from a project that has nothing any more.
pub(super) fn forget(path: &Path, project: u32) -> Result<(), StoreError> {
    Quotas::of(path)?.limit(project, 0)
}

/// The quotas of the file system that the snapshots are on.
struct Quotas {
    directory: File,
    path: PathBuf,
}

impl Quotas {
    /// Those of the file system of `path`.
    fn of(path: &Path) -> Result<Self, StoreError> {
        let directory = File::open(path).map_err(|error| StoreError::io("opening", path, error))?;
        let path = path.to_owned();
        Ok(Self { directory, path })
    }

    /// Whether the file system not only counts: ext4 counts at every mount once it was made for it.
    fn enforced(&self) -> Result<bool, StoreError> {
        // Q_XGETQSTATV, `struct fs_quota_statv` and its flags (linux/dqblk_xfs.h).
        const Q_XGETQSTATV: libc::c_int = (b'X' as libc::c_int) << 8 | 8;
        const FS_QSTATV_VERSION1: u8 = 1;
        const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
        /// Larger than any version of the structure.
        #[repr(C, align(8))]
        struct State {
            version: u8,
            pad: u8,
            flags: u16,
            rest: [u32; 127],
        }
        let mut state = State {
            version: FS_QSTATV_VERSION1,
            pad: 0,
            flags: 0,
            rest: [0; 127],
        };
        match self.call(Q_XGETQSTATV, 0, std::ptr::from_mut(&mut state).cast()) {
            Ok(()) => Ok(state.flags & FS_QUOTA_PDQ_ENFD != 0),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// Bytes that a project has.
    fn used(&self, project: u32) -> Result<u64, StoreError> {
        // SAFETY: all zeros is a value of this plain structure.
        let mut entry: libc::dqblk = unsafe { std::mem::zeroed() };
        match self.call(libc::Q_GETQUOTA, project, (&raw mut entry).cast()) {
            Ok(()) => Ok(entry.dqb_curspace),
            // XFS, of an id that it has never seen.
            Err(Errno::ENOENT) => Ok(0),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// Limits a project to so many bytes; 0 is no limit.
    fn limit(&self, project: u32, bytes: u64) -> Result<(), StoreError> {
        // SAFETY: all zeros is a value of this plain structure.
        let mut entry: libc::dqblk = unsafe { std::mem::zeroed() };
        entry.dqb_bhardlimit = bytes.div_ceil(1024);
        entry.dqb_bsoftlimit = entry.dqb_bhardlimit;
        entry.dqb_valid = libc::QIF_BLIMITS;
        self.call(libc::Q_SETQUOTA, project, (&raw mut entry).cast())
            .map_err(|errno| self.failed(errno))
    }

    fn call(
        &self,
        command: libc::c_int,
        project: u32,
        entry: *mut libc::c_void,
    ) -> Result<(), Errno> {
        // SAFETY: the descriptor is open, and the callers pass what their command takes
        // (quotactl_fd(2)); no pointer to it is kept.
        let result = unsafe {
            libc::syscall(
                libc::SYS_quotactl_fd,
                self.directory.as_raw_fd(),
                libc::QCMD(command, PRJQUOTA),
                project,
                entry,
            )
        };
        Errno::result(result).map(drop)
    }

    fn failed(&self, errno: Errno) -> StoreError {
        match errno {
            Errno::ESRCH | Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP | Errno::ENOTTY => {
                StoreError::Quota {
                    path: self.path.clone(),
                }
            }
            errno => StoreError::io(
                "setting a project quota on the file system of",
                &self.path,
                errno,
            ),
        }
    }

    /// Gives a directory a project id, which everything that is made in it inherits.
    fn mark(&self, directory: &Path, project: u32) -> Result<(), StoreError> {
        let file =
            File::open(directory).map_err(|error| StoreError::io("opening", directory, error))?;
        let mut attributes = FsXattr::default();
        let fd = file.as_raw_fd();
        // SAFETY: the descriptor is open, and the structure the one that the call fills.
        let got = unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR, &raw mut attributes) };
        Errno::result(got).map_err(|errno| self.failed(errno))?;
        attributes.projid = project;
        attributes.xflags |= FS_XFLAG_PROJINHERIT;
        // SAFETY: as above; the kernel reads it.
        let set = unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR, &raw const attributes) };
        Errno::result(set)
            .map_err(|errno| self.failed(errno))
            .map(drop)
    }
}
