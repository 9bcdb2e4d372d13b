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

/// As podman without root has it: root of a user namespace, which outside is the ordinary user. Nobody
/// says where the state and the cgroup are to be.
#[test]
fn as_root_of_a_user_namespace() {
    let bundle = bundle("rootlessroot");
    bundle.args(&["/bin/sleep", "60"]);
    let mut list = bundle.config()["linux"]["namespaces"].clone();
    let kinds = list.as_array_mut().expect("list");
    kinds.retain(|one| one["type"] != "user");
    bundle.change(
        serde_json::json!({ "linux": { "namespaces": list, "cgroupsPath": null,
        "uidMappings": null, "gidMappings": null } }),
    );
    let own = bundle.dir.path().join("own");
    fs::create_dir(&own).expect("mkdir");
    chown(&own, Some(USER), Some(USER)).expect("chown");
    // One namespace for all of them, as podman keeps one.
    let script = "set -e; ./oci run --detach c < /dev/null > out 2>&1 || cat out; \
                  ./oci exec c sh -c 'id -u; cat /proc/1/comm'; ls own/fairlead-oci; \
                  ./oci delete --force c; ls own/fairlead-oci";
    let id = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.args(["unshare", "--user", "--map-root-user", "sh", "-c", script]);
    command.current_dir(bundle.dir.path());
    command.env("XDG_RUNTIME_DIR", &own).env("USER", "web");
    command.stdin(std::process::Stdio::null());
    let said: Said = command.output().expect("setpriv").into();
    assert_eq!(said.ok(), "0\nsleep\nc", "{said:?}");
    bundle.assert_clean();
}

/// A cgroup for the user, and in it one that the runtime starts in; gone with the test.
struct Delegated(Vec<std::path::PathBuf>);

impl Delegated {
    fn new(bundle: &Bundle) -> Self {
        let mut made = Self(Vec::new());
        for cgroup in bundle.cgroups() {
            for directory in [cgroup.clone(), cgroup.join("own")] {
                if fs::create_dir(&directory).is_err() {
                    continue; // the same hierarchy by another name
                }
                made.0.push(directory.clone());
                // A new cpuset of version 1 takes nobody before it has CPUs.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let above = directory.parent().expect("parent").join(file);
                    if let (Ok(value), true) =
                        (fs::read_to_string(above), directory.join(file).exists())
                    {
                        fs::write(directory.join(file), value.trim()).expect("cpuset");
                    }
                }
                for file in fs::read_dir(&directory).expect("list") {
                    chown(file.expect("file").path(), Some(USER), Some(USER)).expect("chown");
                }
                chown(&directory, Some(USER), Some(USER)).expect("chown");
            }
        }
        made
    }

    /// Runs this in it.
    fn run(&self, command: &Command) -> Said {
        let script = "for d; do [ \"$d\" = -- ] && break; echo $$ > $d/cgroup.procs || exit; done; \
                      while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]);
        shell.args(self.0.iter().filter(|one| one.ends_with("own")));
        shell
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        shell.current_dir(command.get_current_dir().expect("directory"));
        shell.env_remove("XDG_RUNTIME_DIR");
        shell.stdin(std::process::Stdio::null());
        shell.output().expect("shell").into()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The host's cgroups that belong to the user (CVE-2023-25809): without a cgroup namespace the
/// container sees its own under the host's names, and must not write there.
#[test]
fn cgroups_of_the_users_own() {
    let bundle = bundle("rootlesscgroup");
    let delegated = Delegated::new(&bundle);
    let mut list = bundle.config()["linux"]["namespaces"].clone();
    let kinds = list.as_array_mut().expect("list");
    kinds.retain(|one| one["type"] != "cgroup");
    let mut mounts = bundle.config()["mounts"].clone();
    for mount in mounts.as_array_mut().expect("list") {
        if mount["destination"] == "/sys" {
            // As where the container has the host's network.
            *mount = serde_json::json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
    }
    let path = format!("/{}/c", bundle.name);
    bundle.change(serde_json::json!({ "mounts": mounts,
        "linux": { "namespaces": list, "cgroupsPath": path } }));
    bundle.script(
        "busybox find /sys/fs/cgroup -type d > /tmp/seen; wc -l < /tmp/seen; \
         while read d; do mkdir $d/evil && echo made $d/evil; \
         echo $$ > $d/cgroup.procs && echo moved $d; done < /tmp/seen 2>/dev/null; true",
    );
    let said = delegated.run(&command(&bundle, &["run", "c"]));
    let (seen, harm) = said.ok().split_once('\n').unwrap_or((said.ok(), ""));
    assert_eq!(harm, "", "{said:?}");
    assert_ne!(seen.trim(), "0", "no cgroup to attack: {said:?}");
    bundle.assert_clean();
}
