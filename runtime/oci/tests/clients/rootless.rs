//! podman of an ordinary user.

use crate::common::{Ended, Place, RUNTIME, left_out, write};
use std::fs;
use std::os::unix::fs::lchown;
use std::path::PathBuf;

const USER: u32 = 12_345;

/// Limits that need no privileges: podman's own are higher than some machines allow.
const CONFIG: &str = "[containers]\n\
    default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
    netns = \"none\"\n\
    [engine]\n\
    cgroup_manager = \"cgroupfs\"\n\
    events_logger = \"file\"\n";

#[test]
fn podman_of_an_ordinary_user() {
    if left_out() {
        return;
    }
    let Some(place) = Place::new("podmanuser", &["podman", "conmon", "setpriv", "newuidmap"])
    else {
        return;
    };
    // The user and ids for its containers are known to the place only.
    let users = fs::read_to_string("/etc/passwd").expect("passwd");
    let home = place.text("home");
    let user = format!("web:x:{USER}:{USER}::{home}:/bin/sh\n{users}");
    write(&place.path("passwd"), &user);
    write(&place.path("ids"), "web:200000:65536\n");
    for (from, to) in [("passwd", "passwd"), ("ids", "subuid"), ("ids", "subgid")] {
        let script = format!("mount --bind {} /etc/{to}", place.text(from));
        place.run(&["sh", "-c", &script]).ok();
    }
    write(&place.path("containers.conf"), CONFIG);
    // Where the user can reach it.
    let runtime = place.text("oci");
    place.run(&["cp", RUNTIME, &runtime]).ok();
    let image = place.rootfs("image");
    for name in ["home", "own"] {
        fs::create_dir(place.path(name)).expect("mkdir");
    }
    own(["home", "own", "image"].map(|name| place.path(name)).into());
    let (config, id) = (place.text("containers.conf"), USER.to_string());
    let podman = |words: &[&str]| -> Ended {
        let config = format!("CONTAINERS_CONF={config}");
        let own = format!("XDG_RUNTIME_DIR={}", place.text("own"));
        let (home, directory) = (format!("HOME={home}"), format!("--chdir={home}"));
        let first = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
        let env = ["env", &directory, &config, &own, &home, "podman"];
        let options = ["--storage-driver", "vfs", "--runtime", &runtime];
        place.run(&[&first[..], &env, &options, words].concat())
    };
    // Without cgroups of version 2, podman would leave it in the host's namespace: nothing to show.
    let run = |options: &[&str], program: &[&str]| {
        let first = ["run", "--cgroupns", "private"];
        podman(&[&first[..], options, &["--rootfs", &image], program].concat())
    };
    let script = "id -u; cat /proc/self/uid_map; exit 7";
    let said = run(&["--rm"], &["sh", "-c", script]);
    let words: Vec<_> = said.out.split_whitespace().take(4).collect();
    assert_eq!(words, ["0", "0", "12345", "1"], "{said:?}");
    assert_eq!(said.code, 7, "{said:?}");
    run(&["--detach", "--name", "one"], &["sleep", "600"]).ok();
    assert!(place.path("own/fairlead-oci").is_dir());
    assert_eq!(
        podman(&["exec", "one", "cat", "/proc/1/comm"]).ok(),
        "sleep"
    );
    podman(&["rm", "--force", "--time", "0", "one"]).ok();
    let left = fs::read_dir(place.path("own/fairlead-oci")).expect("state");
    let names = left.map(|entry| entry.expect("entry").file_name());
    let names: Vec<_> = names.filter(|name| name != ".seccomp").collect();
    assert!(names.is_empty(), "{names:?}");
}

/// Gives all of this to the user.
fn own(mut places: Vec<PathBuf>) {
    while let Some(place) = places.pop() {
        lchown(&place, Some(USER), Some(USER)).expect("chown");
        if place.symlink_metadata().expect("stat").is_dir() {
            let entries = fs::read_dir(&place).expect("list");
            places.extend(entries.map(|entry| entry.expect("entry").path()));
        }
    }
}
