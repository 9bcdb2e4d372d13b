//! Lists of CPUs and of NUMA nodes, as the kernel writes them: `0-3,7` (cpuset(7), "List format").

/// The most CPUs a kernel is built for (`NR_CPUS`).
const MAX: u32 = 8192;

/// The bits of a list, the lowest first.
///
/// # Errors
/// In words, what is wrong with it.
pub fn parse(list: &str) -> Result<Vec<u8>, String> {
    let number = |text: &str| -> Result<u32, String> {
        // Not by `parse` alone, which takes a sign.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|n| digits && *n < MAX);
        number.ok_or_else(|| format!("\"{text}\" is not a number from 0 to {}", MAX - 1))
    };
    let mut bits = Vec::new();
    for part in list.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("\"{part}\" goes backwards"));
        }
        for n in first..=last {
            let (byte, bit) = (n as usize / 8, n % 8);
            if bits.len() <= byte {
                bits.resize(byte + 1, 0u8);
            }
            if let Some(byte) = bits.get_mut(byte) {
                *byte |= 1 << bit;
            }
        }
    }
    Ok(bits)
}

/// The same bits in words, for calls that want these.
pub fn words(bits: &[u8]) -> Vec<libc::c_ulong> {
    const BYTES: usize = size_of::<libc::c_ulong>();
    let word = |chunk: &[u8]| {
        let mut bytes = [0; BYTES];
        bytes
            .iter_mut()
            .zip(chunk)
            .for_each(|(to, from)| *to = *from);
        libc::c_ulong::from_le_bytes(bytes)
    };
    bits.chunks(BYTES).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,7"), Ok(vec![0x8f]));
        assert_eq!(parse("9"), Ok(vec![0, 2]));
        for bad in [
            "",
            "x",
            "-1",
            "+1",
            "3-1",
            "8192",
            "0-99999999",
            "1,,2",
            "1-",
            "0x1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn as_words() {
        assert_eq!(words(&[0x8f]), [0x8f]);
        assert_eq!(words(&[0, 0, 0, 0, 0, 0, 0, 0, 1]), [0, 1]);
        assert!(words(&[]).is_empty());
    }
}
