//! Maps of user and group ids between a user namespace and its parent (user_namespaces(7)).

use crate::error::{ContainerError, Context, Setup, SetupFailure};
use crate::gate;
use crate::sys::{self, Cloned};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// The most lines that the kernel takes in a map (Linux 4.15).
const MAX_LINES: usize = 340;

/// Maps for both kinds of id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl IdMaps {
    /// Checks and keeps them; `field` is where they are in the specification, for messages.
    ///
    /// # Errors
    /// One list without the other, an empty range, ranges that overlap, too many of them.
    pub fn new(
        field: &str,
        uids: &Option<Vec<LinuxIdMapping>>,
        gids: &Option<Vec<LinuxIdMapping>>,
    ) -> Result<Option<Self>, ContainerError> {
        let uids = uids.as_deref().unwrap_or_default();
        let gids = gids.as_deref().unwrap_or_default();
        if uids.is_empty() && gids.is_empty() {
            return Ok(None);
        }
        check(&format!("{field}uidMappings"), uids)?;
        check(&format!("{field}gidMappings"), gids)?;
        Ok(Some(Self {
            uids: uids.into(),
            gids: gids.into(),
        }))
    }

    /// Gives them to the user namespace of a process, which has none yet.
    ///
    /// # Errors
    /// The caller may not map these ids.
    pub fn write(&self, pid: i32) -> Setup<()> {
        // Without privilege in the parent namespace only one's own group may be mapped, and only
        // by one who gives up setgroups(2), which could otherwise be used to leave a group.
        let own = nix::unistd::getegid().as_raw();
        let alone =
            matches!(self.gids.as_slice(), [one] if one.size() == 1 && one.host_id() == own);
        if alone && !nix::unistd::geteuid().is_root() {
            let path = format!("/proc/{pid}/setgroups");
            std::fs::write(&path, "deny").step("write", path)?;
        }
        write_map(pid, "uid_map", "newuidmap", &self.uids)?;
        write_map(pid, "gid_map", "newgidmap", &self.gids)
    }

    /// A user and a group inside as they are outside; `None` where one of them is not mapped.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let find = |map: &[LinuxIdMapping], id: u32| {
            map.iter().find_map(|line| {
                let offset = id.checked_sub(line.container_id())?;
                (offset < line.size()).then(|| line.host_id() + offset)
            })
        };
        Some((find(&self.uids, uid)?, find(&self.gids, gid)?))
    }

    /// A user namespace with these maps and nobody in it: what an id-mapped mount is made of
    /// (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
    ///
    /// # Errors
    /// The caller may not map these ids.
    pub fn namespace(&self) -> Result<OwnedFd, ContainerError> {
        let system = |step| move |errno| ContainerError::System { step, errno };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(system("make socket pair"))?;
        let flags = libc::CLONE_NEWUSER as u64;
        let cloned = sys::clone3(flags, None, sys::Parent::Caller)
            .map_err(system("make user namespace for id-mapped mounts"))?;
        let (pid, pidfd) = match cloned {
            Cloned::Child => {
                drop(ours);
                // Until the other side closes, or its process is gone.
                let _ = recv(theirs.as_raw_fd(), &mut [0], MsgFlags::empty());
                sys::exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(theirs);
        let path = format!("/proc/{pid}/ns/user");
        let namespace = self
            .write(pid)
            .and_then(|()| File::open(&path).step("open", &path));
        drop(ours);
        let _ = crate::process::wait_child(&pidfd); // it ends at once
        Ok(namespace?.into())
    }
}

/// The maps of a user namespace that is to be joined, where the specification has `given` maps too:
/// they are the same, or what podman puts there for runtimes that want some (root alone, as itself).
///
/// # Errors
/// Other maps than those of the namespace, which nobody can change. It cannot be joined.
pub fn of_joined(given: IdMaps, namespace: BorrowedFd<'_>) -> Result<IdMaps, ContainerError> {
    let found = read_maps(namespace)?;
    let sorted = |map: &[LinuxIdMapping]| {
        let line = |line: &LinuxIdMapping| (line.container_id(), line.host_id(), line.size());
        let mut lines: Vec<_> = map.iter().map(line).collect();
        lines.sort_unstable();
        lines
    };
    let placeholder = vec![(0, 0, 1)];
    for (field, given, found) in [
        ("linux.uidMappings", &given.uids, &found.uids),
        ("linux.gidMappings", &given.gids, &found.gids),
    ] {
        if sorted(given) != sorted(found) && sorted(given) != placeholder {
            let found = lines(found);
            let reason = format!(
                "the user namespace to join has another map ({}); leave it out",
                found.trim_end().replace('\n', ", ")
            );
            return Err(ContainerError::invalid(field, reason));
        }
    }
    Ok(found)
}

/// The maps of a user namespace, as they are seen from this one: by way of a process inside.
fn read_maps(namespace: BorrowedFd<'_>) -> Result<IdMaps, ContainerError> {
    let system = |step| move |errno| ContainerError::System { step, errno };
    let (ours, theirs) = gate::pair()?;
    let cloned = sys::clone3(0, None, sys::Parent::Caller)
        .map_err(system("clone a process for the user namespace to join"))?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            drop(ours);
            // Nobody inside may look into this copy of the runtime.
            let joined = sys::prctl(libc::PR_SET_DUMPABLE, 0)
                .and_then(|()| sys::setns(namespace, libc::CLONE_NEWUSER as u64));
            let answer = [joined.err().map_or(0, |errno| errno as i32 as u8)];
            let _ = send(theirs.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL);
            // Until the other side closes, or its process is gone.
            let _ = recv(theirs.as_raw_fd(), &mut [0], MsgFlags::empty());
            sys::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let mut answer = [Errno::ESRCH as i32 as u8];
    let joined = recv(ours.as_raw_fd(), &mut answer, MsgFlags::empty()).and(match answer {
        [0] => Ok(()),
        [errno] => Err(Errno::from_raw(errno.into())),
    });
    let maps = joined
        .step("join", "the user namespace of the specification")
        .and_then(|()| {
            let uids = read_map(&format!("/proc/{pid}/uid_map"))?;
            let gids = read_map(&format!("/proc/{pid}/gid_map"))?;
            Ok(IdMaps { uids, gids })
        });
    drop(ours);
    let _ = crate::process::wait_child(&pidfd); // it ends at once
    Ok(maps?)
}

fn read_map(path: &str) -> Setup<Vec<LinuxIdMapping>> {
    let text = sys::read_file(Path::new(path)).step("read", path)?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        LinuxIdMappingBuilder::default()
            .container_id(next()?)
            .host_id(next()?)
            .size(next()?)
            .build()
            .ok()
    };
    Ok(text.lines().filter_map(line).collect())
}

