//! A private mount of procfs, attached nowhere: what is written through it cannot be redirected
//! by anything that the image or its mounts put at `/proc`.

use crate::error::{Context, Setup, SetupFailure};
use crate::sys::{self, FsContext};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::LinuxNamespaceType;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// procfs of the PID namespace of the process that opened it.
pub struct ProcFs(OnceCell<OwnedFd>);

impl ProcFs {
    pub fn new() -> Setup<Self> {
        Ok(Self(OnceCell::from(
            mounted().step("mount", "a private procfs")?,
        )))
    }

    /// Mounted when it is first used, if at all.
    pub fn later() -> Self {
        Self(OnceCell::new())
    }

    /// procfs of the host, in a process whose `/proc` nobody else can have covered.
    pub fn of_host() -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open("/proc", flags, Mode::empty())?;
        if fstatfs(&fd)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Errno::EXDEV);
        }
        Ok(Self(OnceCell::from(fd)))
    }

    /// Opens for use what was opened with `O_PATH` and looked at: nothing else can have taken its
    /// place since. To open a device or a FIFO is already to do something to it.
    pub fn reopen(&self, fd: impl AsFd, flags: OFlag) -> Result<OwnedFd, Errno> {
        nix::fcntl::openat(
            self.root()?,
            &*own(fd),
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }

    /// Sets the mode of what a descriptor stands for, one of `O_PATH` too.
    pub fn set_mode(&self, fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
        fchmodat(self.root()?, &*own(fd), mode, FchmodatFlags::FollowSymlink)
    }

    /// Writes one file, named relative to `/proc`.
    pub fn write(&self, path: &str, value: &str) -> Result<(), Errno> {
        let mut file = self.open(path, OFlag::O_WRONLY)?;
        file.write_all(value.as_bytes()).map_err(errno)
    }

    /// Reads one file, named relative to `/proc`.
    pub fn read(&self, path: &str) -> Result<String, Errno> {
        sys::read_text(self.open(path, OFlag::O_RDONLY)?)
    }

    fn open(&self, path: &str, flags: OFlag) -> Result<File, Errno> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let fd = openat2(self.root()?, Path::new(path), how)?;
        if fstatfs(&fd)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Errno::EXDEV);
        }
        Ok(fd.into())
    }

    fn root(&self) -> Result<&OwnedFd, Errno> {
        if let Some(root) = self.0.get() {
            return Ok(root);
        }
        let new = mounted()?;
        Ok(self.0.get_or_init(|| new))
    }

    /// Sets kernel parameters. They were checked by [`check_sysctl`].
    pub fn set_sysctls(&self, sysctls: &HashMap<String, String>) -> Setup<()> {
        let mut sorted: Vec<_> = sysctls.iter().collect();
        sorted.sort();
        for (name, value) in sorted {
            let path = sysctl_path(name);
            let set = match path.as_str() {
                // In a user namespace the file can be written by nobody: it is the machine's root's.
                DOMAIN_NAME => sys::setdomainname(value.trim_end()),
                path => self.write(&format!("sys/{path}"), value),
            };
            set.map_err(|errno| SetupFailure::new("set sysctl", format!("{name}={value}"), errno))?;
        }
        Ok(())
    }
}

/// Name of a descriptor of this process.
fn own(fd: impl AsFd) -> String {
    format!("self/fd/{}", fd.as_fd().as_raw_fd())
}

fn mounted() -> Result<OwnedFd, Errno> {
    let context = FsContext::open("proc")?;
    context.create()?;
    context.mount(0)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward`; as in sysctl(8), the separator that comes
/// first decides, and the other one then stands for a character of a name.
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.into(),
    }
}

/// The kind of namespace that a parameter belongs to; `None` where that is the whole machine (the
/// list is that of the runtime specification's other implementations).
pub fn namespace_of(name: &str) -> Option<LinuxNamespaceType> {
    match sysctl_path(name).as_str() {
        "kernel/msgmax"
        | "kernel/msgmnb"
        | "kernel/msgmni"
        | "kernel/sem"
        | "kernel/shmall"
        | "kernel/shmmax"
        | "kernel/shmmni"
        | "kernel/shm_rmid_forced" => Some(LinuxNamespaceType::Ipc),
        path if path.starts_with("fs/mqueue/") => Some(LinuxNamespaceType::Ipc),
        path if path.starts_with("net/") => Some(LinuxNamespaceType::Network),
        DOMAIN_NAME => Some(LinuxNamespaceType::Uts),
        _ => None,
    }
}

/// How Docker sets the domain name (moby, `setLinuxDomainname`).
const DOMAIN_NAME: &str = "kernel/domainname";

/// Refuses a parameter that belongs to the whole machine rather than to a namespace of the
/// container; `own` tells of which kinds it has one.
pub fn check_sysctl(name: &str, own: impl Fn(LinuxNamespaceType) -> bool) -> Result<(), String> {
    let path = sysctl_path(name);
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err("not a parameter name".into());
    }
    if path == "kernel/hostname" {
        return Err("the field for it is \"hostname\"".into());
    }
    match namespace_of(name) {
        None => Err("not separate per container, it would change the whole machine".into()),
        Some(kind) if own(kind) => Ok(()),
        Some(kind) => Err(format!("needs a namespace of the container's own: {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
    }

    #[test]
    fn only_what_is_namespaced() {
        use LinuxNamespaceType as T;
        let ipc = |kind| kind == T::Ipc;
        assert!(check_sysctl("kernel.shmmax", ipc).is_ok());
        assert!(check_sysctl("net.ipv4.ip_forward", ipc).is_err());
        assert!(check_sysctl("kernel.domainname", ipc).is_err());
        let all = |_| true;
        assert!(check_sysctl("net.ipv4.ip_forward", all).is_ok());
        assert!(check_sysctl("kernel/domainname", all).is_ok());
        let refused = check_sysctl("kernel.hostname", all).expect_err("has a field");
        assert!(refused.contains("\"hostname\""), "{refused}");
        for name in [
            "kernel.panic",
            "vm.swappiness",
            "net/../kernel/panic",
            "net..x",
            "",
            "net",
        ] {
            assert!(check_sysctl(name, all).is_err(), "{name}");
        }
    }
}
