//! Annotations `org.systemd.property.<Name>` set further properties of the unit, as runc has it. The
//! value is in the text format of GVariant: `'text'`, `true`, `uint64 5`, `['a', 'b']`.

use crate::error::{Result, SystemdError};
use crate::property::Property;
use crate::wire::Value;
use std::collections::{BTreeMap, HashMap};

const PREFIX: &str = "org.systemd.property.";

/// What the runtime itself relies on.
const OURS: [&str; 3] = ["Delegate", "PIDs", "Slice"];

/// The properties of all such annotations, by name.
pub fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Vec<Property>> {
    // By name, so that an error is the same each time.
    let sorted: BTreeMap<_, _> = annotations.into_iter().flatten().collect();
    let mut properties = Vec::new();
    for (key, text) in sorted {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let bad = |reason: String| SystemdError::Annotation {
            name: key.clone(),
            reason,
        };
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(bad(format!("\"{name}\" is no name of a property")));
        }
        if OURS.contains(&name) {
            return Err(bad("the runtime sets this property itself".into()));
        }
        let value = parse(text).ok_or_else(|| {
            bad(format!(
                "{text} is no value like 'text', true, 5, uint64 5 or ['a', 'b']"
            ))
        })?;
        properties.push(seconds(name, value).map_err(bad)?);
    }
    Ok(properties)
}

/// Over D-Bus times are in microseconds, and their names say so.
fn seconds(name: &str, value: Value) -> Result<Property, String> {
    let stem = name.strip_suffix("Sec");
    let Some(stem) = stem.filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())) else {
        return Ok(Property::new(name, value));
    };
    let seconds = match value {
        Value::Byte(n) => f64::from(n),
        Value::I16(n) => f64::from(n),
        Value::U16(n) => f64::from(n),
        Value::I32(n) => f64::from(n),
        Value::U32(n) => f64::from(n),
        Value::I64(n) => n as f64,
        Value::U64(n) => n as f64,
        Value::F64(n) => n,
        _ => return Err("seconds are a number".into()),
    };
    if !(0.0..=1e12).contains(&seconds) {
        return Err(format!("{seconds} is no number of seconds"));
    }
    let micro = (seconds * 1e6).round() as u64;
    Ok(Property::new(format!("{stem}USec"), Value::U64(micro)))
}

/// A value in the text format; `None` when it is none.
fn parse(text: &str) -> Option<Value> {
    let mut text = text.trim();
    let value = value(&mut text, None)?;
    text.trim().is_empty().then_some(value)
}

/// Reads one value from the front; `kind` is the type that was named before.
fn value(text: &mut &str, kind: Option<char>) -> Option<Value> {
    *text = text.trim_start();
    match text.chars().next()? {
        '[' => array(text, kind),
        '\'' | '"' => {
            let content = quoted(text)?;
            match kind.unwrap_or('s') {
                's' => Some(Value::Str(content)),
                'o' => Some(Value::Path(content)),
                'g' => Some(Value::Signature(content)),
                _ => None,
            }
        }
        '@' if kind.is_none() => {
            let (named, rest) = text.get(1..)?.split_once(char::is_whitespace)?;
            *text = rest;
            match named.strip_prefix('a') {
                Some(element) => {
                    let element = single(element)?;
                    *text = text.trim_start();
                    text.starts_with('[').then_some(())?;
                    array(text, Some(element))
                }
                None => value(text, Some(single(named)?)),
            }
        }
        _ => word(text, kind),
    }
}

fn single(kind: &str) -> Option<char> {
    let mut chars = kind.chars();
    let kind = chars.next().filter(|kind| "ybnqiuxtdsog".contains(*kind))?;
    chars.next().is_none().then_some(kind)
}

fn array(text: &mut &str, kind: Option<char>) -> Option<Value> {
    *text = text.strip_prefix('[')?;
    let mut values = Vec::new();
    loop {
        *text = text.trim_start();
        if values.is_empty()
            && let Some(rest) = text.strip_prefix(']')
        {
            *text = rest;
            break;
        }
        values.push(value(text, kind)?);
        *text = text.trim_start();
        match text.chars().next()? {
            ',' => *text = text.get(1..)?,
            ']' => {
                *text = text.get(1..)?;
                break;
            }
            _ => return None,
        }
    }
    let first = values.first().map(Value::signature);
    let element = first.or(kind.map(String::from))?;
    let same = values.iter().all(|value| value.signature() == element);
    same.then_some(Value::Array(element, values))
}

/// A text in either kind of quotes, with `\` before what is to be taken as it is.
fn quoted(text: &mut &str) -> Option<String> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    let mut content = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => content.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                c @ ('\\' | '\'' | '"') => c,
                _ => return None,
            }),
            '\0' => return None,
            c if c == quote => {
                *text = text.get(at + 1..)?;
                return Some(content);
            }
            c => content.push(c),
        }
    }
    None
}

