//! `linux.netDevices`: devices of the runtime's network namespace become the container's
//! (config-linux.md, "Network Devices").
//!
//! A device keeps its attributes and its permanent addresses of global scope, and is up in the
//! container. When the container's namespace ends, the kernel gives a physical device back to the
//! initial namespace, and destroys a virtual one. Until the container stands, a device that was
//! moved can still be given back as it was.

mod route;

use crate::error::{Context, Setup, SetupFailure};
use crate::namespaces::Namespaces;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use route::{Link, Route};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How often a name of a template is looked for again, when somebody takes the one found.
const TRIES: usize = 16;

/// What is to be moved, by name, each with its name afterwards.
fn wanted(linux: &Linux) -> BTreeMap<&str, &str> {
    let list = linux.net_devices().iter().flatten();
    let named = list.map(|(name, device)| {
        let new = device.name().as_deref().filter(|new| !new.is_empty());
        (name.as_str(), new.unwrap_or(name))
    });
    named.collect()
}

/// The namespace that they go to.
fn target(namespaces: &Namespaces, pid: i32) -> Setup<OwnedFd> {
    match namespaces.joined_fd(LinuxNamespaceType::Network) {
        Some(fd) => fd.try_clone_to_owned().step("open", "network namespace"),
        // Made by the clone itself.
        None => open(&format!("/proc/{pid}/ns/net")),
    }
}

fn open(path: &str) -> Setup<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    nix::fcntl::open(Path::new(path), flags, Mode::empty()).step("open", path)
}

/// Moves all devices into the network namespace of the container whose process this is, which has
/// not run anything yet.
pub fn move_in(linux: &Linux, namespaces: &Namespaces, pid: i32) -> Setup<Option<Moved>> {
    let wanted = wanted(linux);
    if wanted.is_empty() {
        return Ok(None);
    }
    let (ours, theirs) = (open("/proc/self/ns/net")?, target(namespaces, pid)?);
    let id = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if id(&ours) == id(&theirs) {
        let reason = "the container's network namespace is the runtime's own";
        return Err(SetupFailure::because("move", "network devices", reason));
    }
    let mut moved = Moved {
        here: Route::open().step("open", "rtnetlink socket")?,
        there: route_in(&theirs, &ours)?,
        ours,
        theirs,
        devices: Vec::new(),
    };
    for (name, new) in wanted {
        moved.device(name, new)?; // dropped, it gives back what was moved
    }
    Ok(Some(moved))
}

/// A socket of the namespace `theirs`, by going there and back: the caller has one thread.
fn route_in(theirs: &OwnedFd, ours: &OwnedFd) -> Setup<Route> {
    let network = libc::CLONE_NEWNET as u64;
    sys::setns(theirs, network).step("join", "network namespace of the container")?;
    let socket = Route::open();
    if let Err(errno) = sys::setns(ours, network) {
        // Whatever came next would be done to the wrong network.
        eprintln!("return to the network namespace of the runtime: {errno}");
        sys::exit_now(125);
    }
    socket.step("open", "rtnetlink socket")
}

/// Devices that were moved. Dropped, they are given back; [`Moved::keep`] leaves them.
#[derive(Debug)]
pub struct Moved {
    ours: OwnedFd,
    theirs: OwnedFd,
    here: Route,
    there: Route,
    devices: Vec<Device>,
}

/// As it was before.
#[derive(Debug)]
struct Device {
    link: Link,
    /// What it is called in the container.
    new: String,
}

impl Moved {
    /// The container stands: they are its own.
    pub fn keep(mut self) {
        self.devices.clear();
    }

    fn device(&mut self, name: &str, new: &str) -> Setup<()> {
        let failed = |step: &str, errno| SetupFailure {
            reason: hint(errno).into(),
            ..SetupFailure::new(step, format!("network device {name}"), errno)
        };
        let link = self.here.link(name).map_err(|e| failed("find", e))?;
        // With the device down, those of IPv6 go.
        let down = self.here.set_up(link.index, false);
        let moved = down.and_then(|()| self.send(&link, new));
        let new = moved.map_err(|errno| {
            let step = format!("move to the container (as {new})");
            // The error that led here is the one to report.
            let _ = self.undo_send(&link);
            failed(&step, errno)
        })?;
        let addresses = link.clone();
        self.devices.push(Device {
            link,
            new: new.clone(),
        });
        let arrived = self.there.link(&new).and_then(|there| {
            self.there.restore(&addresses, there.index)?;
            self.there.set_up(there.index, true)
        });
        arrived.map_err(|errno| failed("set up in the container", errno))
    }

    /// The kernel moves first and then renames: where that failed the device is there already, by
    /// its old name.
    fn undo_send(&mut self, link: &Link) -> Result<(), Errno> {
        if self.here.link(&link.name).is_err() {
            let there = self.there.link(&link.name)?;
            self.there
                .send(there.index, &link.name, self.ours.as_fd())?;
        }
        let here = self.here.link(&link.name)?;
        self.here.restore(link, here.index)
    }

