//! Which namespaces a container gets of its own, and which it shares.

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, stat};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset};
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The `CLONE_NEW*` flag of `linux/sched.h`.
pub fn flag(kind: LinuxNamespaceType) -> u64 {
    (match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }) as u32 as u64
}

/// A namespace that exists already.
#[derive(Debug)]
pub struct Joined {
    kind: LinuxNamespaceType,
    fd: OwnedFd,
    path: PathBuf,
}

/// The namespaces of a container, those to join opened and checked.
#[derive(Debug)]
pub struct Namespaces {
    new: Vec<LinuxNamespaceType>,
    joined: Vec<Joined>,
    offsets: Vec<(String, LinuxTimeOffset)>,
}

impl Namespaces {
    /// Opens what is to be joined.
    ///
    /// # Errors
    /// A path cannot be opened, or is not a namespace of the kind that was said.
    pub fn open(linux: &Linux) -> Result<Self, ContainerError> {
        let (mut new, mut joined) = (Vec::new(), Vec::new());
        for (i, entry) in linux.namespaces().iter().flatten().enumerate() {
            match entry.path() {
                None => new.push(entry.typ()),
                Some(path) => joined.push(join(i, entry.typ(), path)?),
            }
        }
        let offsets = linux.time_offsets().iter().flatten();
        Ok(Self {
            new,
            joined,
            offsets: offsets
                .map(|(clock, by)| (clock.clone(), by.clone()))
                .collect(),
        })
    }

    /// Whether the container has one of this kind that is not the caller's.
    pub fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// Whether a new one of this kind is made.
    pub fn makes(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(&kind)
    }

    /// Whether one of this kind that exists is joined.
    pub fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether the one of this kind that is joined is the caller's own.
    pub fn joins_own(&self, kind: LinuxNamespaceType) -> bool {
        let Some(joined) = self.joined.iter().find(|joined| joined.kind == kind) else {
            return false;
        };
        let own = format!("/proc/self/ns/{kind}");
        match (fstat(&joined.fd), stat(own.as_str())) {
            (Ok(joined), Ok(own)) => (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino),
            _ => true, // what cannot be told apart is not to be changed
        }
    }

