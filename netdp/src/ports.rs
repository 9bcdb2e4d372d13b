//! Ports of the node, held by sockets that are bound and receive nothing, so that nobody else takes
//! them and a client of an unpublished port is refused by the kernel: those of TCP never listen, those of UDP
//! are bound to a device that does not exist.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt,
    socket, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};

use crate::desired::Protocol;
use crate::error::NetdpError;
use crate::netns::Netns;

/// Where ports that nobody chose are taken from: Docker's range.
const FIRST: u16 = 30000;
const LAST: u16 = 32767;

sockopt_impl!(
    /// `SO_BINDTOIFINDEX` (`socket(7)`); the kernel does not look whether the device exists.
    BindToIfIndex,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_BINDTOIFINDEX,
    libc::c_int
);
/// The last that a device could have; the kernel gives them out from 1.
const NO_DEVICE: libc::c_int = libc::c_int::MAX;

#[derive(Debug)]
struct Held {
    holder: String,
    // Never read: what it does is to exist.
    _socket: OwnedFd,
}

/// The ports that this node holds.
#[derive(Debug, Default)]
pub(crate) struct PortTable(BTreeMap<(Protocol, u16), Held>);

impl PortTable {
    /// Reserves a port in the node's namespace; 0 takes a free one. A holder that has it already
    /// keeps it.
    pub(crate) fn reserve(
        &mut self,
        node: &Netns,
        holder: &str,
        protocol: Protocol,
        port: u16,
    ) -> Result<u16, NetdpError> {
        if port != 0 {
            return self
                .reserve_one(node, holder, protocol, port)
                .map(|()| port);
        }
        for port in FIRST..=LAST {
            if self.0.contains_key(&(protocol, port)) {
                continue;
            }
            match self.reserve_one(node, holder, protocol, port) {
                Ok(()) => return Ok(port),
                Err(NetdpError::PortTaken { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetdpError::NoPortFree {
            protocol,
            first: FIRST,
            last: LAST,
        })
    }

    fn reserve_one(
        &mut self,
        node: &Netns,
        holder: &str,
        protocol: Protocol,
        port: u16,
    ) -> Result<(), NetdpError> {
        if let Some(held) = self.0.get(&(protocol, port)) {
            if held.holder == holder {
                return Ok(());
            }
            return Err(NetdpError::PortHeld {
                protocol,
                port,
                holder: held.holder.clone(),
            });
        }
        let bound = node.run(|| bind_everywhere(protocol, port))?;
        let socket = bound.map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => NetdpError::PortTaken {
                protocol,
                port,
                source,
            },
            _ => NetdpError::system(format!("reserve port {port}/{protocol}"))(source),
        })?;
        let held = Held {
            holder: holder.to_owned(),
            _socket: socket,
        };
        self.0.insert((protocol, port), held);
        Ok(())
    }

    /// Gives up all ports of a holder.
    pub(crate) fn release(&mut self, holder: &str) {
        self.0.retain(|_, held| held.holder != holder);
    }

    /// Gives up the ports that `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str, Protocol, u16) -> bool) {
        self.0
            .retain(|(protocol, port), held| keep(&held.holder, *protocol, *port));
    }
}

/// A socket bound to the port on every address of both protocols.
fn bind_everywhere(protocol: Protocol, port: u16) -> io::Result<OwnedFd> {
    let fd = match open(AddressFamily::Inet6, protocol) {
        Ok(fd) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
            let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
            bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
            fd
        }
        // A kernel, or a namespace, without IPv6.
        Err(Errno::EAFNOSUPPORT) => {
            let fd = open(AddressFamily::Inet, protocol)?;
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            bind(fd.as_raw_fd(), &SockaddrIn::from(any))?;
            fd
        }
        Err(errno) => return Err(errno.into()),
    };
    if protocol == Protocol::Udp {
        // After that: it is in the way of every socket that is bound to no device or to this one.
        setsockopt(&fd, BindToIfIndex, &NO_DEVICE)?;
    }
    Ok(fd)
}

fn open(family: AddressFamily, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, None),
        Protocol::Udp => (SockType::Datagram, None),
        Protocol::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC, number)
}
