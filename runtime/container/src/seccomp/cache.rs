//! Compiled filters kept in a directory.
//!
//! libseccomp takes tens of milliseconds for a profile like Docker's, several times what all the
//! rest of a container's start takes; reading a compiled one takes microseconds.

use super::compile::Checked;
use super::digest;
use super::filter::Filter;
use crate::error::ContainerError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use oci_spec::runtime::LinuxSeccomp;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// No filter is longer: 4096 instructions, a listener with its metadata, a header.
const MAX_FILE: u64 = 2 << 20;

/// How many files are kept.
const KEPT: usize = 64;

/// A directory of compiled filters, one file each, named by what it was compiled from: the profile,
/// the version of the compiler and of libseccomp, the architecture. So nothing in it ever becomes
/// wrong, and any number of processes may use it at once; files that are not used any more may be
/// removed at any time.
///
/// The directory and the files must belong to the effective user and be writable by nobody else:
/// whoever can write there decides what containers may do.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cache {
    /// Opens the directory; makes it (not its parents) where it is missing, with mode 0700.
    ///
    /// # Errors
    /// It cannot be made or opened, or others may write there.
    pub fn open(path: &Path) -> Result<Self, ContainerError> {
        let failed = |errno| ContainerError::Open {
            what: "seccomp cache",
            path: path.into(),
            errno,
        };
        match mkdirat(nix::fcntl::AT_FDCWD, path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let directory = nix::fcntl::open(path, flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&directory).map_err(failed)?;
        if let Some(reason) = untrusted(&stat) {
            let field = format!("seccomp cache {}", path.display());
            return Err(ContainerError::invalid(field, reason));
        }
        Ok(Self {
            path: path.into(),
            directory,
        })
    }

    /// The filter of `profile`: from the cache, or compiled and put there. Second, why it could
    /// not be put there, which is no reason not to use it.
    ///
    /// # Errors
    /// As those of [`super::compile`].
    pub fn get(
        &self,
        profile: &LinuxSeccomp,
    ) -> Result<(Filter, Option<ContainerError>), ContainerError> {
        if let Some(mut filter) = self.load(profile) {
            // The same profile was checked before it was compiled. The kernel may be another since:
            // that is looked at when a container is created.
            filter.listener = super::listener(profile)?;
            return Ok((filter, None));
        }
        let filter = Checked::new(profile)?.compile(profile)?;
        let stored = self.store(&filter).map_err(|errno| ContainerError::Open {
            what: "new file in seccomp cache",
            path: self.path.clone(),
            errno,
        });
        Ok((filter, stored.err()))
    }

    /// What is missing, damaged or not to be trusted is compiled again and replaced.
    fn load(&self, profile: &LinuxSeccomp) -> Option<Filter> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let digest = digest::of(profile);
        let name = name(&digest);
        let file = openat(&self.directory, name.as_str(), flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        if !regular || untrusted(&stat).is_some() {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).ok()?.min(1 << 16));
        let mut limited = File::from(file).take(MAX_FILE);
        limited.read_to_end(&mut bytes).ok()?;
        // A file under another's name must not stand in for it.
        Filter::from_bytes(&bytes)
            .ok()
            .filter(|filter| filter.digest == digest)
    }

    /// Whole or not at all: under another name first.
    fn store(&self, filter: &Filter) -> Result<(), Errno> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Process ids repeat where several PID namespaces share the directory.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let temporary = format!(".{}.{}.{count}", std::process::id(), now.as_nanos());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.directory, temporary.as_str(), flags, mode)?);
        // The listener is the container's, not the program's.
        let kept = Filter {
            listener: filter.listener.as_ref().map(|_| super::Listener {
                path: "/".into(),
                metadata: None,
            }),
            ..filter.clone()
        };
        let written = file
            .write_all(&kept.to_bytes())
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            .and_then(|()| {
                let name = name(&filter.digest);
                renameat(
                    &self.directory,
                    temporary.as_str(),
                    &self.directory,
                    name.as_str(),
                )
            });
        if written.is_ok() {
            self.prune();
        } else {
            let _ = unlinkat(
                &self.directory,
                temporary.as_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
        written
    }

    /// Removes the files that were written first, where there are too many; also what a writer that
    /// was killed has left. A failure costs a little room.
    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return;
        };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name())))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(KEPT);
        for (_, name) in files.iter().take(surplus) {
            let _ = unlinkat(
                &self.directory,
                name.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
    }
}

/// Why what is behind this may have been written by somebody else.
fn untrusted(stat: &FileStat) -> Option<String> {
    let own = geteuid().as_raw();
    let others = Mode::S_IWGRP | Mode::S_IWOTH;
    if stat.st_uid != own {
        Some(format!("belongs to user {}, not {own}", stat.st_uid))
    } else if stat.st_mode & others.bits() != 0 {
        Some(format!(
            "others may write it (mode {:o})",
            stat.st_mode & 0o7777
        ))
    } else {
        None
    }
}

fn name(digest: &digest::Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
