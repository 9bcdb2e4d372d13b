//! Writes to procfs that somebody wants to lead elsewhere (CVE-2025-52881).

use super::common::{Sandbox, in_process, run_here, set_linux, set_process, until};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType};
use std::fs;
use std::process::{Child, Command, Stdio};

/// A mount namespace with another `/proc`.
struct Holder(Child);

impl Holder {
    fn new(script: &str) -> Self {
        let script = format!("{script}; echo ready; exec /bin/busybox sleep 600");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "/bin/busybox",
            "sh",
            "-e",
            "-c",
        ]);
        let out = tempfile::NamedTempFile::new().expect("file");
        let stdout = out.reopen().expect("file");
        let child = command
            .arg(script)
            .stdin(Stdio::null())
            .stdout(stdout)
            .spawn()
            .expect("unshare");
        until("the mounts", || {
            fs::read_to_string(out.path()).is_ok_and(|said| said == "ready\n")
        });
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_procfs_that_others_have_covered() {
    let sandbox = Sandbox::new("fakeproc");
    let victim = sandbox.dir.path().join("victim");
    fs::write(&victim, "untouched").expect("write");
    let root = sandbox.root();
    // All that the runtime writes is a link to the victim there.
    let script = format!(
        "mount -t tmpfs fake /proc; \
         for d in self/attr self/fd sys/net/ipv4 sys/kernel; do mkdir -p /proc/$d; done; \
         for f in self/oom_score_adj self/attr/exec self/setgroups sys/net/ipv4/ip_forward \
             sys/net/ipv4/ip_unprivileged_port_start sys/kernel/shmmax; do \
             ln -s {} /proc/$f; done; \
         mount --bind /proc {root}/proc",
        victim.display(),
        root = root.display()
    );
    let holder = Holder::new(&script);
    let mut spec = sandbox.script("true");
    set_process(&mut spec, |process| {
        process.set_oom_score_adj(Some(321));
    });
    let path = format!("/proc/{}/ns/mnt", holder.0.id());
    set_linux(&mut spec, |linux| {
        let mut list = linux.namespaces().clone().expect("namespaces");
        list.retain(|n| n.typ() != LinuxNamespaceType::Mount);
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Mount)
            .path(&path);
        list.push(joined.build().expect("namespace"));
        linux.set_namespaces(Some(list));
        linux.set_masked_paths(None).set_readonly_paths(None);
        let sysctls = [
            ("net.ipv4.ip_unprivileged_port_start", "42"),
            ("kernel.shmmax", "4096"),
        ];
        let sysctls = sysctls.map(|(name, value)| (name.to_string(), value.to_string()));
        linux.set_sysctl(Some(sysctls.into()));
    });
    spec.set_mounts(None);
    let mut root = spec.root().clone().expect("root");
    root.set_readonly(Some(false));
    spec.set_root(Some(root));
    // The program is one of the holder's root, which is the host's: the real values are in a
    // procfs of its own.
    set_process(&mut spec, |process| {
        let script = "mount -t proc proc /proc && cat /proc/self/oom_score_adj \
                      /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax";
        let args = ["/bin/busybox", "sh", "-c", script];
        process.set_args(Some(args.map(String::from).to_vec()));
        process.set_capabilities(Some(container::defaults::capability_sets(
            [oci_spec::runtime::Capability::SysAdmin]
                .into_iter()
                .collect(),
        )));
    });
    set_linux(&mut spec, |linux| {
        linux.set_seccomp(None);
    });
    let outcome = sandbox.run(&spec);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    assert_eq!(outcome.ok(), "321\n42\n4096");
    drop(holder);
    sandbox.assert_clean();
}

/// A namespace that is joined and turns out to be the machine's own.
#[test]
fn settings_for_a_namespace_of_the_machine() {
    let sandbox = Sandbox::new("ownns");
    for (kind, file, sysctl) in [
        (
            LinuxNamespaceType::Network,
            "net",
            Some("net.ipv4.ip_forward"),
        ),
        (LinuxNamespaceType::Ipc, "ipc", Some("kernel.shmmax")),
        (LinuxNamespaceType::Uts, "uts", None),
        (LinuxNamespaceType::Uts, "uts", Some("kernel.domainname")),
    ] {
        let mut spec = sandbox.script("true");
        spec.set_hostname(sysctl.is_none().then(|| "renamed".into()));
        set_linux(&mut spec, |linux| {
            let mut list = linux.namespaces().clone().expect("namespaces");
            list.retain(|n| n.typ() != kind);
            let joined = LinuxNamespaceBuilder::default()
                .typ(kind)
                .path(format!("/proc/self/ns/{file}"));
            list.push(joined.build().expect("namespace"));
            linux.set_namespaces(Some(list));
            linux.set_sysctl(sysctl.map(|name| [(name.into(), "1".into())].into()));
        });
        // The runtime's own are not the machine's here: without what is tested they are changed.
        let outcome = in_process(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
                .expect("unshare");
            run_here(&spec, sandbox.options())
        });
        let error = outcome.error.expect("refused");
        let field = sysctl.unwrap_or("hostname");
        assert!(error.contains(field) && error.contains("own"), "{error}");
    }
    sandbox.assert_clean();
}
