//! How long the default policy takes: to be checked, compiled, read from a cache.
//!
//! `seccomp_time <cache directory> <rounds> [bytes]` prints minimum, median and 95th percentile in
//! microseconds; the compiled filter is written to the file `bytes` where that is given.

use container::{ContainerError, defaults, seccomp};
use std::time::Instant;

fn main() -> Result<(), ContainerError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rounds, bytes @ ..] = arguments.as_slice() else {
        eprintln!("usage: seccomp_time <cache directory> <rounds> [bytes]");
        return Ok(());
    };
    let policy = defaults::seccomp(&defaults::capabilities());
    let cache = seccomp::Cache::open(directory.as_ref())?;
    if let (_, Some(warning)) = cache.get(&policy)? {
        eprintln!("{warning}");
    }
    let mut columns: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds.parse().unwrap_or(50) {
        let mut begin = Instant::now();
        let mut lap = || {
            std::mem::replace(&mut begin, Instant::now())
                .elapsed()
                .as_secs_f64()
                * 1e6
        };
        seccomp::check(&policy)?;
        let checked = lap();
        let filter = seccomp::compile(&policy)?;
        let compiled = lap();
        let written = filter.to_bytes();
        lap();
        seccomp::Filter::from_bytes(&written)?;
        let read = lap();
        cache.get(&policy)?;
        let cached = lap();
        for (column, value) in columns.iter_mut().zip([checked, compiled, read, cached]) {
            column.push(value);
        }
    }
    if let [file, ..] = bytes {
        let written = std::fs::write(file, seccomp::compile(&policy)?.to_bytes());
        written.unwrap_or_else(|error| eprintln!("{file}: {error}"));
    }
    for (name, column) in ["check", "compile", "read", "cached"]
        .iter()
        .zip(&mut columns)
    {
        column.sort_by(f64::total_cmp);
        let at = |share: usize| column.get((column.len().max(1) - 1) * share / 100).copied();
        let [min, median, p95] = [0, 50, 95].map(|share| at(share).unwrap_or_default());
        println!("{name:8} min {min:9.1}  median {median:9.1}  p95 {p95:9.1} us");
    }
    Ok(())
}