    /// With the name that it got.
    fn send(&mut self, link: &Link, new: &str) -> Result<String, Errno> {
        let Some((before, after)) = new.split_once("%d") else {
            if self.there.names()?.iter().any(|taken| taken == new) {
                return Err(Errno::EEXIST);
            }
            self.here.send(link.index, new, self.theirs.as_fd())?;
            return Ok(new.into());
        };
        for _ in 0..TRIES {
            let taken = self.there.names()?;
            let names = (0..=taken.len()).map(|n| format!("{before}{n}{after}"));
            let free = names.into_iter().find(|name| !taken.contains(name));
            let Some(free) = free.filter(|name| name.len() < IFNAMSIZ) else {
                return Err(Errno::ENAMETOOLONG);
            };
            match self.here.send(link.index, &free, self.theirs.as_fd()) {
                Err(Errno::EEXIST) => {}
                result => return result.map(|()| free),
            }
        }
        Err(Errno::EEXIST)
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for device in self.devices.drain(..).rev() {
            let back = self.there.link(&device.new).and_then(|there| {
                self.there.set_up(there.index, false)?;
                let name = &device.link.name;
                self.there.send(there.index, name, self.ours.as_fd())?;
                let here = self.here.link(name)?;
                self.here.restore(&device.link, here.index)
            });
            // The error that led here is the one to report.
            let _ = back;
        }
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EEXIST => "the container has a device of this name already",
        Errno::EINVAL => "devices such as loopback and bridges' own belong to one namespace",
        Errno::ENODEV => "there is none in the network namespace of the runtime",
        Errno::EPERM => "it needs CAP_NET_ADMIN over both network namespaces",
        _ => "",
    }
}

/// The longest name of a device and its NUL (netdevice(7)).
const IFNAMSIZ: usize = 16;

/// Refuses what cannot work, before anything is made.
pub fn check(linux: &Linux) -> Result<(), (String, String)> {
    let bad = |name: &str, reason: String| Err((format!("linux.netDevices.{name}"), reason));
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, new) in wanted(linux) {
        if !crate::validate::namespace(linux, LinuxNamespaceType::Network) {
            return bad(name, "needs a network namespace of its own".into());
        }
        if !is_name(name) || name.contains('%') {
            return bad(name, format!("\"{name}\" is no name of a network device"));
        }
        // A template leaves the number to us.
        let filled = new.replacen("%d", "0", 1);
        if !is_name(&filled) || filled.contains('%') {
            return bad(name, format!("\"{new}\" is no name of a network device"));
        }
        if filled == "lo" {
            return bad(name, "every network namespace has its own lo".into());
        }
        let other = targets.insert(new, name);
        if let Some(other) = other.filter(|_| !new.contains('%')) {
            return bad(name, format!("{other} is to be called {new} as well"));
        }
    }
    Ok(())
}

/// As the kernel has it (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    (1..IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', ':', '\0'])
        && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNetDevice};

    fn checked(devices: &[(&str, &str)], own: bool) -> Result<(), (String, String)> {
        let mut linux = Linux::default();
        let devices = devices.iter().map(|(name, new)| {
            let mut device = LinuxNetDevice::default();
            device.set_name(Some((*new).into()).filter(|new: &String| !new.is_empty()));
            ((*name).to_string(), device)
        });
        linux.set_net_devices(Some(devices.collect()));
        let network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
        let list = own.then(|| vec![network.build().expect("namespace")]);
        linux.set_namespaces(list);
        check(&linux)
    }

    #[test]
    fn names() {
        for good in [
            &[("eth0", "")][..],
            &[("eth0", "eth1"), ("eth1", "eth0")],
            &[("eth0", "net%d"), ("eth1", "net%d")],
            &[("a.b-c_d", "123456789012345")],
            &[],
        ] {
            assert_eq!(checked(good, true), Ok(()), "{good:?}");
        }
        for bad in [
            &[("eth0", "a/b")][..],
            &[("eth0", "a b")],
            &[("eth0", "a:b")],
            &[("eth0", "a\n")],
            &[("eth0", ".")],
            &[("eth0", "..")],
            &[("eth0", "1234567890123456")],
            &[("eth0", "%s")],
            &[("eth0", "a%d%d")],
            &[("eth0", "lo")],
            &[("", "x")],
            &[("eth%d", "x")],
            &[("a", "x"), ("b", "x")],
            &[("a", ""), ("b", "a")],
            &[("../eth0", "")],
        ] {
            let (field, _) = checked(bad, true).expect_err("refused");
            assert!(field.starts_with("linux.netDevices."), "{field}");
        }
        let (_, reason) = checked(&[("eth0", "")], false).expect_err("shared");
        assert!(reason.contains("namespace of its own"), "{reason}");
    }
}
