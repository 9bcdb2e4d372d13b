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
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;

/// Makes sure that this process runs from a read-only mount; if it does not, executes itself
/// again from one, with the same arguments and environment, and then does not return.
///
/// Call it first in `main`.
///
/// # Errors
/// The mount cannot be made or executed (no `CAP_SYS_ADMIN`).
pub fn run_from_read_only_mount() -> Result<(), Errno> {
    let errno = |e: std::io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let executable = File::open("/proc/self/exe").map_err(errno)?;
    if fstatvfs(&executable)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let mount = sys::clone_tree_fd(&executable, false)?;
    sys::mount_setattr(&mount, false, attr::RDONLY, 0, 0)?;
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
    Err(sys::fexecve(&mount, &argv, &envp))
}
