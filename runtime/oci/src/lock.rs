//! One command at a time for a container.

use crate::error::OciError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Locks a directory; waits while somebody else has it, at most as long as is said. `None` when
/// there is none.
pub fn lock(directory: &Path, patience: Option<Duration>) -> Result<Option<Flock<File>>, OciError> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let how = match deadline {
        None => FlockArg::LockExclusive,
        Some(_) => FlockArg::LockExclusiveNonblock,
    };
    loop {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECTORY);
        let file = match options.open(directory) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            result => result.map_err(OciError::file("open", directory))?,
        };
        let lock = match Flock::lock(file, how) {
            Ok(lock) => lock,
            Err((_, Errno::EINTR)) => continue,
            Err((_, Errno::EAGAIN)) => match deadline {
                Some(deadline) if Instant::now() >= deadline => {
                    return Err(OciError::Busy(directory.into()));
                }
                _ => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            },
            Err((_, errno)) => return Err(OciError::file("lock", directory)(errno.into())),
        };
        // While we waited it may have been deleted, and one of the same name made.
        let held = lock.metadata().map_err(OciError::file("stat", directory))?;
        if fs::metadata(directory)
            .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()))
        {
            return Ok(Some(lock));
        }
    }
}
