//! Transactions, and looking at what is there.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attribute::{Attributes, find, integer, text};
use super::table::{Family, SUBSYSTEM, TABLE, Table, header, message};
use crate::netlink::{Message, NLM_F_ACK, NLM_F_DUMP, NetlinkError, Socket};

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// A netfilter socket of one namespace.
#[derive(Debug)]
pub(crate) struct NftSocket(Socket);

impl NftSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Socket::open(NETLINK_NETFILTER).map(Self)
    }

    /// For the other protocols of netfilter.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.0
    }

    /// Puts `table` in the place of whatever the kernel has under its name.
    pub(crate) fn replace(&mut self, table: &Table) -> Result<(), NetlinkError> {
        self.commit(table.replacement())
    }

    /// Leads from `old`, which the kernel has, to `new`, by as few messages as possible.
    pub(crate) fn update(&mut self, old: &Table, new: &Table) -> Result<(), NetlinkError> {
        match new.difference(old) {
            Some(messages) if messages.is_empty() => Ok(()),
            Some(messages) => self.commit(messages),
            None => self.replace(new),
        }
    }

    /// Removes the table, if there is one.
    pub(crate) fn delete(&mut self, table: &Table) -> Result<(), NetlinkError> {
        self.commit(table.deletion())
    }

    /// Families in which the kernel has a table of ours.
    pub(crate) fn own_tables(&mut self) -> Result<Vec<Family>, NetlinkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let request = header(family, 0).to_vec();
            self.dump(message::GET_TABLE, request, |attributes| {
                if find(attributes, 1).map(text).as_deref() == Some(TABLE) {
                    found.push(family);
                }
            })?;
        }
        Ok(found)
    }

    /// A number that every commit in this namespace, by anybody, makes grow: equal numbers, equal
    /// rules.
    pub(crate) fn generation(&mut self) -> Result<u32, NetlinkError> {
        let payload = Attributes::after(&[0; 4]).finish();
        let request = Message {
            kind: SUBSYSTEM << 8 | message::GET_GENERATION,
            flags: 0,
            payload,
        };
        let (_, reply) = self.0.get(&request)?;
        reply
            .get(4..)
            .and_then(|attributes| find(attributes, 1))
            .and_then(integer)
            .ok_or_else(|| NetlinkError::malformed("no generation"))
    }

    /// A hash over all that the kernel has of a table. The order of set elements, which the
    /// kernel may change, does not matter; handles do: a rule that was deleted and added again is
    /// not the one that we programmed.
    pub(crate) fn fingerprint(&mut self, table: &Table) -> Result<u64, NetlinkError> {
        const CHAIN_TABLE: u16 = 1;
        let mut sum = 0u64;
        let family = table.family;
        let start = || Attributes::after(&header(family, 0)).string(1, TABLE);
        for kind in [message::GET_CHAIN, message::GET_RULE, message::GET_SET] {
            self.dump(kind, start().finish(), |attributes| {
                // The kernel filters rules by table, chains only in newer versions.
                if find(attributes, CHAIN_TABLE).map(text).as_deref() == Some(TABLE) {
                    sum = sum.wrapping_add(hash(kind, attributes));
                }
            })?;
        }
        for set in &table.sets {
            let payload = start().string(2, set.name).finish();
            self.dump(message::GET_SET_ELEMENT, payload, |attributes| {
                let elements = find(attributes, 3).unwrap_or_default();
                for (_, element) in super::attribute::parse(elements) {
                    sum = sum.wrapping_add(hash(message::GET_SET_ELEMENT, element));
                }
            })?;
        }
        Ok(sum)
    }

    /// Every message of a dump, without its `nfgenmsg`.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        payload: Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let request = Message {
            kind: SUBSYSTEM << 8 | kind,
            flags: NLM_F_DUMP,
            payload,
        };
        self.0.dump(&request, |_, reply| {
            each(reply.get(4..).unwrap_or_default());
            Ok(())
        })
    }

    /// One transaction: all of it, or nothing.
    pub(super) fn commit(&mut self, messages: Vec<Message>) -> Result<(), NetlinkError> {
        // AF_UNSPEC and the subsystem, in an `nfgenmsg`.
        let edge = |kind| {
            let [high, low] = SUBSYSTEM.to_be_bytes();
            Message {
                kind,
                flags: 0,
                payload: vec![0, 0, high, low],
            }
        };
        let mut batch = Vec::with_capacity(messages.len() + 2);
        batch.push(edge(BATCH_BEGIN));
        batch.extend(messages);
        // One acknowledgement is enough: errors of the others come by themselves.
        if let Some(last) = batch.last_mut() {
            last.flags |= NLM_F_ACK;
        }
        batch.push(edge(BATCH_END));
        self.0.transaction(&batch).map_err(|failure| {
            let place = failure
                .index
                .and_then(|index| batch.get(index))
                .map(describe);
            match place {
                Some(place) => NetlinkError::new(
                    failure.error.errno(),
                    Some(format!("{place}: {}", failure.error)),
                ),
                None => failure.error,
            }
        })
    }
}

fn describe(request: &Message) -> String {
    let what = match request.kind & 0xff {
        message::NEW_TABLE => "new table",
        message::DEL_TABLE => "delete table",
        message::NEW_CHAIN => "new chain",
        message::DEL_CHAIN => "delete chain",
        message::NEW_RULE => "new rule",
        message::DEL_RULE => "delete rules",
        message::NEW_SET => "new set",
        message::DEL_SET => "delete set",
        message::NEW_SET_ELEMENT => "new elements",
        message::DEL_SET_ELEMENT => "delete elements",
        _ => "message",
    };
    let attributes = request.payload.get(4..).unwrap_or_default();
    let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
    match request.kind & 0xff {
        message::NEW_CHAIN | message::DEL_CHAIN => format!("{what} {}", name(3)),
        message::NEW_TABLE | message::DEL_TABLE => what.to_owned(),
        _ => format!("{what} of {}", name(2)),
    }
}

fn hash(kind: u16, attributes: &[u8]) -> u64 {
    // Keys fixed on purpose: a later process compares its own values with those that this one
    // recorded.
    let mut hasher = DefaultHasher::new();
    hasher.write_u16(kind);
    hasher.write(attributes);
    hasher.finish()
}
