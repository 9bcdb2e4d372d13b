//! What a program in a container sees, and what it does not.

mod common;
use common::{Sandbox, mount, set_linux, set_process};
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn all_six_namespaces_differ() {
    let sandbox = Sandbox::new("namespaces");
    let script = "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let outcome = sandbox.run(&sandbox.script(script));
    let inside: Vec<_> = outcome.ok().lines().map(String::from).collect();
    assert_eq!(inside.len(), 6);
    for (name, inside) in ["pid", "mnt", "net", "ipc", "uts", "cgroup"]
        .iter()
        .zip(inside)
    {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("ns");
        assert_ne!(host.to_string_lossy(), inside, "{name}");
    }
    sandbox.assert_clean();
}

#[test]
fn process_one_of_a_new_session() {
    let sandbox = Sandbox::new("session");
    let outcome = sandbox.run(&sandbox.script("echo $$; cat /proc/1/stat"));
    let lines: Vec<_> = outcome.ok().lines().collect();
    assert_eq!(lines[0], "1");
    let fields: Vec<_> = lines[1].split(' ').collect();
    assert_eq!(fields[5], "1", "session: {}", lines[1]);
}

#[test]
fn no_path_of_the_host() {
    let sandbox = Sandbox::new("pivot");
    let outcome = sandbox.run(&sandbox.script("ls /; echo --; cat /proc/self/mountinfo"));
    let (files, mounts) = outcome.ok().split_once("--").expect("both");
    let files: Vec<_> = files.split_whitespace().collect();
    assert_eq!(files, ["bin", "dev", "etc", "proc", "sys", "tmp"]);
    for line in mounts.trim().lines() {
        let place = line.split(' ').nth(4).expect("mount point");
        let known = ["/", "/proc", "/dev", "/sys"];
        assert!(
            known
                .iter()
                .any(|k| *k == place || place.starts_with(&format!("{k}/"))),
            "{line}"
        );
    }
    assert_eq!(
        mounts
            .lines()
            .filter(|l| l.split(' ').nth(4) == Some("/"))
            .count(),
        1,
        "{mounts}"
    );
    sandbox.assert_clean();
}

/// As whoever gives a container all devices of the host does.
#[test]
fn a_listed_multiplexer_is_the_containers_own() {
    let sandbox = Sandbox::new("ptmx");
    let mut spec = sandbox.script("readlink /dev/ptmx; stat -c %t:%T /dev/kmsg");
    let devices = r#"[{"path":"/dev/ptmx","type":"c","major":5,"minor":2,"fileMode":438},
        {"path":"/dev/kmsg","type":"c","major":1,"minor":11}]"#;
    set_linux(&mut spec, |linux| {
        linux.set_devices(serde_json::from_str(devices).expect("devices"));
    });
    assert_eq!(sandbox.run(&spec).ok(), "pts/ptmx\n1:b");
}

