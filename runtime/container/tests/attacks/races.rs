//! Somebody exchanges files while containers start: another container of the same volume or root
//! file system, or a program of the image's own.

use super::common::{Sandbox, mount, set_linux};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use oci_spec::runtime::Spec;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many containers start meanwhile.
const ROUNDS: u32 = 60;

/// Does something again and again until it is dropped.
struct Attacker {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attacker {
    fn new(mut attack: impl FnMut() + Send + 'static) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counter) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                attack();
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            stop,
            done,
            thread: Some(thread),
        }
    }

    /// Exchanges two files.
    fn exchanging(one: PathBuf, other: PathBuf) -> Self {
        Self::new(move || {
            let flags = RenameFlags::RENAME_EXCHANGE;
            // The container may have made or removed one of them.
            let _ = renameat2(AT_FDCWD, &one, AT_FDCWD, &other, flags);
        })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        assert!(self.done.load(Ordering::SeqCst) > 0, "nothing was tried");
    }
}

fn add(spec: &mut Spec, entry: oci_spec::runtime::Mount) {
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(entry);
    spec.set_mounts(Some(mounts));
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).expect("read").count()
}

/// CVE-2021-30465 and CVE-2024-45310: a destination in a volume turns into a link to the host.
#[test]
fn a_destination_in_a_volume() {
    let sandbox = Sandbox::new("exchange");
    let outside = sandbox.dir.path().join("outside");
    let volume = sandbox.dir.path().join("volume");
    fs::create_dir_all(volume.join("a")).expect("mkdir");
    fs::create_dir(&outside).expect("mkdir");
    symlink(&outside, volume.join("b")).expect("symlink");
    let file = sandbox.dir.path().join("file");
    fs::write(&file, "content").expect("write");
    let text = |path: &Path| path.to_str().expect("utf-8").to_string();
    let mut spec = sandbox.script("ls / /vol");
    add(&mut spec, mount("/vol", "bind", &text(&volume), &["rbind"]));
    add(&mut spec, mount("/vol/a/x/y", "tmpfs", "tmpfs", &[]));
    add(
        &mut spec,
        mount("/vol/a/z/file", "bind", &text(&file), &["bind"]),
    );
    let attacker = Attacker::exchanging(volume.join("a"), volume.join("b"));
    let mut errors = 0;
    for _ in 0..ROUNDS {
        let outcome = sandbox.run(&spec);
        errors += u32::from(outcome.error.is_some());
        assert_eq!(count(&outside), 0, "made on the host: {outcome:?}");
        // What was made is made again the next time.
        for name in ["a", "b"] {
            for made in ["x", "z"] {
                let _ = fs::remove_dir_all(volume.join(name).join(made));
            }
        }
    }
    drop(attacker);
    assert!(errors < ROUNDS, "none of them started");
    assert_eq!(count(&outside), 0);
    sandbox.assert_clean();
}

/// A link that leads a volume onto procfs, where it could show anything as the kernel's answer
/// (CVE-2019-19921 and its relatives), also one that appears in the last moment.
#[test]
fn a_destination_that_becomes_procfs() {
    let sandbox = Sandbox::new("exchange-proc");
    let volume = sandbox.dir.path().join("volume");
    fs::create_dir_all(volume.join("a")).expect("mkdir");
    symlink("/proc", volume.join("b")).expect("symlink");
    let path = volume.to_str().expect("utf-8").to_string();
    let mut spec = sandbox.script("stat -f -c %t /proc; grep -c ^ /proc/self/attr/current; true");
    add(&mut spec, mount("/vol", "bind", &path, &["rbind"]));
    add(&mut spec, mount("/vol/a", "tmpfs", "tmpfs", &[]));
    let attacker = Attacker::exchanging(volume.join("a"), volume.join("b"));
    let (mut started, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let outcome = sandbox.run(&spec);
        match &outcome.error {
            None => {
                started += 1;
                assert!(
                    outcome.ok().starts_with("9fa0"),
                    "no procfs at /proc: {outcome:?}"
                );
            }
            Some(error) => {
                refused += 1;
                assert!(error.contains("/vol/a"), "{error}");
            }
        }
    }
    drop(attacker);
    println!("{started} started, {refused} refused");
    sandbox.assert_clean();
}

