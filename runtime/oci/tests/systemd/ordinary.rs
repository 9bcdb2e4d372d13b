//! An ordinary user's own systemd.

use crate::common::{RUNTIME, Said, until};
use crate::init::Machine;
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;

/// `daemon`: systemd runs services only for users that there are.
const USER: u32 = 1;

/// A service manager of the user's, as logging in would start it.
fn begin(machine: &Machine) {
    let script = format!(
        "mkdir -p /run/user/{USER} && chown {USER}:{USER} /run/user/{USER} \
         && chmod 700 /run/user/{USER} \
         && systemd-run --unit=user-manager --uid={USER} --gid={USER} \
            --slice=user-{USER}.slice -p Delegate=yes -p Type=notify -p NotifyAccess=all \
            -E XDG_RUNTIME_DIR=/run/user/{USER} -E HOME=/run/user/{USER} \
            -E SYSTEMD_UNIT_PATH=/run/user/{USER}/systemd/transient:/run/units \
            -E SYSTEMD_USER_GENERATOR_PATH=/run/none -E SYSTEMD_GENERATOR_PATH=/run/none \
            {manager} --user --log-target=console",
        manager = "/lib/systemd/systemd"
    );
    machine.run(&["sh", "-c", &script]).ok();
    let socket = format!("/run/user/{USER}/systemd/private");
    until("the user's systemd", || machine.inside(&socket).exists());
}

/// A command of the user's, as a service of the user's.
fn as_user(machine: &Machine, words: &[&str]) -> Said {
    let (id, directory) = (
        USER.to_string(),
        format!("XDG_RUNTIME_DIR=/run/user/{USER}"),
    );
    let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    // A unit of this type is started when its command has ended. (To wait for the end of others, or
    // to pass descriptors, systemd-run wants a bus.)
    let line = format!(
        "systemd-run --user --quiet --service-type=oneshot --collect -p StandardOutput=file:/run/user/{USER}/out \
         -p StandardError=file:/run/user/{USER}/err -- {}",
        words.join(" ")
    );
    let mut said = machine.run(&[
        "setpriv",
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "env",
        &directory,
        "sh",
        "-c",
        &line,
    ]);
    let take = |name: &str| {
        let path = machine.inside(&format!("/run/user/{USER}/{name}"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text
    };
    said.stdout += &take("out");
    said.stderr += &take("err");
    said
}

#[test]
fn a_user_has_units_of_its_own() {
    let Some(machine) = Machine::new("user") else {
        return;
    };
    if !machine.inside("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("skipped: an ordinary user is given controllers by cgroup version 2 alone");
        return;
    }
    begin(&machine);
    let bundle = &machine.bundle;
    let (root, state) = (bundle.root(), bundle.state());
    fs::create_dir(&state).expect("mkdir");
    chown(&state, Some(USER), Some(USER)).expect("chown");
    chown(&root, Some(USER), Some(USER)).expect("chown");
    // As `spec --rootless` has it, with limits.
    fs::remove_file(bundle.dir.path().join("config.json")).expect("remove");
    let spec = ["spec", "--rootless", "--bundle", bundle.path()];
    bundle.oci(&spec).ok();
    let map = |id| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    bundle.change(json!({ "linux": {
        "uidMappings": map(USER),
        "gidMappings": map(USER),
        "cgroupsPath": "x-y.slice:fl:user",
        "resources": { "memory": { "limit": 50 << 20 }, "pids": { "limit": 44 } },
    } }));
    bundle.script("cat /proc/self/cgroup; sleep 1000");
    let state = state.to_str().expect("utf-8").to_string();
    let oci = |args: &[&str]| {
        let first = [RUNTIME, "--systemd-cgroup", "--root", &state];
        as_user(&machine, &[&first, args].concat())
    };
    let created = oci(&["create", "--bundle", bundle.path(), "u"]);
    created.ok();
    oci(&["start", "u"]).ok();
    let (id, directory) = (
        USER.to_string(),
        format!("XDG_RUNTIME_DIR=/run/user/{USER}"),
    );
    let property = |name: &str| {
        let words = [
            "setpriv",
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "env",
            &directory,
            "systemctl",
            "--user",
            "show",
            "--value",
            "-p",
            name,
            "fl-user.scope",
        ];
        machine.run(&words).ok().to_string()
    };
    let cgroup = property("ControlGroup");
    assert_eq!(
        cgroup,
        format!(
            "/user.slice/user-{USER}.slice/user-manager.service/x.slice/x-y.slice/fl-user.scope"
        )
    );
    assert_eq!(property("MemoryMax"), "52428800");
    assert_eq!(machine.limit(&cgroup, "-", "memory.max"), "52428800");
    assert_eq!(machine.limit(&cgroup, "-", "pids.max"), "44");
    assert_eq!(machine.limit(&cgroup, "-", "pids.current"), "1");
    oci(&["update", "--pids-limit", "33", "u"]).ok();
    assert_eq!(property("TasksMax"), "33");
    assert_eq!(machine.limit(&cgroup, "-", "pids.max"), "33");
    oci(&["delete", "--force", "u"]).ok();
    assert_eq!(property("ActiveState"), "inactive");
    assert!(machine.cgroups(&cgroup).is_empty());
    assert_eq!(oci(&["list", "-q"]).ok(), "");
}
