//! Mount options of the specification, as in fstab(5).

use crate::sys::attr;
use nix::mount::MsFlags;

/// What a list of mount options asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub bind: bool,
    pub recursive: bool,
    /// `MOUNT_ATTR_*` to set and to clear on the mount itself.
    pub set: u64,
    pub clear: u64,
    /// The same, on the mount and all below it (`rro`).
    pub recursive_set: u64,
    /// `MS_PRIVATE`... and whether it applies to the mounts below too.
    pub propagation: Option<(u64, bool)>,
    /// The rest: options of the file system.
    pub data: Vec<(String, Option<String>)>,
}

impl MountOptions {
    pub fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        if parsed.bind
            && let Some((key, _)) = parsed.data.first()
        {
            return Err(format!("\"{key}\" is not an option of a bind mount"));
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "defaults" => {}
            "ro" => self.attribute(attr::RDONLY),
            "rro" => self.recursive_set |= attr::RDONLY,
            "rw" => self.clear(attr::RDONLY),
            "nosuid" => self.attribute(attr::NOSUID),
            "suid" => self.clear(attr::NOSUID),
            "nodev" => self.attribute(attr::NODEV),
            "dev" => self.clear(attr::NODEV),
            "noexec" => self.attribute(attr::NOEXEC),
            "exec" => self.clear(attr::NOEXEC),
            "nodiratime" => self.attribute(attr::NODIRATIME),
            "nosymfollow" => self.attribute(attr::NOSYMFOLLOW),
            "relatime" => self.access_time(0),
            "noatime" => self.access_time(attr::NOATIME),
            "strictatime" => self.access_time(attr::STRICTATIME),
            "private" => self.propagate(MsFlags::MS_PRIVATE, false),
            "rprivate" => self.propagate(MsFlags::MS_PRIVATE, true),
            "slave" => self.propagate(MsFlags::MS_SLAVE, false),
            "rslave" => self.propagate(MsFlags::MS_SLAVE, true),
            "shared" => self.propagate(MsFlags::MS_SHARED, false),
            "rshared" => self.propagate(MsFlags::MS_SHARED, true),
            "unbindable" => self.propagate(MsFlags::MS_UNBINDABLE, false),
            "runbindable" => self.propagate(MsFlags::MS_UNBINDABLE, true),
            "idmap" | "ridmap" | "tmpcopyup" | "remount" | "" => {
                return Err(format!("the option \"{option}\" is not supported"));
            }
            other => self.data.push(match other.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (other.into(), None),
            }),
        }
        Ok(())
    }

    fn attribute(&mut self, bit: u64) {
        self.set |= bit;
        self.clear &= !bit;
    }

    fn clear(&mut self, bit: u64) {
        self.clear |= bit;
        self.set &= !bit;
    }

    fn access_time(&mut self, mode: u64) {
        // The access-time modes are one field: the kernel wants it cleared as a whole.
        self.set = self.set & !attr::ATIME_MASK | mode;
        self.clear |= attr::ATIME_MASK;
    }

    fn propagate(&mut self, kind: MsFlags, recursive: bool) {
        self.propagation = Some((kind.bits(), recursive));
    }
}

/// `linux.rootfsPropagation`; private where nothing is said.
pub fn root_propagation(value: Option<&str>) -> Option<u64> {
    let flag = match value {
        None | Some("" | "private" | "rprivate") => MsFlags::MS_PRIVATE,
        Some("slave" | "rslave") => MsFlags::MS_SLAVE,
        Some(_) => return None,
    };
    Some(flag.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<MountOptions, String> {
        MountOptions::parse(&options.iter().map(|o| (*o).to_string()).collect::<Vec<_>>())
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
        assert_eq!(options.propagation, Some((MsFlags::MS_SLAVE.bits(), true)));
        assert!(parse(&["bind", "size=3"]).is_err());
        assert!(parse(&["bind", "idmap"]).is_err());
    }

    #[test]
    fn root_propagation_values() {
        assert_eq!(root_propagation(None), Some(MsFlags::MS_PRIVATE.bits()));
        assert_eq!(root_propagation(Some("shared")), None);
    }
}
