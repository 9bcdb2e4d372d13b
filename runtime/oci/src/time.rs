//! Moments, as RFC 3339 has them.

use std::time::{SystemTime, UNIX_EPOCH};

const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(elapsed.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// In UTC: 2026-01-02T15:04:05.000000007Z.
pub fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let (year, month, day) = date(seconds / DAY);
    let clock = seconds % DAY;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let fraction = nanos % NANOS;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Days since 1970 as a date of the Gregorian calendar: in eras of 400 years that begin in March,
/// where the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // Seconds as `date -u -d ... +%s` gives them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_825_600, "2000-02-29T12:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_772_323_200, "2026-03-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(seconds * NANOS + 7), format!("{text}.000000007Z"));
        }
    }
}
