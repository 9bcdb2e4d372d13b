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
    label_by(process, |path, value| procfs.write(path, value))
}

/// As [`label`], by somebody who writes a file of procfs.
fn label_by(
    process: &Process,
    mut write: impl FnMut(&str, &str) -> Result<(), Errno>,
) -> Setup<()> {
    if let Some(profile) = process
        .apparmor_profile()
        .as_ref()
        .filter(|p| !p.is_empty())
    {
        let value = format!("exec {profile}");
        // Where several modules are active, AppArmor has a directory of its own (Linux 5.8).
        match write("thread-self/attr/apparmor/exec", &value) {
            Err(Errno::ENOENT) => write("thread-self/attr/exec", &value),
            result => result,
        }
        .step("apply AppArmor profile", profile)?;
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|l| !l.is_empty()) {
        write("thread-self/attr/exec", label).step("apply SELinux label", label)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for these labels, where a file that holds this word is answered so.
    fn written(profile: &str, label: &str, word: &str, answer: Errno) -> (Vec<String>, Setup<()>) {
        let mut process = Process::default();
        process
            .set_apparmor_profile(Some(profile.into()))
            .set_selinux_label(Some(label.into()));
        let mut all = Vec::new();
        let result = label_by(&process, |path, value| {
            all.push(format!("{path} {value}"));
            match path.contains(word) {
                true => Err(answer),
                false => Ok(()),
            }
        });
        (all, result)
    }

    #[test]
    fn where_labels_go() {
        // Its own thread's, and by "exec": the label of the next program, not of this process.
        let own = "thread-self/attr/apparmor/exec exec docker-default";
        let shared = "thread-self/attr/exec exec docker-default";
        let selinux = "thread-self/attr/exec system_u:system_r:container_t:s0";
        let (profile, label) = ("docker-default", "system_u:system_r:container_t:s0");

        let (all, result) = written(profile, "", "nothing", Errno::EIO);
        assert_eq!((all, result), (vec![own.to_string()], Ok(())));
        let (all, result) = written("", label, "nothing", Errno::EIO);
        assert_eq!((all, result), (vec![selinux.to_string()], Ok(())));
        let (all, result) = written("", "", "nothing", Errno::EIO);
        assert_eq!((all, result), (Vec::new(), Ok(())));
        // A kernel before 5.8.
        let (all, result) = written(profile, "", "/apparmor/", Errno::ENOENT);
        assert_eq!(
            (all, result),
            (vec![own.to_string(), shared.to_string()], Ok(()))
        );
        // A profile that is not loaded is an error, not a reason to look elsewhere.
        for (profile, label, answer) in [
            (profile, "", Errno::EACCES),
            ("", label, Errno::EINVAL),
            (profile, label, Errno::EXDEV),
        ] {
            let (all, result) = written(profile, label, "attr", answer);
            assert_eq!(all.len(), 1);
            assert_eq!(result.expect_err("refused").errno, answer as i32);
        }
    }
}
