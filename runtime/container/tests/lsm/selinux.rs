//! SELinux. Its policy is the machine's, and cannot be taken out again: the test loads one only where it is told
//! that the machine is thrown away after it (`FAIRLEAD_REQUIRE_SELINUX`, which `scripts/test` sets).

use crate::common::{Sandbox, mount, set_linux, set_process};
use std::fs;
use std::path::Path;
use std::process::Command;

const PROCESS: &str = "system_u:system_r:container_t:s0:c0,c1";
const FILES: &str = "system_u:object_r:container_file_t:s0:c0,c1";

fn load_policy() {
    let place = Path::new("/sys/fs/selinux");
    nix::mount::mount(
        Some("selinuxfs"),
        place,
        Some("selinuxfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .expect("this kernel does not run SELinux");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lsm/policy.conf");
    let compiled = tempfile::NamedTempFile::new().expect("file");
    let made = Command::new("checkpolicy")
        .args(["-M", "-U", "allow", "-o"])
        .arg(compiled.path())
        .arg(source)
        .output()
        .expect("checkpolicy");
    assert!(made.status.success(), "{made:?}");
    let policy = fs::read(compiled.path()).expect("read");
    fs::write(place.join("load"), policy).expect("load");
    fs::write(place.join("enforce"), "1").expect("enforce");
}

#[test]
fn an_selinux_label_and_a_label_of_mounts() {
    if std::env::var_os("FAIRLEAD_REQUIRE_SELINUX").is_none() {
        eprintln!("skipped: FAIRLEAD_REQUIRE_SELINUX is not set");
        return;
    }
    load_policy();
    let sandbox = Sandbox::new("selinux");
    let mut spec = sandbox.script(
        "cat /proc/self/attr/current; echo; grep ' /scratch ' /proc/self/mountinfo; \
         echo > /scratch/own && echo yes; touch /dev/mqueue/own && echo yes; \
         echo 2>/dev/null > /tmp/other || echo no",
    );
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount("/scratch", "tmpfs", "tmpfs", &[]));
    spec.set_mounts(Some(mounts));
    set_process(&mut spec, |process| {
        process.set_selinux_label(Some(PROCESS.into()));
    });
    set_linux(&mut spec, |linux| {
        linux.set_mount_label(Some(FILES.into()));
    });
    let outcome = sandbox.run(&spec);
    let lines: Vec<&str> = outcome.ok().lines().collect();
    assert_eq!(lines[0].trim_end_matches('\0'), PROCESS, "{outcome:?}");
    assert!(
        lines[1].contains(&format!("context=\"{FILES}\"")),
        "{outcome:?}"
    );
    // The policy lets it make files only in a directory with the label of mounts.
    assert_eq!(lines[2..], ["yes", "yes", "no"], "{outcome:?}");

    // One that the policy does not know protects from nothing.
    set_process(&mut spec, |process| {
        process.set_selinux_label(Some("system_u:system_r:absent_t:s0".into()));
    });
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(error.contains("absent_t"), "{error}");
    sandbox.assert_clean();
}
