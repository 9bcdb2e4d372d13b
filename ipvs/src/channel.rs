//! Requests and their answers.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;

use crate::error::{DecodeError, IpvsError};
use crate::operation::Operation;
use crate::socket::{Datagram, NetlinkSocket};
use crate::uapi::ctrl;
use crate::wire::decode;
use crate::wire::encode::{self, Query};
use crate::wire::message::{Body, Message};

/// How often a list is read until it is taken to be steady.
const LIST_ATTEMPTS: usize = 16;

/// A part of a list of so many bytes may be full: the kernel takes 32 KiB for a part, less some
/// hundred bytes of its own, and no entry is as long as the rest of the difference.
const FULL_PART: usize = 31 * 1024;

/// A socket that knows the number of the family.
pub(crate) struct Channel {
    socket: NetlinkSocket,
    family: u16,
    /// Requests are built here, so that a batch allocates nothing per request.
    requests: Vec<u8>,
}

impl Channel {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, IpvsError> {
        let socket = NetlinkSocket::open().map_err(|source| IpvsError::Socket {
            action: "open a generic netlink socket".to_owned(),
            source,
        })?;
        let mut channel = Self {
            socket,
            family: ctrl::ID,
            requests: Vec::new(),
        };
        channel.family = channel.resolve_family()?;
        Ok(channel)
    }

    fn resolve_family(&mut self) -> Result<u16, IpvsError> {
        let sequence = self.socket.sequences(1);
        self.requests.clear();
        encode::put_family_query(&mut self.requests, sequence);
        self.one(sequence, decode::family_id)
            .map_err(|trouble| match trouble {
                Trouble::Refused(libc::ENOENT, _) => IpvsError::NotAvailable,
                other => other.into_error("find the generic netlink family IPVS".to_owned()),
            })
    }

    /// How many operations one call of [`Channel::submit`] takes.
    pub(crate) fn window(&self) -> usize {
        self.socket.window()
    }

