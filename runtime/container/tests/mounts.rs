//! Mounts: attributes, ids, copies, propagation.

mod common;
use common::{Sandbox, mount};
use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    Spec,
};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

fn add(spec: &mut Spec, mounts: Vec<Mount>) {
    let mut all = spec.mounts().clone().unwrap_or_default();
    all.extend(mounts);
    spec.set_mounts(Some(all));
}

fn add_user_namespace(linux: &mut Linux) {
    let map = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(100_000u32)
        .size(65536u32);
    let map = Some(vec![map.build().expect("map")]);
    let user = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User);
    let mut list = linux.namespaces().clone().expect("namespaces");
    list.push(user.build().expect("namespace"));
    linux
        .set_namespaces(Some(list))
        .set_uid_mappings(map.clone())
        .set_gid_mappings(map);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// Runs `work` in a process with a mount namespace of its own, in which a tmpfs lies at `place`.
fn with_tmpfs<T: serde::Serialize + serde::de::DeserializeOwned>(
    place: &Path,
    shared: bool,
    work: impl FnOnce() -> T,
) -> T {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    fs::create_dir_all(place).expect("mkdir");
    common::in_process(|| {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("private");
        mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        if shared {
            mount(none, place, none, MsFlags::MS_SHARED, none).expect("shared");
        }
        work()
    })
}

#[test]
fn what_is_mounted_below_a_source() {
    let sandbox = Sandbox::new("below");
    let place = sandbox.dir.path().join("source/below");
    let outcomes = with_tmpfs(&place, false, || {
        fs::write(place.join("file"), "below").expect("write");
        let source = place.parent().expect("parent");
        let run = |options: &[&str], script: &str| {
            let mut spec = sandbox.script(script);
            add(
                &mut spec,
                vec![mount("/tmp", "bind", text(source), options)],
            );
            common::run_here(&spec, sandbox.options())
        };
        let write = "cat /tmp/below/file; touch /tmp/x 2>&1 && echo top; touch /tmp/below/x 2>&1 && echo below";
        [
            run(&["bind"], "ls /tmp/below"),
            run(&["rbind"], "cat /tmp/below/file"),
            run(&["rbind", "ro"], write),
            run(&["rbind", "rro"], write),
            run(&["rbind", "rnosuid", "rnoexec"], "cat /proc/self/mountinfo"),
        ]
    });
    let [bind, rbind, ro, rro, attributes] = &outcomes;
    assert_eq!(bind.ok(), "");
    assert_eq!(rbind.ok(), "below");
    assert!(
        ro.stdout.contains("below\n") && !ro.stdout.contains("top"),
        "{ro:?}"
    );
    assert!(ro.stdout.trim().ends_with("below"), "{ro:?}");
    assert!(
        !rro.stdout.contains("top") && !rro.stdout.trim().ends_with("below"),
        "{rro:?}"
    );
    let lines: Vec<_> = attributes
        .stdout
        .lines()
        .filter(|l| {
            l.split(' ')
                .nth(4)
                .is_some_and(|place| place.starts_with("/tmp"))
        })
        .collect();
    assert_eq!(lines.len(), 2, "{attributes:?}");
    assert!(
        lines
            .iter()
            .all(|l| l.contains("nosuid") && l.contains("noexec")),
        "{lines:?}"
    );
    sandbox.assert_clean();
}

