//! System calls that neither `nix` nor `caps` offers. All of this crate's raw calls are here.

mod bpf;
mod file;
mod mount;
mod namespace;
mod proc;
mod schedule;
mod seccomp;
#[cfg(feature = "fault-points")]
mod shared;
pub mod terminal;
mod xattr;

pub use bpf::*;
pub use file::*;
pub use mount::*;
pub use namespace::*;
pub use proc::*;
pub use schedule::*;
pub use seccomp::*;
#[cfg(feature = "fault-points")]
pub use shared::*;
pub use xattr::*;

use nix::errno::Errno;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as the kernel wants it; `EINVAL` when it holds a NUL byte.
pub(crate) fn cstring(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
