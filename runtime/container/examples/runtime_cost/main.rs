//! What a container costs from nothing to nothing (create, start, wait, delete, with `/bin/true`):
//! by this crate, by command lines of runtimes, and at least, by the same system calls in one go.
//!
//! `runtime_cost --rootfs DIR --work DIR [--rounds N] [--samples N] [--shim FILE]
//! [--runtime NAME=FILE]... [--only NAME]` writes one line per measurement: kind, configuration,
//! metric, round, value. As root, as `scripts/bench --only runtime` calls it; see
//! docs/benchmarks.md. With `--only floor` or `--only library` it is what to profile.

mod commands;
mod floor;
mod floor_cgroup;
mod library;
mod memory;
mod specs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The kernel removes network namespaces and cgroups some time after their end: what one
/// measurement leaves must not be in the next.
const PAUSE: Duration = Duration::from_millis(30);

/// What is asked for.
struct Options {
    rootfs: PathBuf,
    work: PathBuf,
    rounds: usize,
    /// Of each configuration in each round.
    samples: usize,
    shim: Option<PathBuf>,
    runtimes: Vec<(String, PathBuf)>,
    /// One way alone, without the memory.
    only: Option<String>,
}

fn options(words: impl Iterator<Item = String>) -> Outcome<Options> {
    let mut options = Options {
        rootfs: PathBuf::new(),
        work: PathBuf::new(),
        rounds: 1,
        samples: 5,
        shim: None,
        runtimes: Vec::new(),
        only: None,
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let value = words.next().ok_or("an option lacks its value")?;
        match word.as_str() {
            "--rootfs" => options.rootfs = value.into(),
            "--work" => options.work = value.into(),
            "--rounds" => options.rounds = value.parse()?,
            "--samples" => options.samples = value.parse()?,
            "--only" => options.only = Some(value),
            "--shim" => options.shim = Some(value.into()),
            "--runtime" => {
                let (name, path) = value.split_once('=').ok_or("--runtime NAME=FILE")?;
                options.runtimes.push((name.into(), path.into()));
            }
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    if options.rootfs.as_os_str().is_empty() || options.work.as_os_str().is_empty() {
        return Err("--rootfs and --work are needed".into());
    }
    Ok(options)
}

/// Time since a moment: on the clock, and of processors, by this process and by those of its
/// descendants that it has waited for.
struct Stopwatch {
    begin: Instant,
    processors: Duration,
}

impl Stopwatch {
    fn start() -> Outcome<Self> {
        Ok(Self {
            processors: processors()?,
            begin: Instant::now(),
        })
    }

    /// As measurements, in milliseconds.
    fn read(&self) -> Outcome<Vec<(&'static str, f64)>> {
        let run = self.begin.elapsed();
        let busy = processors()?.saturating_sub(self.processors);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(vec![
            ("run", milliseconds(run)),
            ("busy", milliseconds(busy)),
        ])
    }
}

fn processors() -> Outcome<Duration> {
    let mut all = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let used = getrusage(who)?;
        for time in [used.user_time(), used.system_time()] {
            all += Duration::from_micros(time.num_microseconds().try_into()?);
        }
    }
    Ok(all)
}

/// One way to run a container; a call is one container.
trait Way {
    /// What is measured, and how much of it.
    fn once(&mut self) -> Outcome<Vec<(&'static str, f64)>>;
}

/// A way by its name.
struct Named {
    spec: &'static str,
    name: String,
    way: Box<dyn Way>,
}

fn ways(options: &Options) -> Outcome<Vec<Named>> {
    let mut ways: Vec<Named> = Vec::new();
    for spec in specs::NAMES {
        let mut add = |name: &str, way: Box<dyn Way>| {
            let name = name.into();
            ways.push(Named { spec, name, way });
        };
        add("floor", Box::new(floor::Floor::new(spec, options)?));
        add("library", Box::new(library::Library::new(spec, options)?));
        for (name, path) in &options.runtimes {
            let runtime = commands::Runtime::new(spec, name, path, options)?;
            add(name, Box::new(runtime));
        }
    }
    Ok(ways)
}

fn tell(kind: &str, name: &str, metric: &str, round: usize, value: f64) {
    println!("{kind}\t{name}\t{metric}\t{round}\t{value:.3}");
}

fn measure(options: &Options) -> Outcome<()> {
    std::fs::create_dir_all(&options.work)?;
    let mut ways = ways(options)?;
    ways.retain(|named| options.only.as_ref().is_none_or(|only| *only == named.name));
    for named in &mut ways {
        // Not counted: parents of cgroups, compiled filters, what the page cache lacks.
        for _ in 0..2 {
            let failed = |error| format!("{} with {}: {error}", named.name, named.spec);
            named.way.once().map_err(failed)?;
        }
    }
    let count = ways.len();
    for round in 1..=options.rounds {
        for sample in 0..options.samples {
            // Whoever is first is another one each time.
            for at in 0..count {
                let number = (at + sample + round) % count;
                let Some(named) = ways.get_mut(number) else {
                    continue;
                };
                std::thread::sleep(PAUSE);
                for (metric, value) in named.way.once()? {
                    tell(named.spec, &named.name, metric, round, value);
                }
            }
        }
        if options.only.is_none() {
            memory::measure(options, round)?;
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1).peekable();
    match words.peek().map(String::as_str) {
        // This program itself, once more and small: see `memory`.
        Some("peak") => memory::peak_of_command(words.skip(1)),
        Some("once") => memory::once_by_library(words.skip(1)),
        _ => measure(&options(words)?),
    }
}
