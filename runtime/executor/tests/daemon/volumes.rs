//! The volumes and the health check that an image brings along.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use fairlead_api::v1::{self, HealthState, TaskState};
use nix::sys::signal::Signal;

use crate::bed::{Daemon, complete, configure, inspect, run, said, script, status, wait_for};
use crate::image::archive;
use crate::traces::nothing_left;

fn snapshots(daemon: &Daemon) -> PathBuf {
    daemon.state_dir().join("images/snapshots")
}

fn of_image(daemon: &Daemon, id: &str, image: &str, line: &str) -> v1::Task {
    let mut task = script(daemon, id, line);
    task.container.as_mut().unwrap().image = image.to_owned();
    task
}

/// `cap_net_raw+ep` of a file (`struct vfs_cap_data`, version 2).
const PING: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// The capabilities that a file gives, which go when anybody changes it; and sets them first.
fn capability(path: &Path, new: Option<&[u8; 20]>) -> [u8; 20] {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let name = c"security.capability";
    let mut value = [0_u8; 20];
    // SAFETY: the strings end in NUL; the kernel reads and writes no more than the 20 bytes.
    unsafe {
        if let Some(new) = new {
            let set = libc::setxattr(path.as_ptr(), name.as_ptr(), new.as_ptr().cast(), 20, 0);
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        }
        let got = libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 20);
        assert_eq!(got, 20, "{}", std::io::Error::last_os_error());
    }
    value
}

/// What the second layer has at `/data`, and around it.
fn content(root: &Path) {
    let data = root.join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "of the image").unwrap();
    fs::hard_link(data.join("file"), data.join("sub/same")).unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    run("mkfifo", &[data.join("fifo").to_str().unwrap()]);
    run(
        "mknod",
        &[data.join("null").to_str().unwrap(), "c", "1", "3"],
    );
    fs::write(data.join("tool"), "").unwrap();
    capability(&data.join("tool"), Some(&PING));
    // Hides what the base has there.
    fs::write(data.join(".wh.gone"), "").unwrap();
    for path in ["file", "sub", "."] {
        chown(data.join(path), Some(77), Some(78)).unwrap();
    }
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2771)).unwrap();
    symlink("/real/place", root.join("linked")).unwrap();
    fs::create_dir_all(root.join("real/place")).unwrap();
    fs::write(root.join("real/place/here"), "behind a link").unwrap();
    fs::create_dir(root.join("covered")).unwrap();
    fs::write(root.join("covered/under"), "").unwrap();
}