/// The directory under the mount of procfs is exchanged by somebody who has the root file system
/// too: what is to be masked must not be looked for in the other one.
#[test]
fn the_directory_below_procfs() {
    let sandbox = Sandbox::new("exchange-root");
    let root = sandbox.root();
    fs::create_dir(root.join("other")).expect("mkdir");
    for directory in ["proc", "other"] {
        for name in ["interrupts", "keys", "timer_list", "kcore"] {
            fs::write(root.join(directory).join(name), "").expect("write");
        }
    }
    // In each, what is seen by way of a directory that cannot be exchanged any more.
    let script = "for p in /proc /other; do cd $p; [ -e self ] && { echo seen; \
                  cat interrupts keys timer_list; }; done; true";
    let spec = sandbox.script(script);
    let attacker = Attacker::exchanging(root.join("proc"), root.join("other"));
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let outcome = sandbox.run(&spec);
        if outcome.error.is_none() {
            let lines: Vec<_> = outcome.stdout.lines().collect();
            assert!(
                lines.iter().all(|line| *line == "seen"),
                "not masked: {outcome:?}"
            );
            seen += lines.len();
        }
    }
    drop(attacker);
    assert!(seen > 0, "procfs was never looked at");
    assert!(!fs::read("/proc/interrupts").expect("read").is_empty());
    sandbox.assert_clean();
}

/// A node in a `/dev` that others share is exchanged for a link to a file of the host before its
/// mode or owner is set.
#[test]
fn a_device_that_becomes_a_link() {
    let sandbox = Sandbox::new("exchange-dev");
    let victim = sandbox.dir.path().join("victim");
    fs::write(&victim, "secret").expect("write");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).expect("chmod");
    let mut spec = sandbox.script("true");
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.retain(|mount| !mount.destination().starts_with("/dev"));
    spec.set_mounts(Some(mounts));
    let names: Vec<String> = (0..40).map(|i| format!("fifo{i}")).collect();
    let devices: Vec<_> = (names.iter())
        .map(|name| {
            serde_json::json!({ "path": format!("/dev/{name}"), "type": "p", "major": 0, "minor": 0,
                "fileMode": 0o666, "uid": 101, "gid": 102 })
        })
        .collect();
    set_linux(&mut spec, |linux| {
        linux.set_devices(serde_json::from_value(devices.into()).expect("devices"));
    });
    let dev = sandbox.root().join("dev");
    let (directory, target, link) = (dev.clone(), victim.clone(), sandbox.root().join("link"));
    let attacked = names.clone();
    let attacker = Attacker::new(move || {
        for name in &attacked {
            let place = directory.join(name);
            let _ = symlink(&target, &link);
            // Only what is there already: else the name would be taken.
            let flags = RenameFlags::RENAME_EXCHANGE;
            if renameat2(AT_FDCWD, &link, AT_FDCWD, &place, flags).is_ok() {
                let _ = fs::remove_file(&link);
            }
        }
    });
    for _ in 0..ROUNDS {
        let outcome = sandbox.run(&spec);
        let found = fs::metadata(&victim).expect("victim");
        assert_eq!(
            (found.mode() & 0o7777, found.uid(), found.gid()),
            (0o600, 0, 0),
            "{outcome:?}"
        );
        for entry in fs::read_dir(&dev).expect("read").flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
    drop(attacker);
    sandbox.assert_clean();
}

/// The directory under a mount with long options is exchanged for one under another mount, which
/// must not get the attributes of the first, nor those of what changes the first.
#[test]
fn attributes_are_of_the_mount_that_was_made() {
    let sandbox = Sandbox::new("exchange-attributes");
    let volume = sandbox.dir.path().join("volume");
    let kept = sandbox.dir.path().join("kept");
    let (name, text) = ("n".repeat(200), |path: &Path| {
        path.to_str().expect("utf-8").to_string()
    });
    let deep = sandbox.dir.path().join(&name).join(&name);
    for directory in [&volume.join("a"), &volume.join("b"), &kept, &deep] {
        fs::create_dir_all(directory).expect("mkdir");
    }
    let lower = format!("lowerdir={}:{}", deep.display(), sandbox.root().display());
    let mut spec = sandbox.script("touch /vol/a/x /vol/b/x 2>/dev/null; true");
    add(&mut spec, mount("/vol", "bind", &text(&volume), &["rbind"]));
    add(
        &mut spec,
        mount("/vol/b", "bind", &text(&kept), &["bind", "ro"]),
    );
    for _ in 0..20 {
        let long = mount("/vol/a", "overlay", "overlay", &[&lower, "rw"]);
        add(&mut spec, long);
        let again = mount("/vol/a", "bind", "none", &["bind", "remount", "rw"]);
        add(&mut spec, again);
    }
    let attacker = Attacker::exchanging(volume.join("a"), volume.join("b"));
    for _ in 0..ROUNDS / 2 {
        let outcome = sandbox.run(&spec);
        // That of a place where nothing is mounted cannot be changed, which is the other thing that
        // goes wrong when the place is looked for a second time.
        assert_eq!(outcome.error, None);
        assert_eq!(count(&kept), 0, "written: {outcome:?}");
    }
    drop(attacker);
    sandbox.assert_clean();
}
