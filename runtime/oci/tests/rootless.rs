//! An ordinary user.

mod common;
use common::{Bundle, Said, until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

const USER: u32 = 12_345;

/// A bundle of the user's own, with a copy of the runtime that the user can reach.
fn bundle(name: &str) -> Bundle {
    let bundle = Bundle::new(name);
    let config = bundle.dir.path().join("config.json");
    fs::remove_file(&config).expect("remove");
    let runtime = bundle.dir.path().join("oci");
    // Not by this process: what another test starts meanwhile would hold the copy open for writing
    // for a moment, and it could not be executed.
    let copied = Command::new("cp")
        .arg(common::RUNTIME)
        .arg(&runtime)
        .status();
    assert!(copied.expect("cp").success());
    let mut places = vec![bundle.dir.path().to_path_buf()];
    while let Some(place) = places.pop() {
        std::os::unix::fs::lchown(&place, Some(USER), Some(USER)).expect("chown");
        if place.symlink_metadata().expect("stat").is_dir() {
            places.extend(
                fs::read_dir(&place)
                    .expect("list")
                    .map(|e| e.expect("entry").path()),
            );
        }
    }
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("chmod");
    chown(&runtime, Some(USER), Some(USER)).expect("chown");
    as_user(&bundle, &["spec", "--rootless"]).ok();
    bundle
}

fn command(bundle: &Bundle, args: &[&str]) -> Command {
    let id = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "./oci",
        "--root",
        "./state",
    ]);
    command
        .args(args)
        .current_dir(bundle.dir.path())
        .env_remove("XDG_RUNTIME_DIR");
    command.stdin(std::process::Stdio::null());
    command
}

fn as_user(bundle: &Bundle, args: &[&str]) -> Said {
    command(bundle, args).output().expect("setpriv").into()
}

#[test]
fn a_container_of_ones_own() {
    let bundle = bundle("rootless");
    bundle.script("id -u; cat /proc/self/uid_map; stat -c %t:%T /dev/null; echo > /dev/null; touch /tmp/made; mount -t tmpfs none /tmp 2>/dev/null || echo no; readlink /proc/1/exe; exit 3");
    let said = as_user(&bundle, &["run", "c"]);
    let words: Vec<_> = said.stdout.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "0", "12345", "1", "1:3", "no", "/bin/busybox"],
        "{said:?}"
    );
    assert_eq!(said.code, 3, "{said:?}");
    let made = fs::metadata(bundle.root().join("tmp/made")).expect("file");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    bundle.assert_clean();
}

#[test]
fn the_whole_life() {
    let bundle = bundle("rootlesslife");
    bundle.args(&["/bin/sleep", "60"]);
    let null = || std::process::Stdio::null();
    let log = bundle.dir.path().join("err");
    let err = fs::File::create(&log).expect("file");
    let created = command(&bundle, &["create", "c"])
        .stdout(null())
        .stderr(err)
        .status();
    let said = fs::read_to_string(&log).expect("err");
    assert!(created.expect("create").success(), "{said}");
    assert!(
        as_user(&bundle, &["state", "c"])
            .ok()
            .contains("\"created\"")
    );
    as_user(&bundle, &["start", "c"]).ok();
    let said = as_user(
        &bundle,
        &["exec", "c", "sh", "-c", "id -u; cat /proc/1/comm; exit 7"],
    );
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (7, "0\nsleep\n"),
        "{said:?}"
    );
    as_user(&bundle, &["kill", "c", "KILL"]).ok();
    until("its end", || {
        as_user(&bundle, &["state", "c"])
            .ok()
            .contains("\"stopped\"")
    });
    as_user(&bundle, &["delete", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn what_only_root_may() {
    let bundle = bundle("rootlessno");
    bundle.args(&["/bin/true"]);
    // Ids that are not the user's.
    let maps = serde_json::json!([{ "containerID": 0, "hostID": 0, "size": 10 }]);
    bundle.change(serde_json::json!({ "linux": { "uidMappings": maps } }));
    as_user(&bundle, &["run", "c"]).refused(&["uid_map", "not the caller's own"]);
    assert_eq!(as_user(&bundle, &["list", "-q"]).ok(), "");
    // Limits without a cgroup of the user's own.
    let maps = serde_json::json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    bundle.change(serde_json::json!({ "linux": { "uidMappings": maps, "resources": { "pids": { "limit": 5 } } } }));
    as_user(&bundle, &["run", "c"]).refused(&["cgroup"]);
    bundle.assert_clean();
}
