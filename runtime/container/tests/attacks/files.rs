//! Files of the image that are not what their names promise.

use super::common::{Sandbox, mount, set_linux, set_process, until};
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

/// Waits for somebody to open a FIFO for reading.
struct Watch(Child);

impl Watch {
    fn new(fifo: &std::path::Path) -> Self {
        let mut command = Command::new("/bin/sh");
        let script = "exec >\"$0\"";
        command.args(["-c", script]).arg(fifo);
        let child = command.stderr(Stdio::null()).spawn().expect("sh");
        // It sleeps in the opening of the FIFO.
        until("the watch", || {
            let state = fs::read_to_string(format!("/proc/{}/stat", child.id()));
            state.is_ok_and(|stat| stat.contains(") S "))
        });
        Self(child)
    }

    fn was_opened(&mut self) -> bool {
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.0.try_wait().expect("wait").is_some()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// To open a device can do anything, and a FIFO tells whether it was opened.
#[test]
fn a_list_of_users_that_is_none() {
    let sandbox = Sandbox::new("passwd");
    let passwd = sandbox.root().join("etc/passwd");
    let mut spec = sandbox.script("echo $HOME");
    set_process(&mut spec, |process| {
        process.set_env(Some(vec!["PATH=/bin".into()]));
    });
    let by_name = || {
        let mut options = sandbox.options();
        options.user = Some("web".into());
        let error = sandbox.run_with(&spec, options).error.expect("refused");
        assert!(error.contains("/etc/passwd"), "{error}");
    };
    fs::remove_file(&passwd).expect("remove");
    nix::unistd::mkfifo(&passwd, Mode::S_IRWXU).expect("fifo");
    let mut watch = Watch::new(&passwd);
    assert_eq!(sandbox.run(&spec).ok(), "/");
    by_name();
    assert!(!watch.was_opened());
    drop(watch);

    fs::remove_file(&passwd).expect("remove");
    let number = nix::sys::stat::makedev(1, 5); // endless zeros
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&passwd, kind, Mode::S_IRUSR, number).expect("mknod");
    assert_eq!(sandbox.run(&spec).ok(), "/");
    by_name();

    fs::remove_file(&passwd).expect("remove");
    fs::create_dir(&passwd).expect("mkdir");
    assert_eq!(sandbox.run(&spec).ok(), "/");
    by_name();

    fs::remove_dir(&passwd).expect("remove");
    let huge = fs::File::create(&passwd).expect("create");
    huge.set_len(1 << 40).expect("sparse");
    assert_eq!(sandbox.run(&spec).ok(), "/");
    by_name();

    // To read it takes what the kernel said from whoever else wants to read that.
    for target in ["/proc/kmsg", "../../../proc/self/mem", "/etc/passwd"] {
        fs::remove_file(&passwd).expect("remove");
        symlink(target, &passwd).expect("symlink");
        assert_eq!(sandbox.run(&spec).ok(), "/", "{target}");
    }
    sandbox.assert_clean();
}

/// CVE-2025-31133: what masks must not be the image's idea of the null device.
#[test]
fn a_null_device_of_the_image() {
    let sandbox = Sandbox::new("null");
    let null = sandbox.root().join("dev/null");
    let script = "cat /proc/keys /proc/interrupts | wc -c; stat -c %t:%T /proc/keys";
    let mut spec = sandbox.script(script);
    // On the tmpfs that is mounted there it does not matter.
    symlink("/etc/passwd", &null).expect("symlink");
    assert_eq!(sandbox.run(&spec).ok(), "0\n1:3");
    // Without it, it is in the way.
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.retain(|mount| !mount.destination().starts_with("/dev"));
    spec.set_mounts(Some(mounts));
    let error = sandbox.run(&spec).error.expect("refused");
    assert!(
        error.contains("/dev/null") && error.contains("something else"),
        "{error}"
    );
    sandbox.assert_clean();
}

/// CVE-2026-41579, CVE-2026-47766: nothing is made where a link in the image leads.
#[test]
fn places_that_are_links() {
    let sandbox = Sandbox::new("links");
    let outside = sandbox.dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    let root = sandbox.root();
    for (name, path) in [
        ("dev", "/dev/fuse"),
        ("made", "/made/device"),
        ("dev", "/dev/pts/x"),
    ] {
        let place = root.join(name);
        let _ = fs::remove_dir_all(&place);
        symlink(&outside, &place).expect("symlink");
        let mut spec = sandbox.script("true");
        let mut mounts = spec.mounts().clone().expect("mounts");
        mounts.retain(|mount| !mount.destination().starts_with("/dev"));
        spec.set_mounts(Some(mounts));
        let devices = format!(r#"[{{"path":"{path}","type":"c","major":10,"minor":229}}]"#);
        set_linux(&mut spec, |linux| {
            linux.set_devices(serde_json::from_str(&devices).expect("devices"));
        });
        let error = sandbox.run(&spec).error.expect("refused");
        assert!(error.contains("symbolic link"), "{path}: {error}");
        assert_eq!(fs::read_dir(&outside).expect("read").count(), 0, "{path}");
        fs::remove_file(&place).expect("remove");
        fs::create_dir_all(root.join("dev")).expect("mkdir");
    }
    sandbox.assert_clean();
}

/// The root may be given by a link of the host; nothing changes by that.
#[test]
fn a_root_by_a_link() {
    let sandbox = Sandbox::new("rootlink");
    let link = sandbox.dir.path().join("a/b");
    fs::create_dir(sandbox.dir.path().join("a")).expect("mkdir");
    symlink("../rootfs", &link).expect("symlink");
    let mut options = sandbox.options();
    options.rootfs = container::Rootfs::Directory(link);
    let outcome = sandbox.run_with(&sandbox.script("ls -d /../../bin; ls /a 2>&1"), options);
    assert!(outcome.stdout.starts_with("/../../bin"), "{outcome:?}");
    assert!(outcome.stdout.contains("No such file"), "{outcome:?}");
    sandbox.assert_clean();
}

/// What lies over procfs could pass for the kernel's answer; a link must not lead there either.
#[test]
fn a_link_to_procfs() {
    let sandbox = Sandbox::new("proclink");
    let source = sandbox.dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    let source = source.to_str().expect("utf-8");
    for (target, place) in [
        ("/proc", "/x"),
        ("../proc/self", "/x"),
        ("proc", "/x/sys"),
        ("proc", "/x/version"),
    ] {
        let link = sandbox.root().join("x");
        symlink(target, &link).expect("symlink");
        for entry in [
            mount(place, "tmpfs", "tmpfs", &[]),
            mount(place, "bind", source, &["rbind"]),
        ] {
            let mut spec = sandbox.script("true");
            let mut mounts = spec.mounts().clone().expect("mounts");
            mounts.push(entry);
            spec.set_mounts(Some(mounts));
            let error = sandbox.run(&spec).error.expect("refused");
            assert!(error.contains(place), "{place} in {target}: {error}");
        }
        fs::remove_file(&link).expect("remove");
    }
    sandbox.assert_clean();
}

/// Two containers that start at once may need the same directory of a volume.
#[test]
fn a_directory_that_another_makes() {
    let sandbox = Sandbox::new("together");
    let volume = sandbox.dir.path().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    let path = volume.to_str().expect("utf-8");
    let mut spec = sandbox.script("true");
    let mut mounts = spec.mounts().clone().expect("mounts");
    mounts.push(mount("/vol", "bind", path, &["rbind"]));
    for i in 0..8 {
        mounts.push(mount(&format!("/vol/a{i}/b/c"), "tmpfs", "tmpfs", &[]));
    }
    spec.set_mounts(Some(mounts));
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let (sandbox, spec) = (&sandbox, &spec);
                scope.spawn(move || {
                    let mut options = sandbox.options();
                    options.cgroup = Some(container::CgroupPath::new(&sandbox.parent, name));
                    sandbox.run_with(spec, options).ok();
                });
            }
        });
        for i in 0..8 {
            fs::remove_dir_all(volume.join(format!("a{i}"))).expect("remove");
        }
    }
    sandbox.assert_clean();
}
