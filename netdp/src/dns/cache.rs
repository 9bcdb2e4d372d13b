//! Answers of the upstreams, kept for as long as they allow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Header, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

/// Replies kept per task. A task that works with more names than that has a resolver of its own.
const ENTRIES: usize = 256;

/// Longest query and reply that are kept, in bytes: with [`ENTRIES`] it bounds the memory.
const LONGEST: usize = 4096;

/// Seconds for which an answer is kept at most.
const LONGEST_POSITIVE: u32 = 3600;

/// Seconds for which the absence of a name or type is kept at most: short, because people wait for
/// a name that they just made.
const LONGEST_NEGATIVE: u32 = 30;

/// The bytes of a query without its id. Queries that differ in anything (letters' case, EDNS
/// options, flags) are different, so a reply is passed on exactly as the upstream gave it.
pub(super) type Key = Arc<[u8]>;

/// The replies.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    reply: Arc<[u8]>,
    /// Where in the reply the TTLs are.
    ttls: Vec<u16>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The reply to a query, with the TTLs that are left; its id is whatever it was.
    pub(super) fn get(&self, query: &[u8], limit: u16, now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(query)?;
        // One that came over TCP may be too long for UDP.
        if now >= entry.until || entry.reply.len() > usize::from(limit) {
            return None;
        }
        let age = now.duration_since(entry.since).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let mut reply = entry.reply.to_vec();
        for at in &entry.ttls {
            let at = usize::from(*at);
            let Some(ttl) = reply.get_mut(at..at + 4) else {
                continue;
            };
            let left = ttl.iter().fold(0, |ttl, byte| ttl << 8 | u32::from(*byte));
            ttl.copy_from_slice(&left.saturating_sub(age).to_be_bytes());
        }
        Some(reply)
    }

    /// Keeps a reply, if it may be kept.
    pub(super) fn put(&mut self, query: &Key, reply: &Arc<[u8]>, now: Instant) {
        if query.len() > LONGEST || reply.len() > LONGEST {
            return;
        }
        let Ok(Some((ttls, keep))) = lifetime(reply) else {
            return;
        };
        if self.entries.len() >= ENTRIES && !self.entries.contains_key(query) {
            self.make_room(now);
        }
        let until = now + Duration::from_secs(keep.into());
        let entry = Entry {
            reply: Arc::clone(reply),
            ttls,
            since: now,
            until,
        };
        self.entries.insert(Arc::clone(query), entry);
    }

    /// Drops what is over, or else what would be over first.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() >= ENTRIES {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(key) = first.map(|(key, _)| Arc::clone(key)) {
                self.entries.remove(&key);
            }
        }
    }
}

/// Where the TTLs of a reply are, and for how many seconds it may be kept; `None`: not at all.
///
/// An answer lives as long as its shortest record, the absence of one as long as the SOA record
/// says (RFC 2308, section 5), and without SOA not at all. Failures and truncated replies are not
/// kept.
fn lifetime(reply: &[u8]) -> Result<Option<(Vec<u16>, u32)>, DecodeError> {
    let mut decoder = BinDecoder::new(reply);
    let header = Header::read(&mut decoder)?;
    let known = matches!(
        header.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    );
    if header.truncation || !known || header.counts.queries != 1 {
        return Ok(None);
    }
    Query::read(&mut decoder)?;

    let counts = header.counts;
    let authorities =
        u32::from(counts.answers)..u32::from(counts.answers) + u32::from(counts.authorities);
    let records = authorities.end + u32::from(counts.additionals);
    let mut ttls = Vec::new();
    let mut shortest = LONGEST_POSITIVE;
    let mut negative = None;
    for index in 0..records {
        Name::read(&mut decoder)?;
        let kind = RecordType::from(decoder.read_u16()?.unverified(/* only compared */));
        decoder.read_u16()?;
        let at = decoder.index();
        let ttl = decoder.read_u32()?.unverified(/* every value is a TTL */);
        let length = decoder.read_u16()?.unverified(/* checked by the next read */);
        let data = decoder.read_slice(length.into())?.unverified(/* only looked at */);
        if kind == RecordType::OPT {
            continue; // Flags where others have their TTL.
        }
        // The highest bit set counts as zero (RFC 2181, section 8).
        let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        shortest = shortest.min(ttl);
        let Ok(at) = u16::try_from(at) else {
            return Ok(None);
        };
        ttls.push(at);
        if let (RecordType::SOA, true, [.., a, b, c, d]) =
            (kind, authorities.contains(&index), data)
        {
            let minimum = u32::from_be_bytes([*a, *b, *c, *d]);
            negative = Some(minimum.min(LONGEST_NEGATIVE));
        }
    }
    let exists = header.response_code == ResponseCode::NoError && counts.answers > 0;
    let keep = match negative {
        // Also with answers: then they are a CNAME that leads nowhere.
        Some(negative) => shortest.min(negative),
        None if exists => shortest,
        None => 0,
    };
    Ok((keep > 0).then_some((ttls, keep)))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