    /// Sends operations, not more than the window, in one datagram, and reports those that fail,
    /// by their number in the slice.
    pub(crate) fn submit(&mut self, chunk: &[Operation], mut fail: impl FnMut(usize, IpvsError)) {
        if chunk.is_empty() {
            return;
        }
        // A window is a few hundred at most.
        let first = self.socket.sequences(chunk.len() as u32);
        self.requests.clear();
        let mut answers = Answers {
            first,
            seen: vec![false; chunk.len()],
            missing: chunk.len(),
        };
        for (index, (offset, operation)) in (0u32..).zip(chunk).enumerate() {
            if let Err(error) = operation.check() {
                answers.answered(index);
                fail(index, error);
                continue;
            }
            let sequence = first.wrapping_add(offset);
            encode::put_operation(&mut self.requests, self.family, sequence, operation);
        }
        if answers.missing == 0 {
            return;
        }
        if let Err(source) = self.socket.send(&self.requests) {
            let code = source.raw_os_error().unwrap_or(libc::EIO);
            for (index, operation) in chunk.iter().enumerate() {
                if answers.seen[index] {
                    continue;
                }
                let action = operation.to_string();
                let source = io::Error::from_raw_os_error(code);
                fail(index, IpvsError::Socket { action, source });
            }
            return;
        }

        let mut unreadable = None;
        let mut take = |_: Datagram, message: Result<Message<'_>, DecodeError>| {
            match message {
                Ok(message) => {
                    if let Some((index, Body::Error { errno, text })) = answers.next(message) {
                        fail(index, IpvsError::of_operation(&chunk[index], errno, text));
                    }
                }
                Err(error) => unreadable = Some(error),
            }
            answers.missing > 0
        };
        // A full queue reports itself once; the acknowledgements that were queued follow.
        if self.socket.receive(self.family, &mut take).is_err() {
            let _ = self.socket.receive(self.family, &mut take);
        }
        for (index, _) in answers.seen.iter().enumerate().filter(|(_, seen)| !**seen) {
            let action = chunk[index].to_string();
            let error = match &unreadable {
                Some(source) => IpvsError::Answer {
                    action,
                    source: source.clone(),
                },
                None => IpvsError::NoAnswer { action },
            };
            fail(index, error);
        }
    }

    /// Asks for one thing.
    pub(crate) fn query_one<T>(
        &mut self,
        query: Query,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, IpvsError> {
        let sequence = self.put_query(&query);
        self.one(sequence, decode)
            .map_err(|trouble| trouble.of_query(&query))
    }

    fn put_query(&mut self, query: &Query) -> u32 {
        let sequence = self.socket.sequences(1);
        self.requests.clear();
        query.put(&mut self.requests, self.family, sequence);
        sequence
    }

    /// Sends the request that was put and reads the answer to it.
    fn one<T>(
        &mut self,
        sequence: u32,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Trouble> {
        self.socket.send(&self.requests).map_err(Trouble::Socket)?;
        let mut decode = Some(decode);
        let mut answer = Err(Trouble::Silence);
        let mut take = |_: Datagram, message: Result<Message<'_>, DecodeError>| {
            match message {
                Err(error) => answer = Err(Trouble::Unreadable(error)),
                Ok(message) if message.sequence != sequence => return true,
                Ok(Message {
                    body: Body::Error { errno, text },
                    ..
                }) => {
                    answer = Err(Trouble::Refused(errno, text));
                }
                Ok(Message {
                    body: Body::Content(content),
                    ..
                }) => {
                    if let Some(decode) = decode.take() {
                        answer = decode(content).map_err(Trouble::Unreadable);
                    }
                }
                Ok(_) => return true,
            }
            false
        };
        self.socket
            .receive(self.family, &mut take)
            .map_err(Trouble::Socket)?;
        answer
    }

    /// Asks for a list.
    ///
    /// The kernel sends a long list in parts and remembers between them only how far it got. It
    /// counts the services of *all* network namespaces for that (seen up to Linux 6.6 at least), so
    /// when somebody changes any service meanwhile, entries come twice or not at all. Hence a list
    /// of several parts, or of one that may have been full, counts only when it was read twice in a
    /// row with the same keys, none of them double. That the same entry is missing twice in a row
    /// remains possible, but unlikely.
    pub(crate) fn query_all<T, K: Eq + Hash>(
        &mut self,
        query: Query,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, IpvsError> {
        let mut previous: Option<Vec<T>> = None;
        for _ in 0..LIST_ATTEMPTS {
            let list = match self.all(&query, &decode) {
                Ok(list) => list,
                Err(trouble) => {
                    self.socket.drain();
                    return Err(trouble.of_query(&query));
                }
            };
            let mut seen = HashSet::new();
            if list.changed || list.may_lack() && !list.items.iter().all(|i| seen.insert(key(i))) {
                previous = None;
                continue;
            }
            let keys = || list.items.iter().map(&key);
            let again = previous.is_some_and(|items| keys().eq(items.iter().map(&key)));
            if !list.may_lack() || again {
                return Ok(list.items);
            }
            previous = Some(list.items);
        }
        Err(IpvsError::Unsteady {
            action: query.to_string(),
        })
    }

    fn all<T>(
        &mut self,
        query: &Query,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<List<T>, Trouble> {
        let sequence = self.put_query(query);
        self.socket.send(&self.requests).map_err(Trouble::Socket)?;
        let mut list = List {
            items: Vec::new(),
            parts: 0,
            longest: 0,
            changed: false,
        };
        let mut last_part = None;
        let mut trouble = None;
        let mut take = |datagram: Datagram, message: Result<Message<'_>, DecodeError>| {
            let message = match message {
                Ok(message) if message.sequence != sequence => return true,
                Ok(message) => message,
                Err(error) => {
                    trouble = Some(Trouble::Unreadable(error));
                    return false;
                }
            };
            list.changed |= message.interrupted;
            match message.body {
                Body::Content(content) => {
                    if last_part.replace(datagram) != Some(datagram) {
                        list.parts += 1;
                        list.longest = list.longest.max(datagram.len);
                    }
                    match decode(content) {
                        Ok(item) => list.items.push(item),
                        Err(error) => trouble = Some(Trouble::Unreadable(error)),
                    }
                }
                Body::Error { errno, text } => trouble = Some(Trouble::Refused(errno, text)),
                Body::Done => return false,
                Body::Ack | Body::Other => {}
            }
            trouble.is_none()
        };
        let complete = self
            .socket
            .receive(self.family, &mut take)
            .map_err(Trouble::Socket)?;
        match trouble {
            Some(trouble) => Err(trouble),
            None if !complete => Err(Trouble::Silence),
            None => Ok(list),
        }
    }
}

/// Which requests of a batch were answered.
struct Answers {
    first: u32,
    seen: Vec<bool>,
    missing: usize,
}

impl Answers {
    /// The number in the batch of the request that a message answers for the first time.
    fn next<'a>(&mut self, message: Message<'a>) -> Option<(usize, Body<'a>)> {
        if !matches!(message.body, Body::Ack | Body::Error { .. }) {
            return None;
        }
        let index = usize::try_from(message.sequence.wrapping_sub(self.first)).ok()?;
        self.answered(index).then_some((index, message.body))
    }

    /// Notes an answer; `false` if there is no such request or it has one already.
    fn answered(&mut self, index: usize) -> bool {
        let first = self
            .seen
            .get_mut(index)
            .is_some_and(|seen| !std::mem::replace(seen, true));
        self.missing -= usize::from(first);
        first
    }
}

