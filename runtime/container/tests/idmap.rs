//! Id-mapped mounts of more than one mount.

mod common;
use common::{Sandbox, in_process, mount, run_here};
use nix::mount::{MsFlags, mount as mount_here};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::LinuxIdMappingBuilder;
use std::fs;
use std::os::unix::fs::chown;

#[test]
fn of_the_mounts_below_too() {
    let sandbox = Sandbox::new("ridmap");
    let (source, other) = (
        sandbox.dir.path().join("source"),
        sandbox.dir.path().join("other"),
    );
    for directory in [&source, &other] {
        fs::create_dir_all(directory.join("below")).expect("mkdir");
        fs::write(directory.join("file"), "x").expect("write");
        chown(directory.join("file"), Some(5), Some(6)).expect("chown");
    }
    let map = |host: u32| {
        let line = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(host)
            .size(1000u32);
        Some(vec![line.build().expect("valid")])
    };
    for (option, below) in [("ridmap", "2005:3006"), ("idmap", "5:6")] {
        let text = source.to_str().expect("utf-8");
        let mut entry = mount("/tmp", "bind", text, &["rbind", option]);
        entry
            .set_uid_mappings(map(2000))
            .set_gid_mappings(map(3000));
        let mut spec = sandbox.script("stat -c %u:%g /tmp/file /tmp/below/file");
        let mut mounts = spec.mounts().clone().expect("mounts");
        mounts.push(entry);
        spec.set_mounts(Some(mounts));
        let outcome = in_process(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount_here(none, "/", none, private, none).expect("private");
            let (from, to) = (other.as_path(), source.join("below"));
            mount_here(Some(from), &to, none, MsFlags::MS_BIND, none).expect("bind");
            run_here(&spec, sandbox.options())
        });
        let error = outcome.error.as_deref().unwrap_or_default();
        if error.contains("does not support it") {
            eprintln!("skipped: no id-mapped mounts of {text}");
            return;
        }
        let owners: Vec<_> = outcome.ok().split_whitespace().collect();
        assert_eq!(owners, ["2005:3006", below], "{option}");
    }
    sandbox.assert_clean();
}
