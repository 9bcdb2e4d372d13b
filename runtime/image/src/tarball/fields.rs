//! Numbers in tar headers, as writers really leave them.

use std::io;

use super::TarError;

/// A field of a header. Some writers leave those blank that they have nothing to say about.
pub(super) fn number(
    what: &str,
    raw: &[u8],
    value: io::Result<u64>,
    start: u64,
) -> Result<u64, TarError> {
    if raw.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    value.map_err(|e| TarError::Header {
        offset: start,
        reason: format!("{what}: {e}"),
    })
}

/// A time in a header: octal digits, or with the top bit set, a binary number of 12 bytes, which
/// may be negative (GNU tar manual, "Basic Tar Format").
pub(super) fn seconds(raw: &[u8; 12]) -> io::Result<i64> {
    let [first, _, _, _, low @ ..] = raw;
    if first & 0x80 != 0 {
        return Ok(i64::from_be_bytes(*low));
    }
    let text: String = raw
        .iter()
        .take_while(|b| **b != 0)
        .map(|b| char::from(*b))
        .collect();
    match text.trim() {
        "" => Ok(0),
        digits => i64::from_str_radix(digits, 8).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_all_three_notations() {
        assert_eq!(seconds(b"14371276400\0").expect("octal"), 0o14371276400);
        assert_eq!(seconds(&[0; 12]).expect("blank"), 0);
        let mut binary = [0xff; 12];
        binary[4..].copy_from_slice(&(-2i64).to_be_bytes());
        assert_eq!(seconds(&binary).expect("binary"), -2);
        assert!(seconds(b"not a number").is_err());
    }

    #[test]
    fn blank_numbers_are_zero_and_wrong_ones_are_not() {
        let wrong = || Err(io::Error::other("wrong"));
        assert_eq!(number("uid", b"  \0\0", wrong(), 0).expect("blank"), 0);
        assert!(number("uid", b"9x", wrong(), 0).is_err());
    }
}
