//! The health check of a task: its own fields, else the image's, else Docker's defaults.

use std::time::Duration;

use container::shim::HealthCheck;
use fairlead_api::v1;
use image::{Image, ImageError};

/// Docker's.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// The check of a task with this image; `None` where neither has one, or the task says NONE.
///
/// # Errors
/// What the image says makes no sense.
pub fn merge(
    task: Option<&v1::HealthConfig>,
    image: &Image,
) -> Result<Option<HealthCheck>, ImageError> {
    let task = task.cloned().unwrap_or_default();
    // Whatever is wrong in the image is of no interest then.
    if is_none(&task.test) {
        return Ok(None);
    }
    let from_image = image.health_check()?.unwrap_or_default();
    let Some(args) = command(combined(&task, &from_image), || image.shell())? else {
        return Ok(None);
    };
    Ok(Some(timed(args, &task, &from_image)))
}

fn is_none(test: &[String]) -> bool {
    test.first().is_some_and(|kind| kind == "NONE")
}

fn combined<'a>(task: &'a v1::HealthConfig, image: &'a image::HealthCheck) -> &'a [String] {
    if task.test.is_empty() {
        &image.test
    } else {
        &task.test
    }
}

/// What is executed; `None` for no test. Its form was checked where it came from.
fn command(
    test: &[String],
    shell: impl FnOnce() -> Result<Vec<String>, ImageError>,
) -> Result<Option<Vec<String>>, ImageError> {
    Ok(match test.split_first() {
        Some((kind, rest)) if kind == "CMD" => Some(rest.to_vec()),
        Some((kind, rest)) if kind == "CMD-SHELL" => Some([shell()?.as_slice(), rest].concat()),
        _ => None,
    })
}

fn timed(args: Vec<String>, task: &v1::HealthConfig, image: &image::HealthCheck) -> HealthCheck {
    let nanos = |own: u64, image: Duration, default: Duration| {
        let given = |nanos: &u64| *nanos != 0;
        let of = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let found = Some(own).filter(given);
        found
            .or(Some(of(image)).filter(given))
            .unwrap_or(of(default))
    };
    let retries = [task.retries, image.retries].into_iter().find(|n| *n != 0);
    HealthCheck {
        args,
        interval_nanos: nanos(task.interval, image.interval, INTERVAL),
        timeout_nanos: nanos(task.timeout, image.timeout, TIMEOUT),
        retries: retries.unwrap_or(RETRIES),
        start_period_nanos: nanos(task.start_period, image.start_period, Duration::ZERO),
        start_interval_nanos: nanos(task.start_interval, image.start_interval, START_INTERVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn test(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    fn both(task: &v1::HealthConfig, image: &image::HealthCheck) -> Option<HealthCheck> {
        let shell = || Ok(test(&["/bin/bash", "-c"]));
        let args = command(combined(task, image), shell).expect("a shell")?;
        Some(timed(args, task, image))
    }

    #[test]
    fn what_nobody_says_is_dockers_default() {
        let task = v1::HealthConfig {
            test: test(&["CMD", "/up", "-q"]),
            ..Default::default()
        };
        let expected = HealthCheck {
            args: test(&["/up", "-q"]),
            interval_nanos: 30 * SECOND,
            timeout_nanos: 30 * SECOND,
            retries: 3,
            start_period_nanos: 0,
            start_interval_nanos: 5 * SECOND,
        };
        assert_eq!(both(&task, &image::HealthCheck::default()), Some(expected));
    }

    #[test]
    fn the_task_goes_before_the_image_field_by_field() {
        let image = image::HealthCheck {
            test: test(&["CMD-SHELL", "up || exit 1"]),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            start_period: Duration::from_secs(3),
            start_interval: Duration::from_secs(4),
            retries: 5,
        };
        let of_image = both(&v1::HealthConfig::default(), &image).expect("the image's");
        assert_eq!(of_image.args, ["/bin/bash", "-c", "up || exit 1"]);
        assert_eq!(of_image.interval_nanos, SECOND);
        assert_eq!(of_image.retries, 5);
        let task = v1::HealthConfig {
            timeout: 7 * SECOND,
            retries: 9,
            ..Default::default()
        };
        let expected = HealthCheck {
            timeout_nanos: 7 * SECOND,
            retries: 9,
            ..of_image
        };
        assert_eq!(both(&task, &image), Some(expected));
        let task = v1::HealthConfig {
            test: test(&["CMD", "x"]),
            start_interval: 6 * SECOND,
            ..Default::default()
        };
        let other = both(&task, &image).expect("a check");
        assert_eq!(other.args, ["x"]);
        assert_eq!(other.start_interval_nanos, 6 * SECOND);
        assert_eq!(other.start_period_nanos, 3 * SECOND);
    }

    #[test]
    fn none_and_nothing_are_no_check() {
        let image = image::HealthCheck {
            test: test(&["NONE"]),
            ..Default::default()
        };
        assert_eq!(both(&v1::HealthConfig::default(), &image), None);
        let task = v1::HealthConfig {
            interval: SECOND,
            ..Default::default()
        };
        assert_eq!(both(&task, &image::HealthCheck::default()), None);
        assert!(is_none(&test(&["NONE"])));
        assert!(!is_none(&[]));
    }
}
