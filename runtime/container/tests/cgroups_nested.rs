//! Containers that make cgroups of their own, which only version 2 allows safely.

mod common;
use common::{Sandbox, in_process, mount, set_linux, until};
use container::cgroup::{Layout, LayoutKind};
use container::{Cgroup, Created, EnterOptions, Stdio, Target, create, enter, process};
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResources, Spec,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

fn skipped() -> bool {
    let other = Layout::detect().expect("layout").kind() != LayoutKind::V2;
    if other {
        eprintln!("skipped: this machine has version 1");
    }
    other
}

/// The sandbox's cgroup, found by this test itself.
fn directory(sandbox: &Sandbox) -> PathBuf {
    let parent = sandbox.parent.trim_start_matches('/');
    Path::new("/sys/fs/cgroup").join(parent).join("task")
}

/// Root of the container is this user of the host.
const HOST_ROOT: u32 = 100_000;

fn add_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    set_linux(spec, |linux| {
        let mut list = linux.namespaces().clone().expect("namespaces");
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        list.push(namespace.build().expect("namespace"));
        linux.set_namespaces(Some(list));
    });
}

fn with_user_namespace(spec: &mut Spec) {
    add_namespace(spec, LinuxNamespaceType::User);
    let map = || -> Option<Vec<LinuxIdMapping>> {
        let line = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(HOST_ROOT)
            .size(65536u32);
        Some(vec![line.build().expect("map")])
    };
    set_linux(spec, |linux| {
        linux.set_uid_mappings(map()).set_gid_mappings(map());
    });
}

/// A script whose container sees its cgroup like this.
fn script(sandbox: &Sandbox, text: &str, options: &[&str]) -> Spec {
    let mut spec = sandbox.script(text);
    let mut all = spec.mounts().clone().expect("mounts");
    all.retain(|m| m.destination() != Path::new("/sys/fs/cgroup"));
    all.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", options));
    spec.set_mounts(Some(all));
    spec
}

/// What a program says that enters the container once it is ready.
fn entered(sandbox: &Sandbox, spec: &Spec, command: &[&str]) -> String {
    let options = sandbox.options();
    let ready = sandbox.root().join("tmp/ready");
    let said = in_process(|| {
        let started = create(spec, options).and_then(Created::start);
        let started = started.expect("started");
        until("the container", || ready.exists());
        let mut program = spec.process().clone().expect("process");
        let words = command.iter().map(|word| (*word).to_string());
        program.set_args(Some(words.collect()));
        let (out_read, out_write) = nix::unistd::pipe().expect("pipe");
        let target = Target {
            spec,
            pid: started.pid,
            pidfd: &started.pidfd,
            cgroup: started.cgroup.as_ref(),
            identity: None,
        };
        let options = EnterOptions {
            stdio: Some(Stdio {
                stdout: out_write,
                ..Stdio::null().expect("null")
            }),
            ..EnterOptions::default()
        };
        let said = match enter(&target, &program, options) {
            Ok(inside) => {
                let said = std::io::read_to_string(fs::File::from(out_read)).expect("read");
                process::wait_child(&inside.pidfd).expect("wait");
                said
            }
            Err(error) => format!("refused: {error}"),
        };
        let cgroup = started.cgroup.expect("cgroup");
        cgroup.kill().expect("kill");
        process::wait_child(&started.pidfd).expect("wait");
        cgroup.delete().expect("delete");
        said
    });
    fs::remove_file(ready).expect("remove");
    said.trim().to_string()
}

/// As systemd and dockerd do inside a container.
const NEST: &str = "cd /sys/fs/cgroup && mkdir init && echo 1 > init/cgroup.procs &&
                    echo +memory > cgroup.subtree_control && touch /tmp/ready; sleep 60";

#[test]
fn a_program_enters_where_the_first_process_has_gone() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new("nested");
    let spec = script(&sandbox, NEST, &["rw"]);
    let said = entered(&sandbox, &spec, &["cat", "/proc/self/cgroup"]);
    assert_eq!(said, "0::/init");
    sandbox.assert_clean();
}

#[test]
fn a_cgroup_in_a_user_namespace_belongs_to_the_container() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new("owned");
    chown(sandbox.root().join("tmp"), Some(HOST_ROOT), Some(HOST_ROOT)).expect("chown");
    let mut spec = script(&sandbox, NEST, &["nosuid", "rw"]);
    with_user_namespace(&mut spec);
    let said = entered(&sandbox, &spec, &["cat", "/proc/self/cgroup"]);
    assert_eq!(said, "0::/init");
    // Nobody is moved: a program enters the cgroup itself.
    let owners = "touch /tmp/ready; sleep 60";
    let look = "cat /proc/self/cgroup; cd /sys/fs/cgroup;
                stat -c %u . cgroup.procs cgroup.subtree_control memory.max";
    let expected = ["0::/", "0", "0", "0", "65534"];
    for by_stage in [false, true] {
        let mut spec = script(&sandbox, owners, &["nosuid", "rw"]);
        with_user_namespace(&mut spec);
        if by_stage {
            add_namespace(&mut spec, LinuxNamespaceType::Time);
        }
        let said = entered(&sandbox, &spec, &["sh", "-c", look]);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{by_stage}");
    }
    // Where it is not to be written, nothing changes hands.
    let mut spec = script(&sandbox, owners, &["ro"]);
    with_user_namespace(&mut spec);
    let look = "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs";
    let said = entered(&sandbox, &spec, &["sh", "-c", look]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["65534", "65534"]);
    sandbox.assert_clean();
}

/// What a cgroup uses is counted only by controllers that it has.
#[test]
fn controllers_are_handed_down_without_a_limit() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new("handdown");
    let none = LinuxResources::default();
    let cgroup = Cgroup::create(&sandbox.parent, "task", &none).expect("create");
    let read = |dir: &Path| {
        let text = fs::read_to_string(dir.join("cgroup.controllers")).expect("controllers");
        let list = text.split_whitespace().map(Into::into);
        list.collect::<Vec<String>>()
    };
    let found = read(&directory(&sandbox));
    for controller in read(Path::new("/sys/fs/cgroup")) {
        let counts = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];
        if counts.contains(&controller.as_str()) {
            assert!(found.contains(&controller), "{controller}: {found:?}");
        }
    }
    assert_eq!(
        fs::metadata(directory(&sandbox)).expect("directory").uid(),
        0
    );
    cgroup.delete().expect("delete");
    sandbox.assert_clean();
}
