//! A blocking netlink socket: sends any number of requests, reads their answers.

use std::io;

use netlink_sys::SocketAddr;
use nix::sys::socket::{setsockopt, sockopt};

use super::NetlinkError;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;
/// What one datagram may hold; well below the default send buffer (net.core.wmem_default).
const DATAGRAM: usize = 64 << 10;
/// Acknowledgements of a whole datagram of small requests must fit, or the kernel drops some.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What one of them takes of the buffer at most, the kernel's own bookkeeping included; bytes.
const ACKNOWLEDGEMENT: usize = 2048;
/// The kernel answers at once, or holds a lock for long: this is a fault, not a delay.
const TIMEOUT_SECONDS: i64 = 30;

/// One netlink message, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) payload: Vec<u8>,
}

/// How many acknowledgements fit into the receive buffer.
fn room(socket: &netlink_sys::Socket) -> io::Result<usize> {
    Ok((socket.get_rx_buf_sz()? / ACKNOWLEDGEMENT).max(1))
}

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    /// So many acknowledgements fit into the receive buffer.
    most: usize,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // More than net.core.rmem_max needs CAP_NET_ADMIN in the initial user namespace; what is granted
        // without it is still better than the default.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_rx_buf_sz(RECEIVE_BUFFER as libc::c_int)?;
        }
        let most = room(&socket)?;
        let timeout = nix::sys::time::TimeVal::new(TIMEOUT_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self {
            socket,
            sequence: 0,
            most,
        })
    }

    /// Sends every message, in as few datagrams as possible, and returns the kernel's answer to
    /// each. The outer error is the socket's: then nothing is known of any.
    pub(crate) fn batch(
        &mut self,
        messages: &[Message],
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut rest = messages;
        while !rest.is_empty() {
            let mut datagram = Vec::new();
            let first = self.sequence + 1;
            let mut count = 0;
            for message in rest.iter().take(self.most) {
                let length = HEADER + message.payload.len().next_multiple_of(4);
                if count > 0 && datagram.len() + length > DATAGRAM {
                    break;
                }
                self.push(
                    &mut datagram,
                    message,
                    message.flags | NLM_F_REQUEST | NLM_F_ACK,
                );
                count += 1;
            }
            self.send(&datagram)?;
            self.acknowledgements(first, count, &mut answers)?;
            rest = &rest[count..];
        }
        Ok(answers)
    }

    /// Sends messages as one datagram that is carried out or fails as a whole: the transaction of
    /// nftables. The first message begins it; the kernel reports what is wrong with any of them,
    /// and last the one that carries an acknowledgement flag.
    pub(crate) fn transaction(&mut self, messages: &[Message]) -> Result<(), TransactionError> {
        let mut datagram = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for message in messages {
            self.push(&mut datagram, message, message.flags | NLM_F_REQUEST);
        }
        let last = messages
            .iter()
            .rposition(|message| message.flags & NLM_F_ACK != 0);
        let socket = |error| TransactionError { index: None, error };
        self.send(&datagram).map_err(socket)?;
        let mut failed: Option<TransactionError> = None;
        let mut told = last.is_none();
        while !told {
            let reply = match self.receive() {
                Ok(reply) => reply,
                Err(error) => return Err(failed.unwrap_or_else(|| socket(error))),
            };
            for message in Replies(&reply) {
                let message = message.map_err(socket)?;
                let index = usize::try_from(message.sequence.wrapping_sub(first)).ok();
                // What an earlier transaction left unread is not about this one.
                let Some(index) = index.filter(|index| *index < messages.len()) else {
                    continue;
                };
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                if let Err(error) = message.acknowledgement() {
                    // The beginning stands for all: no privilege, or the commit failed.
                    let index = Some(index).filter(|index| *index > 0);
                    told |= index.is_none();
                    failed.get_or_insert(TransactionError { index, error });
                }
                told |= Some(index) == last;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends one request that is answered by any number of messages, and hands each to `each`.
    pub(crate) fn dump(
        &mut self,
        message: &Message,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut datagram = Vec::new();
        self.push(&mut datagram, message, message.flags | NLM_F_REQUEST);
        let sequence = self.sequence;
        self.send(&datagram)?;
        loop {
            let reply = self.receive()?;
            for message in Replies(&reply) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return message.done(),
                    NLMSG_ERROR => return message.acknowledgement(),
                    kind => each(kind, message.payload)?,
                }
            }
        }
    }

    /// Sends one request that is answered by exactly one message.
    pub(crate) fn get(&mut self, message: &Message) -> Result<(u16, Vec<u8>), NetlinkError> {
        let mut datagram = Vec::new();
        self.push(&mut datagram, message, message.flags | NLM_F_REQUEST);
        let sequence = self.sequence;
        self.send(&datagram)?;
        loop {
            let reply = self.receive()?;
            for message in Replies(&reply) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    message.acknowledgement()?;
                    return Err(NetlinkError::malformed(
                        "an acknowledgement where data was due",
                    ));
                }
                return Ok((message.kind, message.payload.to_vec()));
            }
        }
    }

    fn push(&mut self, datagram: &mut Vec<u8>, message: &Message, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + message.payload.len();
        datagram.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        datagram.extend_from_slice(&message.kind.to_ne_bytes());
        datagram.extend_from_slice(&flags.to_ne_bytes());
        datagram.extend_from_slice(&self.sequence.to_ne_bytes());
        datagram.extend_from_slice(&0u32.to_ne_bytes());
        datagram.extend_from_slice(&message.payload);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }

    fn send(&self, datagram: &[u8]) -> Result<(), NetlinkError> {
        if datagram.len() > SEND_BUFFER_DEFAULT {
            // Doubled by the kernel; a transaction must go out in one piece.
            let size = datagram.len() + (64 << 10);
            setsockopt(&self.socket, sockopt::SndBufForce, &size).map_err(io::Error::from)?;
        }
        let sent = self.socket.send_to(datagram, &SocketAddr::new(0, 0), 0)?;
        if sent == datagram.len() {
            Ok(())
        } else {
            Err(NetlinkError::malformed(
                "the kernel took a part of a datagram",
            ))
        }
    }

    fn receive(&self) -> Result<Vec<u8>, NetlinkError> {
        loop {
            match self.socket.recv_from_full() {
                // Only the kernel (port 0) may answer.
                Ok((reply, sender)) if sender.port_number() == 0 => return Ok(reply),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn acknowledgements(
        &self,
        first: u32,
        count: usize,
        answers: &mut Vec<Result<(), NetlinkError>>,
    ) -> Result<(), NetlinkError> {
        let start = answers.len();
        while answers.len() - start < count {
            let reply = self.receive()?;
            for message in Replies(&reply) {
                let message = message?;
                let due = first.wrapping_add(u32::try_from(answers.len() - start).unwrap_or(0));
                if message.kind == NLMSG_ERROR && message.sequence == due {
                    answers.push(message.acknowledgement());
                }
            }
        }
        Ok(())
    }
}

/// net.core.wmem_default is 212992 since Linux 2.6; half of it is overhead.
const SEND_BUFFER_DEFAULT: usize = 96 << 10;

/// A transaction that was not committed.
#[derive(Debug)]
pub(crate) struct TransactionError {
    /// The message at fault; `None`: the transaction as a whole.
    pub(crate) index: Option<usize>,
    pub(crate) error: NetlinkError,
}

struct Reply<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Reply<'_> {
    /// An `nlmsgerr`: errno, the header of the request, and attributes that explain.
    fn acknowledgement(&self) -> Result<(), NetlinkError> {
        let code = i32_at(self.payload, 0)
            .ok_or_else(|| NetlinkError::malformed("an acknowledgement without a code"))?;
        if code == 0 {
            return Ok(());
        }
        let request = if self.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            i32_at(self.payload, 4)
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(HEADER)
        };
        let message = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| self.payload.get(4 + request.next_multiple_of(4)..))
            .flatten()
            .and_then(explanation);
        Err(NetlinkError::new(code.saturating_neg(), message))
    }

    /// The end of a dump carries an errno as well.
    fn done(&self) -> Result<(), NetlinkError> {
        match i32_at(self.payload, 0) {
            Some(code) if code < 0 => Err(NetlinkError::new(code.saturating_neg(), None)),
            _ => Ok(()),
        }
    }
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

