//! Labels of the kernel's security modules: AppArmor profiles and SELinux contexts.

use crate::error::{ContainerError, Context, Setup};
use crate::procfs::ProcFs;
use nix::errno::Errno;
use oci_spec::runtime::{Process, Spec};
use std::path::Path;

/// Refuses labels for modules that this kernel does not run: they would be no protection.
pub fn check(spec: &Spec, process: &Process) -> Result<(), ContainerError> {
    let missing = |field: &str, module: &str| {
        let reason = format!("{module} is not active on this machine; leave it out");
        Err(ContainerError::unsupported(field, reason))
    };
    if set(process.apparmor_profile()) && !apparmor() {
        return missing("process.apparmorProfile", "AppArmor");
    }
    if set(process.selinux_label()) && !selinux() {
        return missing("process.selinuxLabel", "SELinux");
    }
    let label = spec.linux().as_ref().and_then(|l| l.mount_label().as_ref());
    if label.is_some_and(|label| !label.is_empty()) && !selinux() {
        return missing("linux.mountLabel", "SELinux");
    }
    Ok(())
}

fn set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// Whether AppArmor is active.
pub fn apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Whether SELinux is active: its file system is mounted then.
pub fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Has the kernel change the labels at the next exec. `procfs` is the container's, verified: a
/// file of the image in its place would swallow the label (CVE-2019-19921).
pub fn label(process: &Process, procfs: &ProcFs) -> Setup<()> {
    if let Some(profile) = process
        .apparmor_profile()
        .as_ref()
        .filter(|p| !p.is_empty())
    {
        let value = format!("exec {profile}");
        // Where several modules are active, AppArmor has a directory of its own (Linux 5.8).
        match procfs.write("thread-self/attr/apparmor/exec", &value) {
            Err(Errno::ENOENT) => procfs.write("thread-self/attr/exec", &value),
            result => result,
        }
        .step("apply AppArmor profile", profile)?;
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|l| !l.is_empty()) {
        procfs
            .write("thread-self/attr/exec", label)
            .step("apply SELinux label", label)?;
    }
    Ok(())
}
