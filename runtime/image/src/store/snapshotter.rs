//! How layers become one root file system, and which of the ways a store goes.

use std::{
    fmt, fs,
    io::Read,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::Mode,
};

use super::disk::{self, Disk};
use crate::{
    StoreError,
    unpack::{self, Marks},
};

/// How the layers of an image become a root file system. The layers of a store are kept in the form
/// that its way needs, so it stays with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshotter {
    /// By an overlayfs mount on top of them: at once, and what is read is shared.
    Overlayfs,
    /// By a copy of them, for places where overlayfs cannot be used: on top of another overlayfs, or
    /// with a kernel without it. Where the file system can (XFS, btrfs), the copy shares its content
    /// with the layers.
    Native,
}

impl Snapshotter {
    const ALL: [Self; 2] = [Self::Overlayfs, Self::Native];

    fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Native => "native",
        }
    }

    pub(super) fn marks(self) -> Marks {
        match self {
            Self::Overlayfs => Marks::Overlay,
            Self::Native => Marks::Sockets,
        }
    }

    /// The way of a store: the one that it goes already, else the one that is wanted, else overlayfs
    /// where that works.
    pub(super) fn of(
        disk: &Disk,
        wanted: Option<Self>,
        is_empty: bool,
    ) -> Result<Self, StoreError> {
        let path = disk.snapshotter();
        let known = match disk::read_text(&path)? {
            Some(text) => Some(Self::parse(&path, &text)?),
            // Made before there was a choice.
            None if !is_empty => Some(Self::Overlayfs),
            None => None,
        };
        let chosen = match (known, wanted) {
            (Some(known), Some(wanted)) if known != wanted && !is_empty => {
                return Err(StoreError::Snapshotter {
                    path: disk.root().to_owned(),
                    found: known,
                    wanted,
                });
            }
            (_, Some(wanted)) => wanted,
            (Some(known), None) if !is_empty => known,
            (_, None) => match probe(disk)? {
                None => Self::Overlayfs,
                Some(reason) => {
                    tracing::warn!(
                        store = %disk.root().display(),
                        reason,
                        "overlayfs cannot be used: each task gets a copy of its image"
                    );
                    Self::Native
                }
            },
        };
        if known != Some(chosen) {
            disk.write(&path, format!("{chosen}\n").as_bytes())?;
        }
        Ok(chosen)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged {
            path: path.to_owned(),
            reason: format!("`{}` is no snapshotter", text.trim_end()),
        };
        let named = |way: &Self| way.name() == text.trim_end();
        Self::ALL.into_iter().find(named).ok_or_else(damaged)
    }
}

impl fmt::Display for Snapshotter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why overlayfs cannot be used in the store, if it cannot: the kernel is asked for a superblock, which
/// needs no mount, and the marks of a layer are made.
fn probe(disk: &Disk) -> Result<Option<String>, StoreError> {
    let scratch = disk.scratch()?;
    let mut handles = Vec::new();
    for name in ["lowerdir", "upperdir", "workdir"] {
        let path = scratch.path().join(name);
        fs::create_dir(&path).map_err(|error| StoreError::io("creating", &path, error))?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let handle = fcntl::open(&path, flags, Mode::empty());
        handles.push((name, handle.map_err(StoreError::errno("opening", &path))?));
    }
    let upper = scratch.path().join("upperdir");
    if let Err((action, errno)) = unpack::try_marks(&upper, Marks::Overlay) {
        return Ok(Some(format!("{action}: {errno}")));
    }
    Ok(superblock(&handles).err())
}

/// fsopen(2) and fsconfig(2); the numbers are from linux/mount.h.
fn superblock(directories: &[(&str, OwnedFd)]) -> Result<(), String> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    // SAFETY: the name ends in NUL; the result is a new descriptor or -1.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) };
    let context = match Errno::result(opened) {
        // SAFETY: nobody else has it.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
        Err(Errno::ENODEV) => return Err("this kernel has no overlayfs".to_owned()),
        Err(errno) => return Err(format!("fsopen: {errno}")),
    };
    for (key, directory) in directories {
        // Short whatever the path is: the kernel takes at most 255 bytes.
        let value = format!("/proc/self/fd/{}\0", directory.as_raw_fd());
        let key = format!("{key}\0");
        // SAFETY: both strings end in NUL and live through the call.
        let set = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        };
        Errno::result(set).map_err(|errno| said(&context, errno))?;
    }
    // SAFETY: this command takes neither key nor value.
    let made = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        )
    };
    Errno::result(made)
        .map(drop)
        .map_err(|errno| said(&context, errno))
}

/// The kernel's own words, where it has some: a line can be read from the context.
fn said(context: &OwnedFd, errno: Errno) -> String {
    let mut line = [0; 256];
    let words = context
        .try_clone()
        .and_then(|context| fs::File::from(context).read(&mut line))
        .map(|count| String::from_utf8_lossy(&line[..count]).trim().to_owned());
    match words {
        Ok(words) if !words.is_empty() => format!("{errno}: {words}"),
        _ => errno.to_string(),
    }
}
