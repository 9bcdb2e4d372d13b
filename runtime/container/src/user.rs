//! Who a program runs as: names looked up in the image's own `/etc/passwd` and `/etc/group`.

use crate::error::{Context, Setup, SetupFailure};
use crate::procfs::ProcFs;
use crate::root::Root;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Larger files are refused rather than read into memory.
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups, in the order of `/etc/group`.
    pub additional_gids: Vec<u32>,
    /// The home directory of `/etc/passwd`; `/` where it names none.
    pub home: String,
}

/// Resolves `name|uid[:group|gid]` against a root file system in a directory of the host.
///
/// As in Docker: a number needs no entry; a name does. Without a group, the user's primary group
/// counts (0 for a user without an entry) plus the groups that list the user; with one, only that.
///
/// # Errors
/// An unknown name, a number out of range, or files that cannot be read; with the reason.
pub fn resolve(rootfs: &Path, user: &str) -> Result<ResolvedUser, SetupFailure> {
    let root = Root::open_host(rootfs).step("open root file system", rootfs.display())?;
    let procfs = ProcFs::of_host().step("open", "/proc")?;
    resolve_in(&root, user, &procfs)
}

/// Whether this process is in the machine's first user namespace, where root is root.
pub(crate) fn in_initial_namespace() -> bool {
    // The number that the kernel gives it (linux/proc_ns.h, PROC_USER_INIT_INO).
    const FIRST: u64 = 0xeffffffd;
    nix::sys::stat::stat("/proc/self/ns/user").is_ok_and(|found| found.st_ino == FIRST)
}

/// Whether this process is root on the machine, and not only in a user namespace, as with podman
/// without root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root() && in_initial_namespace()
}

pub(crate) fn resolve_in(root: &Root, user: &str, procfs: &ProcFs) -> Setup<ResolvedUser> {
    let read = |path: &str| {
        root.read(Path::new(path), MAX_FILE, procfs)
            .step("read", path)
            .map(|content| String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    resolve_text(&passwd, &group, user)
        .map_err(|reason| SetupFailure::because("resolve user", format!("\"{user}\""), reason))
}

/// The user that a specification names by number.
pub(crate) fn numeric(
    user: &oci_spec::runtime::User,
    root: &Root,
    procfs: &ProcFs,
) -> ResolvedUser {
    // An unreadable passwd is no reason not to start somebody given by number.
    let passwd = root.read(Path::new("/etc/passwd"), MAX_FILE, procfs).ok();
    let passwd = String::from_utf8_lossy(&passwd.flatten().unwrap_or_default()).into_owned();
    let home = resolve_text(&passwd, "", &user.uid().to_string()).map(|found| found.home);
    ResolvedUser {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        home: home.unwrap_or_else(|_| "/".into()),
    }
}

fn resolve_text(passwd: &str, group: &str, wanted: &str) -> Result<ResolvedUser, String> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((_, "")) => return Err("the group is empty".into()),
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number = id(user)?;
    let entry = passwd
        .lines()
        .filter_map(PasswdLine::parse)
        .find(|line| match number {
            Some(uid) => line.uid == uid,
            None => !user.is_empty() && line.name == user,
        });
    let (uid, gid, home, name) = match (&entry, number, user) {
        (Some(line), _, _) => (line.uid, line.gid, line.home, Some(line.name)),
        (None, Some(uid), _) => (uid, 0, "", None),
        (None, None, "") => (0, 0, "", None),
        (None, None, _) => return Err(format!("no user \"{user}\" in /etc/passwd")),
    };
    let home = if home.is_empty() { "/" } else { home }.to_string();
    let groups = || group.lines().filter_map(GroupLine::parse);
    if let Some(wanted) = wanted_group {
        let number = id(wanted)?;
        let gid = match number {
            Some(gid) => gid,
            None => groups()
                .find(|line| line.name == wanted)
                .map(|line| line.gid)
                .ok_or_else(|| format!("no group \"{wanted}\" in /etc/group"))?,
        };
        return Ok(ResolvedUser {
            uid,
            gid,
            additional_gids: Vec::new(),
            home,
        });
    }
    let additional_gids = name.map_or_else(Vec::new, |name| {
        groups()
            .filter(|line| line.members.split(',').any(|m| m == name))
            .map(|l| l.gid)
            .collect()
    });
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids,
        home,
    })
}

/// A decimal id; `None` for a name. Digits with anything after them are neither.
fn id(text: &str) -> Result<Option<u32>, String> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("\"{text}\" is neither a name nor a number"));
    }
    // 2^32-1 means "no change" to the kernel.
    match text.parse::<u32>() {
        Ok(id) if id < u32::MAX => Ok(Some(id)),
        _ => Err(format!("{text} is out of range")),
    }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdLine<'a> {
    /// Lines that do not parse are skipped, as the C library does.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or(""),
        })
    }
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n\
        web:x:101:102:w:/var/www:/bin/false\n1000:x:77:77::/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\naudio:x:29:web,other\nvideo:x:44:other,web\n";

    fn ok(user: &str) -> ResolvedUser {
        resolve_text(PASSWD, GROUP, user).expect(user)
    }

    #[test]
    fn names_and_numbers() {
        let web = ok("web");
        assert_eq!(
            (web.uid, web.gid, web.home.as_str()),
            (101, 102, "/var/www")
        );
        assert_eq!(web.additional_gids, [29, 44]);
        assert_eq!(ok("101"), web);
        assert_eq!(ok("5000").gid, 0);
        assert_eq!(
            ok("1000").uid,
            1000,
            "a number is a number, also where a user is called so"
        );
        assert_eq!(ok("").uid, 0);
    }

    #[test]
    fn with_group() {
        assert_eq!(ok("web:audio").gid, 29);
        assert_eq!(ok("web:5").gid, 5);
        assert!(ok("web:5").additional_gids.is_empty());
        assert_eq!(ok("5:web").gid, 102);
    }

    #[test]
    fn refused() {
        for user in [
            "nobody",
            "web:nogroup",
            "0x10",
            "1 ",
            "-1",
            "4294967295",
            "99999999999",
            "web:",
            "1a",
        ] {
            assert!(resolve_text(PASSWD, GROUP, user).is_err(), "{user}");
        }
    }

    #[test]
    fn hostile_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(dir.path().join("etc")).expect("mkdir");
        std::os::unix::fs::symlink("/../../../../etc/passwd", dir.path().join("etc/passwd"))
            .expect("symlink");
        // The link leads back to itself inside the root, never to the host's file.
        assert!(resolve(dir.path(), "root").is_err());
        assert!(resolve(&dir.path().join("absent"), "0").is_err());
    }
}
