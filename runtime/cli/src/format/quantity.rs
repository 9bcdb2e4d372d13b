//! Amounts: of time, of memory, of CPUs, each exact in the unit of the contract.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mirror::number;

/// Units of time, longest first, each with its nanoseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of memory, each with its bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// The number and the unit at the beginning of a text, multiplied, and the rest of the text.
/// Exact: a fraction that is no whole number of the smallest unit is refused.
fn take_quantity<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let unit_end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 18 || number.ends_with('.') {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(factor.into())?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()?
    };
    let part = part.checked_mul(factor.into())?;
    if part % scale != 0 {
        return None;
    }
    Some((u64::try_from(whole.checked_add(part / scale)?).ok()?, rest))
}

/// Nanoseconds of a duration such as `1m30s`.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let error = || format!("`{text}` is no duration, such as 500ms, 10s or 1m30s");
    let (mut total, mut rest) = take_quantity(text, &TIME_UNITS).ok_or_else(error)?;
    while !rest.is_empty() {
        let (next, left) = take_quantity(rest, &TIME_UNITS).ok_or_else(error)?;
        total = total.checked_add(next).ok_or_else(error)?;
        rest = left;
    }
    Ok(total)
}

/// A duration in the longest unit that it is a whole number of.
pub fn format_duration(nanos: u64) -> String {
    TIME_UNITS
        .iter()
        .find(|(_, factor)| nanos != 0 && nanos.is_multiple_of(*factor))
        .map_or_else(
            || "0s".to_owned(),
            |(unit, factor)| format!("{}{unit}", nanos / factor),
        )
}

/// An amount of memory in bytes, written as `64MiB`, `1.5GiB`, or a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size(pub i64);

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        take_quantity(text, &SIZE_UNITS)
            .filter(|(_, rest)| rest.is_empty())
            .and_then(|(bytes, _)| i64::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is no size: write bytes, or a unit such as 64MiB or 1.5GiB")
            })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS[1..5].iter().rev().find(|(_, factor)| {
            self.0 > 0 && u64::try_from(self.0).is_ok_and(|bytes| bytes.is_multiple_of(*factor))
        });
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0.unsigned_abs() / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Swap in bytes, written as a size or as `unlimited`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Swap(pub i64);

/// Reads a number of bytes or a text.
struct SizeVisitor(fn(&str) -> Result<i64, String>);

impl Visitor<'_> for SizeVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size in bytes or with a unit, such as 64MiB")
    }
    fn visit_u64<E: Error>(self, bytes: u64) -> Result<i64, E> {
        i64::try_from(bytes).map_err(|_| E::custom(format!("{bytes} bytes are too many")))
    }
    fn visit_i64<E: Error>(self, bytes: i64) -> Result<i64, E> {
        u64::try_from(bytes)
            .map_err(|_| E::custom(format!("{bytes}: a size cannot be negative")))
            .and_then(|bytes| self.visit_u64(bytes))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Self::parse(text).map(|size| size.0);
        deserializer.deserialize_any(SizeVisitor(parse)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Swap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| match text {
            "unlimited" => Ok(-1),
            text => Size::parse(text)
                .map(|size| size.0)
                .map_err(|reason| format!("{reason}, or `unlimited`")),
        };
        deserializer.deserialize_any(SizeVisitor(parse)).map(Self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Swap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ..0 => serializer.serialize_str("unlimited"),
            bytes => serializer.collect_str(&Size(bytes)),
        }
    }
}

fn size_schema(pattern: &str) -> Schema {
    json_schema!({
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": i64::MAX,
        "pattern": pattern,
    })
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        size_schema("^[0-9]+(\\.[0-9]+)?([KMGT]iB|[kMGT]?B)$")
    }
}

impl JsonSchema for Swap {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Swap".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        size_schema("^([0-9]+(\\.[0-9]+)?([KMGT]iB|[kMGT]?B)|unlimited)$")
    }
}

/// CPUs, such as `1.5`; kept in thousand-millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpus(pub i64);

/// More CPUs than any machine has; below it, nanoseconds per second fit into 53 bits exactly.
const MOST_CPUS: f64 = 1_000_000.0;

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cpus = f64::deserialize(deserializer)?;
        if !(0.0..=MOST_CPUS).contains(&cpus) {
            return Err(Error::custom(format!(
                "{cpus} is no number of CPUs, such as 1.5"
            )));
        }
        Ok(Self((cpus * 1e9).round() as i64))
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e9)
    }
}

impl JsonSchema for Cpus {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Cpus".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": MOST_CPUS })
    }
}

number!(Size(i64));
number!(Swap(i64));
number!(Cpus(i64));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("1.5s", 1_500_000_000),
            ("1m30s", 90_000_000_000),
            ("0.1ms", 100_000),
            ("7ns", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1.s",
            ".5s",
            "10 s",
            "-1s",
            "1d",
            "0.5ns",
            "99999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for nanos in [0, 1, 1_500_000_000, 90_000_000_000, 3_600_000_000_000] {
            assert_eq!(parse_duration(&format_duration(nanos)), Ok(nanos));
        }
    }

    #[test]
    fn sizes_keep_binary_and_decimal_units_apart() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2kB", 2_000),
            ("7B", 7),
            ("0B", 0),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["64M", "64 MiB", "MiB", "-1B", "0.3B", "9000000TiB", "1MiB2"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
        for bytes in [0, 1, 1023, 1024, 64 << 20, 3 << 29] {
            assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
        }
    }
}
