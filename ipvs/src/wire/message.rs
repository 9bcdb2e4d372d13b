//! Netlink messages: a header of 16 bytes, here followed by the 4 bytes of generic netlink's.

use crate::error::DecodeError;
use crate::wire::attr::Attrs;

/// Size of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Size of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const DUMP_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
/// In an error message: the request follows without its payload (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// In an error message: attributes follow (`NLM_F_ACK_TLVS`).
const ACK_TLVS: u16 = 0x200;
/// The kernel's words, among those attributes (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// What kind of answer a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// An acknowledgement.
    Ack,
    /// One message, or an error.
    One,
    /// Any number of messages and an end.
    All,
}

/// Appends a generic netlink request whose attributes are what `fill` appends.
pub(crate) fn put(
    buf: &mut Vec<u8>,
    (family, version, command): (u16, u8, u8),
    want: Want,
    sequence: u32,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let start = buf.len();
    let flags = match want {
        Want::Ack => REQUEST | ACK,
        Want::One => REQUEST,
        Want::All => REQUEST | DUMP,
    };
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&family.to_ne_bytes());
    buf.extend_from_slice(&flags.to_ne_bytes());
    buf.extend_from_slice(&sequence.to_ne_bytes());
    // Port: 0, the kernel knows whose socket this is.
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&[command, version, 0, 0]);
    fill(buf);
    // Every attribute is padded, so the message is aligned for the next one in the same buffer.
    let len = (buf.len() - start) as u32;
    buf[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// A message that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) sequence: u32,
    pub(crate) body: Body<'a>,
    /// What was being listed changed meanwhile, so the list may be incomplete.
    pub(crate) interrupted: bool,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// A request was carried out.
    Ack,
    /// A request, or the rest of a list, was refused; the number is positive.
    Error { errno: i32, text: Option<String> },
    /// The list is complete.
    Done,
    /// Content: the bytes after both headers.
    Content(&'a [u8]),
    /// Nothing that was asked for.
    Other,
}

/// Reads the messages of one datagram; ends after the first error.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
    family: u16,
}

impl<'a> Messages<'a> {
    /// `family` is the message type whose content is wanted.
    pub(crate) fn new(datagram: &'a [u8], family: u16) -> Self {
        Self {
            rest: datagram,
            family,
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let header = match Header::read(bytes) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let Some(payload) = bytes.get(HEADER..header.len) else {
            return Some(Err(DecodeError::Truncated {
                what: "netlink message",
            }));
        };
        self.rest = bytes.get((header.len + 3) & !3..).unwrap_or_default();
        Some(body(&header, payload, self.family).map(|body| Message {
            sequence: header.sequence,
            body,
            interrupted: header.flags & DUMP_INTERRUPTED != 0,
        }))
    }
}

struct Header {
    len: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError::Truncated {
            what: "netlink header",
        };
        let Some((&[l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..], _)) =
            bytes.split_first_chunk::<HEADER>()
        else {
            return Err(truncated);
        };
        Ok(Self {
            // Lengths beyond the datagram, which includes all that do not fit, are refused later.
            len: usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3]))
                .map_err(|_| truncated)?
                .min(isize::MAX as usize),
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        })
    }
}

fn body<'a>(header: &Header, payload: &'a [u8], family: u16) -> Result<Body<'a>, DecodeError> {
    match i32::from(header.kind) {
        libc::NLMSG_ERROR => {
            let (code, rest) = error_code(payload)?;
            if code == 0 {
                return Ok(Body::Ack);
            }
            let text = error_text(header.flags, rest);
            Ok(Body::Error {
                errno: code.saturating_neg(),
                text,
            })
        }
        // The end of a list carries an error number where the list could not be completed.
        libc::NLMSG_DONE => match error_code(payload) {
            Ok((code, _)) if code < 0 => Ok(Body::Error {
                errno: code.saturating_neg(),
                text: None,
            }),
            _ => Ok(Body::Done),
        },
        kind if kind == i32::from(family) => payload
            .get(GENERIC_HEADER..)
            .map(Body::Content)
            .ok_or(DecodeError::Truncated {
                what: "generic netlink header",
            }),
        _ => Ok(Body::Other),
    }
}

fn error_code(payload: &[u8]) -> Result<(i32, &[u8]), DecodeError> {
    let (code, rest) = payload
        .split_first_chunk::<4>()
        .ok_or(DecodeError::Truncated {
            what: "netlink error code",
        })?;
    Ok((i32::from_ne_bytes(*code), rest))
}

/// The kernel's words in an error message: after the header of the request, and after its payload
/// unless that was left out. Words are a help only, so anything odd just gives none.
fn error_text(flags: u16, rest: &[u8]) -> Option<String> {
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let skip = match flags & CAPPED {
        0 => (Header::read(rest).ok()?.len.checked_add(3)? & !3).max(HEADER),
        _ => HEADER,
    };
    Attrs::new(rest.get(skip..)?, "netlink error")
        .map_while(Result::ok)
        .find(|attr| attr.kind == ERROR_TEXT)
        .map(|attr| String::from_utf8_lossy(attr.text()).into_owned())
}
