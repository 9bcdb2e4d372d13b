//! Mount options of the specification, as in fstab(5) and mount(8) (config.md, "Linux mount
//! options").

use crate::sys::attr;
use nix::mount::MsFlags;
use oci_spec::runtime::Mount;

/// What a list of mount options asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub bind: bool,
    pub recursive: bool,
    /// Changes what is mounted there already.
    pub remount: bool,
    /// Whether the mount's ids are mapped, and those of the mounts below it too.
    pub idmap: Option<Recursive>,
    /// A new tmpfs begins with what it covers.
    pub copy_up: bool,
    /// `MOUNT_ATTR_*` to set and to clear on the mount itself.
    pub set: u64,
    pub clear: u64,
    /// The same, on the mount and all below it (`rro`).
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// `MS_PRIVATE`... and whether it applies to the mounts below too.
    pub propagation: Option<(u64, Recursive)>,
    /// Whether a new file system is private where it is mounted, without more being done. Not an
    /// option; it depends on what was mounted before.
    pub born_private: bool,
    /// The rest: options of the file system.
    pub data: Vec<(String, Option<String>)>,
}

/// Whether something holds for the mounts below too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recursive {
    Yes,
    #[default]
    No,
}

/// Names of attributes, the bit, and whether the name sets or clears it.
const ATTRIBUTES: [(&str, u64, bool); 14] = [
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
    ("noatime", attr::NOATIME, true),
    ("strictatime", attr::STRICTATIME, true),
];

/// Every option that is not of a file system, sorted.
pub const OPTION_NAMES: [&str; 53] = [
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "idmap",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

/// Names that put the access times back to how they are kept by default.
const DEFAULT_ATIME: [&str; 4] = ["relatime", "norelatime", "atime", "nostrictatime"];

impl MountOptions {
    /// Those of a mount, which is a bind mount by its type or by its options.
    pub fn of(entry: &Mount) -> Result<Self, String> {
        let kind = entry.typ().as_deref();
        let mut parsed = Self {
            bind: kind == Some("bind"),
            ..Self::default()
        };
        for option in entry.options().iter().flatten() {
            parsed.add(option)?;
        }
        // There is no file system of their own that the rest could be for.
        let what = match kind {
            _ if parsed.bind => "a bind mount",
            Some("cgroup" | "cgroup2") => "a mount of cgroups",
            _ => return Ok(parsed),
        };
        match parsed.data.first() {
            Some((key, _)) => Err(format!("\"{key}\" is not an option of {what}")),
            None => Ok(parsed),
        }
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "idmap" => self.idmap = Some(Recursive::No),
            "ridmap" => self.idmap = Some(Recursive::Yes),
            "tmpcopyup" => self.copy_up = true,
            // Messages on the console are all that these change.
            "defaults" | "silent" | "loud" => {}
            "" => return Err("an empty option".into()),
            _ if self.add_propagation(option) => {}
            _ => match (attribute(option), option.strip_prefix('r').map(attribute)) {
                (Some(bits), _) => merge(&mut self.set, &mut self.clear, bits),
                (None, Some(Some(bits))) => {
                    merge(&mut self.recursive_set, &mut self.recursive_clear, bits);
                }
                _ => self.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.into(), Some(value.into())),
                    None => (option.into(), None),
                }),
            },
        }
        Ok(())
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let asked = with_prefix(option);
        self.propagation = asked.or(self.propagation);
        asked.is_some()
    }
}