#[test]
fn ids_of_a_mount() {
    let sandbox = Sandbox::new("idmap");
    let source = sandbox.dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    chown(&source, Some(0), Some(0)).expect("chown");
    fs::write(source.join("file"), "x").expect("write");
    chown(source.join("file"), Some(5), Some(6)).expect("chown");
    let map = |host: u32| -> Vec<LinuxIdMapping> {
        let line = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(host)
            .size(1000u32)
            .build();
        vec![line.expect("valid")]
    };
    let mut mapped = mount("/tmp", "bind", text(&source), &["bind", "idmap"]);
    mapped
        .set_uid_mappings(Some(map(2000)))
        .set_gid_mappings(Some(map(3000)));
    let mut plain = mount("/etc", "bind", text(&source), &["bind"]);
    plain.set_uid_mappings(None);
    let mut spec = sandbox.script("stat -c %u:%g /tmp/file /etc/file");
    add(&mut spec, vec![mapped, plain]);
    let outcome = sandbox.run(&spec);
    if outcome
        .error
        .as_ref()
        .is_some_and(|e| e.contains("does not support it"))
    {
        eprintln!(
            "skipped: the file system of {} has no id-mapped mounts",
            source.display()
        );
        return;
    }
    let owners: Vec<_> = outcome.ok().split_whitespace().collect();
    assert_eq!(owners, ["2005:3006", "5:6"]);
    sandbox.assert_clean();
}

#[test]
fn a_tmpfs_that_begins_with_what_it_covers() {
    let sandbox = Sandbox::new("copyup");
    let etc = sandbox.root().join("etc");
    fs::create_dir_all(etc.join("deep/er")).expect("mkdir");
    fs::write(etc.join("deep/er/file"), "content").expect("write");
    symlink("/outside", etc.join("link")).expect("symlink");
    let special = etc.join("special");
    fs::write(&special, "s").expect("write");
    chown(&special, Some(7), Some(8)).expect("chown");
    fs::set_permissions(&special, fs::Permissions::from_mode(0o4751)).expect("chmod");
    let mut spec = sandbox.script(
        "cat /etc/deep/er/file; echo; readlink /etc/link; stat -c %u:%g:%a /etc/special
         stat -c %Y /etc/passwd; touch /etc/new 2>/dev/null && echo new; grep ' /etc ' /proc/self/mountinfo",
    );
    let options = ["tmpcopyup", "nosuid", "mode=755"];
    add(&mut spec, vec![mount("/etc", "tmpfs", "tmpfs", &options)]);
    let outcome = sandbox.run(&spec);
    let lines: Vec<_> = outcome.ok().lines().collect();
    let time = fs::metadata(etc.join("passwd"))
        .and_then(|m| m.modified())
        .expect("time");
    let time = time
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after")
        .as_secs();
    let expected = ["content", "/outside", "7:8:4751", &time.to_string(), "new"];
    assert_eq!(lines[..5], expected, "{outcome:?}");
    assert!(lines[5].contains("nosuid"), "{outcome:?}");
    assert!(!etc.join("new").exists());
    // Read-only, it is filled all the same.
    let mut spec =
        sandbox.script("cat /etc/deep/er/file; touch /etc/new 2>/dev/null || echo refused");
    add(
        &mut spec,
        vec![mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup", "ro"])],
    );
    assert_eq!(sandbox.run(&spec).ok(), "contentrefused");
    sandbox.assert_clean();
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let sandbox = Sandbox::new("tmpmode");
    for name in ["plain", "asked", "copied", "owned"] {
        let place = sandbox.root().join(name);
        fs::create_dir(&place).expect("mkdir");
        chown(&place, Some(7), Some(8)).expect("chown");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o2751)).expect("chmod");
    }
    let mut spec = sandbox.script("stat -c %a:%u:%g /plain /asked /copied /owned /new");
    let tmpfs = |to: &str, options: &[&str]| mount(to, "tmpfs", "tmpfs", options);
    add(
        &mut spec,
        vec![
            tmpfs("/plain", &["size=64k"]),
            tmpfs("/asked", &["mode=700"]),
            tmpfs("/copied", &["tmpcopyup"]),
            tmpfs("/owned", &["tmpcopyup", "uid=9"]),
            tmpfs("/new", &[]),
        ],
    );
    let outcome = sandbox.run(&spec);
    let found: Vec<_> = outcome.ok().lines().collect();
    let expected = ["2751:0:0", "700:0:0", "2751:7:8", "2751:9:8", "1777:0:0"];
    assert_eq!(found, expected);
    sandbox.assert_clean();
}

