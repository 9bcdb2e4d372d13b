//! Netlink attributes: a 16-bit length with header, a 16-bit type, the value, padding to 4 bytes.
//!
//! Every length in bytes from the kernel is checked before it is used.

use crate::error::DecodeError;

/// Set on the type of an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// Set on the type of an attribute in network byte order (`NLA_F_NET_BYTEORDER`).
const NET_BYTEORDER: u16 = 1 << 14;

const HEADER: usize = 4;

const fn padded(len: usize) -> usize {
    (len + 3) & !3
}

/// Appends an attribute. Values here are short names, addresses and numbers, or nests of a few of
/// them: far below the 65,535 bytes that the length can tell.
pub(crate) fn put(buf: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buf.extend_from_slice(&((HEADER + value.len()) as u16).to_ne_bytes());
    buf.extend_from_slice(&kind.to_ne_bytes());
    buf.extend_from_slice(value);
    buf.resize(padded(buf.len()), 0);
}

pub(crate) fn put_u8(buf: &mut Vec<u8>, kind: u16, value: u8) {
    put(buf, kind, &[value]);
}

pub(crate) fn put_u16(buf: &mut Vec<u8>, kind: u16, value: u16) {
    put(buf, kind, &value.to_ne_bytes());
}

pub(crate) fn put_u16_be(buf: &mut Vec<u8>, kind: u16, value: u16) {
    put(buf, kind, &value.to_be_bytes());
}

pub(crate) fn put_u32(buf: &mut Vec<u8>, kind: u16, value: u32) {
    put(buf, kind, &value.to_ne_bytes());
}

/// Appends text with its closing NUL. Names have at most 15 bytes, the family's has 4.
pub(crate) fn put_str(buf: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = [0; 16];
    let len = value.len().min(bytes.len() - 1);
    bytes[..len].copy_from_slice(&value.as_bytes()[..len]);
    put(buf, kind, &bytes[..len + 1]);
}

/// Appends an attribute whose value is what `fill` appends.
pub(crate) fn put_nested(buf: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    put(buf, kind | NESTED, &[]);
    fill(buf);
    let len = (buf.len() - start) as u16;
    buf[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

/// One attribute that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr<'a> {
    /// Type, without flags.
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attr<'a> {
    fn fixed<const N: usize>(&self, what: &'static str) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| DecodeError::Length {
            what,
            actual: self.value.len(),
        })
    }

    pub(crate) fn u8(&self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_ne_bytes(self.fixed(what)?))
    }

    pub(crate) fn u16(&self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_ne_bytes(self.fixed(what)?))
    }

    pub(crate) fn u16_be(&self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.fixed(what)?))
    }

    pub(crate) fn u32(&self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_ne_bytes(self.fixed(what)?))
    }

    /// A number of 32 or 64 bits.
    pub(crate) fn u32_or_u64(&self, what: &'static str) -> Result<u64, DecodeError> {
        match self.value.len() {
            4 => Ok(u32::from_ne_bytes(self.fixed(what)?).into()),
            _ => Ok(u64::from_ne_bytes(self.fixed(what)?)),
        }
    }

    /// Text up to its first NUL, or all of it.
    pub(crate) fn text(&self) -> &'a [u8] {
        let end = self
            .value
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(self.value.len());
        &self.value[..end]
    }

    /// The attributes that this one holds.
    pub(crate) fn nested(&self, what: &'static str) -> Attrs<'a> {
        Attrs {
            rest: self.value,
            what,
        }
    }
}

/// Reads attributes one after the other; ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Attrs<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Attrs<'a> {
    /// `what` names the holder in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let truncated = Some(Err(DecodeError::Truncated { what: self.what }));
        let Some((&[len0, len1, kind0, kind1], _)) = bytes.split_first_chunk::<HEADER>() else {
            return truncated;
        };
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let kind = u16::from_ne_bytes([kind0, kind1]) & !(NESTED | NET_BYTEORDER);
        let Some(value) = bytes.get(HEADER..len) else {
            return truncated;
        };
        // The last attribute may come without its padding.
        self.rest = bytes.get(padded(len)..).unwrap_or_default();
        Some(Ok(Attr { kind, value }))
    }
}
