//! The runtime's own executable, out of reach of what it runs.
//!
//! A program in a container can be made to execute `/proc/self/exe` (an image whose entry point
//! is a script with that interpreter), and then hold a descriptor on the runtime's binary of the
//! host (CVE-2019-5736). Opened for writing it would change the runtime for all containers. So the
//! runtime executes itself from a private read-only mount of its file: what leads back to it by
//! `/proc/<pid>/exe` leads to that mount, and cannot be written whatever the file's mode says. No
//! copy is made: all instances share the pages of the one file.

use crate::sys::{self, attr};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Makes sure that this process runs from a read-only mount; if it does not, executes itself
/// again from one, with the same arguments and environment, and then does not return. Who may not
/// mount runs from a sealed copy in memory instead.
///
/// Call it before anything of a container is made.
///
/// # Errors
/// Neither can be made or executed.
pub fn protect() -> Result<(), Errno> {
    let executable = File::open("/proc/self/exe").map_err(from_io)?;
    let read_only = fstatvfs(&executable)?.flags().contains(FsFlags::ST_RDONLY);
    if (read_only && is_private()?) || is_sealed(&executable) {
        return Ok(());
    }
    let replacement = match read_only_mount(&executable) {
        Err(Errno::EPERM) => sealed_copy(&executable)?,
        result => result?,
    };
    let strings = |list: Vec<std::ffi::OsString>| -> Result<Vec<CString>, Errno> {
        list.into_iter()
            .map(|s| CString::new(s.into_vec()).map_err(|_| Errno::EINVAL))
            .collect()
    };
    let argv = strings(std::env::args_os().collect())?;
    let pairs = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let envp = strings(pairs.collect())?;
    Err(sys::fexecve(&replacement, &argv, &envp))
}

fn from_io(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Whether the executable is all of its mount, as of ours. One of the machine that is read-only now
/// need not stay so, and what was opened before can be written then.
fn is_private() -> Result<bool, Errno> {
    let link = std::fs::read_link("/proc/self/exe").map_err(from_io)?;
    Ok(link == Path::new("/") || link == Path::new("/ (deleted)"))
}

fn read_only_mount(executable: &File) -> Result<OwnedFd, Errno> {
    let mount = sys::clone_tree_fd(executable, false)?;
    sys::mount_setattr(&mount, false, attr::RDONLY, 0, 0)?;
    Ok(mount)
}

/// What no sealed file allows any more (fcntl(2), "File Sealing").
fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

fn is_sealed(executable: &File) -> bool {
    let held = fcntl(executable, FcntlArg::F_GET_SEALS);
    held.is_ok_and(|held| SealFlag::from_bits_truncate(held).contains(seals()))
}

fn sealed_copy(executable: &File) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy: File = memfd_create(c"runtime", flags)?.into();
    std::io::copy(&mut &*executable, &mut copy).map_err(from_io)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(copy.into())
}