#[test]
fn options_of_a_mount_of_cgroups() {
    let sandbox = Sandbox::new("cgroupmount");
    let run = |options: &[&str]| {
        let mut spec = sandbox.script(
            "for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do
                 if [ -d $d ] && mkdir $d/x; then echo made; fi
             done
             grep ' /sys/fs/cgroup' /proc/self/mountinfo",
        );
        let mut all = spec.mounts().clone().expect("mounts");
        all.retain(|m| m.destination() != Path::new("/sys/fs/cgroup"));
        all.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", options));
        spec.set_mounts(Some(all));
        sandbox.run(&spec)
    };
    let outcome = run(&["rro", "nosuid", "rshared"]);
    assert!(!outcome.stdout.contains("made"), "{outcome:?}");
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert!(!lines.is_empty(), "{outcome:?}");
    for line in lines {
        let fields: Vec<_> = line.split(' ').collect();
        assert!(fields[5].starts_with("ro,nosuid"), "{line}");
        assert!(line.contains(" shared:"), "{line}");
    }
    let error = run(&["readonly"]).error.expect("refused");
    assert!(error.contains("readonly"), "{error}");
    sandbox.assert_clean();
}

#[test]
fn a_bind_mount_by_its_type_alone() {
    let sandbox = Sandbox::new("bindtype");
    let source = sandbox.dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    let run = |options: &[&str]| {
        let mut spec = sandbox.script("touch /tmp/x 2>/dev/null && echo written; true");
        add(
            &mut spec,
            vec![mount("/tmp", "bind", text(&source), options)],
        );
        sandbox.run(&spec)
    };
    assert_eq!(run(&["ro"]).ok(), "");
    let error = run(&["readonly"]).error.expect("refused");
    assert!(
        error.contains("mounts[7].options") && error.contains("readonly"),
        "{error}"
    );
    sandbox.assert_clean();
}

#[test]
fn changes_to_a_mount() {
    let sandbox = Sandbox::new("remount");
    let mut spec = sandbox
        .script("grep ' /tmp ' /proc/self/mountinfo; touch /tmp/x 2>/dev/null || echo refused");
    add(
        &mut spec,
        vec![
            mount("/tmp", "tmpfs", "tmpfs", &["size=64k"]),
            mount(
                "/tmp",
                "tmpfs",
                "tmpfs",
                &["remount", "ro", "nodev", "size=128k"],
            ),
        ],
    );
    let outcome = sandbox.run(&spec);
    let text = outcome.ok();
    assert!(
        text.contains("ro,nodev") && text.contains("size=128k"),
        "{text}"
    );
    assert!(text.ends_with("refused"), "{text}");
    sandbox.assert_clean();
}

/// The host's directory may be named in any way that leads to one.
#[test]
fn a_source_with_dots() {
    let sandbox = Sandbox::new("dots");
    let source = sandbox.dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "found").expect("write");
    let mut spec = sandbox.script("cat /tmp/file");
    let dots = sandbox.dir.path().join("rootfs/../source");
    add(
        &mut spec,
        vec![mount("/tmp", "bind", text(&dots), &["rbind"])],
    );
    assert_eq!(sandbox.run(&spec).ok(), "found");
    sandbox.assert_clean();
}

#[test]
fn options_longer_than_fsconfig_takes() {
    let sandbox = Sandbox::new("long");
    let name = "n".repeat(200);
    let deep = sandbox.dir.path().join(&name).join(&name);
    fs::create_dir_all(&deep).expect("mkdir");
    fs::write(deep.join("file"), "from the layer").expect("write");
    let lower = format!("lowerdir={}:{}", deep.display(), sandbox.root().display());
    let mut spec = sandbox.script("cat /tmp/file; grep ' /tmp ' /proc/self/mountinfo");
    add(
        &mut spec,
        vec![mount(
            "/tmp",
            "overlay",
            "overlay",
            &[&lower, "ro", "nosuid"],
        )],
    );
    let outcome = sandbox.run(&spec);
    let text = outcome.ok();
    assert!(text.starts_with("from the layer"), "{outcome:?}");
    assert!(text.contains("ro,nosuid"), "{text}");
    sandbox.assert_clean();
}

