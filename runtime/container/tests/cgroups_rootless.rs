//! An ordinary user with a delegated part of version 2, and without.

mod common;
use common::{Sandbox, in_process, until};
use container::cgroup::{Existing, Layout, LayoutKind, Version};
use container::{Cgroup, CgroupError, CgroupPath};
use oci_spec::runtime::LinuxResources;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

const NOBODY: u32 = 65534;

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).expect("resources")
}

/// A limit of a controller that version 2 has on this machine, its file and what that holds then.
fn limit() -> (LinuxResources, &'static str, &'static str) {
    if Layout::detect().expect("layout").kind() == LayoutKind::V2 {
        let limit = resources(serde_json::json!({"pids": {"limit": 5}}));
        (limit, "pids.max", "5")
    } else {
        let pages = serde_json::json!([{"pageSize": "2MB", "limit": 2_097_152}]);
        let limit = resources(serde_json::json!({"hugepageLimits": pages}));
        (limit, "hugetlb.2MB.max", "2097152")
    }
}

/// `<parent>/user`, which belongs to an ordinary user, with the cgroup `init` of its process; as a
/// service manager makes it. Controllers of `parent` are handed down to it.
fn delegate(sandbox: &Sandbox, controllers: &str) -> Option<PathBuf> {
    let layout = Layout::detect().expect("layout");
    let v2 = layout
        .hierarchies
        .iter()
        .find(|h| h.version == Version::V2)?;
    let parent = v2.mountpoint.join(sandbox.parent.trim_start_matches('/'));
    let user = parent.join("user");
    fs::create_dir_all(user.join("init")).expect("mkdir");
    for dir in [&v2.mountpoint, &parent] {
        fs::write(dir.join("cgroup.subtree_control"), controllers).expect("hand down");
    }
    for dir in [user.clone(), user.join("init")] {
        chown(&dir, Some(NOBODY), Some(NOBODY)).expect("chown");
        for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            chown(dir.join(file), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
    Some(user)
}

/// Runs as an ordinary user whose process is in `<user>/init`.
fn as_user<T: serde::Serialize + serde::de::DeserializeOwned>(
    user: Option<&Path>,
    work: impl FnOnce() -> T,
) -> T {
    in_process(|| {
        if let Some(user) = user {
            fs::write(user.join("init/cgroup.procs"), "0").expect("enter");
        }
        nix::unistd::setgroups(&[]).expect("setgroups");
        let (uid, gid) = (NOBODY.into(), NOBODY.into());
        nix::unistd::setresgid(gid, gid, gid).expect("setgid");
        nix::unistd::setresuid(uid, uid, uid).expect("setuid");
        work()
    })
}

fn clean(sandbox: &Sandbox) {
    let user = Cgroup::open(&sandbox.parent, "user").expect("user");
    until("the helper is gone", || {
        user.procs().expect("procs").is_empty()
    });
    user.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn below_a_delegated_cgroup() {
    let sandbox = Sandbox::new("delegated");
    let (limit, file, value) = limit();
    let controller = file.split('.').next().expect("controller");
    let Some(user) = delegate(&sandbox, &format!("+{controller}")) else {
        eprintln!("skipped: no version 2 hierarchy");
        return;
    };
    let path = user.join("c1").join(file);
    let found: Vec<String> = as_user(Some(&user), || {
        let mut limit = limit;
        // What every container has; an ordinary user can neither load the filter nor make a
        // device.
        limit.set_devices(Some(container::defaults::device_rules()));
        // Relative to its own cgroup: beside it.
        let place = CgroupPath::from_spec(Some("c1"), "c1").expect("path");
        let cgroup = Cgroup::create_best_effort(&place, &limit, Existing::Refuse)
            .expect("create")
            .expect("a cgroup");
        let mut found = vec![fs::read_to_string(&path).expect("limit")];
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("spawn");
        cgroup.attach(child.id() as i32).expect("attach");
        found.push((cgroup.procs().expect("procs") == [child.id() as i32]).to_string());
        let again = Cgroup::open_at(&place).expect("open");
        let reaper = std::thread::spawn(move || child.wait());
        again.kill().expect("kill");
        reaper.join().expect("join").expect("wait");
        again.delete().expect("delete");
        found.push(path.exists().to_string());
        found
    });
    let found: Vec<_> = found.iter().map(|text| text.trim()).collect();
    assert_eq!(found, [value, "true", "false"]);
    clean(&sandbox);
}

#[test]
fn a_controller_that_is_not_delegated() {
    let sandbox = Sandbox::new("partly");
    let (limit, file, _) = limit();
    let controller = file.split('.').next().expect("controller");
    // Nothing is handed down to the user.
    let Some(user) = delegate(&sandbox, "") else {
        eprintln!("skipped: no version 2 hierarchy");
        return;
    };
    let error: String = as_user(Some(&user), || {
        let place = CgroupPath::from_spec(Some("c1"), "c1").expect("path");
        let error = Cgroup::create_best_effort(&place, &limit, Existing::Refuse);
        let error = error.map(|_| ()).expect_err("refused");
        assert!(
            matches!(error, CgroupError::NotDelegated { .. }),
            "{error:?}"
        );
        // What was not asked for does not fail it.
        let cgroup =
            Cgroup::create_best_effort(&place, &LinuxResources::default(), Existing::Refuse);
        cgroup
            .expect("create")
            .expect("a cgroup")
            .delete()
            .expect("delete");
        error.to_string()
    });
    assert!(error.starts_with("linux.resources."), "{error}");
    assert!(
        error.contains(controller) && error.contains("delegate"),
        "{error}"
    );
    clean(&sandbox);
}

#[test]
fn without_any_right() {
    let sandbox = Sandbox::new("norights");
    let path = CgroupPath::new(&sandbox.parent, "task");
    let error: String = as_user(None, || {
        let none = LinuxResources::default();
        let made = Cgroup::create_best_effort(&path, &none, Existing::Refuse).expect("none");
        assert!(made.is_none(), "{made:?}");
        let limit = resources(serde_json::json!({"pids": {"limit": 5}}));
        let error = Cgroup::create_best_effort(&path, &limit, Existing::Refuse);
        let text = error.map(|_| ()).expect_err("refused").to_string();
        let strict = Cgroup::create_at(&path, &none, Existing::Refuse);
        strict
            .map(|_| ())
            .expect_err("asked for without best effort");
        text
    });
    assert!(error.contains("permission"), "{error}");
    assert!(error.contains(&sandbox.parent), "{error}");
    sandbox.assert_clean();
}

#[test]
fn a_missing_path_of_an_ordinary_user() {
    let sandbox = Sandbox::new("defaultpath");
    let Some(user) = delegate(&sandbox, "") else {
        eprintln!("skipped: no version 2 hierarchy");
        return;
    };
    let expected = user.join("fairlead-oci/c1");
    let made: bool = as_user(Some(&user), || {
        let place = CgroupPath::from_spec(None, "c1").expect("path");
        let none = LinuxResources::default();
        let cgroup = Cgroup::create_best_effort(&place, &none, Existing::Refuse);
        let cgroup = cgroup.expect("create").expect("a cgroup");
        let made = expected.is_dir();
        cgroup.delete().expect("delete");
        made
    });
    assert!(made);
    clean(&sandbox);
}
