//! What Docker adds to an image's configuration beyond the OCI specification: how it is found out
//! whether a container is well, and the shell of commands that are one line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A health check as an image or a task gives it; a task's fields go before the image's, one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// Empty: nothing said; `["NONE"]`; `["CMD", program, arguments...]`; `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Between two probes. Here and below, zero is: nothing said.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// From the start; failures in it do not count.
    pub start_period: Duration,
    /// Between two probes in the start period.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
}

/// The parts of a configuration that `oci_spec` does not keep, as they were. They are looked at only
/// when they are asked for: what is wrong in them need not keep anybody from using the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extensions {
    #[serde(rename = "Healthcheck", default)]
    healthcheck: Option<Value>,
    #[serde(rename = "Shell", default)]
    shell: Option<Value>,
}

/// Why a part of a configuration cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// Such as `Healthcheck.Interval`.
    pub field: &'static str,
    pub reason: String,
}

impl Extensions {
    /// Of a whole configuration.
    pub fn of(config: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Configuration {
            #[serde(default)]
            config: Option<Extensions>,
        }
        let whole: Configuration = serde_json::from_str(config)?;
        Ok(whole.config.unwrap_or_default())
    }

    pub fn health_check(&self) -> Result<Option<HealthCheck>, Unusable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[derive(Default)]
        struct Raw {
            test: Option<Vec<String>>,
            interval: Option<i64>,
            timeout: Option<i64>,
            start_period: Option<i64>,
            start_interval: Option<i64>,
            retries: Option<i64>,
        }
        let Some(value) = &self.healthcheck else {
            return Ok(None);
        };
        let raw: Option<Raw> = serde_json::from_value(value.clone()).map_err(|e| Unusable {
            field: "Healthcheck",
            reason: e.to_string(),
        })?;
        let Some(raw) = raw else {
            return Ok(None);
        };
        let check = HealthCheck {
            test: raw.test.unwrap_or_default(),
            interval: duration("Healthcheck.Interval", raw.interval)?,
            timeout: duration("Healthcheck.Timeout", raw.timeout)?,
            start_period: duration("Healthcheck.StartPeriod", raw.start_period)?,
            start_interval: duration("Healthcheck.StartInterval", raw.start_interval)?,
            retries: retries(raw.retries)?,
        };
        check_test(&check.test).map_err(|reason| Unusable {
            field: "Healthcheck.Test",
            reason,
        })?;
        Ok(Some(check))
    }

    /// Empty where the configuration names none.
    pub fn shell(&self) -> Result<Vec<String>, Unusable> {
        let value = self.shell.clone().unwrap_or_default();
        let shell: Option<Vec<String>> = serde_json::from_value(value).map_err(|e| Unusable {
            field: "Shell",
            reason: e.to_string(),
        })?;
        Ok(shell.unwrap_or_default())
    }
}

/// Docker takes none that is shorter.
pub const SHORTEST: Duration = Duration::from_millis(1);

fn duration(field: &'static str, nanos: Option<i64>) -> Result<Duration, Unusable> {
    let nanos = nanos.unwrap_or(0);
    let unusable = |reason: &str| Unusable {
        field,
        reason: format!("{nanos} ns is {reason}"),
    };
    let duration = u64::try_from(nanos).map(Duration::from_nanos);
    let duration = duration.map_err(|_| unusable("negative"))?;
    if !duration.is_zero() && duration < SHORTEST {
        return Err(unusable("less than 1 ms"));
    }
    Ok(duration)
}

fn retries(given: Option<i64>) -> Result<u32, Unusable> {
    let given = given.unwrap_or(0);
    i32::try_from(given)
        .ok()
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| Unusable {
            field: "Healthcheck.Retries",
            reason: format!("{given} is not in 0 to {}", i32::MAX),
        })
}