/// What is mounted later on the host's side, and in the container.
#[test]
fn propagation() {
    let sandbox = Sandbox::new("propagation");
    let place = sandbox.dir.path().join("shared");
    let results = with_tmpfs(&place, true, || {
        ["rprivate", "rslave", "rshared"].map(|kind| {
            for directory in ["from-host", "from-inside"] {
                fs::create_dir_all(place.join(directory)).expect("mkdir");
            }
            let mut spec = sandbox.script(
                "mount -t tmpfs inside /tmp/from-inside && touch /tmp/from-inside/file
                 touch /tmp/ready; while [ ! -e /tmp/go ]; do sleep 0.05; done
                 [ -e /tmp/from-host/file ] && echo seen; true",
            );
            common::set_process(&mut spec, |p| {
                let admin = [
                    oci_spec::runtime::Capability::SysAdmin,
                    oci_spec::runtime::Capability::DacOverride,
                ];
                let sets = container::defaults::capability_sets(admin.into_iter().collect());
                p.set_capabilities(Some(sets));
            });
            common::set_linux(&mut spec, |linux| {
                linux.set_seccomp(None);
            });
            add(
                &mut spec,
                vec![mount("/tmp", "bind", text(&place), &["rbind", kind])],
            );
            let (out_read, out_write) = nix::unistd::pipe().expect("pipe");
            let mut options = sandbox.options();
            let null = container::Stdio::null().expect("null");
            options.stdio = Some(container::Stdio {
                stdout: out_write,
                ..null
            });
            let started = container::create(&spec, options).and_then(container::Created::start);
            let started = started.expect("started");
            common::until("the container", || place.join("ready").exists());
            let reached_host = place.join("from-inside/file").exists();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "none", text(&place.join("from-host"))])
                .status();
            assert!(mounted.expect("mount").success());
            fs::write(place.join("from-host/file"), "").expect("write");
            fs::write(place.join("go"), "").expect("write");
            let said = std::io::read_to_string(fs::File::from(out_read)).expect("read");
            container::process::wait_child(&started.pidfd).expect("wait");
            if let Some(cgroup) = started.cgroup {
                cgroup.delete().expect("delete");
            }
            for mounted in ["from-host", "from-inside"] {
                let _ = nix::mount::umount2(&place.join(mounted), nix::mount::MntFlags::MNT_DETACH);
            }
            for file in ["ready", "go"] {
                fs::remove_file(place.join(file)).expect("remove");
            }
            (kind.to_string(), said.trim().to_string(), reached_host)
        })
    });
    let expected = [
        ("rprivate", "", false),
        ("rslave", "seen", false),
        ("rshared", "seen", true),
    ];
    let expected = expected.map(|(kind, said, host)| (kind.to_string(), said.to_string(), host));
    assert_eq!(results, expected);
    sandbox.assert_clean();
}

#[test]
fn the_root_may_be_shared() {
    let sandbox = Sandbox::new("sharedroot");
    for (value, shared) in [("shared", true), ("private", false), ("unbindable", false)] {
        let mut spec =
            sandbox.script("grep ' / / ' /proc/self/mountinfo || head -1 /proc/self/mountinfo");
        common::set_linux(&mut spec, |linux| {
            linux.set_rootfs_propagation(Some(value.into()));
        });
        let outcome = sandbox.run(&spec);
        let line = outcome.ok();
        assert_eq!(line.contains("shared:"), shared, "{value}: {line}");
        assert_eq!(line.contains("unbindable"), value == "unbindable", "{line}");
        assert!(!line.contains("master:"), "{value}: {line}");
    }
    sandbox.assert_clean();
}