/// A list as it was read once.
struct List<T> {
    items: Vec<T>,
    /// How many datagrams with content it came in, and the length in bytes of the longest.
    parts: usize,
    longest: usize,
    /// Whether the kernel says that the list changed meanwhile.
    changed: bool,
}

impl<T> List<T> {
    /// Whether the kernel had to go on after a part, so that entries may be missing or double. After
    /// a full part it goes on even if it then finds no more.
    fn may_lack(&self) -> bool {
        self.parts > 1 || self.longest >= FULL_PART
    }
}

/// Why a query gave nothing.
enum Trouble {
    Socket(io::Error),
    Silence,
    Unreadable(DecodeError),
    Refused(i32, Option<String>),
}

impl Trouble {
    fn of_query(self, query: &Query) -> IpvsError {
        match (query, self) {
            (Query::Service(id), Self::Refused(libc::ESRCH, _)) => {
                IpvsError::NoSuchService { service: *id }
            }
            (_, trouble) => trouble.into_error(query.to_string()),
        }
    }

    fn into_error(self, action: String) -> IpvsError {
        match self {
            Self::Socket(source) => IpvsError::Socket { action, source },
            Self::Silence => IpvsError::NoAnswer { action },
            Self::Unreadable(source) => IpvsError::Answer { action, source },
            Self::Refused(libc::EPERM, _) => IpvsError::NotPermitted { action },
            Self::Refused(errno, message) => IpvsError::Refused {
                action,
                errno,
                message,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_answered_once() {
        let mut answers = Answers {
            first: u32::MAX,
            seen: vec![false; 3],
            missing: 3,
        };
        let message = |sequence, body| Message {
            sequence,
            body,
            interrupted: false,
        };
        let refused = || Body::Error {
            errno: libc::ENOENT,
            text: None,
        };
        // The numbers wrap around; what belongs to another batch, or is no answer, counts for nothing.
        assert_eq!(answers.next(message(1, Body::Ack)), Some((2, Body::Ack)));
        assert_eq!(answers.next(message(1, refused())), None);
        assert_eq!(answers.next(message(2, Body::Ack)), None);
        assert_eq!(answers.next(message(u32::MAX - 1, Body::Ack)), None);
        assert_eq!(answers.next(message(0, Body::Done)), None);
        assert_eq!(answers.missing, 2);
        let first = answers.next(message(u32::MAX, refused()));
        assert_eq!(first, Some((0, refused())));
        assert_eq!(
            (answers.missing, answers.seen),
            (1, vec![true, false, true])
        );
    }

    #[test]
    fn a_list_may_lack_entries_when_the_kernel_had_to_go_on() {
        let list = |parts, longest| List::<()> {
            items: Vec::new(),
            parts,
            longest,
            changed: false,
        };
        assert!(!list(0, 0).may_lack());
        assert!(!list(1, 20_000).may_lack());
        // A part that holds no further entry: the rest may have gone meanwhile.
        assert!(list(1, 32_100).may_lack());
        assert!(list(2, 3_000).may_lack());
    }
}
