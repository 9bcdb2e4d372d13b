//! Times for people, and the ones that people write.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::format::quantity::parse_duration;

const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Nanoseconds since the epoch, now.
pub fn now() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// A time as RFC 3339 in UTC, with nanoseconds: 2026-01-02T15:04:05.000000007Z.
pub fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let (year, month, day) = date(seconds / DAY);
    let clock = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        clock / 3600,
        clock / 60 % 60,
        clock % 60,
        nanos % NANOS
    )
}

/// How long ago a time is, in one unit.
pub fn ago(nanos: u64, now: u64) -> String {
    if nanos == 0 {
        return String::new();
    }
    match now.saturating_sub(nanos) / NANOS {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / DAY),
    }
}

/// Nanoseconds since the epoch of a time that a person wrote: a duration means that long ago,
/// digits are seconds since the epoch, everything else is RFC 3339 in UTC or with an offset.
pub fn parse_since(text: &str) -> Result<u64, String> {
    if let Ok(duration) = parse_duration(text) {
        return Ok(now().saturating_sub(duration));
    }
    let epoch = text
        .parse::<u64>()
        .ok()
        .and_then(|seconds| seconds.checked_mul(NANOS));
    epoch.or_else(|| parse_rfc3339(text)).ok_or_else(|| {
        format!("`{text}` is no time: write 10m, 2026-01-02T15:04:05Z, or seconds since the epoch")
    })
}

fn parse_rfc3339(text: &str) -> Option<u64> {
    let (day, clock) = text.split_once(['T', 't', ' '])?;
    let (clock, offset) = match clock.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let (clock, zone) = clock.split_at_checked(clock.len().checked_sub(6)?)?;
            let sign = if zone.starts_with('+') { 1 } else { -1 };
            let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            let in_range = hours < 24 && minutes < 60;
            (
                clock,
                in_range.then_some(sign * (i64::try_from(hours * 3600 + minutes * 60).ok()?))?,
            )
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let digits = fraction.bytes().all(|digit| digit.is_ascii_digit());
    let days = days(year, month, day)?;
    if fraction.is_empty()
        || fraction.len() > 9
        || !digits
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let seconds = i64::try_from(days * DAY + hour * 3600 + minute * 60 + second).ok()? - offset;
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(NANOS)?
        .checked_add(nanos)
}

/// Numbers with a fixed count of digits each.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, digits) in values.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_lengths(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; none for a date that does not exist.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let lengths = month_lengths(year);
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || day == 0 || day > *lengths.get(before)? {
        return None;
    }
    let leap_years = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_years(year) - leap_years(1970);
    Some(years + lengths[..before].iter().sum::<u64>() + day - 1)
}

/// The date that is so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    for length in month_lengths(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seconds as `date -u -d ... +%s` gives them.
    const TIMES: [(&str, u64); 6] = [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600),
        ("2024-12-31T23:59:59Z", 1_735_689_599),
        ("2026-03-01T00:00:00Z", 1_772_323_200),
        ("2100-03-01T00:00:00Z", 4_107_542_400),
        ("2026-03-01T01:30:00+01:30", 1_772_323_200),
    ];

    #[test]
    fn times_are_read() {
        for (text, seconds) in TIMES {
            assert_eq!(parse_rfc3339(text), Some(seconds * NANOS), "{text}");
        }
        assert_eq!(parse_since("1735689599"), Ok(1_735_689_599 * NANOS));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        for text in [
            "",
            "soon",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-1-1T00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_written() {
        for (text, seconds) in &TIMES[..5] {
            assert_eq!(
                rfc3339(seconds * NANOS + 7),
                text.replace('Z', ".000000007Z")
            );
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now = 1_000_000 * NANOS;
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (180_000, "2d"),
        ] {
            assert_eq!(ago(now - seconds * NANOS, now), text);
        }
        assert_eq!(ago(0, now), "");
    }
}
