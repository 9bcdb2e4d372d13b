//! Numbers on the command line.

use std::time::Duration;

/// A size in bytes, with an optional suffix; -1 is "no limit".
pub fn size(text: &str) -> Result<i64, String> {
    let bad = || format!("\"{text}\" is no size: write 1048576, 512k, 100m, 2g, or -1");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, suffix @ ('k' | 'm' | 'g' | 't'))) => {
            let shift = match suffix {
                'k' => 10,
                'm' => 20,
                'g' => 30,
                _ => 40,
            };
            (lower.get(..at).ok_or_else(bad)?, shift)
        }
        _ => (lower, 0),
    };
    number(digits)
        .and_then(|n| n.checked_mul(1 << shift))
        .and_then(|n| i64::try_from(n).ok())
        .ok_or_else(bad)
}

/// A duration as Go writes it, longer than none: 5s, 500ms, 1m30s, 1.5h.
pub fn duration(text: &str) -> Result<Duration, String> {
    nanos(text)
        .filter(|nanos| *nanos > 0)
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("\"{text}\" is no duration: write 500ms, 5s, 1m30s"))
}

fn nanos(text: &str) -> Option<u64> {
    let in_number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut sum, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let (value, after) = rest.split_at(rest.find(|c| !in_number(c))?);
        let (unit, next) = after.split_at(after.find(in_number).unwrap_or(after.len()));
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
        let places = u32::try_from(fraction.len()).ok()?;
        // Go takes ".5" and "1.", but not ".".
        let part = |digits: &str| match digits {
            "" if value != "." => Some(0),
            digits => number(digits),
        };
        let below = u128::from(part(fraction)?) * u128::from(scale) / 10u128.checked_pow(places)?;
        sum = sum
            .checked_add(part(whole)?.checked_mul(scale)?)?
            .checked_add(u64::try_from(below).ok()?)?;
        rest = next;
    }
    Some(sum)
}

/// `UID[:GID]`. Nothing may follow: what is not understood must not become user 0.
pub fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let id = |text: &str| number(text).and_then(|n| u32::try_from(n).ok());
    let parsed = match text.split_once(':') {
        Some((uid, gid)) => id(uid).zip(id(gid)).map(|(uid, gid)| (uid, Some(gid))),
        None => id(text).map(|uid| (uid, None)),
    };
    parsed
        .filter(|(uid, gid)| *uid != u32::MAX && *gid != Some(u32::MAX))
        .ok_or_else(|| format!("\"{text}\" is not UID[:GID]"))
}

/// Digits only; `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("10", 10),
            ("2k", 2048),
            ("1G", 1 << 30),
            ("-1", -1),
            ("3mb", 3 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-2", "1.5g", "9999999999g", "+1", "1x", "ä"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("1h.5m2.s"), Ok(Duration::from_secs(3632)));
        assert_eq!(duration("7µs"), Ok(Duration::from_micros(7)));
        for text in [
            "", "5", "s", "0s", "-1s", "1d", ".s", "1..5s", "1s5", "1m 30s", "+1s", "9999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users() {
        assert_eq!(user("7"), Ok((7, None)));
        assert_eq!(user("7:8"), Ok((7, Some(8))));
        for text in [
            "",
            "root",
            "1:",
            ":1",
            "1:2:3",
            "1x",
            "-1",
            "4294967295",
            "4294967296",
            " 1",
        ] {
            assert!(user(text).is_err(), "{text}");
        }
    }
}