const VOLUMES: &str = r#"{"Volumes": {"/data": {}, "/linked": {}, "/new/deep": {}, "/covered/": {}},
    "Labels": {"who": "image", "only": "image"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn volumes_begin_with_the_image_and_end_with_the_task() {
    let mut daemon = Daemon::start("volumes");
    fs::create_dir(daemon.rootfs().join("data")).unwrap();
    fs::write(daemon.rootfs().join("data/gone"), "").unwrap();
    fs::write(daemon.rootfs().join("data/base"), "of the base").unwrap();
    let image = archive(&daemon, "volumes", VOLUMES, content);
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let look = "cd /data; ls; cat file base /linked/here; echo; ls /covered /new/deep; \
                echo new > /data/sub/new && echo more > /linked/more && echo x > /new/deep/x && echo written; \
                (echo x > /root-is-mine) 2>/dev/null || echo refused; \
                grep -e ' /data ' -e ' /real/place ' /proc/self/mountinfo | wc -l; echo end";
    let mut task = of_image(&daemon, "t1", &image, &format!("{look}; exec sleep 1000"));
    let c = task.container.as_mut().unwrap();
    c.read_only = true;
    c.labels = [("who".to_owned(), "task".to_owned())].into();
    c.mounts = vec![v1::Mount {
        r#type: v1::MountType::Tmpfs as i32,
        target: "/covered".into(),
        ..Default::default()
    }];
    // Other tasks have volumes of their own.
    let other = of_image(
        &daemon,
        "t2",
        &image,
        "sleep 1; cat /data/sub/new || echo none",
    );
    let tasks = [task, other];
    client.assign(complete("1", &tasks)).await.unwrap();
    let running = status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    status(&mut client, "t2", |s| s.state() == TaskState::Complete).await;
    assert!(said(&mut client, "t2", |_| true).await.contains("none"));
    let text = said(&mut client, "t1", |text| text.ends_with("end\n")).await;
    let expected = "base\nfifo\nfile\nlink\nnull\nsub\ntool\nof the imageof the basebehind a link\n\
                    /covered:\n\n/new/deep:\nwritten\nrefused\n2\nend\n";
    assert_eq!(text, expected);

    // All that a file is.
    let pid = running.container.unwrap().pid;
    let data = PathBuf::from(format!("/proc/{pid}/root/data"));
    let meta = |name: &str| fs::symlink_metadata(data.join(name)).unwrap();
    let owner = |name: &str| {
        (
            meta(name).uid(),
            meta(name).gid(),
            meta(name).mode() & 0o7777,
        )
    };
    assert_eq!(owner("."), (77, 78, 0o2771));
    assert_eq!(owner("file"), (77, 78, 0o4750));
    assert_eq!(owner("base"), (0, 0, 0o644));
    assert_eq!(meta("file").ino(), meta("sub/same").ino());
    assert_eq!(meta("null").rdev(), nix::sys::stat::makedev(1, 3));
    assert_eq!(
        fs::read_link(data.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!(capability(&data.join("tool"), None), PING);
    // The image's own layers are as they were.
    let layers = daemon.state_dir().join("images/l");
    assert!(
        fs::read_dir(&layers)
            .unwrap()
            .flatten()
            .all(|l| !l.path().join("data/sub/new").exists())
    );
    let config = fs::read_to_string(daemon.run_dir().join("tasks/t1/config.json")).unwrap();
    assert!(
        config.contains(r#""who": "task""#) && config.contains(r#""only": "image""#),
        "{config}"
    );

    daemon.end(Signal::SIGKILL);
    daemon.launch();
    let mut client = daemon.client().await;
    status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    assert_eq!(fs::read_to_string(data.join("sub/new")).unwrap(), "new\n");
    assert!(snapshots(&daemon).join("t1/volumes").exists());
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
    wait_for("the snapshots to go", || {
        fs::read_dir(snapshots(&daemon)).unwrap().next().is_none()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_cut_short_is_made_anew() {
    let mut daemon = Daemon::start("copy");
    const FILES: usize = 3000;
    let image = archive(&daemon, "many", r#"{"Volumes": {"/data": {}}}"#, |root| {
        fs::create_dir(root.join("data")).unwrap();
        for n in 0..FILES {
            fs::write(root.join(format!("data/{n}")), vec![b'x'; 2000]).unwrap();
        }
    });
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut task = of_image(
        &daemon,
        "t1",
        &image,
        "ls /data | wc -l; cat /data/* | wc -c",
    );
    task.desired_state = TaskState::Ready as i32;
    client
        .assign(complete("1", std::slice::from_ref(&task)))
        .await
        .unwrap();
    let volume = snapshots(&daemon).join("t1/volumes/0");
    let entries = || fs::read_dir(&volume).map_or(0, Iterator::count);
    for part in [1, FILES / 2] {
        wait_for("a part of the copy", || entries() >= part);
        daemon.end(Signal::SIGKILL);
        daemon.launch();
    }
    let mut client = daemon.client().await;
    status(&mut client, "t1", |s| s.state() == TaskState::Ready).await;
    assert_eq!(entries(), FILES);
    // What is complete is left as it is.
    fs::write(volume.join("mark"), "").unwrap();
    daemon.end(Signal::SIGKILL);
    daemon.launch();
    let mut client = daemon.client().await;
    task.desired_state = TaskState::Running as i32;
    client.assign(complete("2", &[task])).await.unwrap();
    status(&mut client, "t1", |s| s.state() == TaskState::Complete).await;
    let expected = format!("{}\n{}\n", FILES + 1, FILES * 2000);
    assert_eq!(said(&mut client, "t1", |_| true).await, expected);

    // Nobody waits for a copy that nobody wants.
    let again = of_image(&daemon, "t2", &image, "true");
    client.assign(complete("3", &[again])).await.unwrap();
    client.assign(complete("4", &[])).await.unwrap();
    nothing_left(&daemon);
    wait_for("the snapshots to go", || {
        fs::read_dir(snapshots(&daemon)).unwrap().next().is_none()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_says_is_a_default() {
    let daemon = Daemon::start("defaults");
    let nothing = |_: &Path| {};
    let sick = r#"{"Shell": ["/bin/busybox", "sh", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "echo $0; exit 1"], "Interval": 100000000, "Retries": 2}}"#;
    let sick = archive(&daemon, "sick", sick, nothing);
    let negative = archive(
        &daemon,
        "negative",
        r#"{"Healthcheck": {"Interval": -5}}"#,
        nothing,
    );
    let unknown = r#"{"Healthcheck": {"Test": ["TCP", "80"]}}"#;
    let unknown = archive(&daemon, "unknown", unknown, nothing);
    let file = archive(
        &daemon,
        "file",
        r#"{"Volumes": {"/etc/passwd": {}}}"#,
        nothing,
    );
    let above = archive(
        &daemon,
        "above",
        r#"{"Volumes": {"/data/../..": {}}}"#,
        nothing,
    );
    let with = |test: &[&str]| {
        Some(v1::HealthConfig {
            test: test.iter().map(ToString::to_string).collect(),
            ..Default::default()
        })
    };
    let plain = |id: &str, image: &str| of_image(&daemon, id, image, "exec sleep 1000");
    let mut none = plain("none", &sick);
    none.container.as_mut().unwrap().healthcheck = with(&["NONE"]);
    let mut none_of_bad = plain("none-of-bad", &negative);
    none_of_bad.container.as_mut().unwrap().healthcheck = with(&["NONE"]);
    let mut own = plain("own", &sick);
    own.container.as_mut().unwrap().healthcheck =
        with(&["CMD", "/bin/busybox", "echo", "$0", "a b"]);
    let tasks = [
        plain("default", &sick),
        none,
        none_of_bad,
        own,
        plain("negative", &negative),
        plain("unknown", &unknown),
        plain("file", &file),
        plain("above", &above),
    ];
    let mut client = daemon.client().await;
    configure(&mut client).await;
    client.assign(complete("1", &tasks)).await.unwrap();
    for id in ["none", "none-of-bad", "own"] {
        status(&mut client, id, |s| s.state() == TaskState::Running).await;
    }
    let failed = status(&mut client, "default", |s| s.state() == TaskState::Failed).await;
    let error = "unhealthy container: 2 failed probes in a row, the last with exit code 1: sh";
    assert_eq!(failed.error, error);
    for (id, part) in [
        ("negative", "Healthcheck.Interval: -5 ns is negative"),
        (
            "unknown",
            "Healthcheck.Test: \"TCP\" is none of NONE, CMD and CMD-SHELL",
        ),
        ("file", "volume /etc/passwd"),
        ("above", "\"/data/../..\", which is no place in the image"),
    ] {
        let rejected = status(&mut client, id, |s| s.state() == TaskState::Rejected).await;
        assert!(rejected.error.contains(part), "{id}: {}", rejected.error);
    }
    let views = inspect(&mut client).await.tasks;
    let of = |id: &str| {
        let view = views
            .iter()
            .find(|v| v.task.as_ref().is_some_and(|t| t.id == id));
        view.unwrap().health.clone()
    };
    assert_eq!(of("none"), None);
    let own = of("own").unwrap();
    assert_eq!(own.state(), HealthState::Healthy);
    // No shell has seen it.
    assert_eq!(own.log[0].output, "$0 a b\n");
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}
