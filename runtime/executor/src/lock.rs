//! One daemon for each state directory and each run directory, and a socket that is never stolen
//! from a living one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{self, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::kill;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials, connect, getsockopt, socket,
};
use nix::unistd::{Group, Pid, geteuid};
use tokio::net::UnixListener;

/// Why this daemon may not begin.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody holds the lock.
    #[error("{} is in use by another fairleadd{holder}: stop it, or give this one a directory of its own", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// ` (pid N)` where it is known.
        holder: String,
    },
    /// Somebody has the network namespace.
    #[error(
        "this network namespace is managed by another fairleadd (pid {0}): stop it, or start this one in \
         a network namespace of its own (ip netns add, nsenter --net)"
    )]
    Managed(i32),
    /// Somebody answers on the socket.
    #[error("{} is served by another daemon: stop it, or give this one a socket of its own", .0.display())]
    Served(PathBuf),
    /// The group does not exist.
    #[error("group {0:?} of --socket-group does not exist: create it (groupadd {0})")]
    NoGroup(String),
    /// A file could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Errno.
        source: io::Error,
    },
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    let path = path.to_owned();
    move |source| LockError::File {
        action,
        path,
        source,
    }
}

/// A directory that is this daemon's alone, until dropped or until the process ends in whatever way.
#[derive(Debug)]
pub struct DirLock {
    _lock: Flock<File>,
}

impl DirLock {
    /// Creates the directory with this mode, where there is none, and takes it.
    ///
    /// # Errors
    /// When another daemon has it, or it cannot be made.
    pub fn take(dir: &Path, mode: u32) -> Result<Self, LockError> {
        if !dir.exists() {
            fs::create_dir_all(dir).map_err(file("create", dir))?;
            fs::set_permissions(dir, Permissions::from_mode(mode))
                .map_err(file("set mode of", dir))?;
        }
        let path = dir.join("lock");
        // Whoever can open it can lock it.
        let mut handle = private_file(&path).map_err(file("open", &path))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    let write = |lock: &mut File| {
                        lock.set_len(0)?;
                        lock.rewind()?;
                        writeln!(lock, "{}", std::process::id())
                    };
                    write(&mut lock).map_err(file("write", &path))?;
                    return Ok(Self { _lock: lock });
                }
                Err((mut busy, Errno::EWOULDBLOCK)) => {
                    let pid = holder(&mut busy);
                    if !pid.is_some_and(is_gone) || Instant::now() >= deadline {
                        let holder = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                        return Err(LockError::Held {
                            dir: dir.to_owned(),
                            holder,
                        });
                    }
                    handle = busy;
                    std::thread::sleep(PAUSE);
                }
                Err((_, errno)) => return Err(file("lock", &path)(errno.into())),
            }
        }
    }
}

/// The network namespace that this process is in, which is this daemon's alone as long as this lives: each
/// of two would take away the other's devices and rules as leftovers.
#[derive(Debug)]
pub struct NamespaceLock {
    _listener: Option<net::UnixListener>,
}

impl NamespaceLock {
    /// Takes it: an abstract address of a Unix socket exists once in each network namespace (unix(7)).
    ///
    /// # Errors
    /// When another daemon has it, or no socket can be made.
    pub fn take() -> Result<Self, LockError> {
        const NAME: &str = "fairleadd";
        let path = Path::new("@fairleadd"); // as ss(8) and /proc/net/unix write it
        let address = net::SocketAddr::from_abstract_name(NAME).map_err(file("name", path))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let busy = match net::UnixListener::bind_addr(&address) {
                Ok(listener) => {
                    return Ok(Self {
                        _listener: Some(listener),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
                Err(error) => return Err(file("bind", path)(error)),
            };
            match listener_of(NAME) {
                // Anybody can take such an address; only one of us counts.
                Some(peer) if peer.uid() != geteuid().as_raw() => {
                    tracing::warn!(
                        pid = peer.pid(),
                        uid = peer.uid(),
                        "somebody else has @fairleadd"
                    );
                    return Ok(Self { _listener: None });
                }
                Some(peer) if !is_gone(peer.pid()) => return Err(LockError::Managed(peer.pid())),
                _ if Instant::now() >= deadline => return Err(file("bind", path)(busy)),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// Who listens at an abstract address; nobody accepts there, so whoever asks must not wait.
fn listener_of(name: &str) -> Option<UnixCredentials> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asker = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new_abstract(name.as_bytes()).ok()?;
    connect(asker.as_raw_fd(), &address).ok()?;
    getsockopt(&asker, PeerCredentials).ok()
}

/// How long a lock of a process that is gone is waited for: a child that a killed daemon had just
/// begun to start has it until it executes its program.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The process that wrote its number into the file.
fn holder(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// Opens or creates a file that nobody but its owner can open.
///
/// # Errors
/// When that is not possible.
pub fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The group of that name.
///
/// # Errors
/// When there is none.
pub fn group(name: Option<&str>) -> Result<Option<Group>, LockError> {
    let Some(name) = name else { return Ok(None) };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group)),
        _ => Err(LockError::NoGroup(name.to_owned())),
    }
}

/// Listens on the socket: mode 0660, root and the group. A socket that nobody serves any more is
/// replaced.
///
/// # Errors
/// When a living daemon serves it, or it cannot be made.
pub fn listen(path: &Path, group: Option<&Group>) -> Result<UnixListener, LockError> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(LockError::Served(path.to_owned())),
        // Nobody there, or nobody listening: ours to replace. Anything else may be alive.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) => {}
        Err(error) => return Err(file("probe", path)(error)),
    }
    // Bound under another name first, so that nobody connects before owner and mode are right.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove", &fresh)(error));
        }
        _ => {}
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(file("create", parent))?;
    }
    let listener = UnixListener::bind(&fresh).map_err(file("bind socket", &fresh))?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))
        .map_err(file("set mode of", &fresh))?;
    let gid = group.map_or(0, |group| group.gid.as_raw());
    chown(&fresh, Some(0), Some(gid)).map_err(file("set owner of", &fresh))?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o660))
        .map_err(file("set mode of", &fresh))?;
    fs::rename(&fresh, path).map_err(file("rename socket to", path))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path(), 0o700).unwrap();
        let error = DirLock::take(dir.path(), 0o700).unwrap_err();
        assert!(matches!(&error, LockError::Held { .. }), "{error}");
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(held);
        DirLock::take(dir.path(), 0o700).unwrap();
    }

    #[test]
    fn what_a_killed_daemon_was_starting_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path(), 0o700).unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        fs::write(dir.path().join("lock"), gone.id().to_string()).unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(held);
        });
        DirLock::take(dir.path(), 0o700).unwrap();
        child.join().unwrap();
    }

    #[test]
    fn an_unknown_group_is_named() {
        let error = group(Some("no-such-group-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-group-here"));
        assert!(group(None).unwrap().is_none());
    }
}
