//! Names and files on the command line.

use super::bounded;
use super::common::Bundle;
use nix::sys::stat::Mode;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

#[test]
fn ids() {
    let bundle = Bundle::new("ids");
    bundle.args(&["/bin/true"]);
    let outside = bundle.dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::create_dir_all(bundle.state()).expect("mkdir");
    let long = "x".repeat(201);
    let longer = "x".repeat(100_000);
    let absolute = outside.to_str().expect("utf-8");
    for id in [
        "",
        ".",
        "..",
        "../outside",
        "a/b",
        "a/../../outside",
        absolute,
        ".seccomp",
        "a b",
        "a\n",
        "ä",
        "\u{7f}",
        &long,
        &longer,
    ] {
        for command in [
            &["create"][..],
            &["run"],
            &["state"],
            &["start"],
            &["kill"],
            &["delete"],
            &["delete", "--force"],
            &["pause"],
            &["ps"],
        ] {
            let said = bounded(&bundle, &[command, &["--", id]].concat());
            assert_ne!(said.code, 0, "{command:?} {id:?}: {said:?}");
        }
    }
    assert!(outside.exists());
    bundle.assert_clean();
}

/// The file of the process id may be where others can write: they leave a link.
#[test]
fn a_link_at_the_process_id() {
    let bundle = Bundle::new("pidlink");
    bundle.args(&["/bin/sleep", "600"]);
    let victim = bundle.dir.path().join("victim");
    fs::write(&victim, "untouched").expect("write");
    let pid_file = bundle.dir.path().join("pid");
    symlink(&victim, &pid_file).expect("symlink");
    let pid_file = pid_file.to_str().expect("utf-8");
    // The name in between has the number of a process that is to come.
    let own = std::process::id();
    for pid in own..own + 3000 {
        let _ = symlink(&victim, bundle.dir.path().join(format!(".pid.{pid}")));
    }
    assert_eq!(bundle.create("c", &["--pid-file", pid_file]).code, 0);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    assert_eq!(
        fs::read_to_string(pid_file).expect("read"),
        bundle.pid("c").to_string()
    );
    bundle.oci(&["start", "c"]).ok();
    bundle
        .oci(&["exec", "--pid-file", pid_file, "c", "/bin/true"])
        .ok();
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    // One that cannot be written: nobody would know of the process.
    let before = bundle
        .oci(&["ps", "--format", "json", "c"])
        .ok()
        .to_string();
    bundle
        .oci(&[
            "exec",
            "--detach",
            "--pid-file",
            "no/such",
            "c",
            "/bin/sleep",
            "600",
        ])
        .refused(&["process id"]);
    assert_eq!(bundle.oci(&["ps", "--format", "json", "c"]).ok(), before);
    assert_ne!(bundle.create("d", &["--pid-file", "no/such"]).code, 0);
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

#[test]
fn console_sockets() {
    let bundle = Bundle::new("console");
    bundle.change(json!({ "process": { "terminal": true, "args": ["/bin/true"] } }));
    let directory = bundle.dir.path();
    let at = |name: &str| directory.join(name).to_str().expect("utf-8").to_string();
    fs::write(at("file"), "").expect("write");
    nix::unistd::mkfifo(at("fifo").as_str(), Mode::S_IRWXU).expect("fifo");
    symlink("loop", at("loop")).expect("symlink");
    drop(UnixListener::bind(at("dead")).expect("bind"));
    let datagrams = std::os::unix::net::UnixDatagram::bind(at("datagrams")).expect("bind");
    let long = format!("/{}", "x/".repeat(3000));
    for path in [
        "file",
        "fifo",
        "loop",
        "dead",
        "datagrams",
        "absent",
        "/",
        "/dev/null",
        &long,
    ] {
        let path = if path.starts_with('/') {
            path.to_string()
        } else {
            at(path)
        };
        for command in ["create", "run"] {
            bounded(&bundle, &[command, "--console-socket", &path, "c"])
                .refused(&["console socket"]);
        }
    }
    drop(datagrams);
    bundle.assert_clean();
}

/// A name of 108 bytes and more is none for the kernel, but one for us.
#[test]
fn a_long_console_socket() {
    let bundle = Bundle::new("longconsole");
    bundle.change(json!({ "process": { "terminal": true, "args": ["/bin/true"] } }));
    let deep = bundle.dir.path().join("x".repeat(120));
    fs::create_dir(&deep).expect("mkdir");
    let short = bundle.dir.path().join("s");
    let listener = UnixListener::bind(&short).expect("bind");
    let long = deep.join("socket");
    fs::rename(&short, &long).expect("rename");
    let created = bundle.create("c", &["--console-socket", long.to_str().expect("utf-8")]);
    assert_eq!(created.code, 0, "{created:?}");
    drop(listener.accept().expect("accept"));
    bundle.oci(&["delete", "--force", "c"]).ok();
    bundle.assert_clean();
}

/// CVE-2025-52565: what the image, or what others share with it, has in place of a terminal.
#[test]
fn terminals_that_are_none() {
    let bundle = Bundle::new("ptmx");
    let victim = bundle.dir.path().join("victim");
    fs::write(&victim, "untouched").expect("write");
    bundle.change(json!({ "process": { "terminal": true, "args": ["/bin/true"] } }));
    let mut config = bundle.config();
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| {
        !mount["destination"]
            .as_str()
            .unwrap_or_default()
            .starts_with("/dev")
    });
    bundle.change(json!({ "mounts": mounts }));
    let dev = bundle.root().join("dev");
    fs::create_dir_all(dev.join("pts")).expect("mkdir");
    let ptmx = dev.join("pts/ptmx");
    let refused = |what: &str| {
        let said = bounded(&bundle, &["run", "c"]);
        assert_ne!(said.code, 0, "{what}: {said:?}");
        assert!(said.stderr.contains("/dev/pts/ptmx"), "{what}: {said:?}");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    };
    refused("nothing");
    fs::write(&ptmx, "").expect("write");
    refused("a file");
    fs::remove_file(&ptmx).expect("remove");
    nix::unistd::mkfifo(&ptmx, Mode::S_IRWXU).expect("fifo");
    refused("a FIFO");
    for target in ["/dev/pts/ptmx", "/dev/ptmx", "../../victim"] {
        fs::remove_file(&ptmx).expect("remove");
        symlink(target, &ptmx).expect("symlink");
        refused(target);
    }
    fs::remove_file(&ptmx).expect("remove");
    // The right device, and not of a devpts.
    let number = nix::sys::stat::makedev(5, 2);
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&ptmx, kind, Mode::S_IRWXU, number).expect("mknod");
    refused("a device of the image");
    fs::remove_file(&ptmx).expect("remove");
    // With one, the console still must not be a link.
    let devpts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"] });
    let mut config = bundle.config();
    config["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(devpts);
    bundle.change(json!({ "mounts": config["mounts"] }));
    symlink(&victim, dev.join("console")).expect("symlink");
    let said = bounded(&bundle, &["run", "c"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("/dev/console"), "{said:?}");
    bundle.assert_clean();
}