fn word(text: &mut &str, kind: Option<char>) -> Option<Value> {
    let end = text.find(|c: char| c.is_whitespace() || ",]".contains(c));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    let named = match word {
        "boolean" => Some('b'),
        "byte" => Some('y'),
        "int16" => Some('n'),
        "uint16" => Some('q'),
        "int32" => Some('i'),
        "uint32" => Some('u'),
        "int64" => Some('x'),
        "uint64" => Some('t'),
        "double" => Some('d'),
        "string" => Some('s'),
        "objectpath" => Some('o'),
        "signature" => Some('g'),
        _ => None,
    };
    if let Some(named) = named {
        return kind.is_none().then(|| value(text, Some(named)))?;
    }
    if let ("true" | "false", None | Some('b')) = (word, kind) {
        return Some(Value::Bool(word == "true"));
    }
    let whole = || -> Option<i128> {
        let (sign, digits) = match word.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let number = match digits.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => digits.parse(),
        };
        digits
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| number.ok().map(|n| i128::from(n) * sign))?
    };
    match kind {
        Some('y') => whole()?.try_into().ok().map(Value::Byte),
        Some('n') => whole()?.try_into().ok().map(Value::I16),
        Some('q') => whole()?.try_into().ok().map(Value::U16),
        Some('i') => whole()?.try_into().ok().map(Value::I32),
        Some('u') => whole()?.try_into().ok().map(Value::U32),
        Some('x') => whole()?.try_into().ok().map(Value::I64),
        Some('t') => whole()?.try_into().ok().map(Value::U64),
        Some('d') => word.parse().ok().map(Value::F64),
        None => match whole() {
            Some(number) => number.try_into().ok().map(Value::I32),
            None if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                word.parse().ok().map(Value::F64)
            }
            None => None,
        },
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(kind: &str, texts: &[&str]) -> Value {
        Value::Array(
            kind.into(),
            texts.iter().copied().map(Value::text).collect(),
        )
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("true", Value::Bool(true)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""it's""#, Value::text("it's")),
            (r"'it\'s'", Value::text("it's")),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("uint64 1000000", Value::U64(1_000_000)),
            ("uint64 0x10", Value::U64(16)),
            ("@t 18446744073709551615", Value::U64(u64::MAX)),
            ("byte 7", Value::Byte(7)),
            ("1.5", Value::F64(1.5)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', 'b']", texts("s", &["a", "b"])),
            ("@as []", texts("s", &[])),
            (" [ 'a' ] ", texts("s", &["a"])),
            (
                "[uint32 1, uint32 2]",
                Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]),
            ),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn no_values() {
        for text in [
            "",
            "yes",
            "'",
            "'a",
            "'a' b",
            "[",
            "[]",
            "['a'",
            "['a', 1]",
            "['a',]",
            "5000000000",
            "byte 256",
            "uint64 -1",
            "uint64",
            "uint64 uint64 1",
            "@a []",
            "@z 1",
            "{}",
            "0x",
            "nan",
            "'a\\q'",
            "--5",
            "1e",
            "@as 'a'",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn names() {
        let of = |key: &str, value: &str| {
            let map = HashMap::from([(key.to_string(), value.to_string())]);
            properties(Some(&map))
        };
        let one = |key: &str, value: &str| of(key, value).expect(key).remove(0);
        let found = one("org.systemd.property.CollectMode", "'inactive'");
        assert_eq!(found, Property::new("CollectMode", Value::text("inactive")));
        let found = one("org.systemd.property.TimeoutStopSec", "1.5");
        assert_eq!(
            found,
            Property::new("TimeoutStopUSec", Value::U64(1_500_000))
        );
        let found = one("org.systemd.property.TimeoutStopUSec", "uint64 7");
        assert_eq!(found, Property::new("TimeoutStopUSec", Value::U64(7)));
        assert!(
            of("org.example.other", "what it likes")
                .expect("not ours")
                .is_empty()
        );
        for (key, value) in [
            ("org.systemd.property.", "1"),
            ("org.systemd.property.a", "1"),
            ("org.systemd.property.Memory Max", "1"),
            ("org.systemd.property.MemoryMax;", "1"),
            ("org.systemd.property.Slice", "'a.slice'"),
            ("org.systemd.property.PIDs", "[uint32 1]"),
            ("org.systemd.property.Delegate", "false"),
            ("org.systemd.property.CollectMode", "inactive"),
            ("org.systemd.property.TimeoutStopSec", "'1'"),
            ("org.systemd.property.TimeoutStopSec", "-1"),
        ] {
            let error = of(key, value).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(properties(None).expect("none").is_empty());
    }
}