fn check(field: &str, map: &[LinuxIdMapping]) -> Result<(), ContainerError> {
    let invalid = |reason: &str| Err(ContainerError::invalid(field, reason));
    if map.is_empty() {
        return invalid("missing, though the other kind of id is mapped");
    }
    if map.len() > MAX_LINES {
        return invalid("more than 340 ranges");
    }
    let end = |start: u32, line: &LinuxIdMapping| start.checked_add(line.size().checked_sub(1)?);
    for (i, line) in map.iter().enumerate() {
        let ends = (end(line.container_id(), line), end(line.host_id(), line));
        let (Some(inner), Some(outer)) = ends else {
            return invalid("a range is empty, or goes beyond the largest id");
        };
        for before in map.iter().take(i) {
            let apart = |start: u32, last: u32, other: u32| {
                start > other.saturating_add(before.size() - 1) || last < other
            };
            if !apart(line.container_id(), inner, before.container_id())
                || !apart(line.host_id(), outer, before.host_id())
            {
                return invalid("ranges overlap");
            }
        }
    }
    Ok(())
}

fn write_map(pid: i32, file: &str, helper: &str, map: &[LinuxIdMapping]) -> Setup<()> {
    let path = format!("/proc/{pid}/{file}");
    let lines = lines(map);
    let opened = File::options().write(true).open(&path);
    // The kernel takes one write.
    let written = opened.and_then(|mut file| file.write_all(lines.as_bytes()));
    match written {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            by_helper(pid, helper, map, &path)
        }
        result => result.step("write", format!("{path} ({})", lines.trim_end())),
    }
}

