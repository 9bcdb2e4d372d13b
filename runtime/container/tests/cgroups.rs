//! Limits, devices, counting and killing, on whichever layout this machine has.

mod common;
use common::{Sandbox, set_resources, until};
use container::cgroup::{Layout, LayoutKind, SHIMS, Version};
use container::{Cgroup, CgroupError};
use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources};
use std::fs;

const MIB: i64 = 1 << 20;

fn limits() -> LinuxResources {
    let mut resources = LinuxResources::default();
    let memory = LinuxMemoryBuilder::default()
        .limit(64 * MIB)
        .swap(64 * MIB)
        .reservation(32 * MIB);
    let cpu = LinuxCpuBuilder::default()
        .shares(512u64)
        .quota(50_000i64)
        .period(100_000u64)
        .cpus("0");
    resources
        .set_memory(Some(memory.build().expect("memory")))
        .set_cpu(Some(cpu.build().expect("cpu")))
        .set_pids(Some(
            LinuxPidsBuilder::default()
                .limit(20i64)
                .build()
                .expect("pids"),
        ));
    resources
}

fn value(cgroup: &Cgroup, controller: &str, v1: &str, v2: &str) -> String {
    let (version, dir) = cgroup.controller(controller).expect(controller);
    let file = if version == Version::V1 { v1 } else { v2 };
    fs::read_to_string(dir.join(file))
        .expect(file)
        .trim()
        .to_string()
}

