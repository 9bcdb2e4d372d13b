//! podman with `--cgroup-manager systemd`.

use crate::common::{RUNTIME, Said, until};
use crate::init::Init;
use std::fs;
use std::path::Path;

/// Limits that need no privileges: podman's own are higher than some machines allow.
const CONFIG: &str = "[containers]\n\
    default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
    netns = \"none\"\n\
    [engine]\n\
    cgroup_manager = \"systemd\"\n\
    events_logger = \"file\"\n";

#[test]
fn podman_has_units_made() {
    for program in ["/usr/bin/podman", "/usr/bin/conmon"] {
        if !Path::new(program).exists() {
            let ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!ci, "{program} is missing: run scripts/setup --test");
            eprintln!("skipped: {program} is missing: run scripts/setup --test");
            return;
        }
    }
    let Some(init) = Init::new("sdpodman") else {
        return;
    };
    // podman talks to systemd over the bus.
    let bus = "cp /lib/systemd/system/dbus.service /lib/systemd/system/dbus.socket /run/units/ \
        && systemctl daemon-reload && systemctl start dbus.socket dbus.service \
        && mkdir -p /var/lib/containers && mount -t tmpfs cache /var/lib/containers";
    init.run(&["sh", "-c", bus]).ok();
    let bundle = crate::common::Bundle::new("sdpodman");
    let dir = bundle.dir.path();
    let text = |name: &str| dir.join(name).to_str().expect("utf-8").to_string();
    fs::write(dir.join("containers.conf"), CONFIG).expect("write");
    let config = format!("CONTAINERS_CONF={}", text("containers.conf"));
    let (storage, run, tmp, rootfs) = (text("storage"), text("run"), text("tmp"), text("rootfs"));
    let home = format!("HOME={}", dir.display());
    let podman = |words: &[&str]| -> Said {
        let own = [
            "env",
            &config,
            &home,
            "podman",
            "--root",
            &storage,
            "--runroot",
            &run,
            "--tmpdir",
            &tmp,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "systemd",
            "--runtime",
            RUNTIME,
        ];
        init.run(&[&own, words].concat())
    };
    let limits = ["--memory", "50m", "--pids-limit", "99"];
    let create = [
        &[
            "run",
            "--detach",
            "--name",
            "c",
            "--network",
            "none",
            "--stop-timeout",
            "1",
        ],
        &limits[..],
        &["--rootfs", &rootfs, "sleep", "1000"],
    ];
    let id = podman(&create.concat()).ok().to_string();
    let unit = format!("libpod-{id}.scope");
    assert_eq!(init.property(&unit, "Slice"), "machine.slice");
    assert_eq!(init.property(&unit, "TasksMax"), "99");
    assert_eq!(init.property(&unit, "TasksCurrent"), "1");
    let cgroup = format!("/machine.slice/{unit}");
    assert_eq!(init.property(&unit, "ControlGroup"), cgroup);
    let memory = init.limit(&cgroup, "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, "52428800");
    assert_eq!(podman(&["exec", "c", "echo", "hi"]).ok(), "hi");
    let left = podman(&["inspect", "--format", "{{.State.Status}}", "c"]);
    assert_eq!(left.ok(), "running");
    podman(&["stop", "c"]).ok();
    podman(&["rm", "-f", "c"]).ok();
    until("the end of the unit", || !init.knows(&unit));
    assert!(init.cgroups(&cgroup).is_empty());
    // In the foreground, with an exit code.
    let script = ["--rootfs", &rootfs, "sh", "-c", "exit 7"];
    let run = [&["run", "--rm", "--network", "none"], &script[..]].concat();
    assert_eq!(podman(&run).code, 7);
}
