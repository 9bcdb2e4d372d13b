//! The few forms that the kernel's counters have.

use crate::cgroup::dir::Dir;
use crate::cgroup::error::Result;

/// A file with one number; `None` when it is not there, or says `max`.
pub fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(dir.read_if(file)?.and_then(|text| text.trim().parse().ok()))
}

/// Lines of a key and a number.
pub fn flat(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// Fields `key=number` of one line.
pub fn pairs<'a>(
    fields: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    fields.filter_map(|field| field.split_once('='))
}
