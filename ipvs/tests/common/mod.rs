//! A fresh network namespace for each test, and `ipvsadm` as a witness.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::thread;

use ipvs::{Client, IpvsError};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs a test on a thread with a network namespace of its own, which goes when the thread and what
/// it opened are gone, however the test ends.
///
/// Without `ip_vs` in the kernel the test is skipped, or fails with `FAIRLEAD_REQUIRE_IPVS=1`.
pub fn in_new_namespace(test: impl FnOnce(Client) + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
            match Client::open() {
                Ok(client) => {
                    // A namespace in which no interface was ever up has no routing table yet, and
                    // IPVS takes no IPv4 destination there.
                    run("ip", "link set lo up");
                    test(client);
                }
                Err(IpvsError::NotAvailable)
                    if std::env::var_os("FAIRLEAD_REQUIRE_IPVS").is_none_or(|v| v != "1") =>
                {
                    // Past the test harness, which shows output of failed tests only.
                    let _ = writeln!(std::io::stderr(), "SKIP: kernel has no ip_vs");
                }
                Err(error) => panic!("{error}"),
            }
        });
        if let Err(payload) = run.join() {
            std::panic::resume_unwind(payload);
        }
    });
}

/// The network namespace of this thread.
#[allow(dead_code, reason = "not every test file needs every helper")]
pub fn this_namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// Does something in another network namespace, on a thread of its own.
#[allow(dead_code, reason = "not every test file needs every helper")]
pub fn visit<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        match visitor.join() {
            Ok(result) => result,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    })
}

/// What a program says when run in the namespace of this thread.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `ipvsadm -Sn`: one line per service and destination, as options for `ipvsadm`; sorted, because
/// the kernel's order of services is that of its hash table.
#[allow(dead_code, reason = "not every test file needs every helper")]
pub fn saved() -> Vec<String> {
    // While other tests change their services, entries are missing or double in a long list.
    let mut text = run("ipvsadm", "-Sn");
    for _ in 0..100 {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        let again = run("ipvsadm", "-Sn");
        if again == text && lines.windows(2).all(|pair| pair[0] != pair[1]) {
            return lines;
        }
        text = again;
    }
    panic!("the list is never the same twice");
}
