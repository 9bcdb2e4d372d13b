//! A socket of rtnetlink: one request after the other, each answered.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The kernel answers at once, or holds a lock for long.
const SECONDS: i64 = 30;

/// More than any datagram of a dump (32 KiB).
const DATAGRAM: usize = 64 << 10;

/// A device as it is found.
#[derive(Clone, Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    up: bool,
    /// Its permanent addresses of global scope.
    addresses: Vec<AddressMessage>,
}

/// A socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    pub fn open() -> Result<Self, Errno> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(SECONDS, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// A device by its name.
    pub fn link(&mut self, name: &str) -> Result<Link, Errno> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.into()));
        let answers = self.ask(RouteNetlinkMessage::GetLink(request), NLM_F_ACK)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link.header),
            _ => None,
        });
        let header = found.ok_or(Errno::ENODEV)?;
        Ok(Link {
            index: header.index,
            name: name.into(),
            up: header.flags.contains(LinkFlags::Up),
            addresses: self.addresses(header.index)?,
        })
    }

    /// The names of all devices.
    pub fn names(&mut self) -> Result<Vec<String>, Errno> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP)?;
        let names = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => {
                link.attributes.into_iter().find_map(|a| match a {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
            }
            _ => None,
        });
        Ok(names.collect())
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<AddressMessage>, Errno> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(request, NLM_F_DUMP)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => {
                let kept = address.header.index == index && is_permanent(&address);
                kept.then_some(address)
            }
            _ => None,
        });
        Ok(addresses.collect())
    }

    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Errno> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.header.change_mask = LinkFlags::Up;
        if up {
            request.header.flags = LinkFlags::Up;
        }
        self.ask(RouteNetlinkMessage::SetLink(request), NLM_F_ACK)
            .map(drop)
    }

    /// Moves a device to another namespace, with this name there.
    pub fn send(&mut self, index: u32, name: &str, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes = vec![
            LinkAttribute::NetNsFd(to.as_raw_fd()),
            LinkAttribute::IfName(name.into()),
        ];
        self.ask(RouteNetlinkMessage::SetLink(request), NLM_F_ACK)
            .map(drop)
    }

    /// Gives the device `index` of this namespace the addresses that a device had, and its state.
    pub fn restore(&mut self, link: &Link, index: u32) -> Result<(), Errno> {
        for address in &link.addresses {
            let mut address = address.clone();
            address.header.index = index;
            address.header.flags = settable(address.header.flags);
            // The label is the device's name unless it is said; the rest is the kernel's.
            address.attributes.retain_mut(|attribute| match attribute {
                AddressAttribute::Flags(flags) => {
                    flags.remove(AddressFlags::Permanent);
                    flags.remove(AddressFlags::Tentative | AddressFlags::Dadfailed);
                    flags.remove(AddressFlags::Secondary);
                    true
                }
                AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::RoutePriority(_) => true,
                _ => false,
            });
            let request = RouteNetlinkMessage::NewAddress(address);
            self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        if link.up {
            self.set_up(index, true)?;
        }
        Ok(())
    }

    /// Sends one request and reads to the end of the answers.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                result => result?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while rest.len() >= HEADER {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|_| Errno::EBADMSG)?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(HEADER)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(code) => Err(Errno::from_raw(code.get().saturating_neg())),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Length of a message's header.
const HEADER: usize = 16;

/// Neither for a time, nor of a link or host.
fn is_permanent(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe
        && address.header.flags.contains(AddressHeaderFlags::Permanent)
}

/// What the kernel finds out itself is not set.
fn settable(mut flags: AddressHeaderFlags) -> AddressHeaderFlags {
    flags.remove(AddressHeaderFlags::Permanent | AddressHeaderFlags::Secondary);
    flags.remove(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
    flags
}
