//! Base64 of RFC 4648, section 4: the few lines that secrets in a file need.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as base64 with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let index = (group >> (18 - 6 * position)) & 63;
            text.push(if position <= chunk.len() {
                ALPHABET[index as usize].into()
            } else {
                '='
            });
        }
    }
    text
}

/// The bytes of a base64 text with padding; white space is skipped.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if !digits.len().is_multiple_of(4) {
        return Err(format!(
            "base64 of {} digits is cut short: 4 make a group",
            digits.len()
        ));
    }
    let padding = digits
        .iter()
        .rev()
        .take(2)
        .take_while(|digit| **digit == b'=')
        .count();
    let (digits, _) = digits.split_at(digits.len() - padding);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut group = 0;
        for digit in chunk {
            let value = ALPHABET
                .iter()
                .position(|letter| letter == digit)
                .ok_or_else(|| format!("`{}` is no digit of base64", digit.escape_ascii()))?;
            group = group << 6 | value as u32;
        }
        group <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&group.to_be_bytes()[1..chunk.len()]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors_both_ways() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(decode("Zm9v\n YmFy\n").as_deref(), Ok(b"foobar".as_slice()));
    }

    #[test]
    fn damage_is_refused() {
        for text in ["Zg", "Zg=", "Z===", "Zm9v!A==", "Zg==Zg==", "-_-_"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