/// Whether the test of a health check has one of its forms.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check_test(test: &[String]) -> Result<(), String> {
    let Some((kind, rest)) = test.split_first() else {
        return Ok(());
    };
    match (kind.as_str(), rest) {
        ("NONE", []) => Ok(()),
        ("NONE", _) => Err("nothing can follow NONE".into()),
        ("CMD", [program, ..]) if !program.is_empty() => Ok(()),
        ("CMD", _) => Err("CMD names no program".into()),
        ("CMD-SHELL", [line]) if !line.is_empty() => Ok(()),
        ("CMD-SHELL", [] | [_]) => Err("CMD-SHELL has no command".into()),
        ("CMD-SHELL", _) => Err(format!(
            "CMD-SHELL takes one line, not {} (arguments of a program are for CMD)",
            rest.len()
        )),
        _ => Err(format!("{kind:?} is none of NONE, CMD and CMD-SHELL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(healthcheck: &str) -> Result<Option<HealthCheck>, Unusable> {
        let config = format!(r#"{{"config": {{"Healthcheck": {healthcheck}}}}}"#);
        Extensions::of(&config).expect("JSON").health_check()
    }

    #[test]
    fn all_fields_are_read() {
        let all = r#"{"Test": ["CMD", "/up", "-q"], "Interval": 5000000000, "Timeout": 1000000,
                      "StartPeriod": 2000000000, "StartInterval": 3000000000, "Retries": 7}"#;
        let expected = HealthCheck {
            test: vec!["CMD".into(), "/up".into(), "-q".into()],
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(1),
            start_period: Duration::from_secs(2),
            start_interval: Duration::from_secs(3),
            retries: 7,
        };
        assert_eq!(check(all), Ok(Some(expected)));
    }

    #[test]
    fn what_is_not_said_is_zero() {
        assert_eq!(check("null"), Ok(None));
        assert_eq!(check("{}"), Ok(Some(HealthCheck::default())));
        assert_eq!(check(r#"{"Test": null}"#), Ok(Some(HealthCheck::default())));
        for config in ["{}", r#"{"config": null}"#, r#"{"config": {}}"#] {
            let extensions = Extensions::of(config).expect("JSON");
            assert_eq!(extensions.health_check(), Ok(None), "{config}");
            assert_eq!(extensions.shell(), Ok(Vec::new()), "{config}");
        }
    }

    #[test]
    fn bad_values_are_told_by_name() {
        for (bad, field, reason) in [
            (r#"{"Interval": -1}"#, "Healthcheck.Interval", "negative"),
            (
                r#"{"Timeout": 999999}"#,
                "Healthcheck.Timeout",
                "less than 1 ms",
            ),
            (
                r#"{"StartPeriod": 1}"#,
                "Healthcheck.StartPeriod",
                "less than",
            ),
            (
                r#"{"StartInterval": -5}"#,
                "Healthcheck.StartInterval",
                "negative",
            ),
            (r#"{"Retries": -1}"#, "Healthcheck.Retries", "not in 0 to"),
            (
                r#"{"Retries": 3000000000}"#,
                "Healthcheck.Retries",
                "not in",
            ),
            (
                r#"{"Test": ["TCP", "80"]}"#,
                "Healthcheck.Test",
                "\"TCP\" is none of",
            ),
            (r#"{"Test": ["CMD"]}"#, "Healthcheck.Test", "no program"),
            (
                r#"{"Test": ["CMD-SHELL", "a", "b"]}"#,
                "Healthcheck.Test",
                "one line, not 2",
            ),
            (
                r#"{"Test": ["CMD-SHELL", ""]}"#,
                "Healthcheck.Test",
                "no command",
            ),
            (
                r#"{"Test": ["NONE", "x"]}"#,
                "Healthcheck.Test",
                "nothing can follow",
            ),
            (r#"{"Test": 3}"#, "Healthcheck", "invalid type"),
            ("7", "Healthcheck", "invalid type"),
            (r#"{"Interval": 1.5}"#, "Healthcheck", "invalid type"),
        ] {
            let unusable = check(bad).expect_err(bad);
            assert_eq!(unusable.field, field, "{bad}");
            assert!(
                unusable.reason.contains(reason),
                "{bad}: {}",
                unusable.reason
            );
        }
    }

    #[test]
    fn the_shell_is_a_list() {
        let shell = |text: &str| {
            let config = format!(r#"{{"config": {{"Shell": {text}}}}}"#);
            Extensions::of(&config).expect("JSON").shell()
        };
        assert_eq!(
            shell(r#"["/bin/bash", "-c"]"#),
            Ok(vec!["/bin/bash".into(), "-c".into()])
        );
        assert_eq!(shell("null"), Ok(Vec::new()));
        assert_eq!(shell("\"/bin/sh\"").expect_err("a text").field, "Shell");
    }
}
