//! Names of kernel modules that IPVS picks by name: schedulers and persistence engines.

use std::fmt;
use std::str::FromStr;

/// Longest name the kernel takes, in bytes (`IP_VS_SCHEDNAME_MAXLEN` and `IP_VS_PENAME_MAXLEN`
/// are 16, one of which is the closing NUL).
const MAX_LEN: usize = 15;

/// A name that the kernel cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a kernel name: it takes 1 to 15 printable ASCII characters")]
pub struct InvalidName {
    name: String,
}

/// A short name, stored in place so that a [`Service`](crate::Service) needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl Name {
    /// Takes 1 to 15 printable ASCII characters without spaces.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        Self::from_bytes(name.as_bytes()).ok_or_else(|| InvalidName {
            name: name.to_owned(),
        })
    }

    pub(crate) const fn from_bytes(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > MAX_LEN {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        let mut i = 0;
        while i < name.len() {
            if !name[i].is_ascii_graphic() {
                return None;
            }
            bytes[i] = name[i];
            i += 1;
        }
        Some(Self {
            bytes,
            len: name.len() as u8,
        })
    }

    /// For constants only: a bad name stops the compiler, not the program.
    pub(crate) const fn constant(name: &str) -> Self {
        match Self::from_bytes(name.as_bytes()) {
            Some(name) => name,
            None => panic!("not a kernel name"),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.len)];
        // Only ASCII gets in, so this never falls back.
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

/// How a service picks a destination for a new connection. Each is a kernel module `ip_vs_<name>`,
/// which the kernel loads when a service first asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scheduler(Name);

impl Scheduler {
    /// Round robin.
    pub const RR: Self = Self(Name::constant("rr"));
    /// Weighted round robin.
    pub const WRR: Self = Self(Name::constant("wrr"));
    /// Least connections.
    pub const LC: Self = Self(Name::constant("lc"));
    /// Weighted least connections.
    pub const WLC: Self = Self(Name::constant("wlc"));
    /// Locality-based least connections.
    ///
    /// Load its module, `ip_vs_lblc`, before the first service asks for it, and likewise
    /// `ip_vs_lblcr`. A kernel that loads one of them for a service deadlocks when a network
    /// namespace is being destroyed at that moment (seen with Linux 6.1): the request holds IPVS's
    /// lock and waits for the module, the module waits for the destruction to end, and that waits
    /// for IPVS's lock. The modules of the other schedulers do not wait for namespaces.
    pub const LBLC: Self = Self(Name::constant("lblc"));
    /// Locality-based least connections with replication.
    pub const LBLCR: Self = Self(Name::constant("lblcr"));
    /// Destination hashing.
    pub const DH: Self = Self(Name::constant("dh"));
    /// Source hashing; see [`ServiceFlags::SH_PORT`](crate::ServiceFlags::SH_PORT).
    pub const SH: Self = Self(Name::constant("sh"));
    /// Maglev hashing; see [`ServiceFlags::MH_PORT`](crate::ServiceFlags::MH_PORT). Linux 4.18.
    pub const MH: Self = Self(Name::constant("mh"));
    /// Shortest expected delay.
    pub const SED: Self = Self(Name::constant("sed"));
    /// Never queue.
    pub const NQ: Self = Self(Name::constant("nq"));
    /// Weighted fail-over: always the available destination with the highest weight.
    pub const FO: Self = Self(Name::constant("fo"));
    /// Weighted overflow: the highest weight until it has that many connections, then the next.
    pub const OVF: Self = Self(Name::constant("ovf"));
    /// The better of two destinations picked at random. Linux 5.13.
    pub const TWOS: Self = Self(Name::constant("twos"));

    /// Any scheduler by name.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        Name::new(name).map(Self)
    }

    /// The name that the kernel knows it by.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Name> for Scheduler {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl FromStr for Scheduler {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        assert_eq!(Scheduler::new("rr").unwrap(), Scheduler::RR);
        assert_eq!(
            Name::new("123456789012345").unwrap().as_str(),
            "123456789012345"
        );
        for bad in ["", "1234567890123456", "a b", "r\0", "über", "a\n"] {
            let error = Name::new(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}
