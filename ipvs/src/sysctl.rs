//! The settings of a network namespace below `/proc/sys/net/ipv4/vs`.
//!
//! Each is a constant that knows its type (the kernel's
//! `Documentation/networking/ipvs-sysctl.rst` describes them) and the kernel that it came with.
//!
//! In a network namespace that belongs to another user namespace than the first, Linux 3.8 to 6.9
//! have none of them, and later ones let some be read only. A value out of range is refused from
//! Linux 5.4 on; before, the kernel said nothing and kept the old value.
//!
//! ```no_run
//! use std::{fs::File, os::fd::AsFd};
//! use ipvs::sysctl::{self, Defense};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! sysctl::DROP_ENTRY.set(Defense::Automatic)?;
//! if !sysctl::CONNTRACK.get()? {
//!     println!("source NAT after IPVS will not work");
//! }
//! let blue = File::open("/run/netns/blue")?;
//! sysctl::set_in(
//!     blue.as_fd(),
//!     &[sysctl::EXPIRE_NODEST_CONN.to(true), sysctl::SYNC_PORTS.to(2)],
//! )?;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use crate::netns;

mod value;

pub use value::{CpuList, Defense, ReuseMode, SyncThreshold, Value};

/// A setting whose value is a `T`.
pub struct Sysctl<T> {
    info: SysctlInfo,
    value: PhantomData<fn() -> T>,
}

/// What is known about a setting, whatever its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SysctlInfo {
    name: &'static str,
    since: (u8, u8),
}

impl SysctlInfo {
    /// The name of its file.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The release of Linux that it came with, major and minor number; (2, 6) stands for any. That is
    /// what the kernel's sources say: a distribution may have brought a setting into an older kernel,
    /// so whether a kernel has one is told by reading it. What came after 6.1 is not tested.
    pub const fn since(&self) -> (u8, u8) {
        self.since
    }
}

impl fmt::Display for SysctlInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net.ipv4.vs.{}", self.name)
    }
}

/// A value on its way to a setting, of whatever type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Assignment {
    info: SysctlInfo,
    text: String,
}

impl Assignment {
    /// Which setting it is for.
    pub const fn info(&self) -> SysctlInfo {
        self.info
    }

    /// The value, as the kernel's file takes it.
    pub fn value(&self) -> &str {
        &self.text
    }

    fn carry_out(&self) -> Result<(), SysctlError> {
        OpenOptions::new()
            .write(true)
            .open(self.info.path())
            // In one write, as the kernel wants it.
            .and_then(|mut file| file.write_all(format!("{}\n", self.text).as_bytes()))
            .map_err(|error| self.info.failed(Some(&self.text), error))
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.info, self.text)
    }
}

/// Sets several values in the given network namespace, in their order, up to the first that fails.
///
/// # Errors
///
/// See [`SysctlError`].
pub fn set_in(netns: BorrowedFd<'_>, values: &[Assignment]) -> Result<(), SysctlError> {
    let set = || values.iter().try_for_each(Assignment::carry_out);
    netns::inside(netns, set).map_err(|source| SysctlError::Namespace { source })?
}

impl SysctlInfo {
    fn path(&self) -> String {
        format!("/proc/sys/net/ipv4/vs/{}", self.name)
    }

    fn read(&self) -> Result<String, SysctlError> {
        let text = fs::read_to_string(self.path()).map_err(|error| self.failed(None, error))?;
        Ok(text.trim_end().to_owned())
    }

    fn failed(self, written: Option<&str>, source: io::Error) -> SysctlError {
        if source.kind() == ErrorKind::NotFound {
            return SysctlError::Unknown { sysctl: self };
        }
        let action = match written {
            Some(value) => format!("set {self} = {value}"),
            None => format!("read {self}"),
        };
        SysctlError::Io { action, source }
    }
}

impl<T: Value> Sysctl<T> {
    const fn new(name: &'static str, since: (u8, u8)) -> Self {
        Self {
            info: SysctlInfo { name, since },
            value: PhantomData,
        }
    }

    /// Its name and age.
    pub const fn info(&self) -> SysctlInfo {
        self.info
    }