    /// The namespace of this kind that is joined.
    pub fn joined_fd(&self, kind: LinuxNamespaceType) -> Option<std::os::fd::BorrowedFd<'_>> {
        let joined = self.joined.iter().find(|joined| joined.kind == kind)?;
        Some(std::os::fd::AsFd::as_fd(&joined.fd))
    }

    /// Whether the process that clones the container's must itself change namespaces first.
    ///
    /// PID and time namespaces hold only for children. One user namespace joined, or a new one
    /// beside others that are joined, has an order: what the caller's privileges open comes
    /// first, what only those inside open comes after.
    pub fn need_stage(&self) -> bool {
        use LinuxNamespaceType as T;
        self.joins(T::User)
            || self.joins(T::Pid)
            || self.has(T::Time)
            || (self.makes(T::User) && !self.joined.is_empty())
    }

    /// Flags for the clone. The cgroup namespace is made later, when the process is in its cgroup;
    /// what a stage makes is not made again.
    pub fn clone_flags(&self) -> u64 {
        use LinuxNamespaceType as T;
        let staged: &[T] = if self.need_stage() {
            &[T::User, T::Time, T::Cgroup]
        } else {
            &[T::Cgroup]
        };
        let made = self.new.iter().filter(|kind| !staged.contains(kind));
        made.fold(0, |all, kind| all | flag(*kind))
    }

    /// In the container's process: joins what is to be joined, or where there is a stage, what
    /// that leaves.
    pub fn join(&self) -> Setup<()> {
        let staged = self.need_stage();
        // From inside a cgroup namespace nobody can be born into a cgroup outside of it.
        let left = |joined: &&Joined| !staged || joined.kind == LinuxNamespaceType::Cgroup;
        self.joined.iter().filter(left).try_for_each(|joined| {
            sys::setns(&joined.fd, flag(joined.kind)).step("join namespace", joined.path.display())
        })
    }

    /// In the stage: joins all but the cgroup namespace, and makes the user and time namespaces.
    /// `mapped` is called when the new user namespace needs its maps.
    pub fn join_in_stage(&self, mapped: impl FnOnce() -> Setup<()>) -> Setup<()> {
        use LinuxNamespaceType as T;
        // Opened with the privileges of now, which count when it is written.
        let mut offsets = self.offsets_file()?;
        let mut later = Vec::new();
        // A mount namespace last: it takes the root directory along.
        let (mounts, others): (Vec<_>, Vec<_>) = (self.joined.iter())
            .filter(|joined| !matches!(joined.kind, T::User | T::Cgroup))
            .partition(|joined| joined.kind == T::Mount);
        for joined in others.into_iter().chain(mounts) {
            match sys::setns(&joined.fd, flag(joined.kind)) {
                Ok(()) => {}
                // It may belong to the user namespace that is joined next.
                Err(Errno::EPERM) if self.has(T::User) => later.push(joined),
                Err(errno) => {
                    let path = joined.path.display();
                    return Err(SetupFailure::new("join namespace", path, errno));
                }
            }
        }
        for joined in self.joined.iter().filter(|joined| joined.kind == T::User) {
            sys::setns(&joined.fd, flag(T::User)).step("join namespace", joined.path.display())?;
        }
        if self.makes(T::User) {
            sys::unshare(flag(T::User)).step("make", "user namespace")?;
            mapped()?;
        }
        for joined in later {
            sys::setns(&joined.fd, flag(joined.kind))
                .step("join namespace", joined.path.display())?;
        }
        if self.makes(T::Time) {
            sys::unshare(flag(T::Time)).step("make", "time namespace")?;
        }
        match offsets.as_mut() {
            Some(file) => self.write_offsets(file),
            None => Ok(()),
        }
    }

    fn offsets_file(&self) -> Setup<Option<std::fs::File>> {
        if self.offsets.is_empty() {
            return Ok(None);
        }
        let path = "/proc/self/timens_offsets";
        let file = std::fs::OpenOptions::new().write(true).open(path);
        file.map(Some).step("open", path)
    }

    /// All in one write, as time_namespaces(7) wants it.
    fn write_offsets(&self, file: &mut std::fs::File) -> Setup<()> {
        let mut lines = String::new();
        for (clock, by) in &self.offsets {
            let (seconds, nanos) = (by.secs().unwrap_or(0), by.nanosecs().unwrap_or(0));
            lines.push_str(&format!("{clock} {seconds} {nanos}\n"));
        }
        file.write_all(lines.as_bytes())
            .step("set time offsets", lines.trim_end().replace('\n', ", "))
    }
}

fn join(i: usize, kind: LinuxNamespaceType, path: &Path) -> Result<Joined, ContainerError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd =
        nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| ContainerError::Open {
            what: "namespace",
            path: path.into(),
            errno,
        })?;
    match sys::namespace_type(&fd) {
        Ok(found) if found == flag(kind) => Ok(Joined {
            kind,
            fd,
            path: path.into(),
        }),
        _ => Err(ContainerError::invalid(
            format!("linux.namespaces[{i}].path"),
            format!("{} is not a {kind} namespace", path.display()),
        )),
    }
}

/// Checks `linux.timeOffsets` (time_namespaces(7)).
pub fn check_offsets(offsets: &HashMap<String, LinuxTimeOffset>) -> Result<(), ContainerError> {
    for (clock, by) in offsets {
        let field = format!("linux.timeOffsets.{clock}");
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let reason = "only \"monotonic\" and \"boottime\" can be shifted";
            return Err(ContainerError::invalid(field, reason));
        }
        if by.nanosecs().is_some_and(|nanos| nanos >= 1_000_000_000) {
            let reason = "nanosecs is a second or more";
            return Err(ContainerError::invalid(field, reason));
        }
    }
    Ok(())
}
