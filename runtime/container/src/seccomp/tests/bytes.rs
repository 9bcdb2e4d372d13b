//! The serialised form: what is written is read, and nothing else is.

use super::profile;
use crate::defaults;
use crate::seccomp::{Cache, Filter, check, compile};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::{PermissionsExt, symlink};

fn notifying(path: &str) -> oci_spec::runtime::LinuxSeccomp {
    profile(&format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "{path}", "listenerMetadata": "m",
             "syscalls": [{{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}}]}}"#
    ))
}

#[test]
fn round_trip() {
    let policy = defaults::seccomp(&defaults::capabilities());
    for profile in [policy, notifying("/run/agent.sock")] {
        let filter = compile(&profile).expect("compiled");
        let read = Filter::from_bytes(&filter.to_bytes()).expect("read");
        assert_eq!(read, filter);
        assert!(read.is_for(&profile));
    }
    let one = compile(&notifying("/a")).expect("compiled");
    assert!(
        one.is_for(&notifying("/b")),
        "the listener is no part of the program"
    );
    assert_eq!(one.listener().expect("listener").path.to_str(), Some("/a"));
    let other = defaults::seccomp(&defaults::capabilities());
    assert!(!one.is_for(&other));
}

fn resummed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len().saturating_sub(32);
    bytes.truncate(end);
    let sum: [u8; 32] = Sha256::digest(&bytes).into();
    bytes.extend(sum);
    bytes
}

#[test]
fn damaged_and_hostile_bytes() {
    let bytes = compile(&notifying("/run/agent.sock"))
        .expect("compiled")
        .to_bytes();
    for length in 0..bytes.len() {
        Filter::from_bytes(&bytes[..length]).expect_err("cut");
    }
    let longer = [&bytes[..], &[0]].concat();
    Filter::from_bytes(&longer).expect_err("longer");
    let mut accepted = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            Filter::from_bytes(&flipped).expect_err("damaged");
            // With the right sum, whatever is accepted is what was said and would be loaded.
            let flipped = resummed(flipped);
            if let Ok(filter) = Filter::from_bytes(&flipped) {
                assert_eq!(filter.to_bytes(), flipped);
                assert!(crate::seccomp::program::is_valid(&filter.instructions));
                accepted += 1;
            }
        }
    }
    assert!(
        accepted > 0,
        "bits of the digest and of constants mean nothing to the reader"
    );
    // Pseudo-random garbage behind a right beginning (xorshift, a fixed seed).
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20_000 {
        let mut garbage = bytes[..(round % 64)].to_vec();
        for _ in 0..(round % 300) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            garbage.push(state as u8);
        }
        let _ = Filter::from_bytes(&resummed(garbage));
    }
}

#[test]
fn a_cache_does_not_grow_for_ever() {
    let parent = tempfile::tempdir().expect("tempdir");
    let path = parent.path().join("cache");
    let cache = Cache::open(&path).expect("made");
    for i in 0..100 {
        let file = path.join(format!("old-{i}"));
        std::fs::write(&file, "old").expect("write");
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i);
        let file = std::fs::File::options()
            .write(true)
            .open(file)
            .expect("open");
        file.set_modified(old).expect("age");
    }
    let (filter, warning) = cache.get(&notifying("/x")).expect("filter");
    assert!(warning.is_none(), "{warning:?}");
    assert_eq!(std::fs::read_dir(&path).expect("list").count(), 64);
    assert!(!path.join("old-36").exists() && path.join("old-37").exists());
    assert_eq!(cache.get(&notifying("/x")).expect("filter").0, filter);
}

#[test]
fn a_cache_keeps_what_it_may_trust() {
    let parent = tempfile::tempdir().expect("tempdir");
    let path = parent.path().join("cache");
    let cache = Cache::open(&path).expect("made");
    let policy = defaults::seccomp(&defaults::capabilities());
    let get = || {
        let (filter, warning) = cache.get(&policy).expect("filter");
        assert!(warning.is_none(), "{warning:?}");
        filter
    };
    let first = get();
    let files = || {
        let list = std::fs::read_dir(&path).expect("list");
        list.map(|e| e.expect("entry").path()).collect::<Vec<_>>()
    };
    let [file] = files().try_into().expect("one file");
    // What is there is used: with another valid content under its name it would be noticed.
    let written = std::fs::metadata(&file)
        .expect("stat")
        .modified()
        .expect("time");
    assert_eq!(get(), first);
    assert_eq!(
        std::fs::metadata(&file)
            .expect("stat")
            .modified()
            .expect("time"),
        written
    );

    let good = std::fs::read(&file).expect("read");
    let other = compile(&notifying("/x")).expect("compiled").to_bytes();
    for bad in [&b""[..], b"garbage", &good[..good.len() - 1], &other] {
        std::fs::write(&file, bad).expect("write");
        assert_eq!(get(), first);
        assert_eq!(std::fs::read(&file).expect("read"), good, "replaced");
    }
    // Not one that others may have written, and not through a link.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    assert_eq!(get(), first);
    assert_eq!(
        std::fs::metadata(&file).expect("stat").permissions().mode() & 0o777,
        0o600
    );
    std::fs::rename(&file, parent.path().join("elsewhere")).expect("rename");
    symlink(parent.path().join("elsewhere"), &file).expect("link");
    assert_eq!(get(), first);
    assert!(!file.symlink_metadata().expect("stat").is_symlink());
    assert_eq!(files().len(), 1, "no temporary file is left");

    // The listener is that of the profile at hand.
    for agent in ["/one", "/two"] {
        let (filter, _) = cache.get(&notifying(agent)).expect("filter");
        assert_eq!(
            filter.listener().expect("listener").path.to_str(),
            Some(agent)
        );
    }
    assert_eq!(files().len(), 2);

    // A directory that others may write is refused.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let error = Cache::open(&path).expect_err("refused").to_string();
    assert!(
        error.contains("others may write it") && error.contains("cache"),
        "{error}"
    );
}

#[test]
fn a_cache_with_many_writers() {
    let parent = tempfile::tempdir().expect("tempdir");
    let policy = notifying("/run/agent.sock");
    let path = parent.path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let (filter, warning) = Cache::open(path)
                        .expect("open")
                        .get(&policy)
                        .expect("filter");
                    assert!(warning.is_none() && filter.is_for(&policy));
                    for entry in std::fs::read_dir(path).expect("list").flatten() {
                        if !entry.file_name().to_string_lossy().starts_with('.') {
                            let _ = std::fs::remove_file(entry.path());
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn flags_that_are_asked_for() {
    use crate::sys::filter_flag;
    let flags = |list: &str| {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW"{list}}}"#);
        compile(&profile(&text)).expect("compiled").flags
    };
    assert_eq!(flags(""), filter_flag::SPEC_ALLOW);
    assert_eq!(flags(r#","flags":[]"#), 0);
    let flag = oci_spec::runtime::LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv;
    if !crate::seccomp::flags::available(flag) {
        eprintln!("skipped: this kernel has no {flag}");
        return;
    }
    let two = r#","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    assert_eq!(
        flags(two),
        filter_flag::LOG,
        "nobody waits without an agent"
    );
}

#[test]
fn a_program_that_is_checked_is_compiled() {
    let policy = defaults::seccomp(&defaults::capabilities());
    check(&policy).expect("checked");
    compile(&policy).expect("compiled");
}
