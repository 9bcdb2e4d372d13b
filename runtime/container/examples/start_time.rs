//! How long a container takes from nothing to nothing: create, start, wait, delete.
//!
//! `start_time <rootfs> <rounds> [program...]` prints minimum, median and 95th percentile in
//! milliseconds; the program is `/bin/true` unless given. As root. The filter of system calls is
//! compiled once and kept in a cache, as a service that starts many containers would.

use container::seccomp::Cache;
use container::{CgroupPath, ContainerError, CreateOptions, Rootfs, create, defaults, process};
use std::time::Instant;

fn once(rootfs: &str, program: &[String], cache: &Cache) -> Result<[f64; 4], ContainerError> {
    let mut spec = defaults::default_spec();
    if let Some(task) = spec.process_mut() {
        task.set_args(Some(program.to_vec()));
    }
    let mut options = CreateOptions::new(Rootfs::Directory(rootfs.into()));
    options.cgroup = Some(CgroupPath::new("/fairlead-example", "start-time"));
    let begin = Instant::now();
    let lap = || begin.elapsed().as_secs_f64() * 1e3;
    if let Some(profile) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
    {
        options.seccomp = Some(cache.get(profile)?.0);
    }
    let created = create(&spec, options)?;
    let created_at = lap();
    let started = created.start()?;
    let started_at = lap();
    if process::wait_child(&started.pidfd).is_err() {
        eprintln!("the program could not be waited for");
    }
    let ended_at = lap();
    if let Some(cgroup) = started.cgroup {
        cgroup.delete()?;
    }
    Ok([
        created_at,
        started_at - created_at,
        ended_at - started_at,
        lap(),
    ])
}

fn main() -> Result<(), ContainerError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rootfs, rounds, program @ ..] = arguments.as_slice() else {
        eprintln!("usage: start_time <rootfs> <rounds> [program...]");
        return Ok(());
    };
    let default = ["/bin/true".to_string()];
    let program = if program.is_empty() {
        &default
    } else {
        program
    };
    let cache = Cache::open(&std::env::temp_dir().join("fairlead-example-filters"))?;
    let mut all = Vec::new();
    for _ in 0..rounds.parse().unwrap_or(50) {
        all.push(once(rootfs, program, &cache)?);
    }
    container::cgroup::remove_parent("/fairlead-example")?;
    for (i, name) in ["create", "start", "wait", "all"].iter().enumerate() {
        let mut column: Vec<f64> = all.iter().map(|row| row[i]).collect();
        column.sort_by(f64::total_cmp);
        let at = |share: usize| column[(column.len() - 1) * share / 100];
        println!(
            "{name:8} min {:7.2}  median {:7.2}  p95 {:7.2} ms",
            at(0),
            at(50),
            at(95)
        );
    }
    Ok(())
}
