//! Memory that is shared with other processes.

use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;

/// Maps the first page of a file for the rest of this process's life, and of its copies'.
pub fn shared_page(file: &File) -> Result<&'static [AtomicU32; 1024], Errno> {
    if file.metadata().map_or(0, |data| data.len()) < 4096 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: a new mapping at a place that the kernel chooses.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page is 4096 bytes long, aligned, never unmapped, and only used atomically.
    Ok(unsafe { &*page.cast::<[AtomicU32; 1024]>() })
}
