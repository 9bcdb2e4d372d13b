//! What a large table costs: to load, to change in one place, to read and to delete; by this crate
//! in batches, by this crate one request at a time, and by `ipvsadm`.
//!
//! `cargo bench -p fairlead-ipvs -- [--services N] [--destinations N] [--rounds N]`. Needs root,
//! `ip_vs` and `ipvsadm`. All of it happens in a network namespace of its own. In each round
//! everything is measured once; what is printed are medians, in microseconds, and the memory that
//! reading the table takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use ipvs::{
    Client, Destination, DestinationId, Forward, Pool, Scheduler, Service, ServiceId, plan, text,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, unshare};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Counts the bytes that are allocated, and how many there were at most.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is passed on to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let now = NOW.fetch_add(size, Ordering::Relaxed) + size - layout.size();
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes were allocated at most, beyond those before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

struct Options {
    services: u32,
    destinations: u32,
    rounds: usize,
}

fn options() -> Outcome<Option<Options>> {
    let mut options = Options {
        services: 1000,
        destinations: 10,
        rounds: 5,
    };
    let mut measure = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or("an option lacks its value");
        match word.as_str() {
            "--services" => options.services = value()?.parse()?,
            "--destinations" => options.destinations = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            // `cargo bench` says so; `cargo test --benches` does not, and measures nothing.
            "--bench" => measure = true,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    Ok(measure.then_some(options))
}

/// The table: services on addresses of 10/8, the same servers behind each.
fn table(options: &Options) -> Vec<Pool> {
    let address = |net: u32, number: u32| std::net::Ipv4Addr::from_bits(net << 24 | (number + 1));
    (0..options.services)
        .map(|service| Pool {
            service: Service::new(ServiceId::tcp(address(10, service), 80), Scheduler::WLC),
            destinations: (0..options.destinations)
                .map(|server| {
                    let id = DestinationId::new(address(11, server), 8080);
                    Destination::new(id, Forward::Masquerade)
                })
                .collect(),
        })
        .collect()
}

/// Runs a program to its end.
fn program(name: &str, arguments: &str, input: &str) -> Outcome<()> {
    let mut child = Command::new(name)
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(format!("{name} {arguments}: {status}").into()),
    }
}

/// A message that does nothing (`NLMSG_NOOP`) and its acknowledgement: the least that netlink costs.
struct Bare(Socket);

impl Bare {
    fn open() -> Outcome<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        Ok(Self(socket))
    }

    fn round_trip(&self) -> Outcome<()> {
        let mut message = [0u8; 16];
        message[..4].copy_from_slice(&16u32.to_ne_bytes());
        message[4..6].copy_from_slice(&(libc::NLMSG_NOOP as u16).to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        let mut answer = [0u8; 256];
        self.0.recv_from(&mut &mut answer[..], 0)?;
        Ok(())
    }
}

/// Samples by what was measured, in microseconds.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    fn measure(
        &mut self,
        what: &'static str,
        times: u32,
        mut work: impl FnMut() -> Outcome<()>,
    ) -> Outcome<()> {
        let start = Instant::now();
        for _ in 0..times {
            work()?;
        }
        let microseconds = start.elapsed().as_secs_f64() * 1e6 / f64::from(times);
        self.0.entry(what).or_default().push(microseconds);
        Ok(())
    }

    fn median(&self, what: &str) -> f64 {
        let mut samples = self.0.get(what).cloned().unwrap_or_default();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// How often a single change is made for one sample.
const CHANGES: u32 = 200;

/// Does something in a network namespace of its own. The kernel keeps deleted destinations for two
/// minutes and looks for each new one among them, so that what came before would be measured too.
fn fresh<T: Send>(work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let visit = || -> Result<T, String> {
        let inside = || -> Outcome<T> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("needs root: {error}"))?;
            // Before an interface was up, IPVS takes no IPv4 destination.
            program("ip", "link set lo up", "")?;
            work()
        };
        inside().map_err(|error| error.to_string())
    };
    thread::scope(|scope| match scope.spawn(visit).join() {
        Ok(result) => result.map_err(Into::into),
        Err(payload) => std::panic::resume_unwind(payload),
    })
}

fn one_at_a_time(pools: &[Pool], samples: &mut Samples) -> Outcome<()> {
    let mut client = Client::open()?;
    samples.measure("load: one at a time", 1, || {
        for pool in pools {
            client.add_service(pool.service)?;
            for destination in &pool.destinations {
                client.add_destination(pool.service.id, *destination)?;
            }
        }
        Ok(())
    })?;
    samples.measure("delete: list, plan and batch", 1, || {
        let operations = plan(&client.pools()?, &[]);
        Ok(client.apply(&operations)?)
    })
}