#[test]
fn devices_and_links() {
    let sandbox = Sandbox::new("dev");
    let script = "ls /dev; cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' $d; done; \
                  for l in fd stdin ptmx; do readlink $l; done; echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo y > /dev/shm/f && cat /dev/shm/f; \
                  cat < /dev/full | head -c 1 | wc -c; ls -d /dev/mqueue /dev/pts/ptmx";
    let outcome = sandbox.run(&sandbox.script(script));
    let out = outcome.ok();
    for line in [
        "null 1:3 666",
        "zero 1:5 666",
        "full 1:7 666",
        "random 1:8 666",
        "urandom 1:9 666",
        "tty 5:0 666",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    for line in [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "pts/ptmx",
        "\n4\ny\n",
        "/dev/mqueue",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

#[test]
fn masked_and_read_only_paths() {
    let sandbox = Sandbox::new("masked");
    let script = "for f in /proc/timer_list /proc/kcore /proc/keys /proc/interrupts; do [ -e $f ] && cat $f; done | wc -c; \
                  ls /proc/acpi /sys/firmware | grep -v : | tr -d '\\n' | wc -c; \
                  for p in /proc/sys/kernel/panic /proc/bus /proc/irq /proc/acpi /sys/firmware /sys /sys/fs/cgroup /sys/kernel; do \
                  [ -e $p ] && chmod 777 $p 2>&1 | grep -ciq read-only || echo \"$p is not read-only\"; done; true";
    let outcome = sandbox.run(&sandbox.script(script));
    assert_eq!(outcome.ok(), "0\n0", "{outcome:?}");
    // The host has something to hide there, or the test would say nothing.
    assert!(!fs::read("/proc/interrupts").expect("read").is_empty());
}

#[test]
fn read_only_root_and_tmpfs() {
    let sandbox = Sandbox::new("ro-root");
    let mut spec = sandbox.script(
        "touch /x; touch /tmp/y && touch /dev/shm/z && ls /tmp; grep ' /tmp ' /proc/self/mounts",
    );
    let mut root = spec.root().clone().expect("root");
    root.set_readonly(Some(true));
    spec.set_root(Some(root));
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(mount(
        "/tmp",
        "tmpfs",
        "tmpfs",
        &["nosuid", "nodev", "noexec", "size=1m", "mode=1777"],
    ));
    spec.set_mounts(Some(mounts));
    let outcome = sandbox.run(&spec);
    assert!(outcome.ok().starts_with("y\n"), "{outcome:?}");
    assert!(
        outcome.stdout.contains("nosuid,nodev,noexec") && outcome.stdout.contains("size=1024k"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
    assert!(!sandbox.root().join("x").exists());
}

#[test]
fn bind_mounts() {
    let sandbox = Sandbox::new("binds");
    let source = sandbox.dir.path().join("source");
    fs::create_dir_all(source.join("sub")).expect("mkdir");
    fs::write(source.join("file"), "content").expect("write");
    let path = source.to_str().expect("utf-8");
    let mut spec = sandbox
        .script("cat /a/b/dir/file /c/file; touch /a/b/dir/new; touch /ro/new; echo x > /c/file");
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(mount("/a/b/dir", "bind", path, &["rbind"]));
    mounts.push(mount("/ro", "none", path, &["rbind", "ro"]));
    mounts.push(mount(
        "/c/file",
        "bind",
        &format!("{path}/file"),
        &["bind", "ro", "rprivate"],
    ));
    spec.set_mounts(Some(mounts));
    let outcome = sandbox.run(&spec);
    assert_eq!(outcome.stdout, "contentcontent", "{outcome:?}");
    assert_eq!(
        outcome.stderr.matches("Read-only file system").count(),
        2,
        "{outcome:?}"
    );
    assert!(source.join("new").exists());
    assert_eq!(
        fs::read_to_string(source.join("file")).expect("read"),
        "content"
    );
    sandbox.assert_clean();
}

#[test]
fn no_descriptor_leaks_in() {
    let sandbox = Sandbox::new("fds");
    // One without close-on-exec, as a careless caller would have it.
    let leaked = fs::File::open("/etc").expect("open");
    nix::fcntl::fcntl(
        &leaked,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .expect("fcntl");
    let outcome = sandbox.run(&sandbox.command(&["/bin/ls", "-l", "/proc/self/fd"]));
    let links: Vec<_> = outcome
        .ok()
        .lines()
        .filter_map(|l| l.split_once(" -> "))
        .map(|(_, to)| to)
        .collect();
    // Beside these only the directory that ls itself reads, and that is closed again.
    assert_eq!(links.len(), 3, "{outcome:?}");
    assert!(
        outcome.stderr.contains("/proc/self/fd/3: cannot read link"),
        "{outcome:?}"
    );
    assert!(
        !outcome.stderr.contains("/fd/4") && !outcome.stdout.contains(" 4 "),
        "{outcome:?}"
    );
    assert!(
        links[0] == "/dev/null" && links[1].starts_with("pipe:") && links[2].starts_with("pipe:"),
        "{links:?}"
    );
}

#[test]
fn joins_a_network_namespace() {
    let sandbox = Sandbox::new("netns");
    let name = format!("fltest-{}", std::process::id());
    let ip = |args: &[&str]| {
        std::process::Command::new("ip")
            .args(args)
            .output()
            .expect("ip")
    };
    assert!(ip(&["netns", "add", &name]).status.success());
    let path = format!("/run/netns/{name}");
    let inode = fs::metadata(&path).map(|m| std::os::unix::fs::MetadataExt::ino(&m));
    let mut spec = sandbox.command(&["/bin/readlink", "/proc/self/ns/net"]);
    set_linux(&mut spec, |linux| {
        let mut list = linux.namespaces().clone().expect("namespaces");
        list.retain(|n| n.typ() != LinuxNamespaceType::Network);
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(&path);
        list.push(joined.build().expect("namespace"));
        linux.set_namespaces(Some(list));
        linux.set_sysctl(Some(
            [("net.ipv4.ip_unprivileged_port_start".into(), "42".into())].into(),
        ));
    });
    let outcome = sandbox.run(&spec);
    let sysctl = ip(&[
        "netns",
        "exec",
        &name,
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    ]);
    assert!(ip(&["netns", "del", &name]).status.success());
    assert_eq!(outcome.ok(), format!("net:[{}]", inode.expect("inode")));
    assert_eq!(String::from_utf8_lossy(&sysctl.stdout).trim(), "42");
    let outcome = sandbox.run(&spec);
    assert!(
        outcome.error.as_deref().is_some_and(|e| e.contains(&path)),
        "gone: {outcome:?}"
    );
    sandbox.assert_clean();
}

#[test]
fn overlay_is_seen_by_the_container_alone() {
    let sandbox = Sandbox::new("overlay");
    let dir = sandbox.dir.path();
    // A separator of overlayfs in a name, and many layers.
    let mut lower: Vec<_> = (0..40).map(|i| dir.join(format!("layer,{i}:x"))).collect();
    for name in ["upper", "work"] {
        fs::create_dir(dir.join(name)).expect("mkdir");
    }
    for layer in &lower {
        fs::create_dir(layer).expect("mkdir");
    }
    fs::write(lower[0].join("top"), "0").expect("write");
    fs::write(lower[39].join("top"), "39").expect("write");
    lower.push(sandbox.root());
    let mut options = sandbox.options();
    options.rootfs = container::Rootfs::Overlay {
        lower,
        upper: dir.join("upper"),
        work: dir.join("work"),
    };
    let outcome = sandbox.run_with(
        &sandbox.script("cat /top; echo > /written; grep -c overlay /proc/mounts"),
        options,
    );
    assert_eq!(outcome.ok(), "01");
    assert!(dir.join("upper/written").exists() && !sandbox.root().join("written").exists());
    sandbox.assert_clean();
}

#[test]
fn a_hostile_image_is_refused_or_contained() {
    let sandbox = Sandbox::new("hostile");
    let outside = sandbox.dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    let spec = sandbox.script("echo ran");
    for name in ["proc", "dev", "sys"] {
        let path = sandbox.root().join(name);
        // An absolute link, one that climbs, one to a magic link.
        for target in [
            outside.to_str().expect("utf-8"),
            "../outside",
            "/proc/self/root",
            "/etc",
        ] {
            let _ = fs::remove_dir_all(&path);
            symlink(target, &path).expect("symlink");
            let outcome = sandbox.run(&spec);
            let error = outcome.error.unwrap_or_default();
            assert!(
                error.contains(&format!("/{name}")) && error.contains("symbolic link"),
                "{name} -> {target}: {error}"
            );
            fs::remove_file(&path).expect("unlink");
        }
        fs::create_dir(&path).expect("mkdir");
    }
    // The working directory and a mount through a link: contained.
    symlink(&outside, sandbox.root().join("out")).expect("symlink");
    symlink("../../../../../tmp", sandbox.root().join("climb")).expect("symlink");
    let mut spec = sandbox.script("pwd; echo x > /climb/m/f");
    set_process(&mut spec, |p| {
        p.set_cwd("/climb/work".into());
    });
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(mount("/climb/m", "tmpfs", "tmpfs", &[]));
    spec.set_mounts(Some(mounts));
    assert_eq!(sandbox.run(&spec).ok(), "/tmp/work");
    assert!(sandbox.root().join("tmp/work").is_dir() && sandbox.root().join("tmp/m").is_dir());
    // A dangling one has nowhere to go.
    set_process(&mut spec, |p| {
        p.set_cwd("/out/work".into());
    });
    let outcome = sandbox.run(&spec);
    assert!(outcome.error.is_some_and(|e| e.contains("dangling")));
    assert_eq!(
        fs::read_dir(&outside).expect("read").count(),
        0,
        "something was made outside"
    );
    sandbox.assert_clean();
}
