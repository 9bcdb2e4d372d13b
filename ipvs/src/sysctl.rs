//! The settings of a network namespace below `/proc/sys/net/ipv4/vs`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;

use crate::netns;

/// Declares the settings and their file names in one place.
macro_rules! sysctls {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A setting that is one whole number (the kernel's
        /// `Documentation/networking/ipvs-sysctl.rst`).
        ///
        /// Older kernels lack some; see [`SysctlError::Unknown`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Sysctl {
            $($(#[$doc])* $variant,)*
        }

        impl Sysctl {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name of its file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

sysctls! {
    /// One in how many packets is dropped when memory is short (mode 1 of `drop_packet`).
    AmDroprate = "am_droprate",
    /// Free memory, in pages, below which memory counts as short.
    Amemthresh = "amemthresh",
    /// 1: no scheduling of new connections while the synchronisation daemon is only a backup.
    BackupOnly = "backup_only",
    /// 1: packets without a destination go to their original address (transparent caches).
    CacheBypass = "cache_bypass",
    /// Whether a new connection from the port of an ended one is scheduled anew: 0 no, bits 1 and 2
    /// yes.
    ConnReuseMode = "conn_reuse_mode",
    /// 1: balanced connections also get an entry in netfilter's connection tracking, which source
    /// NAT after IPVS needs.
    Conntrack = "conntrack",
    /// Random dropping of connection entries when memory is short: 0 never, 1 automatically, 2
    /// automatically and now on, 3 always.
    DropEntry = "drop_entry",
    /// Dropping of packets when memory is short; values as for `drop_entry`.
    DropPacket = "drop_packet",
    /// 1: the connections of a deleted destination end at their next packet (kernels from 5.9 on
    /// expire them at once), so that clients may connect anew. 0: their packets are dropped
    /// silently until the entries time out, and work again if the destination comes back.
    ExpireNodestConn = "expire_nodest_conn",
    /// 1: persistence to a destination ends when its weight becomes 0.
    ExpireQuiescentTemplate = "expire_quiescent_template",
    /// 1: packets within tunnels are not balanced.
    IgnoreTunneled = "ignore_tunneled",
    /// 1: a destination that is gone is reported to clients by ICMP (masquerading).
    NatIcmpSend = "nat_icmp_send",
    /// 1: path MTU discovery for destinations behind tunnels and routes.
    PmtuDisc = "pmtu_disc",
    /// 0: counters and rates are not brought up to date, which saves time with very many services.
    RunEstimation = "run_estimation",
    /// 1: ICMP packets may create connections.
    ScheduleIcmp = "schedule_icmp",
    /// Shorter TCP time-outs when memory is short; values as for `drop_entry`.
    SecureTcp = "secure_tcp",
    /// 1: SCTP connections are taken over in their middle.
    SloppySctp = "sloppy_sctp",
    /// 1: TCP connections are taken over in their middle, which fail-over without the
    /// synchronisation daemon needs.
    SloppyTcp = "sloppy_tcp",
    /// 1: masqueraded replies are routed anew by their new source address.
    SnatReroute = "snat_reroute",
    /// 1: with persistence, only the templates are synchronised.
    SyncPersistMode = "sync_persist_mode",
    /// Number of threads and ports of the synchronisation daemon, a power of two.
    SyncPorts = "sync_ports",
    /// Longest queue of synchronisation messages.
    SyncQlenMax = "sync_qlen_max",
    /// Seconds after which an unchanged connection is synchronised again.
    SyncRefreshPeriod = "sync_refresh_period",
    /// How often a synchronisation message is repeated, 0 to 3.
    SyncRetries = "sync_retries",
    /// Socket buffer of the synchronisation daemon in bytes, 0 for the system's default.
    SyncSockSize = "sync_sock_size",
    /// Version of the synchronisation messages.
    SyncVersion = "sync_version",
}

impl Sysctl {
    fn path(self) -> String {
        format!("/proc/sys/net/ipv4/vs/{}", self.name())
    }

    /// Its value in the network namespace of the calling thread.
    pub fn get(self) -> Result<i32, SysctlError> {
        let text =
            fs::read_to_string(self.path()).map_err(|error| self.failed("read", None, error))?;
        text.trim()
            .parse()
            .map_err(|_| SysctlError::Unreadable { sysctl: self, text })
    }

    /// Sets its value in the network namespace of the calling thread.
    pub fn set(self, value: i32) -> Result<(), SysctlError> {
        OpenOptions::new()
            .write(true)
            .open(self.path())
            // In one write, as the kernel wants it.
            .and_then(|mut file| file.write_all(value.to_string().as_bytes()))
            .map_err(|error| self.failed("write", Some(value), error))
    }

    /// Its value in the given network namespace.
    pub fn get_in(self, netns: BorrowedFd<'_>) -> Result<i32, SysctlError> {
        netns::inside(netns, || self.get()).map_err(|source| SysctlError::Namespace { source })?
    }

    /// Sets its value in the given network namespace. For several at once see [`set_sysctls_in`].
    pub fn set_in(self, netns: BorrowedFd<'_>, value: i32) -> Result<(), SysctlError> {
        set_sysctls_in(netns, &[(self, value)])
    }

    fn failed(self, action: &'static str, value: Option<i32>, source: io::Error) -> SysctlError {
        if source.kind() == ErrorKind::NotFound {
            return SysctlError::Unknown { sysctl: self };
        }
        SysctlError::Io {
            action,
            sysctl: self,
            value,
            source,
        }
    }
}

/// Sets several values in the given network namespace, in their order, up to the first that fails.
pub fn set_sysctls_in(netns: BorrowedFd<'_>, values: &[(Sysctl, i32)]) -> Result<(), SysctlError> {
    netns::inside(netns, || {
        values
            .iter()
            .try_for_each(|(sysctl, value)| sysctl.set(*value))
    })
    .map_err(|source| SysctlError::Namespace { source })?
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net.ipv4.vs.{}", self.name())
    }
}

/// What can go wrong with a setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The kernel does not have it.
    #[error(
        "{sysctl} does not exist: the kernel is too old or was built without it, module `ip_vs` is \
         not loaded, or the namespace belongs to another user namespace"
    )]
    Unknown {
        /// The setting.
        sysctl: Sysctl,
    },
    /// The network namespace could not be entered.
    #[error("cannot enter the network namespace: {source}")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {sysctl}{}: {source}", value.map(|v| format!(" = {v}")).unwrap_or_default())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The setting.
        sysctl: Sysctl,
        /// What was written.
        value: Option<i32>,
        /// Why.
        source: io::Error,
    },
    /// The file holds no whole number.
    #[error("{sysctl} is {text:?}, not a whole number")]
    Unreadable {
        /// The setting.
        sysctl: Sysctl,
        /// What it holds.
        text: String,
    },
}
