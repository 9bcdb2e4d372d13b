//! Namespaces made and joined: user, time, PID, mount.

mod common;
use common::{Sandbox, set_linux};
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Spec,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command};

fn add_namespace(spec: &mut Spec, kind: LinuxNamespaceType, path: Option<PathBuf>) {
    set_linux(spec, |linux| {
        let mut list = linux.namespaces().clone().unwrap_or_default();
        list.retain(|namespace| namespace.typ() != kind);
        let mut namespace = LinuxNamespaceBuilder::default()
            .typ(kind)
            .build()
            .expect("valid");
        namespace.set_path(path);
        list.push(namespace);
        linux.set_namespaces(Some(list));
    });
}

fn map(host: u32, size: u32) -> Option<Vec<LinuxIdMapping>> {
    let line = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(host)
        .size(size)
        .build();
    Some(vec![line.expect("valid")])
}

fn with_user_namespace(spec: &mut Spec, host: u32) {
    add_namespace(spec, LinuxNamespaceType::User, None);
    set_linux(spec, |linux| {
        linux
            .set_uid_mappings(map(host, 65536))
            .set_gid_mappings(map(host, 65536));
    });
}

/// Somebody who keeps namespaces alive: `unshare` with these options.
struct Holder(Child);

impl Holder {
    fn new(options: &[&str]) -> Self {
        let child = Command::new("unshare")
            .args(options)
            .args(["sleep", "60"])
            .spawn()
            .expect("unshare");
        let holder = Self(child);
        // Not before it is the last program is it in all of them.
        common::until("the holder's program", || {
            let pid = holder.child().unwrap_or_else(|| holder.0.id().to_string());
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        holder
    }

    fn path(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0.id()).into()
    }

    fn child(&self) -> Option<String> {
        let pid = self.0.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        list.split_whitespace().next().map(Into::into)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_user_namespace() {
    let sandbox = Sandbox::new("userns");
    let tmp = sandbox.root().join("tmp");
    chown(&tmp, Some(100_000), Some(100_000)).expect("chown");
    let mut spec = sandbox.script(
        "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/setgroups; echo x > /tmp/file
         echo y > /dev/null; stat -c %t:%T /dev/null /dev/urandom; ls /sys/class/net
         mount -t tmpfs none /tmp 2>/dev/null && echo mounted; hostname inside && hostname",
    );
    with_user_namespace(&mut spec, 100_000);
    let outcome = sandbox.run(&spec);
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    let expected = [
        "0", "0", "0", "100000", "65536", "allow", "1:3", "1:9", "lo",
    ];
    assert_eq!(words, expected, "{outcome:?}");
    let made = fs::metadata(tmp.join("file")).expect("file");
    assert_eq!((made.uid(), made.gid()), (100_000, 100_000));
    sandbox.assert_clean();
}

/// As Docker asks for it, in a user namespace too, where the file is not the container's.
#[test]
fn a_domain_name_by_sysctl() {
    let sandbox = Sandbox::new("domain");
    for user_namespace in [false, true] {
        let mut spec = sandbox.script("cat /proc/sys/kernel/domainname");
        if user_namespace {
            with_user_namespace(&mut spec, 100_000);
        }
        set_linux(&mut spec, |linux| {
            let sysctl = ("kernel.domainname".into(), "example.org".into());
            linux.set_sysctl(Some([sysctl].into()));
        });
        assert_eq!(sandbox.run(&spec).ok(), "example.org");
    }
    sandbox.assert_clean();
}

#[test]
fn a_user_namespace_whose_root_cannot_reach_its_files() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new("unreachable");
    let hidden = fs::Permissions::from_mode(0o700);
    fs::set_permissions(sandbox.dir.path(), hidden).expect("chmod");
    let source = sandbox.dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "content").expect("write");
    let mut spec = sandbox.script("cat /tmp/file");
    with_user_namespace(&mut spec, 100_000);
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(common::mount(
        "/tmp",
        "bind",
        source.to_str().expect("utf-8"),
        &["bind", "ro"],
    ));
    spec.set_mounts(Some(mounts));
    assert_eq!(sandbox.run(&spec).ok(), "content");
    sandbox.assert_clean();
}

#[test]
fn ids_that_are_not_mapped() {
    let sandbox = Sandbox::new("unmapped");
    let mut spec = sandbox.script("true");
    with_user_namespace(&mut spec, 100_000);
    common::set_process(&mut spec, |p| {
        p.user_mut().set_uid(70_000);
    });
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(
        error.contains("set user") && error.contains("70000"),
        "{error}"
    );
    sandbox.assert_clean();
}

#[test]
fn joins_a_user_namespace_and_what_belongs_to_it() {
    let sandbox = Sandbox::new("joinuser");
    let holder = Holder::new(&[
        "--user",
        "--map-root-user",
        "--net",
        "--uts",
        "sh",
        "-c",
        "exec \"$@\"",
        "x",
    ]);
    let mut spec = sandbox
        .script("readlink /proc/self/ns/user; readlink /proc/self/ns/net; cat /proc/self/uid_map");
    let namespaces = [
        (LinuxNamespaceType::User, "ns/user"),
        (LinuxNamespaceType::Network, "ns/net"),
    ];
    let mut expected = Vec::new();
    for (kind, file) in namespaces {
        add_namespace(&mut spec, kind, Some(holder.path(file)));
        let link = fs::read_link(holder.path(file)).expect("namespace");
        expected.push(link.to_string_lossy().into_owned());
    }
    expected.extend(["0", "0", "1"].map(Into::into));
    // The devpts of the default wants a group that is not mapped there.
    let mut mounts = spec.mounts().clone().expect("mounts");
    for mount in &mut mounts {
        if let Some(options) = mount.options_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    spec.set_mounts(Some(mounts));
    // It has its maps; the same again do no harm.
    for maps in [None, map(0, 1)] {
        set_linux(&mut spec, |linux| {
            linux
                .set_uid_mappings(maps.clone())
                .set_gid_mappings(maps.clone());
        });
        let outcome = sandbox.run(&spec);
        let words: Vec<_> = outcome.ok().split_whitespace().collect();
        assert_eq!(words, expected);
    }
    set_linux(&mut spec, |linux| {
        linux
            .set_uid_mappings(map(0, 1))
            .set_gid_mappings(map(100_000, 65536));
    });
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(
        error.contains("linux.gidMappings") && error.contains("(0 0 1)"),
        "{error}"
    );
    sandbox.assert_clean();
}

#[test]
fn a_new_user_namespace_beside_a_joined_network() {
    let sandbox = Sandbox::new("joinbeside");
    let holder = Holder::new(&["--net"]);
    let mut spec = sandbox.script("readlink /proc/self/ns/net; cat /proc/self/uid_map");
    with_user_namespace(&mut spec, 100_000);
    add_namespace(
        &mut spec,
        LinuxNamespaceType::Network,
        Some(holder.path("ns/net")),
    );
    // Only who owns the network may mount its sysfs.
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.retain(|mount| !mount.destination().starts_with("/sys"));
    spec.set_mounts(Some(mounts));
    let outcome = sandbox.run(&spec);
    let link = fs::read_link(holder.path("ns/net")).expect("namespace");
    let words: Vec<_> = outcome.ok().split_whitespace().collect();
    let link = link.to_string_lossy();
    assert_eq!(words, [link.as_ref(), "0", "100000", "65536"]);
    sandbox.assert_clean();
}

#[test]
fn joins_a_pid_namespace() {
    let sandbox = Sandbox::new("joinpid");
    let holder = Holder::new(&["--pid", "--fork", "--kill-child"]);
    let path = holder.path("ns/pid_for_children");
    let mut spec = sandbox.script("readlink /proc/self/ns/pid; cat /proc/1/comm; echo $$");
    add_namespace(&mut spec, LinuxNamespaceType::Pid, Some(path.clone()));
    let outcome = sandbox.run(&spec);
    let lines: Vec<_> = outcome.ok().lines().collect();
    let link = fs::read_link(path).expect("namespace");
    assert_eq!(lines[0], link.to_string_lossy());
    assert_eq!(lines[1], "sleep");
    assert_ne!(lines[2], "1");
    sandbox.assert_clean();
}

#[test]
fn clocks_of_its_own() {
    let sandbox = Sandbox::new("time");
    let mut spec = sandbox.script("cat /proc/uptime; cat /proc/self/timens_offsets");
    add_namespace(&mut spec, LinuxNamespaceType::Time, None);
    let offsets = r#"{"boottime":{"secs":1000000,"nanosecs":7},"monotonic":{"secs":-3}}"#;
    set_linux(&mut spec, |linux| {
        linux.set_time_offsets(serde_json::from_str(offsets).expect("offsets"));
    });
    let outcome = sandbox.run(&spec);
    let words: Vec<_> = outcome.ok().split_whitespace().collect();
    let uptime: f64 = words[0].parse().expect("uptime");
    assert!(uptime > 1_000_000.0, "{outcome:?}");
    let offsets = &words[2..];
    assert_eq!(
        offsets,
        ["monotonic", "-3", "0", "boottime", "1000000", "7"]
    );
    sandbox.assert_clean();
}

#[test]
fn the_mounts_of_others() {
    let sandbox = Sandbox::new("othermounts");
    let bare = |spec: &mut Spec| {
        spec.set_mounts(None);
        set_linux(spec, |linux| {
            linux.set_masked_paths(None).set_readonly_paths(None);
        });
    };
    // Joined: as it is.
    let place = sandbox.dir.path().join("place");
    fs::create_dir(&place).expect("mkdir");
    let script = format!(
        "mount -t tmpfs none {0} && echo seen > {0}/file && exec \"$@\"",
        place.display()
    );
    let holder = Holder::new(&["--mount", "sh", "-c", &script, "x"]);
    let file = place.join("file");
    let mut spec = sandbox.command(&["/bin/cat", file.to_str().expect("utf-8")]);
    bare(&mut spec);
    add_namespace(
        &mut spec,
        LinuxNamespaceType::Mount,
        Some(holder.path("ns/mnt")),
    );
    assert_eq!(sandbox.run(&spec).ok(), "seen");
    assert!(!file.exists());
    // None at all: the caller's, below another root.
    let mut spec = sandbox.script("ls /; pwd");
    bare(&mut spec);
    set_linux(&mut spec, |linux| {
        let mut list = linux.namespaces().clone().expect("namespaces");
        list.retain(|namespace| namespace.typ() != LinuxNamespaceType::Mount);
        linux.set_namespaces(Some(list));
    });
    let outcome = sandbox.run(&spec);
    let words: Vec<_> = outcome.ok().split_whitespace().collect();
    assert_eq!(words, ["bin", "dev", "etc", "proc", "sys", "tmp", "/"]);
    sandbox.assert_clean();
}
