//! Counters and global values.

use std::fmt;

/// Counters of a service or destination. The kernel brings them up to date every two seconds, and
/// not at all while [`RUN_ESTIMATION`](crate::sysctl::RUN_ESTIMATION) is off.
///
/// Kernels from 4.1 on report 64 bits; on older ones the numbers of connections and packets, and
/// the rates, have 32 bits and wrap (see [`Stats::wide`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; counted only where replies pass (masquerading).
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections per second, a moving average as are the following.
    pub connections_per_second: u64,
    /// Packets per second from clients.
    pub packets_in_per_second: u64,
    /// Packets per second to clients.
    pub packets_out_per_second: u64,
    /// Bytes per second from clients.
    pub bytes_in_per_second: u64,
    /// Bytes per second to clients.
    pub bytes_out_per_second: u64,
    /// Whether the kernel reported 64 bits.
    pub wide: bool,
}

/// How long an idle connection of a namespace lives in the connection table, in whole seconds.
///
/// When read, `None` means that the kernel was built without the protocol; when written, that the
/// value stays (the kernel also leaves a value alone that is written as 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Timeouts {
    /// Established TCP connections; the kernel starts with 900.
    pub tcp: Option<u32>,
    /// TCP connections after a FIN; the kernel starts with 120.
    pub tcp_fin: Option<u32>,
    /// UDP; the kernel starts with 300.
    pub udp: Option<u32>,
}

/// As `ipvsadm -L --timeout` writes it, with 0 for a protocol that the kernel does not have.
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tcp, tcp_fin, udp] = [self.tcp, self.tcp_fin, self.udp].map(Option::unwrap_or_default);
        write!(f, "Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}")
    }
}

/// Facts about the kernel's IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Version: major, minor, patch.
    pub version: (u8, u8, u8),
    /// Number of buckets in the connection table.
    pub connection_table_size: u32,
}
