//! Cgroups that are not the container's.

use super::common::{Bundle, until};
use super::running;
use serde_json::json;
use std::fs;
use std::process::{Child, Command};

#[test]
fn paths_that_lead_elsewhere() {
    let bundle = Bundle::new("cgpath");
    bundle.args(&["/bin/true"]);
    for path in [
        "/..",
        "/../x",
        "../../x",
        "/a/../../x",
        "/",
        ".",
        "/a b",
        "/a\n",
        "/a\u{0}b",
    ] {
        bundle.change(json!({ "linux": { "cgroupsPath": path } }));
        bundle.oci(&["run", "c"]).refused(&["cgroup path"]);
    }
    // The runtime's own, as far as that is not the root.
    let own = fs::read_to_string("/proc/self/cgroup").expect("read");
    for line in own.lines() {
        let path = line.splitn(3, ':').nth(2).expect("path");
        if path != "/" {
            bundle.change(json!({ "linux": { "cgroupsPath": path } }));
            let said = bundle.oci(&["run", "c"]);
            assert_ne!(said.code, 0, "{path}: {said:?}");
        }
    }
    bundle.assert_clean();
}

#[test]
fn exec_above_its_own() {
    let bundle = running("cgexec", &["/bin/sleep", "600"]);
    for path in ["..", "../..", "/", "/..", "a/../..", "", "no-such"] {
        let said = bundle.oci(&["exec", "--cgroup", path, "c", "/bin/true"]);
        assert_ne!(said.code, 0, "{path}: {said:?}");
    }
}

/// Somebody's process in a cgroup of its own.
struct Stranger {
    child: Child,
    cgroup: container::Cgroup,
}

impl Stranger {
    fn new(bundle: &Bundle) -> Self {
        let made =
            container::Cgroup::create(&format!("/{}", bundle.name), "c", &Default::default());
        let cgroup = made.expect("cgroup");
        let child = Command::new("sleep").arg("600").spawn().expect("sleep");
        cgroup.attach(child.id() as i32).expect("attach");
        Self { child, cgroup }
    }

    fn assert_alive(&mut self, when: &str) {
        assert!(
            self.child.try_wait().expect("wait").is_none(),
            "killed: {when}"
        );
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.cgroup.clone().delete();
    }
}

/// A creation that was killed before it could be refused has noted a cgroup that is not its own.
#[test]
fn one_that_was_noted_and_is_somebody_elses() {
    let bundle = Bundle::new("cgnoted");
    bundle.args(&["/bin/true"]);
    let mut stranger = Stranger::new(&bundle);
    assert_ne!(bundle.create("c", &[]).code, 0);
    stranger.assert_alive("by a creation that was refused");
    let entry = bundle.state().join("c");
    for process in [
        "null",
        "[1, 1]",
        "[-1, 0]",
        "[2147483647, 18446744073709551615]",
    ] {
        fs::create_dir_all(&entry).expect("mkdir");
        let text = format!(
            r#"{{"id":"c","bundle":"/","rootfs":"/","created":"","owner":0,
                "cgroup":{{"parent":"/{}","name":"c"}},"process":{process}}}"#,
            bundle.name
        );
        fs::write(entry.join("state.json"), text).expect("write");
        fs::copy(
            bundle.dir.path().join("config.json"),
            entry.join("config.json"),
        )
        .expect("copy");
        let said = bundle.oci(&["delete", "--force", "c"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("its cgroup stays"), "{said:?}");
        stranger.assert_alive(process);
        assert!(!entry.exists());
    }
    // Without a state there is nothing to go by but the configuration.
    fs::create_dir_all(&entry).expect("mkdir");
    fs::write(entry.join("state.json"), "{").expect("write");
    fs::copy(
        bundle.dir.path().join("config.json"),
        entry.join("config.json"),
    )
    .expect("copy");
    let pid = stranger.child.id().to_string();
    bundle
        .oci(&["delete", "--force", "c"])
        .refused(&["cannot be told", &pid]);
    stranger.assert_alive("by a damaged state");
    drop(stranger);
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

/// A container that has ended leaves its cgroup, and another may use that.
#[test]
fn one_that_another_container_has_now() {
    let bundle = running("cgtaken", &["/bin/sleep", "600"]);
    bundle.oci(&["kill", "c", "KILL"]).ok();
    until("its end", || bundle.status("c") == "stopped");
    until("its cgroup", || bundle.create("d", &[]).code == 0);
    bundle.oci(&["start", "d"]).ok();
    bundle.oci(&["delete", "c"]).ok();
    assert_eq!(bundle.status("d"), "running");
    bundle.oci(&["delete", "--force", "d"]).ok();
    bundle.assert_clean();
}

/// Nor do signals for all processes of one that has ended go to those of the other, or new limits; and
/// where it had no PID namespace of its own neither are they deleted with it.
#[test]
fn signals_for_one_whose_cgroup_another_has_now() {
    for (name, own_pids) in [("cgsignal", true), ("cgsignalhost", false)] {
        let bundle = Bundle::new(name);
        bundle.args(&["/bin/sleep", "600"]);
        if !own_pids {
            without_pids(&bundle);
        }
        assert_eq!(bundle.create("c", &[]).code, 0);
        bundle.oci(&["start", "c"]).ok();
        bundle.oci(&["kill", "c", "KILL"]).ok();
        until("its end", || bundle.status("c") == "stopped");
        until("its cgroup", || bundle.create("d", &[]).code == 0);
        bundle.oci(&["start", "d"]).ok();
        bundle.oci(&["kill", "--all", "c", "KILL"]);
        bundle.oci(&["kill", "c", "KILL"]).refused(&["not running"]);
        let update = bundle.oci(&["update", "--pids-limit", "9", "c"]);
        update.refused(&["not running"]);
        bundle.oci(&["delete", "c"]).ok();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(bundle.status("d"), "running", "{name}");
        bundle.oci(&["kill", "--all", "d", "KILL"]).ok();
        until("its end", || bundle.status("d") == "stopped");
        bundle.oci(&["delete", "d"]).ok();
        bundle.assert_clean();
    }
}

/// What outlives the first process is still the container's.
#[test]
fn signals_for_what_is_left_of_one() {
    let bundle = Bundle::new("cgleft");
    bundle.script("sleep 600 & exit 0");
    without_pids(&bundle);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    until("its end", || bundle.status("c") == "stopped");
    let cgroup = container::Cgroup::open(&format!("/{}", bundle.name), "c").expect("cgroup");
    assert_eq!(cgroup.procs().expect("processes").len(), 1);
    bundle.oci(&["kill", "--all", "c", "KILL"]).ok();
    until("their end", || {
        cgroup.procs().expect("processes").is_empty()
    });
    bundle.oci(&["delete", "c"]).ok();
    bundle.assert_clean();
}

fn without_pids(bundle: &Bundle) {
    let mut list = bundle.config()["linux"]["namespaces"].clone();
    let kinds = list.as_array_mut().expect("list");
    kinds.retain(|one| one["type"] != "pid");
    bundle.change(json!({ "linux": { "namespaces": list } }));
}
