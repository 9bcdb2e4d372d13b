//! The health check of a task.

use fairlead_api::v1;

use super::container::no_nul;
use super::violations::{At, Violations};

/// Checks it, by itself: the fields that it leaves to the image are looked at with that.
pub fn check_health(v: &mut Violations, at: At<'_>, check: &v1::HealthConfig) {
    for (i, text) in check.test.iter().enumerate() {
        no_nul(v, at.field("test").index(i), text);
    }
    if let Err(reason) = image::check_test(&check.test) {
        v.add(at.field("test"), reason);
    }
    for (name, nanos) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
        ("start_interval", check.start_interval),
    ] {
        // Docker's are signed: what is beyond came from a negative number.
        if nanos.cast_signed() < 0 {
            let negative = nanos.cast_signed();
            v.add(
                at.field(name),
                format!("{negative} ns is negative (or more than 292 years)"),
            );
        } else if nanos != 0 && u128::from(nanos) < image::SHORTEST.as_nanos() {
            v.add(
                at.field(name),
                format!("{nanos} ns is less than 1 ms; 0 is the default"),
            );
        }
    }
    if i32::try_from(check.retries).is_err() {
        v.add(
            at.field("retries"),
            format!("{} is not in 0 to {}", check.retries, i32::MAX),
        );
    }
}
