//! `tmpcopyup`: a new tmpfs begins with a copy of the directory that it covers.

use crate::error::{Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::root::beneath;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Deeper than any directory of an image; a limit for the stack.
const MAX_DEPTH: usize = 256;

/// Copies what is in `from` into `to`, a mount that nobody else sees yet.
pub fn copy(from: &OwnedFd, to: &OwnedFd, what: &str) -> Setup<()> {
    let here = OsStr::new(".");
    let from = beneath(from, here, OFlag::O_RDONLY | OFlag::O_DIRECTORY).step("read", what)?;
    let to = beneath(to, here, OFlag::O_RDONLY | OFlag::O_DIRECTORY).step("open", what)?;
    let procfs = ProcFs::of_host().step("open", "/proc")?;
    directory(from, &to, what, 0, &procfs)
}

fn directory(from: OwnedFd, to: &OwnedFd, what: &str, depth: usize, procfs: &ProcFs) -> Setup<()> {
    if depth > MAX_DEPTH {
        let reason = format!("directories more than {MAX_DEPTH} deep");
        return Err(SetupFailure::because("copy into", what, reason));
    }
    let parent = from.try_clone().step("duplicate", "descriptor")?;
    let mut entries = Dir::from_fd(from).step("read", what)?;
    for entry in entries.iter() {
        let entry = entry.step("read", what)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let shown = format!("{} of {what}", name.to_string_lossy());
            one(&parent, name, to, &shown, depth, procfs)?;
        }
    }
    Ok(())
}

fn one(
    from: &OwnedFd,
    name: &CStr,
    to: &OwnedFd,
    shown: &str,
    depth: usize,
    procfs: &ProcFs,
) -> Setup<()> {
    let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
    // Looked at and read by one descriptor: others may be changing the directory.
    let os_name = OsStr::from_bytes(name.to_bytes());
    let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = nix::fcntl::openat(from, name, place, Mode::empty()).step("open", shown)?;
    let data = fstat(&found).step("stat", shown)?;
    let mode = Mode::from_bits_truncate(data.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(data.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU).step("create directory", shown)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let below = procfs.reopen(&found, flags).step("read", shown)?;
            let copy = beneath(to, os_name, flags).step("open", shown)?;
            directory(below, &copy, shown, depth + 1, procfs)?;
            fchmod(&copy, mode).step("set mode of", shown)?;
        }
        SFlag::S_IFREG => {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            let mut source: File = procfs.reopen(&found, flags).step("read", shown)?.into();
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let copy = nix::fcntl::openat(to, name, flags, Mode::S_IRWXU).step("create", shown)?;
            let mut copy = File::from(copy);
            std::io::copy(&mut source, &mut copy).step("copy", shown)?;
            fchmod(&copy, mode).step("set mode of", shown)?;
        }
        SFlag::S_IFLNK => {
            let target = nix::fcntl::readlinkat(&found, "").step("read link", shown)?;
            symlinkat(target.as_os_str(), to, name).step("create link", shown)?;
        }
        kind => {
            mknodat(to, name, kind, mode, data.st_rdev).step("create", shown)?;
            fchmodat(to, name, mode, FchmodatFlags::FollowSymlink).step("set mode of", shown)?;
        }
    }
    let (uid, gid) = (Uid::from_raw(data.st_uid), Gid::from_raw(data.st_gid));
    fchownat(to, name, Some(uid), Some(gid), nofollow).step("set owner of", shown)?;
    if kind != SFlag::S_IFLNK && mode.intersects(Mode::S_ISUID | Mode::S_ISGID) {
        // A change of owner clears these.
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink).step("set mode of", shown)?;
    }
    let (accessed, modified) = (
        TimeSpec::new(data.st_atime, data.st_atime_nsec),
        TimeSpec::new(data.st_mtime, data.st_mtime_nsec),
    );
    let links = UtimensatFlags::NoFollowSymlink;
    utimensat(to, name, &accessed, &modified, links).step("set times of", shown)
}
