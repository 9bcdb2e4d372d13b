//! Freezing, killing, deleting, and the places where no container may be.

mod common;
use common::{Sandbox, in_process, until};
use container::cgroup::{Existing, FreezerState, Layout, Version};
use container::{Cgroup, CgroupError, CgroupPath};
use oci_spec::runtime::LinuxResources;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn none() -> LinuxResources {
    LinuxResources::default()
}

/// A process of the cgroup that counts into a file until it is stopped.
fn counter(sandbox: &Sandbox, cgroup: &Cgroup) -> (Child, PathBuf) {
    let file = sandbox.dir.path().join("count");
    let script = format!(
        "read go; i=0; while :; do i=$((i+1)); echo $i >{}; done",
        file.display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    drop(child.stdin.take());
    until("counting", || count(&file) > 0);
    (child, file)
}

fn count(file: &Path) -> u64 {
    // Between truncation and writing it is empty.
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The directories of the cgroup, found by this test itself.
fn directories(sandbox: &Sandbox) -> Vec<(Version, PathBuf)> {
    let parent = sandbox.parent.trim_start_matches('/');
    let hierarchies = Layout::detect().expect("layout").hierarchies.into_iter();
    hierarchies
        .map(|h| (h.version, h.mountpoint.join(parent).join("task")))
        .collect()
}

/// The directory that can be frozen, and the file that says so.
fn freezer(sandbox: &Sandbox) -> (PathBuf, &'static str, &'static str) {
    let all = directories(sandbox);
    let v1 = all
        .iter()
        .find(|(_, dir)| dir.join("freezer.state").exists());
    match v1 {
        Some((_, dir)) => (dir.clone(), "freezer.state", "FROZEN"),
        None => (all[0].1.clone(), "cgroup.freeze", "1"),
    }
}

#[test]
fn a_counter_stops_and_goes_on() {
    let sandbox = Sandbox::new("freeze");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    let (mut child, file) = counter(&sandbox, &cgroup);
    assert_eq!(cgroup.freezer_state().expect("state"), FreezerState::Thawed);
    cgroup.freeze().expect("freeze");
    assert_eq!(cgroup.freezer_state().expect("state"), FreezerState::Frozen);
    let stopped = fs::read_to_string(&file).expect("count");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(fs::read_to_string(&file).expect("count"), stopped);
    cgroup.freeze().expect("twice is the same");
    let again = Cgroup::create_at(
        &CgroupPath::new(&sandbox.parent, "task"),
        &none(),
        Existing::UseEmpty,
    );
    assert!(matches!(again, Err(CgroupError::InUse { .. })), "{again:?}");
    cgroup.thaw().expect("thaw");
    assert_eq!(cgroup.freezer_state().expect("state"), FreezerState::Thawed);
    let before: u64 = stopped.trim().parse().unwrap_or(0);
    until("counts again", || count(&file) > before + 1);
    child.kill().expect("kill");
    child.wait().expect("wait");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_part_ends_apart_from_the_rest() {
    let sandbox = Sandbox::new("part");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    let sleeper = |place: &Cgroup| {
        let child = Command::new("sleep").arg("1000").spawn().expect("spawn");
        place.attach(child.id() as i32).expect("attach");
        child
    };
    let mut rest = sleeper(&cgroup);
    assert!(cgroup.parts("probe-").expect("list").is_empty());
    let part = cgroup.part("probe-1").expect("part");
    let mut inside = sleeper(part.place());
    // Every limit holds for both, and both are the cgroup's.
    let all = cgroup.procs().expect("processes");
    for child in [&rest, &inside] {
        assert!(all.contains(&(child.id() as i32)), "{all:?}");
    }
    let other = cgroup.part("probe-2").expect("another part");
    part.kill().expect("kill");
    inside.wait().expect("wait");
    assert!(rest.try_wait().expect("look").is_none(), "the rest lives");
    part.remove().expect("remove");

    // Found by who did not make it.
    let mut stray = sleeper(other.place());
    let found = Cgroup::open(&sandbox.parent, "task").expect("open");
    let found = found.parts("probe-").expect("list");
    assert_eq!(found.len(), 1);
    for part in found {
        part.kill().expect("kill");
        part.delete().expect("delete");
    }
    stray.wait().expect("wait");
    assert!(cgroup.parts("").expect("list").is_empty());

    // What is left of parts goes with the whole.
    let last = cgroup.part("probe-3").expect("part");
    let mut inside = sleeper(last.place());
    cgroup.kill().expect("kill");
    inside.wait().expect("wait");
    rest.wait().expect("wait");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_frozen_cgroup_is_killed() {
    let sandbox = Sandbox::new("frozenkill");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    // One process in it, one in a child that is frozen by itself.
    let spawn = || Command::new("sleep").arg("60").spawn().expect("spawn");
    let (mut outer, mut inner) = (spawn(), spawn());
    cgroup.attach(outer.id() as i32).expect("attach");
    let (dir, file, frozen) = freezer(&sandbox);
    let child = dir.join("child");
    fs::create_dir(&child).expect("mkdir");
    let pids = inner.id().to_string();
    // In version 2 without controllers below, so that both may have processes.
    fs::write(child.join("cgroup.procs"), pids).expect("attach");
    fs::write(child.join(file), frozen).expect("freeze the child");
    cgroup.freeze().expect("freeze");
    std::thread::spawn(move || (outer.wait(), inner.wait()));
    cgroup.kill().expect("kill");
    assert_eq!(cgroup.procs().expect("procs"), Vec::<i32>::new());
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_frozen_cgroup_is_not_used() {
    let sandbox = Sandbox::new("prefrozen");
    let path = CgroupPath::new(&sandbox.parent, "task");
    let cgroup = Cgroup::create_at(&path, &none(), Existing::Refuse).expect("create");
    let (dir, file, frozen) = freezer(&sandbox);
    fs::write(dir.join(file), frozen).expect("freeze");
    let error = Cgroup::create_at(&path, &none(), Existing::UseEmpty).expect_err("refused");
    assert!(matches!(error, CgroupError::Frozen(_)), "{error}");
    cgroup.thaw().expect("thaw");
    Cgroup::create_at(&path, &none(), Existing::UseEmpty).expect("thawed");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn deep_and_wide_trees_are_deleted() {
    let sandbox = Sandbox::new("deep");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    // With few descriptors, so that one per level would not be enough.
    let removed: Option<String> = {
        let trees = directories(&sandbox);
        for (_, dir) in trees.iter().take(1) {
            let mut deep = dir.clone();
            for _ in 0..150 {
                deep.push("d");
                fs::create_dir(&deep).expect("mkdir");
            }
            for i in 0..40 {
                fs::create_dir(dir.join(format!("w{i}"))).expect("mkdir");
            }
        }
        in_process(|| {
            let limit = libc::rlimit {
                rlim_cur: 40,
                rlim_max: 40,
            };
            // SAFETY: a valid rlimit, of this copy of the process alone.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            let procs = cgroup.procs().map(drop);
            procs
                .and_then(|()| cgroup.clone().delete())
                .err()
                .map(|e| e.to_string())
        })
    };
    assert_eq!(removed, None);
    cgroup.delete().expect("what is gone is no error");
    sandbox.assert_clean();
}

#[test]
fn threaded_children_are_killed_and_deleted() {
    let sandbox = Sandbox::new("threaded");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    let Some((_, dir)) = directories(&sandbox)
        .into_iter()
        .find(|(version, _)| *version == Version::V2)
    else {
        eprintln!("skipped: no version 2 hierarchy");
        return;
    };
    let threaded = dir.join("threads");
    fs::create_dir(&threaded).expect("mkdir");
    fs::write(threaded.join("cgroup.type"), "threaded").expect("threaded");
    let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
    let pid = child.id() as i32;
    cgroup.attach(pid).expect("attach");
    fs::write(threaded.join("cgroup.threads"), pid.to_string()).expect("move the thread");
    assert_eq!(cgroup.procs().expect("procs"), [pid]);
    std::thread::spawn(move || child.wait());
    cgroup.kill().expect("kill");
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn what_is_busy_for_a_moment_is_waited_for() {
    let sandbox = Sandbox::new("busy");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        child.kill().and_then(|()| child.wait())
    });
    cgroup.delete().expect("delete");
    killer.join().expect("join").expect("killed");
    sandbox.assert_clean();
}

#[test]
fn the_runtimes_own_cgroup_is_refused() {
    let sandbox = Sandbox::new("own");
    let outer = CgroupPath::new(format!("{}/outer", sandbox.parent), "inner");
    let cgroup = Cgroup::create_at(&outer, &none(), Existing::Refuse).expect("create");
    let parent = sandbox.parent.clone();
    let refused: Vec<bool> = in_process(|| {
        // SAFETY: getpid has no preconditions.
        cgroup.attach(unsafe { libc::getpid() }).expect("attach");
        let own = [
            outer.clone(),
            CgroupPath::new(&parent, "outer"),
            CgroupPath::new("/", parent.trim_start_matches('/')),
        ];
        let refused = own.iter().map(|path| {
            let made = Cgroup::create_at(path, &none(), Existing::UseEmpty);
            matches!(made, Err(CgroupError::OwnAncestor(_)))
        });
        refused.collect()
    });
    assert_eq!(refused, [true, true, true]);
    cgroup.delete().expect("delete");
    Cgroup::open(&sandbox.parent, "outer")
        .expect("outer")
        .delete()
        .expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_relative_path() {
    let sandbox = Sandbox::new("relative");
    let home = CgroupPath::new(&sandbox.parent, "home");
    let cgroup = Cgroup::create_at(&home, &none(), Existing::Refuse).expect("create");
    let found: Vec<(String, PathBuf)> = in_process(|| {
        // SAFETY: getpid has no preconditions.
        cgroup.attach(unsafe { libc::getpid() }).expect("attach");
        let path = CgroupPath::from_spec(Some("box/c1"), "c1").expect("path");
        let made = Cgroup::create_at(&path, &none(), Existing::Refuse).expect("relative");
        // As another process would find it again, which is elsewhere.
        let text = serde_json::to_string(&path).expect("json");
        // SAFETY: as above.
        made.attach(unsafe { libc::getpid() }).expect("attach");
        let path: CgroupPath = serde_json::from_str(&text).expect("json");
        let again = Cgroup::open_at(&path).expect("open");
        let hierarchies = Layout::detect().expect("layout").hierarchies;
        let found = hierarchies.iter().filter_map(|h| {
            let name = h.controllers.first()?;
            Some((format!("{:?}", h.version), again.controller(name)?.1))
        });
        found.collect()
    });
    let mut beside = 0;
    for (version, path) in &found {
        assert!(path.is_dir(), "{}", path.display());
        let text = path.to_string_lossy();
        let below = text.ends_with(&format!("{}/home/box/c1", sandbox.parent));
        if version == "V1" {
            assert!(below, "{text}");
        } else {
            // Beside it: a cgroup with processes has no children with controllers.
            assert!(
                text.ends_with(&format!("{}/box/c1", sandbox.parent)),
                "{text}"
            );
            beside += 1;
        }
    }
    assert!(!found.is_empty() && beside <= 1);
    for name in ["home", "box"] {
        let cgroup = Cgroup::open(&sandbox.parent, name).expect(name);
        until("the helper is gone", || {
            cgroup.procs().expect("procs").is_empty()
        });
        cgroup.delete().expect("delete");
    }
    sandbox.assert_clean();
}

/// As in a container without a cgroup namespace: what is mounted is a part of each hierarchy.
#[test]
fn a_part_of_a_hierarchy_is_mounted() {
    let sandbox = Sandbox::new("part");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none()).expect("create");
    let parent = sandbox.parent.clone();
    let roots: Vec<PathBuf> = in_process(|| {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        let bind = |from: &Path, to: &Path| {
            let flags = MsFlags::MS_BIND;
            mount(Some(from), to, None::<&str>, flags, None::<&str>).expect("bind");
        };
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        // SAFETY: getpid has no preconditions.
        cgroup.attach(unsafe { libc::getpid() }).expect("attach");
        let before = Layout::detect().expect("layout");
        for hierarchy in &before.hierarchies {
            let part = hierarchy.mountpoint.join(parent.trim_start_matches('/'));
            bind(&part, &hierarchy.mountpoint);
            // The whole one is below it now, and not to be found.
        }
        let after = Layout::detect().expect("layout");
        assert_eq!(after.hierarchies.len(), before.hierarchies.len());
        // In version 2 "beside", in version 1 "below" the caller's own.
        let path = CgroupPath::from_spec(Some("sub/c"), "c").expect("path");
        assert!(
            path.bases
                .values()
                .all(|base| base == "/" || base == "/task")
        );
        let made = Cgroup::create_at(&path, &none(), Existing::Refuse).expect("create");
        made.delete().expect("delete");
        after.hierarchies.into_iter().map(|h| h.root).collect()
    });
    assert!(!roots.is_empty());
    for root in roots {
        assert!(
            root.to_string_lossy().ends_with(&sandbox.parent),
            "{}",
            root.display()
        );
    }
    for name in ["task", "sub"] {
        if let Ok(cgroup) = Cgroup::open(&sandbox.parent, name) {
            until("the helper is gone", || {
                cgroup.procs().expect("procs").is_empty()
            });
            cgroup.delete().expect("delete");
        }
    }
    sandbox.assert_clean();
}