/// A map as the kernel reads and writes it.
fn lines(map: &[LinuxIdMapping]) -> String {
    let line = |line: &LinuxIdMapping| {
        let (inner, outer) = (line.container_id(), line.host_id());
        format!("{inner} {outer} {}\n", line.size())
    };
    map.iter().map(line).collect()
}

/// newuidmap(1) is what grants an ordinary user the ids of subuid(5); the kernel has no other way.
fn by_helper(pid: i32, helper: &str, map: &[LinuxIdMapping], path: &str) -> Setup<()> {
    let mut command = Command::new(helper);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.arg(pid.to_string());
    for line in map {
        for number in [line.container_id(), line.host_id(), line.size()] {
            command.arg(number.to_string());
        }
    }
    let failed = |reason: String| SetupFailure {
        errno: Errno::EPERM as i32,
        ..SetupFailure::because("write", path, reason)
    };
    let output = command.output().map_err(|error| {
        failed(format!(
            "these ids are not the caller's own, and {helper}, which could grant them, cannot be \
             started ({error})"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(failed(format!(
        "these ids are not the caller's own, and {helper} does not grant them ({said}): /etc/subuid and \
         /etc/subgid say who has which"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn line(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(container)
            .host_id(host)
            .size(size)
            .build()
            .expect("valid")
    }

    fn maps(lines: &[LinuxIdMapping]) -> Result<Option<IdMaps>, ContainerError> {
        IdMaps::new("linux.", &Some(lines.into()), &Some(lines.into()))
    }

    #[test]
    fn ids_outside() {
        let maps = maps(&[line(0, 1000, 1), line(1, 100_000, 5)]).expect("valid");
        let maps = maps.expect("maps");
        assert_eq!(maps.outside(0, 5), Some((1000, 100_004)));
        assert_eq!(maps.outside(0, 6), None);
    }

    #[test]
    fn maps_of_a_namespace_that_exists() {
        let real = maps(&[line(0, 3000, 10), line(10, 100_000, 5)]).expect("valid");
        let same = maps(&[line(10, 100_000, 5), line(0, 3000, 10)]).expect("valid");
        let placeholder = maps(&[line(0, 0, 1)]).expect("valid");
        let other = maps(&[line(0, 3000, 11)]).expect("valid");
        let cases = [
            (&real, true),
            (&same, true),
            (&placeholder, true),
            (&other, false),
        ];
        // SAFETY: the child goes on alone and ends with _exit.
        match unsafe { nix::unistd::fork() }.expect("fork") {
            nix::unistd::ForkResult::Child => {
                let real = real.as_ref().expect("maps");
                let namespace = real.namespace().expect("namespace");
                let right = cases.iter().all(|(given, good)| {
                    let given = given.as_ref().expect("maps");
                    match of_joined(given.clone(), namespace.as_fd()) {
                        Ok(found) => *good && found == *real,
                        Err(error) => !good && error.to_string().contains("3000 10, 10 100000 5"),
                    }
                });
                sys::exit_now(i32::from(!right))
            }
            nix::unistd::ForkResult::Parent { child } => {
                let ended = nix::sys::wait::waitpid(child, None).expect("wait");
                assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn contradictions() {
        for lines in [
            vec![line(0, 0, 0)],
            vec![line(u32::MAX, 0, 2)],
            vec![line(0, u32::MAX, 2)],
            vec![line(0, 0, 10), line(9, 100, 1)],
            vec![line(0, 100, 10), line(20, 109, 1)],
            vec![line(0, 0, 1); MAX_LINES + 1],
        ] {
            assert!(maps(&lines).is_err(), "{lines:?}");
        }
        let one = Some(vec![line(0, 0, 1)]);
        assert!(IdMaps::new("linux.", &one, &None).is_err());
        assert!(
            IdMaps::new("linux.", &None, &None)
                .expect("valid")
                .is_none()
        );
        assert!(maps(&[line(0, 0, 1), line(u32::MAX, 5, 1)]).is_ok());
    }
}
