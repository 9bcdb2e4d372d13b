//! The sockets that a task's queries arrive on.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::NetdpError;
use crate::netns::Netns;

/// The resolver's address in every task, as in Docker.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where the sockets are bound. Not 53, which a task may want for itself, and above the kernel's
/// default range of ephemeral ports (32768 to 60999), so that no client socket takes it.
pub const PORT: u16 = 61053;

/// A UDP socket and a listening TCP socket, nonblocking and close-on-exec.
#[derive(Debug)]
pub struct Sockets {
    /// Bound.
    pub udp: OwnedFd,
    /// Bound and listening.
    pub tcp: OwnedFd,
}

/// Binds UDP and TCP on [`ADDRESS`] in the network namespace at `netns`, whose `lo` must be up.
///
/// # Errors
/// When the namespace cannot be entered, or the port is taken there.
pub fn bind(netns: &Path, port: u16) -> Result<Sockets, NetdpError> {
    let address = SocketAddrV4::new(ADDRESS, port);
    let bound = Netns::open(netns)?.run(|| -> io::Result<Sockets> {
        let udp = UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let tcp = TcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets {
            udp: udp.into(),
            tcp: tcp.into(),
        })
    })?;
    bound.map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrNotAvailable => " (is lo up there?)",
            _ => "",
        };
        let netns = netns.display();
        NetdpError::system(format!(
            "bind the DNS sockets on {address} in {netns}{hint}"
        ))(source)
    })
}
