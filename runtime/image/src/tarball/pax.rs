//! PAX extended headers (POSIX.1-2001 pax, "pax Header Block").

/// No file system keeps as many of a file.
const MAX_XATTRS: usize = 1024;

/// What PAX records say about the next entry.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
    seen: bool,
}

/// GNU tar's sparse records (tar manual, "Storing Sparse Files").
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    /// Version 1.0: the map stands before the data, not in the header.
    pub(super) map_in_data: bool,
    /// Size of the file once written, in bytes.
    pub(super) real_size: Option<u64>,
    /// Versions 0.0 and 0.1: offsets and lengths in turn.
    pub(super) numbers: Vec<u64>,
    /// The real name; `path` then holds a made-up one.
    name: Option<Vec<u8>>,
}

impl Pax {
    pub(super) fn is_empty(&self) -> bool {
        !self.seen
    }

    /// Takes over the records of one extended header. Later records replace earlier ones.
    pub(super) fn read(&mut self, mut data: &[u8]) -> Result<(), String> {
        self.seen = true;
        while !data.is_empty() {
            let (key, value, rest) =
                record(data).ok_or_else(|| "a malformed PAX record".to_owned())?;
            self.take(key, value)?;
            data = rest;
        }
        // GNU tar puts a made-up name into `path`, so the order of the records must not matter.
        if let Some(name) = self.sparse.as_mut().and_then(|sparse| sparse.name.take()) {
            self.path = Some(name);
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = || {
            if value.contains(&0) {
                Err(format!(
                    "a NUL in the PAX record {}",
                    String::from_utf8_lossy(key)
                ))
            } else {
                // An empty value takes the record back.
                Ok(Some(value.to_vec()).filter(|value| !value.is_empty()))
            }
        };
        let number = || {
            if value.is_empty() {
                Ok(None)
            } else {
                integer(key, value).map(Some)
            }
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = timestamp(value),
            b"GNU.sparse.name" => self.sparse().name = text()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse().real_size = number()?,
            b"GNU.sparse.major" => self.sparse().map_in_data = integer(key, value)? >= 1,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let number = integer(key, value)?;
                self.sparse().numbers.push(number);
            }
            b"GNU.sparse.map" => {
                let numbers = value
                    .split(|byte| *byte == b',')
                    .map(|part| integer(key, part));
                self.sparse().numbers = numbers.collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err("an extended attribute without a proper name".into());
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() == MAX_XATTRS {
                        return Err(format!("more than {MAX_XATTRS} extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut PaxSparse {
        self.sparse.get_or_insert_default()
    }
}

/// Splits `length key=value\n` off the front. The length counts the whole record, which is why
/// the value may contain newlines.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    if length <= space + 1 || length > data.len() {
        return None;
    }
    let body = data[space + 1..length].strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &data[length..]))
}

fn integer(key: &[u8], value: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            format!("PAX record {key}: `{value}` is no number")
        })
}

/// `[-]seconds[.fraction]`, as seconds and nanoseconds towards later times.
fn timestamp(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        pax.read(data).map(|()| pax)
    }

    #[test]
    fn values_may_contain_newlines_and_nuls_where_they_are_binary() {
        let pax = read(b"31 SCHILY.xattr.user.a=\x01\n\x00=b\n30 m\n").err();
        assert!(pax.is_some(), "a wrong length must not be guessed around");
        let body = b" SCHILY.xattr.user.a=\x01\n\x00=b\n";
        let mut data = format!("{}", body.len() + 2).into_bytes();
        data.extend_from_slice(body);
        let pax = read(&data).expect("a proper record");
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\x01\n\x00=b".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [
            &b"12 path=abc"[..],
            b"999 path=abc\n",
            b"0 path=abc\n",
            b"x path=abc\n",
            b"9 pathabc\n",
            b"18446744073709551615 a=b\n",
            b"11 path=a\0\n",
            b"10 size=x\n",
        ] {
            assert!(read(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(timestamp(b"1700000000"), Some((1_700_000_000, 0)));
        assert_eq!(timestamp(b"soon"), None);
    }
}
