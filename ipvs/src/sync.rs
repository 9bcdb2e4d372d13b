//! The synchronisation daemon: connections of one director, known to another.

use std::fmt;
use std::net::IpAddr;

use crate::name::Name;

/// What a synchronisation daemon does. A namespace can have one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncRole {
    /// Sends its connections (`IP_VS_STATE_MASTER`).
    Master,
    /// Takes over the connections of a master (`IP_VS_STATE_BACKUP`).
    Backup,
}

/// As `ipvsadm` writes it: `master`, `backup`.
impl fmt::Display for SyncRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

/// A synchronisation daemon and its settings.
///
/// It is a thread of the kernel that sends the connection table, or receives it, by UDP multicast:
/// when a director fails, its backup can go on with the connections. The messages are not
/// authenticated; the interface should be one that only directors share.
///
/// ```no_run
/// use ipvs::{Client, Name, SyncDaemon, SyncRole};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = Client::open()?;
/// let daemon = SyncDaemon::new(SyncRole::Master, Name::new("eth1")?);
/// client.start_sync_daemon(SyncDaemon { sync_id: 7, ..daemon })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyncDaemon {
    /// What it does.
    pub role: SyncRole,
    /// The interface whose multicast is used.
    pub interface: Name,
    /// A backup takes messages with the same number only; with 0, every message.
    pub sync_id: u8,
    /// Longest message in bytes; 0 lets the kernel choose (what a packet of 1,500 bytes can carry, for
    /// a backup more if its interface takes longer ones). Linux 4.3, as all of the following; older
    /// kernels ignore them.
    pub max_length: u16,
    /// The multicast group; without one, 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The first UDP port (see [`SYNC_PORTS`](crate::sysctl::SYNC_PORTS)); 0 is 8848.
    pub port: u16,
    /// Time to live of the packets, in hops; 0 is 1.
    pub ttl: u8,
}

impl SyncDaemon {
    /// A daemon with the kernel's defaults and number 0.
    pub fn new(role: SyncRole, interface: Name) -> Self {
        Self {
            role,
            interface,
            sync_id: 0,
            max_length: 0,
            group: None,
            port: 0,
            ttl: 0,
        }
    }
}

/// As `ipvsadm -L --daemon` writes it.
impl fmt::Display for SyncDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            role,
            interface,
            sync_id,
            ..
        } = self;
        write!(f, "{role} sync daemon (mcast={interface}, syncid={sync_id}")?;
        if self.max_length > 0 {
            write!(f, ", maxlen={}", self.max_length)?;
        }
        if let Some(group) = self.group {
            write!(f, ", group={group}")?;
        }
        if self.port > 0 {
            write!(f, ", port={}", self.port)?;
        }
        if self.ttl > 0 {
            write!(f, ", ttl={}", self.ttl)?;
        }
        f.write_str(")")
    }
}
