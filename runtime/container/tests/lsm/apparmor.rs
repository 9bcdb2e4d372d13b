//! AppArmor: its parser is in the package apparmor.

use crate::common::{Sandbox, set_process};
use std::fs;
use std::process::Command;

/// A profile that is taken away again.
struct Profile(tempfile::NamedTempFile);

impl Profile {
    fn load(name: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("file");
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
             file,\ncapability,\nsignal,\ndeny /tmp/forbidden w,\n}}\n"
        );
        fs::write(file.path(), text).expect("write");
        let loaded = Command::new("apparmor_parser")
            .args(["--replace", "--skip-cache"])
            .arg(file.path())
            .status();
        assert!(loaded.expect("apparmor_parser").success());
        Self(file)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let mut command = Command::new("apparmor_parser");
        let _ = command.arg("--remove").arg(self.0.path()).status();
    }
}

#[test]
fn an_apparmor_profile() {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
        eprintln!("skipped: this kernel does not run AppArmor");
        return;
    }
    let sandbox = Sandbox::new("apparmor");
    let name = format!("fltest-{}", std::process::id());
    let _profile = Profile::load(&name);
    let mut spec = sandbox.script(
        "cat /proc/self/attr/current; echo > /tmp/allowed && echo yes; \
         echo 2>/dev/null > /tmp/forbidden || echo no",
    );
    set_process(&mut spec, |process| {
        process.set_apparmor_profile(Some(name.clone()));
    });
    assert_eq!(
        sandbox.run(&spec).ok(),
        format!("{name} (enforce)\nyes\nno")
    );
    // One that is not loaded protects from nothing.
    set_process(&mut spec, |process| {
        process.set_apparmor_profile(Some(format!("{name}-absent")));
    });
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(error.contains(&format!("{name}-absent")), "{error}");
    sandbox.assert_clean();
}
