//! The terminal of a container: a pty of the container's own devpts, whose other side is handed
//! to whoever waits at the console socket.

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::gate;
use crate::procfs::ProcFs;
use crate::root::{Links, Root};
use crate::sys;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, connect, sendmsg, socket,
};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use nix::unistd::{Uid, fchown};
use oci_spec::runtime::Process;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// Major number of the slaves of ptys (`Documentation/admin-guide/devices.txt`); each of eight
/// has 256 minors.
const SLAVE_MAJORS: std::ops::RangeInclusive<u64> = 136..=143;

/// Connects to the socket that is to get the master side.
///
/// # Errors
/// Nobody waits there.
pub fn connect_console(path: &Path) -> Result<OwnedFd, ContainerError> {
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let (_directory, address) = gate::address(path)?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket)
    };
    open().map_err(|errno| ContainerError::Open {
        what: "console socket",
        path: path.into(),
        errno,
    })
}

/// Rows and columns of a terminal.
///
/// # Errors
/// It is not one.
pub fn size_of_terminal(terminal: impl AsFd) -> Result<(u16, u16), ContainerError> {
    sys::terminal::size(terminal).map_err(|errno| ContainerError::System {
        step: "read size of terminal",
        errno,
    })
}

/// Sets rows and columns of a terminal; its foreground programs are told.
///
/// # Errors
/// It is not one.
pub fn resize_terminal(
    terminal: impl AsFd,
    (rows, columns): (u16, u16),
) -> Result<(), ContainerError> {
    sys::terminal::set_size(terminal, rows, columns).map_err(|errno| ContainerError::System {
        step: "set size of terminal",
        errno,
    })
}

/// Both sides of a pty.
pub struct Pty {
    master: OwnedFd,
    /// The container's side.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens one in the devpts of `root`, and checks that it is one: an image may have put
    /// anything there.
    pub fn open(root: &Root, process: &Process, procfs: &ProcFs) -> Setup<Self> {
        let path = Path::new("/dev/pts/ptmx");
        let shown = path.display();
        // Looked at before it is opened: to open another device may do anything.
        let found = root.locate(path, Links::Refuse).step("open", &shown)?;
        let wrong = |what: &str| {
            Err(SetupFailure::because(
                "open",
                path.display(),
                format!("{what}; a terminal needs a devpts mount at /dev/pts"),
            ))
        };
        if fstatfs(&found).step("stat", &shown)?.filesystem_type().0 != DEVPTS_MAGIC {
            return wrong("it is not on a devpts");
        }
        let number = fstat(&found).step("stat", &shown)?.st_rdev;
        if number != nix::sys::stat::makedev(5, 2) {
            return wrong("it is not the pty multiplexer");
        }
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
        let master = procfs.reopen(&found, flags).step("open", &shown)?;
        sys::terminal::unlock(&master).step("unlock", "terminal")?;
        let slave = sys::terminal::open_peer(&master).step("open", "terminal")?;
        let number = fstat(&slave).step("stat", "terminal")?.st_rdev;
        if !SLAVE_MAJORS.contains(&nix::sys::stat::major(number)) {
            return wrong("what it made is not a pty");
        }
        let pty = Self { master, slave };
        if let Some(size) = process.console_size() {
            let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            sys::terminal::set_size(&pty.slave, cells(size.height()), cells(size.width()))
                .step("set size of", "terminal")?;
        }
        Ok(pty)
    }

    /// Puts the container's side at `/dev/console`.
    pub fn mount_console(&self, root: &Root) -> Setup<()> {
        let path = Path::new("/dev/console");
        let place = root.make_file(path, Links::Refuse)?;
        let mount = sys::clone_tree_fd(&self.slave, false).step("open", "terminal")?;
        sys::move_mount(&mount, &place).step("mount terminal at", path.display())
    }

    /// Hands the master side over, and with it the pty's name.
    pub fn send_master(self, console: &OwnedFd) -> Setup<OwnedFd> {
        let descriptors = [self.master.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let name = [IoSlice::new(b"/dev/ptmx")];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(console.as_raw_fd(), &name, &control, flags, None)
            .step("send terminal to", "the console socket")?;
        Ok(self.slave)
    }
}

/// Makes it the terminal of this session, and the user's.
pub fn take(slave: &OwnedFd, uid: u32) -> Setup<()> {
    fchown(slave, Some(Uid::from_raw(uid)), None).step("give to the user", "terminal")?;
    sys::terminal::set_controlling(slave).step("make controlling", "terminal")
}

/// Checks the fields about terminals.
pub fn check(process: &Process, console: bool) -> Result<(), ContainerError> {
    match (process.terminal().unwrap_or(false), console) {
        (true, false) => Err(ContainerError::invalid(
            "process.terminal",
            "a terminal was asked for, but no console socket is there to take its other side",
        )),
        (false, true) => Err(ContainerError::invalid(
            "process.terminal",
            "a console socket was given, but no terminal is asked for",
        )),
        _ => Ok(()),
    }
}
