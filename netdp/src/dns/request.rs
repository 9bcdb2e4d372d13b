//! A query taken apart, and the replies to it put together.

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, EmitAndCount, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
    emit_message_parts,
};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

use super::Transport;

/// Seconds that a client may keep an answer of ours. Low, because tasks come and go and a client
/// that keeps an old address fails; not zero, because some clients then ask before every connection.
pub(super) const LOCAL_TTL: u32 = 2;

/// Longest query that we take over UDP, in bytes (RFC 6891, 6.2.5).
pub(super) const UDP_QUERY: u16 = 4096;

/// Longest message in a UDP packet, in bytes. Replies stay on the task's loopback interface, so they
/// may be as long as the client wants.
const UDP_LONGEST: u16 = 65507;

/// What a client without EDNS takes over UDP, in bytes (RFC 1035, 4.2.1).
const UDP_PLAIN: u16 = 512;

/// A well-formed query: one question, class IN.
#[derive(Debug)]
pub(super) struct Request {
    metadata: Metadata,
    edns: Option<Edns>,
    pub question: Query,
    /// Longest reply that the client takes, in bytes.
    pub limit: u16,
}

impl Request {
    /// The query in `bytes`, or else the reply that it gets, if any.
    pub(super) fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Option<Vec<u8>>> {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else {
            return Err(None);
        };
        if header.message_type == MessageType::Response {
            // Answering an answer is how two servers keep each other busy for ever.
            return Err(None);
        }
        let refuse = |code| encode(&header.metadata, None, None, code, &[], u16::MAX);
        if header.op_code != OpCode::Query {
            return Err(refuse(ResponseCode::NotImp));
        }
        // Counts are checked before the decoder reserves room for that many.
        let counts = header.counts;
        if counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 {
            return Err(refuse(ResponseCode::FormErr));
        }
        let Ok(mut message) = Message::from_vec(bytes) else {
            return Err(refuse(ResponseCode::FormErr));
        };
        let Some(question) = message.queries.pop() else {
            return Err(refuse(ResponseCode::FormErr));
        };
        let limit = match (transport, &message.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PLAIN, UDP_LONGEST),
            (Transport::Udp, None) => UDP_PLAIN,
        };
        let request = Self {
            metadata: header.metadata,
            edns: message.edns,
            question,
            limit,
        };
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Err(request.failure(ResponseCode::BADVERS));
        }
        let transfer = matches!(
            request.question.query_type,
            RecordType::AXFR | RecordType::IXFR
        );
        if request.question.query_class != DNSClass::IN || transfer {
            return Err(request.failure(ResponseCode::Refused));
        }
        Ok(request)
    }

    /// A reply without records.
    pub(super) fn failure(&self, code: ResponseCode) -> Option<Vec<u8>> {
        self.reply(code, &[])
    }

    /// The reply with as many of the answers as the client takes.
    pub(super) fn answer(&self, answers: &[RData]) -> Option<Vec<u8>> {
        self.reply(ResponseCode::NoError, answers)
    }

    fn reply(&self, code: ResponseCode, answers: &[RData]) -> Option<Vec<u8>> {
        let edns = self.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_QUERY);
            edns
        });
        encode(
            &self.metadata,
            Some(&self.question),
            edns.as_ref(),
            code,
            answers,
            self.limit,
        )
    }
}

/// A reply of at most `limit` bytes. It has no SOA record, so that a client does not remember an
/// empty one (RFC 2308, section 5).
fn encode(
    query: &Metadata,
    question: Option<&Query>,
    edns: Option<&Edns>,
    code: ResponseCode,
    answers: &[RData],
    limit: u16,
) -> Option<Vec<u8>> {
    let around = HEADER
        + question.map_or(0, |question| encoded(&question.name) + 4)
        + edns.map_or(0, |_| OPT);
    let fitting = fitting(answers, usize::from(limit).saturating_sub(around));

    let mut metadata = Metadata::response_from_request(query);
    metadata.recursion_available = true;
    metadata.authoritative = !answers.is_empty();
    metadata.truncation = fitting.len() < answers.len();
    metadata.response_code = code;

    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    let none = || std::iter::empty::<&Record>();
    let written = emit_message_parts(
        &metadata,
        &mut question.into_iter(),
        &mut Answers(fitting),
        &mut none(),
        &mut none(),
        edns,
        None,
        &mut encoder,
    );
    written.ok().map(|_| bytes)
}

/// Bytes of a message before its question: id, flags, four counts (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// Bytes of an OPT record without options (RFC 6891, 6.1.2).
const OPT: usize = 11;

/// Bytes of a record whose name is a pointer, without data: pointer, type, class, TTL, length.
const RECORD: usize = 12;

/// A pointer to the question's name, right behind the header (RFC 1035, 4.1.4).
const QUESTION: u16 = 0xc00c;

/// Bytes of a name in full: hickory counts one per label besides the text, not the root's.
fn encoded(name: &Name) -> usize {
    name.len() + 1
}

/// The answers for which there is room, in bytes.
fn fitting(answers: &[RData], mut room: usize) -> &[RData] {
    let fits = |data: &&RData| {
        let length = match data {
            RData::A(_) => 4,
            RData::AAAA(_) => 16,
            RData::PTR(name) => encoded(name),
            _ => return false, // None of ours.
        };
        let left = room.checked_sub(RECORD + length);
        room = left.unwrap_or_default();
        left.is_some()
    };
    let count = answers.iter().take_while(fits).count();
    answers.get(..count).unwrap_or_default()
}

/// The answer section. Written by hand, for hickory's encoder stops compressing names after a while,
/// so that nobody could tell how long a long answer gets.
struct Answers<'a>(&'a [RData]);

impl EmitAndCount for Answers<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        for data in self.0 {
            encoder.emit_u16(QUESTION)?;
            encoder.emit_u16(data.record_type().into())?;
            encoder.emit_u16(DNSClass::IN.into())?;
            encoder.emit_u32(LOCAL_TTL)?;
            let place = encoder.place::<u16>()?;
            data.emit(encoder)?;
            let length = u16::try_from(encoder.len_since_place(&place))
                .map_err(|_| ProtoError::Message("record data over 65535 bytes"))?;
            place.replace(encoder, length)?;
        }
        Ok(self.0.len())
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