fn explanation(mut attributes: &[u8]) -> Option<String> {
    while attributes.len() >= 4 {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? & 0x3fff == NLMSGERR_ATTR_MSG {
            let text = value.split(|b| *b == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The messages of one datagram.
struct Replies<'a>(&'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let length = i32_at(bytes, 0)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0);
        let Some(payload) = bytes.get(HEADER..length) else {
            return Some(Err(NetlinkError::malformed(
                "a message longer than its datagram",
            )));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Reply {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: i32_at(bytes, 8)?.cast_unsigned(),
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&7u32.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn an_error_carries_the_kernels_words() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        payload.extend_from_slice(&9u16.to_ne_bytes());
        payload.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend_from_slice(b"busy\0");
        let bytes = message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, &payload);
        let reply = Replies(&bytes).next().unwrap().unwrap();
        let error = reply.acknowledgement().unwrap_err();
        assert_eq!(error.errno(), libc::EEXIST);
        assert!(error.to_string().ends_with(": busy"), "{error}");
    }

    /// As where net.core.rmem_max is low, and the kernel grants no more.
    #[test]
    fn a_batch_is_cut_to_what_can_be_acknowledged() {
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE).expect("a socket");
        let small = 16 << 10;
        setsockopt(&socket.socket, sockopt::RcvBuf, &small).expect("set");
        socket.most = room(&socket.socket).expect("its size");
        // Refused by everybody's kernel: no link is named.
        const RTM_SETLINK: u16 = 19;
        let request = Message {
            kind: RTM_SETLINK,
            flags: 0,
            payload: vec![0; 16],
        };
        let answers = socket.batch(&vec![request; 1000]).expect("answers");
        assert_eq!(answers.len(), 1000);
        assert!(answers.iter().all(Result::is_err));
    }

    #[test]
    fn nothing_the_kernel_sends_can_panic() {
        let whole = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &[0xff; 40]);
        for end in 0..whole.len() {
            for reply in Replies(&whole[..end]).flatten() {
                let _ = reply.acknowledgement();
                let _ = reply.done();
            }
        }
        let mut lying = whole.clone();
        for length in [0u32, 1, 15, 16, 17, 1 << 20, u32::MAX] {
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            for reply in Replies(&lying).take(100).flatten() {
                let _ = reply.acknowledgement();
            }
        }
    }
}
