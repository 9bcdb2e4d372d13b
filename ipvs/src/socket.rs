//! The netlink socket.
//!
//! Generic netlink is synchronous: the kernel carries out all requests of a datagram, and queues
//! their answers, before `send` returns (a list is continued whenever a part of it is received).
//! So receiving never needs to wait, and an empty queue means that an answer was lost: nothing here
//! can hang.

use std::io::{self, ErrorKind};

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use crate::error::DecodeError;
use crate::wire::message::{Message, Messages};

/// The kernel builds parts of a list of at most 32 KiB; all else is smaller.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// What one queued acknowledgement may cost of the socket's receive buffer, with the kernel's own
/// bookkeeping: about 800 bytes, more with an error text.
const ACK_COST: usize = 2048;

/// More in one datagram gains nothing.
const MAX_WINDOW: usize = 256;

/// What is told of a datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Which one it was since the last sending, from 1.
    pub(crate) number: usize,
    /// Its length in bytes.
    pub(crate) len: usize,
}

pub(crate) struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    window: usize,
}

impl NetlinkSocket {
    /// Opens a socket in the namespace of the calling thread, where it stays.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        // Error messages then come with the kernel's words (Linux 4.12) and without a copy of the
        // request (4.3). Both are a convenience, so a refusal does not matter.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let window = (socket.get_rx_buf_sz()? / ACK_COST).clamp(1, MAX_WINDOW);
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BUFFER],
            sequence: 0,
            window,
        })
    }

    /// How many requests may await their acknowledgement at once. With more, the kernel would drop
    /// acknowledgements for lack of room.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// Reserves sequence numbers for `count` requests and returns the first. The others follow it,
    /// wrapping around.
    pub(crate) fn sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Sends a datagram of requests.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(datagram, &kernel, 0) {
                Ok(sent) if sent == datagram.len() => return Ok(()),
                Ok(_) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands each queued message to `take`, with the datagram that it came in, until it answers that
    /// it wants no more, or the queue is empty, which is `Ok(false)`.
    pub(crate) fn receive(
        &mut self,
        family: u16,
        take: &mut dyn FnMut(Datagram, Result<Message<'_>, DecodeError>) -> bool,
    ) -> io::Result<bool> {
        let mut number = 0;
        loop {
            let mut room: &mut [u8] = &mut self.buffer;
            // With MSG_TRUNC the length is that of the datagram, however much of it fits.
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            let (len, sender) = match self.socket.recv_from(&mut room, flags) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            // Another process may send to this socket too.
            if sender.port_number() != 0 {
                continue;
            }
            let Some(datagram) = self.buffer.get(..len) else {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "a datagram of over 64 KiB",
                ));
            };
            number += 1;
            for message in Messages::new(datagram, family) {
                if !take(Datagram { number, len }, message) {
                    return Ok(true);
                }
            }
        }
    }

    /// Throws away what is queued, so that a list that was given up does not keep the socket busy.
    pub(crate) fn drain(&mut self) {
        // After an error (a full queue reports itself once) there may still be more.
        for _ in 0..2 {
            let _ = self.receive(0, &mut |_, _| true);
        }
    }
}
