//! The host's mounts, where its root stays below the container's.

use super::common::{self, Sandbox, set_linux, with_user_namespace};
use nix::mount::MsFlags;
use oci_spec::runtime::Spec;
use std::fs;

/// Root without a filter of system calls, and with a user namespace if that is wanted.
fn unfiltered(mut spec: Spec, user_namespace: bool) -> Spec {
    set_linux(&mut spec, |linux| {
        linux.set_seccomp(None);
    });
    if user_namespace {
        with_user_namespace(&mut spec);
    }
    spec
}

/// The kernel lets a user namespace inside mount a procfs or sysfs of its own where one can be seen
/// in full, which the masked paths are to prevent. What the host has mounted must not be one.
#[test]
fn no_procfs_of_the_host_is_left_to_see() {
    let sandbox = Sandbox::new("nopivotproc");
    let inner =
        "mount -t proc none /tmp && echo procfs; mount -t sysfs none /tmp && echo sysfs; true";
    let script = format!(
        "busybox unshare -r -U -m -p -n -f sh -c '{inner}'; cd ../..; grep -c . /proc/self/mountinfo"
    );
    for user_namespace in [false, true] {
        let mut open = unfiltered(sandbox.script(&script), user_namespace);
        set_linux(&mut open, |linux| {
            linux.set_masked_paths(None).set_readonly_paths(None);
        });
        let free = sandbox.run(&open);
        if !free.ok().starts_with("procfs") {
            eprintln!("skipped: the kernel has other reasons to refuse: {free:?}");
            continue;
        }
        let spec = unfiltered(sandbox.script(&script), user_namespace);
        for no_pivot in [false, true] {
            let mut options = sandbox.options();
            options.no_pivot = no_pivot;
            let outcome = sandbox.run_with(&spec, options);
            let said = outcome.ok();
            assert!(
                !said.contains("procfs") && !said.contains("sysfs"),
                "{user_namespace} {no_pivot}: {outcome:?}"
            );
        }
    }
    sandbox.assert_clean();
}

/// A procfs that no path leads to any more counts too.
#[test]
fn no_hidden_procfs_of_the_host_is_left() {
    let sandbox = Sandbox::new("nopivothidden");
    let inner = "mount -t proc none /tmp && echo procfs; true";
    let script = format!("busybox unshare -r -U -m -p -f sh -c '{inner}'");
    let spec = unfiltered(sandbox.script(&script), false);
    let place = sandbox.dir.path().join("place");
    fs::create_dir_all(place.join("proc")).expect("mkdir");
    let outcome = common::in_process(|| {
        let mount = |what: Option<&str>, place: &std::path::Path, flags| {
            nix::mount::mount(what, place, what, flags, None::<&str>).expect("mount");
        };
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        mount(None, "/".as_ref(), private);
        for _ in 0..2 {
            mount(Some("proc"), &place.join("proc"), MsFlags::empty());
        }
        mount(Some("tmpfs"), &place, MsFlags::empty());
        let mut options = sandbox.options();
        options.no_pivot = true;
        common::run_here(&spec, options)
    });
    assert_eq!(outcome.ok(), "", "{outcome:?}");
    sandbox.assert_clean();
}
