//! `HEALTHCHECK`.

use serde::Serialize;

use super::json;

/// Times are nanoseconds; 0 is what the runtime has.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Healthcheck {
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: u64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `[--OPTION=VALUE]... CMD command`, or `NONE`.
pub(super) fn parse(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        rest = after.trim_start();
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => {
                let retries = value.parse::<u32>();
                check.retries = retries
                    .map_err(|_| format!("`{value}` is no number"))?
                    .into();
            }
            other => return Err(format!("the unknown option --{other}")),
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let words = |first: &str, words: Vec<String>| [vec![first.to_owned()], words].concat();
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() && text == rest => words("NONE", Vec::new()),
        "CMD" if command.is_empty() => return Err("CMD of what?".into()),
        "CMD" => match json(command) {
            Some(list) => words("CMD", list),
            None => words("CMD-SHELL", vec![command.to_owned()]),
        },
        _ => return Err("CMD or NONE is wanted".into()),
    };
    Ok(check)
}

/// As Go writes them: 1h2m3.5s, 500ms.
fn duration(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no duration: write 1m30s or 500ms");
    let (mut nanos, mut rest) = (0f64, text);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        nanos += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = after;
    }
    match nanos {
        nanos if text.is_empty() || nanos > i64::MAX as f64 => Err(bad()),
        nanos => Ok(nanos.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, nanos) in [
            ("30s", 30_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("500ms", 500_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text).expect(text), nanos);
        }
        for text in ["", "5", "s", "1 s", "-1s", "1.2.3s", "1d", "99999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