fn by_ipvsadm(pools: &[Pool], samples: &mut Samples) -> Outcome<()> {
    let saved = text::save(pools);
    samples.measure("load: ipvsadm -R", 1, || program("ipvsadm", "-R", &saved))?;
    samples.measure("read: ipvsadm -Sn", 1, || program("ipvsadm", "-Sn", ""))?;
    let (service, destination) = last(pools)?;
    let ServiceId::Address { address, port, .. } = service else {
        return Err("a mark".into());
    };
    let command = format!("-e -t {address}:{port} -r {} -m -w 5", destination.id);
    samples.measure("change: ipvsadm -e", 1, || program("ipvsadm", &command, ""))?;
    samples.measure("delete: ipvsadm -C", 1, || program("ipvsadm", "-C", ""))
}

fn in_batches(pools: &[Pool], samples: &mut Samples) -> Outcome<()> {
    let mut client = Client::open()?;
    samples.measure("load: list, plan and batch", 1, || {
        let operations = plan(&client.pools()?, pools);
        Ok(client.apply(&operations)?)
    })?;
    samples.measure("read: list", 1, || {
        assert_eq!(client.pools()?.len(), pools.len());
        Ok(())
    })?;

    let bare = Bare::open()?;
    let (service, destination) = last(pools)?;
    let mut changed = *destination;
    samples.measure("change: bare round trip", CHANGES, || bare.round_trip())?;
    samples.measure("change: one weight", CHANGES, || {
        changed.weight += 1;
        Ok(client.set_destination(service, changed)?)
    })?;
    samples.measure("change: bare round trip", CHANGES, || bare.round_trip())?;
    samples.measure("change: list, plan and batch", 1, || {
        let operations = plan(&client.pools()?, pools);
        assert_eq!(operations.len(), 1);
        Ok(client.apply(&operations)?)
    })?;
    samples.measure("delete: flush", 1, || Ok(client.flush()?))?;
    assert_eq!(client.services()?, []);
    Ok(())
}

fn last(pools: &[Pool]) -> Outcome<(ServiceId, &Destination)> {
    let pool = pools.last().ok_or("no services")?;
    let destination = pool.destinations.last().ok_or("no destinations")?;
    Ok((pool.service.id, destination))
}

/// The most that reading a table takes, in bytes, for tables of growing size.
fn memory(options: &Options) -> Outcome<String> {
    let mut told = String::new();
    let mut client = Client::open()?;
    for part in [10, 5, 2, 1] {
        let pools = table(&Options {
            services: options.services / part,
            ..*options
        });
        client.apply(&plan(&[], &pools))?;
        // Whatever grows once is not counted.
        drop(client.pools()?);
        let (read, peak) = peak_of(|| client.pools());
        let read = read?;
        let entries: usize = read.iter().map(|pool| 1 + pool.destinations.len()).sum();
        writeln!(
            told,
            "| {} | {entries} | {peak} | {} |",
            read.len(),
            peak / entries.max(1)
        )?;
        client.flush()?;
    }
    Ok(told)
}

fn main() -> Outcome<()> {
    let Some(options) = options()? else {
        return Ok(());
    };
    let pools = table(&options);
    let mut samples = Samples::default();
    for _ in 0..options.rounds {
        for configuration in [one_at_a_time, by_ipvsadm, in_batches] {
            fresh(|| configuration(&pools, &mut samples))?;
        }
    }
    let reference = |what: &str| match what.split(": ").next() {
        Some("load") => "load: ipvsadm -R",
        Some("read") => "read: ipvsadm -Sn",
        Some("change") => "change: bare round trip",
        _ => "delete: ipvsadm -C",
    };
    println!(
        "{} services with {} destinations each, medians of {} rounds\n",
        options.services, options.destinations, options.rounds
    );
    println!("| what | microseconds | of |");
    println!("|---|---|---|");
    for what in samples.0.keys() {
        let (median, base) = (samples.median(what), samples.median(reference(what)));
        println!(
            "| {what} | {median:.1} | {:.3} of {} |",
            median / base,
            reference(what)
        );
    }
    println!("\n| services | entries | bytes at most | bytes per entry |");
    println!("|---|---|---|---|");
    print!("{}", fresh(|| memory(&options))?);
    Ok(())
}
