//! Values and messages as D-Bus writes them (D-Bus specification, "Marshaling"), as far as systemd
//! uses them.

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a` and the type of the elements
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// Its type.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", signature_of(fields)),
            Self::Variant(_) => "v".into(),
        }
    }

    /// As text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) => Some(text),
            Self::Variant(value) => value.as_text(),
            _ => None,
        }
    }
}

/// The types of several values.
pub fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// What a type is aligned to.
fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// Writes values, little-endian. What is written must begin at a multiple of 8 in the message.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Fills up with zeroes.
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// One value.
    pub fn put(&mut self, value: &Value) {
        self.align(alignment(
            value.signature().bytes().next().unwrap_or_default(),
        ));
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(b) => self.0.extend(u32::from(*b).to_le_bytes()),
            Value::I16(n) => self.0.extend(n.to_le_bytes()),
            Value::U16(n) => self.0.extend(n.to_le_bytes()),
            Value::I32(n) => self.0.extend(n.to_le_bytes()),
            Value::U32(n) => self.0.extend(n.to_le_bytes()),
            Value::I64(n) => self.0.extend(n.to_le_bytes()),
            Value::U64(n) => self.0.extend(n.to_le_bytes()),
            Value::F64(n) => self.0.extend(n.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => {
                self.length(text.len());
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => {
                let at = self.0.len();
                self.length(0);
                // The padding before the first element is not counted.
                self.align(alignment(element.bytes().next().unwrap_or_default()));
                let start = self.0.len();
                values.iter().for_each(|value| self.put(value));
                let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
                if let Some(place) = self.0.get_mut(at..at + 4) {
                    place.copy_from_slice(&length.to_le_bytes());
                }
            }
            Value::Struct(fields) => fields.iter().for_each(|field| self.put(field)),
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.put(value);
            }
        }
    }

    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend(length.to_le_bytes());
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

/// How deep values may be nested; the specification allows 64.
const DEPTH: usize = 64;

/// Reads values, of either byte order. Each method is `None` where the bytes are not that.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    /// `bytes` begin at a multiple of 8 in the message.
    pub fn new(bytes: &'a [u8], little: bool) -> Self {
        Self {
            bytes,
            at: 0,
            little,
        }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N);
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if !self.little {
            bytes.reverse();
        }
        Some(bytes)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.take(1)? == [0]).then_some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.take(1)?.first().copied()?;
        self.text(length.into())
    }

    /// Values of these types, one after the other.
    pub fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        self.sequence(signature, DEPTH)
    }

    fn sequence(&mut self, signature: &str, depth: usize) -> Option<Vec<Value>> {
        let mut rest = signature;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (first, after) = split_type(rest)?;
            values.push(self.value(first, depth)?);
            rest = after;
        }
        Some(values)
    }

    /// One value of one complete type.
    fn value(&mut self, kind: &str, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        Some(match kind.as_bytes().first()? {
            b'y' => Value::Byte(self.take(1)?.first().copied()?),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            // A descriptor is told by its place in what came with the message.
            b'u' | b'h' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.number()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                match kind {
                    "s" => Value::Str(text),
                    _ => Value::Path(text),
                }
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                let (first, "") = split_type(&inner)? else {
                    return None;
                };
                Value::Variant(Box::new(self.value(first, depth)?))
            }
            b'a' => {
                let element = kind.get(1..)?;
                let length = self.u32()? as usize;
                self.align(alignment(*element.as_bytes().first()?));
                let end = self.at.checked_add(length)?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth)?);
                }
                if self.at != end {
                    return None;
                }
                Value::Array(element.into(), values)
            }
            // An entry of a dictionary is a structure of two.
            b'(' | b'{' => {
                self.align(8);
                let inner = kind.get(1..kind.len().checked_sub(1)?)?;
                Value::Struct(self.sequence(inner, depth)?)
            }
            _ => return None,
        })
    }
}

/// The first complete type, and the rest.
fn split_type(signature: &str) -> Option<(&str, &str)> {
    let bytes = signature.as_bytes();
    let mut at = bytes.iter().take_while(|b| **b == b'a').count();
    match bytes.get(at)? {
        b'(' | b'{' => {
            let mut open = 0usize;
            loop {
                match bytes.get(at)? {
                    b'(' | b'{' => open += 1,
                    b')' | b'}' => open = open.checked_sub(1)?,
                    _ => {}
                }
                at += 1;
                if open == 0 {
                    break;
                }
            }
        }
        _ => at += 1,
    }
    signature.split_at_checked(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(values: &[Value]) -> Option<Vec<Value>> {
        let mut writer = Writer::default();
        values.iter().for_each(|value| writer.put(value));
        Reader::new(&writer.0, true).values(&signature_of(values))
    }

    #[test]
    fn what_is_written_is_read() {
        let pair = |name: &str, value| {
            Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
        };
        let values = [
            Value::Byte(7),
            Value::text("a.scope"),
            Value::Bool(true),
            Value::I16(-2),
            Value::U64(u64::MAX),
            Value::F64(0.5),
            Value::Path("/a".into()),
            Value::Signature("a(sv)".into()),
            Value::Array(
                "(sv)".into(),
                vec![
                    pair("PIDs", Value::Array("u".into(), vec![Value::U32(1)])),
                    pair("Slice", Value::text("ä.slice")),
                    pair("Mask", Value::Array("y".into(), vec![Value::Byte(3)])),
                ],
            ),
            Value::Array("(sa(sv))".into(), Vec::new()),
            Value::I64(-1),
        ];
        assert_eq!(again(&values).as_deref(), Some(values.as_slice()));
    }

    /// As in the specification, "Marshaling", and in the other byte order.
    #[test]
    fn bytes() {
        let mut writer = Writer::default();
        writer.put(&Value::text("foo"));
        writer.put(&Value::text("+"));
        assert_eq!(writer.0, b"\x03\0\0\0foo\0\x01\0\0\0+\0");
        let mut writer = Writer::default();
        writer.put(&Value::Array("x".into(), vec![Value::I64(5)]));
        assert_eq!(writer.0, b"\x08\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        let big = Reader::new(b"\0\0\0\x03foo\0", false).values("s");
        assert_eq!(big, Some(vec![Value::text("foo")]));
        let entry = Reader::new(b"\x09\0\0\0\0\0\0\0\x01\0\0\0a\0\x01y\0\x07", true);
        let entry = { entry }.values("a{sv}");
        assert!(entry.is_none(), "longer than it says");
    }

    #[test]
    fn what_is_torn_is_nothing() {
        let values = [
            Value::text("x"),
            Value::Array("s".into(), vec![Value::text("y")]),
        ];
        let mut writer = Writer::default();
        values.iter().for_each(|value| writer.put(value));
        for length in 0..writer.0.len() {
            let bytes = &writer.0[..length];
            assert!(Reader::new(bytes, true).values("sas").is_none(), "{length}");
        }
        for bad in ["(", "a", "z", ")", "(s", "{s"] {
            assert!(Reader::new(&[0; 64], true).values(bad).is_none(), "{bad}");
        }
        let deep = "v".to_string();
        let nested: Vec<u8> = b"\x01v\0".repeat(100);
        assert!(Reader::new(&nested, true).values(&deep).is_none());
    }
}