    /// Its value in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn get(&self) -> Result<T, SysctlError> {
        let text = self.info.read()?;
        T::read(&text).ok_or(SysctlError::Unreadable {
            sysctl: self.info,
            text,
        })
    }

    /// Sets its value in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn set(&self, value: T) -> Result<(), SysctlError> {
        self.to(value).carry_out()
    }

    /// Its value in the given network namespace.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn get_in(&self, netns: BorrowedFd<'_>) -> Result<T, SysctlError>
    where
        T: Send,
    {
        netns::inside(netns, || self.get()).map_err(|source| SysctlError::Namespace { source })?
    }

    /// Sets its value in the given network namespace. For several at once see [`set_in`].
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn set_in(&self, netns: BorrowedFd<'_>, value: T) -> Result<(), SysctlError> {
        set_in(netns, &[self.to(value)])
    }

    /// The setting with a value, to be set later.
    pub fn to(&self, value: T) -> Assignment {
        Assignment {
            info: self.info,
            text: value.text(),
        }
    }
}

impl<T> Clone for Sysctl<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Sysctl<T> {}

impl<T> fmt::Debug for Sysctl<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.info, f)
    }
}

/// Declares the settings in one place.
macro_rules! sysctls {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $file:literal, $since:expr;)*) => {
        $($(#[$doc])* pub const $name: Sysctl<$type> = Sysctl::new($file, $since);)*

        /// All settings.
        pub const ALL: &[SysctlInfo] = &[$($name.info,)*];

        /// Reads the value of each setting as its type, in the namespace of the calling thread;
        /// those that the kernel does not have are left out.
        ///
        /// # Errors
        ///
        /// See [`SysctlError`].
        pub fn get_all() -> Result<Vec<Assignment>, SysctlError> {
            let mut values = Vec::with_capacity(ALL.len());
            $(match $name.get() {
                Ok(value) => values.push($name.to(value)),
                Err(SysctlError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            })*
            Ok(values)
        }
    };
}

sysctls! {
    /// One in how many packets is dropped with [`Defense::Always`] of [`DROP_PACKET`].
    AM_DROPRATE: i32 = "am_droprate", (2, 6);
    /// Free memory, in pages, below which memory counts as short.
    AMEMTHRESH: i32 = "amemthresh", (2, 6);
    /// No scheduling of new connections while the synchronisation daemon is only a backup.
    BACKUP_ONLY: bool = "backup_only", (3, 9);
    /// Packets without a destination go to their original address (transparent caches).
    CACHE_BYPASS: bool = "cache_bypass", (2, 6);
    /// The table of connections grows when it has more than two to the power of this connections
    /// per bucket, -8 to 8.
    CONN_LFACTOR: i32 = "conn_lfactor", (7, 1);
    /// Most connections that the namespace may have.
    CONN_MAX: i32 = "conn_max", (7, 2);
    /// Whether a new connection from the port of an ended one is scheduled anew.
    CONN_REUSE_MODE: ReuseMode = "conn_reuse_mode", (4, 1);
    /// Balanced connections also get an entry in netfilter's connection tracking, which source NAT
    /// after IPVS needs. Only with CONFIG_IP_VS_NFCT.
    CONNTRACK: bool = "conntrack", (2, 6);
    /// How much the kernel writes to its log. Only with CONFIG_IP_VS_DEBUG; one value for all
    /// namespaces, and to be written in the first one only.
    DEBUG_LEVEL: i32 = "debug_level", (2, 6);
    /// Random dropping of connection entries when memory is short.
    DROP_ENTRY: Defense = "drop_entry", (2, 6);
    /// Dropping of packets when memory is short.
    DROP_PACKET: Defense = "drop_packet", (2, 6);
    /// The processors on which counters are brought up to date.
    EST_CPULIST: CpuList = "est_cpulist", (6, 2);
    /// The priority at which counters are brought up to date, -20 to 19.
    EST_NICE: i32 = "est_nice", (6, 2);
    /// What becomes of the connections of a destination that was deleted. `true`: they end at their
    /// next packet (and from Linux 5.9 on are removed within moments), so that clients may connect
    /// anew. `false`, the default: their packets are dropped silently until the entries time out,
    /// and pass again if the destination comes back.
    EXPIRE_NODEST_CONN: bool = "expire_nodest_conn", (2, 6);
    /// Persistence to a destination ends when its weight becomes 0.
    EXPIRE_QUIESCENT_TEMPLATE: bool = "expire_quiescent_template", (2, 6);
    /// Packets within tunnels are not balanced.
    IGNORE_TUNNELED: bool = "ignore_tunneled", (4, 4);
    /// Seconds after which the scheduler `lblc` forgets which destination an address went to. Only
    /// while its module is loaded.
    LBLC_EXPIRATION: i32 = "lblc_expiration", (2, 6);
    /// The same for `lblcr`.
    LBLCR_EXPIRATION: i32 = "lblcr_expiration", (2, 6);
    /// A destination that is gone is reported to clients by ICMP (masquerading).
    NAT_ICMP_SEND: bool = "nat_icmp_send", (2, 6);
    /// Path MTU discovery for destinations behind tunnels and routes.
    PMTU_DISC: bool = "pmtu_disc", (3, 7);
    /// Whether counters and rates are brought up to date; without, time is saved with very many
    /// services.
    RUN_ESTIMATION: bool = "run_estimation", (5, 16);
    /// ICMP packets may create connections.
    SCHEDULE_ICMP: bool = "schedule_icmp", (4, 4);
    /// Shorter TCP time-outs when memory is short.
    SECURE_TCP: Defense = "secure_tcp", (2, 6);
    /// SCTP connections are taken over in their middle.
    SLOPPY_SCTP: bool = "sloppy_sctp", (3, 11);
    /// TCP connections are taken over in their middle, which fail-over without the synchronisation
    /// daemon needs.
    SLOPPY_TCP: bool = "sloppy_tcp", (3, 11);
    /// Masqueraded replies are routed anew by their new source address.
    SNAT_REROUTE: bool = "snat_reroute", (2, 6);
    /// The same as [`CONN_LFACTOR`] for the table of services.
    SVC_LFACTOR: i32 = "svc_lfactor", (7, 1);
    /// With persistence, only the templates are synchronised.
    SYNC_PERSIST_MODE: bool = "sync_persist_mode", (3, 11);
    /// Number of threads and ports of the synchronisation daemon, a power of two, 64 at most.
    SYNC_PORTS: i32 = "sync_ports", (3, 5);
    /// Longest queue of synchronisation messages.
    SYNC_QLEN_MAX: u64 = "sync_qlen_max", (3, 5);
    /// Seconds after which an unchanged connection is synchronised again.
    SYNC_REFRESH_PERIOD: i32 = "sync_refresh_period", (3, 5);
    /// How often a synchronisation message is repeated, 0 to 3.
    SYNC_RETRIES: i32 = "sync_retries", (3, 5);
    /// Socket buffer of the synchronisation daemon in bytes, 0 for the system's default.
    SYNC_SOCK_SIZE: i32 = "sync_sock_size", (3, 5);
    /// After how many packets a connection is synchronised.
    SYNC_THRESHOLD: SyncThreshold = "sync_threshold", (2, 6);
    /// Version of the synchronisation messages, 0 or 1.
    SYNC_VERSION: i32 = "sync_version", (2, 6);
}

/// What [`get_all`] gives, in the given network namespace.
///
/// # Errors
///
/// See [`SysctlError`].
pub fn get_all_in(netns: BorrowedFd<'_>) -> Result<Vec<Assignment>, SysctlError> {
    netns::inside(netns, get_all).map_err(|source| SysctlError::Namespace { source })?
}

/// What can go wrong with a setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The kernel does not have it.
    #[error(
        "{sysctl} does not exist: the kernel is too old (it came with Linux {}.{}) or was built \
         without it, module `ip_vs` is not loaded, or the namespace belongs to another user namespace",
        sysctl.since.0, sysctl.since.1
    )]
    Unknown {
        /// The setting.
        sysctl: SysctlInfo,
    },
    /// The network namespace could not be entered.
    #[error("cannot enter the network namespace: {source}")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// The file could not be read or written.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done, to which setting.
        action: String,
        /// Why; EINVAL for a value that the kernel does not take.
        source: io::Error,
    },
    /// The file holds no such value.
    #[error("{sysctl} is {text:?}, which it cannot be")]
    Unreadable {
        /// The setting.
        sysctl: SysctlInfo,
        /// What it holds.
        text: String,
    },
}