/// What the host mounts later on the root file system, and on a mount below it.
#[test]
fn the_root_may_be_a_slave() {
    let sandbox = Sandbox::new("slaveroot");
    let root = sandbox.root();
    let below = root.join("etc/below");
    fs::create_dir_all(&below).expect("mkdir");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("chmod");
    let results = common::in_process(|| {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        use nix::sched::{CloneFlags, unshare};
        let none = None::<&str>;
        let tmpfs = |place: &Path| {
            mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        };
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("private");
        mount(Some(&root), &root, none, MsFlags::MS_BIND, none).expect("bind");
        tmpfs(&below);
        let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
        mount(none, &root, none, shared, none).expect("shared");
        let cases = [
            ("rslave", false),
            ("slave", false),
            ("private", false),
            ("rshared", false),
            ("rslave", true),
        ];
        cases.map(|(value, user_namespace)| {
            let late = [root.join("tmp/late"), below.join("late")];
            for place in &late {
                fs::create_dir_all(place).expect("mkdir");
            }
            let mut spec = sandbox.script(
                "touch /ready; while [ ! -e /go ]; do sleep 0.05; done
                 for d in /tmp/late /etc/below/late; do [ -e $d/file ] && echo seen; done
                 grep -c 'shared:' /proc/self/mountinfo",
            );
            common::set_linux(&mut spec, |linux| {
                linux.set_rootfs_propagation(Some(value.into()));
                if user_namespace {
                    add_user_namespace(linux);
                }
            });
            let (out_read, out_write) = nix::unistd::pipe().expect("pipe");
            let mut options = sandbox.options();
            let null = container::Stdio::null().expect("null");
            options.stdio = Some(container::Stdio {
                stdout: out_write,
                ..null
            });
            let started = container::create(&spec, options).and_then(container::Created::start);
            let started = started.expect("started");
            common::until("the container", || root.join("ready").exists());
            for place in &late {
                tmpfs(place);
                fs::write(place.join("file"), "").expect("write");
            }
            fs::write(root.join("go"), "").expect("write");
            let said = std::io::read_to_string(fs::File::from(out_read)).expect("read");
            container::process::wait_child(&started.pidfd).expect("wait");
            if let Some(cgroup) = started.cgroup {
                cgroup.delete().expect("delete");
            }
            for place in &late {
                umount2(place, MntFlags::MNT_DETACH).expect("umount");
            }
            for file in ["ready", "go"] {
                fs::remove_file(root.join(file)).expect("remove");
            }
            (
                value.to_string(),
                said.replace('\n', " ").trim().to_string(),
            )
        })
    });
    let expected = [
        ("rslave", "seen seen 0"),
        ("slave", "seen seen 0"),
        ("private", "0"),
        // Among themselves: the root and what is below it, not with the host.
        ("rshared", "2"),
        // In a user namespace the root file system is opened outside.
        ("rslave", "seen seen 0"),
    ];
    let expected = expected.map(|(value, said)| (value.to_string(), said.to_string()));
    assert_eq!(results, expected);
    sandbox.assert_clean();
}

#[test]
fn nothing_may_pass_for_the_kernel() {
    let sandbox = Sandbox::new("procfiles");
    fs::write(sandbox.dir.path().join("uptime"), "1 2\n").expect("write");
    let source = sandbox.dir.path().join("uptime");
    let mut spec = sandbox.script("cat /proc/uptime");
    add(
        &mut spec,
        vec![mount("/proc/uptime", "bind", text(&source), &["bind"])],
    );
    assert_eq!(sandbox.run(&spec).ok(), "1 2");
    let mut spec = sandbox.script("true");
    add(
        &mut spec,
        vec![mount("/proc/self/status", "bind", text(&source), &["bind"])],
    );
    assert!(
        sandbox
            .run(&spec)
            .error
            .is_some_and(|e| e.contains("/proc/self/status"))
    );
    sandbox.assert_clean();
}
