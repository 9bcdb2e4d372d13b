//! Network namespaces: made, named by a bind mount, entered for a moment.
//!
//! A namespace lives as long as its bind mount, so it outlives this process. Entering is done on a
//! thread of its own that ends with the work: no thread that serves anything else is ever in a
//! foreign namespace, and nothing must be undone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::NetdpError;

/// A handle to a network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// The namespace of the calling thread.
    pub(crate) fn current() -> Result<Self, NetdpError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that is mounted at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, NetdpError> {
        let file = File::open(path).map_err(NetdpError::file("open network namespace", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The namespace at `path`; made if there is none. A file without a namespace on it, left by
    /// a crash between the two steps or by a reboot, is used again.
    pub(crate) fn ensure(path: &Path) -> Result<Self, NetdpError> {
        if is_namespace(path) {
            return Self::open(path);
        }
        make_file(path)?;
        let made = on_thread(|| -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            bind(Path::new("/proc/thread-self/ns/net"), path)
        })?;
        made.map_err(NetdpError::file("create network namespace", path))?;
        Self::open(path)
    }

    /// Mounts it again at its path, where somebody has unmounted it: whoever is in it stays connected.
    pub(crate) fn mount_again(&self) -> Result<(), NetdpError> {
        if is_namespace(&self.path) {
            return Ok(());
        }
        make_file(&self.path)?;
        let held = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        bind(Path::new(&held), &self.path).map_err(NetdpError::file(
            "mount the network namespace at",
            &self.path,
        ))
    }

    /// Takes the name away. The namespace itself goes with its last user; its devices go with it.
    pub(crate) fn remove(path: &Path) -> Result<(), NetdpError> {
        // More than once where an interrupted start mounted twice.
        while is_namespace(path) {
            umount2(path, MntFlags::MNT_DETACH)
                .map_err(|e| NetdpError::file("unmount network namespace", path)(e.into()))?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NetdpError::file("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Runs `work` inside.
    ///
    /// # Errors
    /// When no thread can be started or the namespace cannot be entered.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetdpError> {
        on_thread(|| -> io::Result<T> {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
        .map_err(NetdpError::file("enter network namespace", &self.path))
    }

    /// Whether a namespace is mounted there, and not just an empty file.
    pub(crate) fn is_mounted(path: &Path) -> bool {
        is_namespace(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Inode number of the namespace: its identity.
    pub(crate) fn inode(&self) -> Result<u64, NetdpError> {
        use std::os::unix::fs::MetadataExt;
        Ok(self
            .file
            .metadata()
            .map_err(NetdpError::file("stat", &self.path))?
            .ino())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The empty file to mount on.
fn make_file(path: &Path) -> Result<(), NetdpError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let made = options.open(path);
    made.map(drop).map_err(NetdpError::file("create", path))
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Whether a namespace is mounted there, and not just the empty file that it is mounted on.
fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetdpError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NetdpError::system(
                "start a thread to enter a network namespace",
            ))?;
        thread.join().map_err(|_| {
            NetdpError::system("work in a network namespace")(io::Error::other(
                "the thread panicked",
            ))
        })
    })
}