#[test]
fn limits_are_in_the_files() {
    let sandbox = Sandbox::new("limits");
    let cgroup = Cgroup::create(&sandbox.parent, "task", &limits()).expect("create");
    let number = |v: String| v.parse::<i64>().expect("number");
    assert_eq!(
        number(value(
            &cgroup,
            "memory",
            "memory.limit_in_bytes",
            "memory.max"
        )),
        64 * MIB
    );
    assert_eq!(
        number(value(
            &cgroup,
            "memory",
            "memory.soft_limit_in_bytes",
            "memory.low"
        )),
        32 * MIB
    );
    let (version, dir) = cgroup.controller("memory").expect("memory");
    let (file, expected) = match version {
        Version::V1 => ("memory.memsw.limit_in_bytes", 64 * MIB),
        Version::V2 => ("memory.swap.max", 0),
    };
    assert_eq!(
        number(
            fs::read_to_string(dir.join(file))
                .expect("swap")
                .trim()
                .into()
        ),
        expected
    );
    assert_eq!(value(&cgroup, "pids", "pids.max", "pids.max"), "20");
    assert_eq!(value(&cgroup, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    match version {
        Version::V1 => {
            assert_eq!(value(&cgroup, "cpu", "cpu.shares", ""), "512");
            assert_eq!(value(&cgroup, "cpu", "cpu.cfs_quota_us", ""), "50000");
        }
        Version::V2 => {
            assert_eq!(value(&cgroup, "cpu", "", "cpu.weight"), "59");
            assert_eq!(value(&cgroup, "cpu", "", "cpu.max"), "50000 100000");
        }
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn every_hierarchy_has_the_process() {
    let sandbox = Sandbox::new("attached");
    let mut spec = sandbox.script("cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1");
    set_resources(&mut spec, |r| {
        let devices = r.devices().clone();
        *r = limits();
        r.set_devices(devices);
    });
    let outcome = sandbox.run(&spec);
    // The cgroup namespace shows each as the root.
    for line in outcome.ok().lines().take_while(|l| l.contains(':')) {
        assert!(line.ends_with(":/"), "{line}");
    }
    assert!(
        outcome.stdout.trim_end().ends_with("\n1"),
        "process 1 is listed: {outcome:?}"
    );
    if Layout::detect().expect("layout").kind() != LayoutKind::V2 {
        assert!(outcome.stdout.contains("memory\n") && outcome.stdout.contains("pids\n"));
    }
    sandbox.assert_clean();
}

#[test]
fn without_a_cgroup_namespace_only_its_own_is_seen() {
    let sandbox = Sandbox::new("nocgroupns");
    let mut spec = sandbox.script(
        "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null | head -1; mkdir /sys/fs/cgroup/x",
    );
    common::set_linux(&mut spec, |linux| {
        let mut list = linux.namespaces().clone().expect("namespaces");
        list.retain(|n| n.typ() != oci_spec::runtime::LinuxNamespaceType::Cgroup);
        linux.set_namespaces(Some(list));
    });
    let options = |layout: &Layout| {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let lines = mountinfo.lines().filter(|line| {
            layout
                .hierarchies
                .iter()
                .any(|h| line.contains(&format!(" {} ", h.mountpoint.display())))
        });
        lines.map(String::from).collect::<Vec<_>>()
    };
    let layout = Layout::detect().expect("layout");
    let before = options(&layout);
    let outcome = sandbox.run(&spec);
    assert_eq!(outcome.stdout, "1\n", "process 1 alone: {outcome:?}");
    assert!(
        outcome.stderr.to_lowercase().contains("read-only"),
        "{outcome:?}"
    );
    assert_eq!(
        options(&layout),
        before,
        "the machine's own mounts are as they were"
    );
    sandbox.assert_clean();
}

#[test]
fn out_of_memory_is_counted() {
    let sandbox = Sandbox::new("oom");
    let mut spec = sandbox.command(&["/bin/tail", "/dev/zero"]);
    set_resources(&mut spec, |r| {
        let memory = LinuxMemoryBuilder::default().limit(16 * MIB).swap(16 * MIB);
        r.set_memory(Some(memory.build().expect("memory")));
    });
    let outcome = sandbox.run(&spec);
    assert_eq!(
        (outcome.code, outcome.signal),
        (137, Some(9)),
        "{outcome:?}"
    );
    assert!(outcome.oom_kills >= 1, "{outcome:?}");
    let calm = sandbox.run(&sandbox.script("true"));
    assert_eq!(calm.oom_kills, 0);
    sandbox.assert_clean();
}

#[test]
fn a_fork_bomb_is_stopped() {
    let sandbox = Sandbox::new("bomb");
    let mut spec = sandbox.script("i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done");
    set_resources(&mut spec, |r| {
        r.set_pids(Some(
            LinuxPidsBuilder::default()
                .limit(20i64)
                .build()
                .expect("pids"),
        ));
    });
    let outcome = sandbox.run(&spec);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    sandbox.assert_clean();
}

#[test]
fn devices_are_filtered() {
    let sandbox = Sandbox::new("devices");
    let script = "cd /tmp; mknod null2 c 1 3 && cat null2 && echo x > null2 && echo null; \
                  mknod mem c 1 1 && echo made; dd if=mem of=/dev/null bs=1 count=1 2>&1 | grep -c -i 'not permitted'; \
                  mknod disk b 7 0 && cat disk";
    let outcome = sandbox.run(&sandbox.script(script));
    assert_eq!(outcome.stdout, "null\nmade\n1\n", "{outcome:?}");
    assert!(
        outcome.stderr.to_lowercase().contains("not permitted"),
        "{outcome:?}"
    );
}

/// As podman asks for it.
#[test]
fn the_devices_of_every_container_can_be_used_whatever_the_rules_say() {
    let sandbox = Sandbox::new("owndevices");
    let mut spec = sandbox.script(
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c && echo > /dev/ptmx && echo terminal; \
         mknod /tmp/mem c 1 1 && cat /tmp/mem",
    );
    let rules = serde_json::from_str(r#"[{"allow":false,"access":"rwm"}]"#).expect("rules");
    set_resources(&mut spec, |r| {
        r.set_devices(Some(rules));
    });
    let outcome = sandbox.run(&spec);
    assert_eq!(outcome.stdout, "2\nterminal\n", "{outcome:?}");
    assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
}

/// Neither an empty list nor none at all opens the devices of the machine. The one that is tried has
/// no driver, so that the answer tells who refused it.
#[test]
fn without_rules_only_the_devices_of_every_container_can_be_used() {
    let sandbox = Sandbox::new("norules");
    let none: [Option<LinuxResources>; 2] = [None, Some(LinuxResources::default())];
    for (i, resources) in none.into_iter().enumerate() {
        let mut spec = sandbox.script(&format!(
            "echo x > /dev/null && head -c 2 /dev/zero | wc -c; \
             mknod /tmp/none{i} c 1 2 && cat /tmp/none{i}"
        ));
        common::set_linux(&mut spec, |linux| {
            linux.set_resources(resources);
        });
        let outcome = sandbox.run(&spec);
        assert_eq!(outcome.stdout, "2\n", "{outcome:?}");
        assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
    }
    sandbox.assert_clean();
}

/// On a machine with both versions, the filter of version 2 is tried by hiding version 1.
#[test]
fn devices_are_filtered_by_the_program() {
    let layout = Layout::detect().expect("layout");
    let Some(v2) = layout.hierarchies.iter().find(|h| h.version == Version::V2) else {
        eprintln!("this machine has no version 2 hierarchy");
        return;
    };
    let sandbox = Sandbox::new("bpf");
    let script = "cd /tmp; mknod null2 c 1 3 && echo x > null2 && echo null; mknod mem c 1 1 && echo made; cat mem";
    let spec = sandbox.script(script);
    let options = sandbox.options();
    let outcome = common::in_process(|| {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        for hierarchy in layout
            .hierarchies
            .iter()
            .filter(|h| h.mountpoint != v2.mountpoint)
        {
            umount2(&hierarchy.mountpoint, MntFlags::MNT_DETACH).expect("umount");
        }
        assert_eq!(Layout::detect().expect("layout").kind(), LayoutKind::V2);
        common::run_here(&spec, options)
    });
    assert_eq!(outcome.stdout, "null\nmade\n", "{outcome:?}");
    assert!(
        outcome.stderr.to_lowercase().contains("not permitted"),
        "{outcome:?}"
    );
    sandbox.assert_clean();
}

#[test]
fn kill_and_delete() {
    let sandbox = Sandbox::new("kill");
    let cgroup =
        Cgroup::create(&sandbox.parent, "task", &LinuxResources::default()).expect("create");
    // Its own session, so that nothing but the cgroup ties these together.
    let mut child = std::process::Command::new("setsid")
        .args([
            "sh",
            "-c",
            "read go; sleep 60 & sleep 60 & (sleep 60 & sleep 60); wait",
        ])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    cgroup.attach(child.id() as i32).expect("attach");
    drop(child.stdin.take()); // go
    until("forked", || cgroup.procs().expect("procs").len() >= 5);
    assert!(cgroup.memory_current().expect("memory").is_some());
    let again = Cgroup::open(&sandbox.parent, "task").expect("open");
    assert_eq!(
        again.procs().expect("procs"),
        cgroup.procs().expect("procs")
    );
    std::thread::spawn(move || child.wait()); // or the zombie would stay a member
    again.kill().expect("kill");
    assert_eq!(cgroup.procs().expect("procs"), Vec::<i32>::new());
    cgroup.delete().expect("delete");
    again.delete().expect("what is gone is no error");
    assert!(matches!(
        Cgroup::open(&sandbox.parent, "task"),
        Err(CgroupError::NotFound(_))
    ));
    sandbox.assert_clean();
}

#[test]
fn children_are_deleted_first() {
    let sandbox = Sandbox::new("nested");
    let cgroup =
        Cgroup::create(&sandbox.parent, "task", &LinuxResources::default()).expect("create");
    for hierarchy in Layout::detect().expect("layout").hierarchies {
        let task = hierarchy
            .mountpoint
            .join(sandbox.parent.trim_start_matches('/'))
            .join("task");
        fs::create_dir_all(task.join("a/b")).expect("mkdir");
    }
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}

#[test]
fn a_limit_that_the_kernel_refuses() {
    let sandbox = Sandbox::new("badlimit");
    let mut resources = LinuxResources::default();
    let cpu = LinuxCpuBuilder::default().cpus("9999");
    resources.set_cpu(Some(cpu.build().expect("cpu")));
    let error = Cgroup::create(&sandbox.parent, "task", &resources).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("cpuset.cpus") && text.contains("9999"),
        "{text}"
    );
    sandbox.assert_clean();
}

#[test]
fn runtime_processes_and_the_parent() {
    let sandbox = Sandbox::new("enter");
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("spawn");
    let pid = child.id() as i32;
    container::cgroup::enter(&sandbox.parent, SHIMS, pid).expect("enter");
    container::cgroup::enter(&sandbox.parent, SHIMS, pid).expect("twice");
    let shims = Cgroup::open(&sandbox.parent, SHIMS).expect("open");
    assert_eq!(shims.procs().expect("procs"), [pid]);
    child.kill().expect("kill");
    child.wait().expect("wait");
    container::cgroup::remove_parent(&sandbox.parent).expect("remove");
    assert!(matches!(
        Cgroup::open(&sandbox.parent, SHIMS),
        Err(CgroupError::NotFound(_))
    ));
}

/// Version 2 forbids processes beside children with controllers; nobody is moved to make room.
#[test]
fn processes_in_the_parent_itself() {
    if Layout::detect().expect("layout").kind() != LayoutKind::V2 {
        eprintln!("this machine has version 1");
        return;
    }
    let sandbox = Sandbox::new("internal");
    let dir = std::path::Path::new("/sys/fs/cgroup").join(sandbox.parent.trim_start_matches('/'));
    fs::create_dir(&dir).expect("mkdir");
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("spawn");
    fs::write(dir.join("cgroup.procs"), child.id().to_string()).expect("attach");
    let error = Cgroup::create(&sandbox.parent, "task", &limits()).expect_err("refused");
    let procs = fs::read_to_string(dir.join("cgroup.procs")).expect("procs");
    let control = fs::read_to_string(dir.join("cgroup.subtree_control")).expect("control");
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(
        matches!(error, CgroupError::InternalProcesses { .. }),
        "{error}"
    );
    assert_eq!(
        (procs.trim(), control.trim()),
        (child.id().to_string().as_str(), "")
    );
    sandbox.assert_clean();
}
