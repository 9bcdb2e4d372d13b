//! The log under hard conditions.

mod common;
use common::{Bundle, SHIM, entries, report, started};
use std::fs;
use std::process::Command;

#[test]
fn long_partial_and_binary_lines() {
    let bundle = Bundle::new("lines");
    bundle.script("head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'a\\377b\\n'; printf 'rest'");
    bundle.exit();
    let lengths: Vec<_> = bundle.log().iter().map(|(line, _)| line.len()).collect();
    assert_eq!(
        lengths,
        [16384, 16384, 40001 - 32768, "a\u{fffd}b\n".len(), 4]
    );
    assert_eq!(bundle.log()[3].0, "a\u{fffd}b\n");
    assert_eq!(bundle.log()[4].0, "rest");
}

#[test]
fn rotation() {
    let mut bundle = Bundle::new("rotation");
    bundle.options.log.max_bytes = 2000;
    bundle.options.log.max_files = 3;
    bundle.script("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done");
    bundle.exit();
    let mut all = Vec::new();
    for suffix in [".2", ".1", ""] {
        let path = format!("{}{suffix}", bundle.options.log.path.display());
        let content = fs::read_to_string(&path).expect("log");
        assert!(content.len() <= 2000, "{path}: {}", content.len());
        all.extend(entries(&content));
    }
    assert!(!bundle.path().join("log.3").exists());
    assert_eq!(all.last().expect("entries").0, "line 199\n");
    let first = 200 - all.len();
    assert!(first > 0);
    for (n, (line, _)) in all.iter().enumerate() {
        assert_eq!(
            *line,
            format!("line {}\n", first + n),
            "nothing is missing in between"
        );
    }
}

#[test]
fn much_output_is_complete() {
    let bundle = Bundle::new("flood");
    bundle.script("i=0; while [ $i -lt 20000 ]; do echo $i-----------------------------------------------; i=$((i+1)); done");
    let exit = bundle.exit();
    assert_eq!(exit.dropped_log_lines, 0);
    let log = bundle.log();
    assert_eq!(log.len(), 20_000);
    assert!(log[19_999].0.starts_with("19999-"));
}

/// Runs the task, whose log is on a small disk of its own; what these files there hold in the end. In a mount
/// namespace of its own, so that no mount is made on the machine.
fn on_disk(bundle: &Bundle, options: &str, files: &str) -> Vec<(String, String)> {
    let copy = bundle.path().join("copy");
    let script = format!(
        "mount -t tmpfs -o {options} none {0} && {SHIM} run {1} && \
        while [ ! -e {1}/exit.json ]; do sleep 0.05; done; cd {0}; cat {files} > {2}",
        bundle.path().join("disk").display(),
        bundle.path().display(),
        copy.display()
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .output()
        .expect("unshare");
    started(report(output));
    entries(&fs::read_to_string(copy).expect("log"))
}

/// A disk that has no room for a further file: what was kept before stays.
#[test]
fn a_file_that_cannot_be_begun_costs_no_older_one() {
    let mut bundle = Bundle::new("inodes");
    let disk = bundle.path().join("disk");
    fs::create_dir(&disk).expect("mkdir");
    bundle.options.log.path = disk.join("log");
    bundle.options.log.max_bytes = 2000;
    bundle.options.log.max_files = 4;
    bundle.write(
        &bundle
            .sandbox
            .script("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done"),
    );
    // The disk's own folder is one of the three.
    let log = on_disk(&bundle, "nr_inodes=3", "$(ls -r log*)");
    let exit = bundle.exit();
    assert_eq!(log[0].0, "line 0\n", "the oldest are there");
    assert_eq!(log.len() as u64 + exit.dropped_log_lines, 200);
}

#[test]
fn a_full_disk_stops_nothing() {
    let mut bundle = Bundle::new("full");
    let disk = bundle.path().join("disk");
    fs::create_dir(&disk).expect("mkdir");
    bundle.options.log.path = disk.join("log");
    bundle.write(&bundle.sandbox.script("i=0; while [ $i -lt 5000 ]; do echo a line of output $i; i=$((i+1)); done; cat /proc/self/mounts > /tmp/m; exit 7"));
    let log = on_disk(&bundle, "size=64k", "log");
    let exit = bundle.exit();
    assert_eq!(exit.exit_code, 7, "the task ran to its end");
    assert!(exit.dropped_log_lines > 1000, "{exit:?}");
    assert_eq!(
        log.len() as u64 + exit.dropped_log_lines,
        5000,
        "whole lines, all accounted for"
    );
}