fn propagation(name: &str) -> Option<u64> {
    let flag = match name {
        "private" => MsFlags::MS_PRIVATE,
        "slave" => MsFlags::MS_SLAVE,
        "shared" => MsFlags::MS_SHARED,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(flag.bits())
}

/// Bits to set and to clear.
fn attribute(name: &str) -> Option<(u64, u64)> {
    if DEFAULT_ATIME.contains(&name) {
        return Some((0, attr::ATIME_MASK));
    }
    let (_, bit, set) = ATTRIBUTES.iter().find(|(known, ..)| *known == name)?;
    Some(match (*bit, *set) {
        // The access-time modes are one field: the kernel wants it cleared as a whole.
        (bit @ (attr::NOATIME | attr::STRICTATIME), _) => (bit, attr::ATIME_MASK),
        (bit, true) => (bit, 0),
        (bit, false) => (0, bit),
    })
}

/// The later option wins.
fn merge(set: &mut u64, clear: &mut u64, (to_set, to_clear): (u64, u64)) {
    *set = *set & !to_clear | to_set;
    *clear = *clear & !to_set | to_clear;
}

/// `linux.rootfsPropagation`, and whether it holds for the mounts below the root file system's too;
/// private where nothing is said.
pub fn root_propagation(value: Option<&str>) -> Option<(u64, Recursive)> {
    match value {
        None | Some("") => Some((MsFlags::MS_PRIVATE.bits(), Recursive::Yes)),
        Some(name) => with_prefix(name),
    }
}

/// A propagation, with an `r` when it holds for the mounts below too.
fn with_prefix(name: &str) -> Option<(u64, Recursive)> {
    match (propagation(name), name.strip_prefix('r')) {
        (Some(kind), _) => Some((kind, Recursive::No)),
        (None, Some(name)) => Some((propagation(name)?, Recursive::Yes)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<MountOptions, String> {
        of_type("none", options)
    }

    fn of_type(kind: &str, options: &[&str]) -> Result<MountOptions, String> {
        let mut entry = Mount::default();
        let options = options.iter().map(|o| (*o).to_string()).collect();
        entry.set_typ(Some(kind.into())).set_options(Some(options));
        MountOptions::of(&entry)
    }

    #[test]
    fn tmpfs_options() {
        let options = parse(&["nosuid", "noexec", "mode=755", "size=64k", "strictatime"]);
        let options = options.expect("valid");
        assert_eq!(options.set, attr::NOSUID | attr::NOEXEC | attr::STRICTATIME);
        assert_eq!(options.clear, attr::ATIME_MASK);
        assert_eq!(options.data[1], ("size".into(), Some("64k".into())));
        assert!(!options.bind);
    }

    #[test]
    fn bind_options() {
        let options = parse(&["rbind", "ro", "rslave"]).expect("valid");
        assert!(options.bind && options.recursive);
        let slave = MsFlags::MS_SLAVE.bits();
        assert_eq!(options.propagation, Some((slave, Recursive::Yes)));
        assert!(parse(&["bind", "size=3"]).is_err());
        // By its type alone it is one too.
        assert!(of_type("bind", &[]).expect("valid").bind);
        assert!(of_type("bind", &["readonly"]).is_err());
        assert!(of_type("cgroup", &["readonly"]).is_err());
        assert!(of_type("cgroup2", &["ro", "rprivate"]).is_ok());
        let options = parse(&["bind", "ridmap"]).expect("valid");
        assert_eq!(options.idmap, Some(Recursive::Yes));
    }

    #[test]
    fn the_later_option_wins() {
        let options = parse(&["ro", "rw", "noatime", "relatime"]).expect("valid");
        assert_eq!(options.set, 0);
        assert_eq!(options.clear, attr::RDONLY | attr::ATIME_MASK);
        let options = parse(&["dev", "nodev"]).expect("valid");
        assert_eq!((options.set, options.clear), (attr::NODEV, 0));
    }

    #[test]
    fn recursive_attributes() {
        let options = parse(&["rbind", "rro", "rnosuid", "rdev", "rnoatime"]).expect("valid");
        assert_eq!((options.set, options.clear), (0, 0));
        let set = attr::RDONLY | attr::NOSUID | attr::NOATIME;
        assert_eq!(options.recursive_set, set);
        assert_eq!(options.recursive_clear, attr::NODEV | attr::ATIME_MASK);
        // Not taken for "ro" or "relatime" with a prefix.
        let options = parse(&["rw", "relatime", "rrelatime"]).expect("valid");
        assert_eq!(options.clear, attr::RDONLY | attr::ATIME_MASK);
        assert_eq!(options.recursive_clear, attr::ATIME_MASK);
    }

    #[test]
    fn every_name_is_known() {
        assert!(OPTION_NAMES.is_sorted());
        for name in OPTION_NAMES {
            let options = parse(&[name]).expect("valid");
            assert!(options.data.is_empty(), "{name}");
        }
        let known = |name: &str| OPTION_NAMES.contains(&name);
        for (name, ..) in ATTRIBUTES {
            assert!(known(name) && known(&format!("r{name}")), "{name}");
        }
        for name in DEFAULT_ATIME {
            assert!(known(name) && known(&format!("r{name}")), "{name}");
        }
    }

    #[test]
    fn root_propagation_values() {
        let (private, slave) = (MsFlags::MS_PRIVATE.bits(), MsFlags::MS_SLAVE.bits());
        assert_eq!(root_propagation(None), Some((private, Recursive::Yes)));
        assert_eq!(
            root_propagation(Some("rslave")),
            Some((slave, Recursive::Yes))
        );
        assert_eq!(
            root_propagation(Some("slave")),
            Some((slave, Recursive::No))
        );
        assert_eq!(root_propagation(Some("nope")), None);
    }
}
