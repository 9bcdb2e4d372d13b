//! Images that leave a node as archives, and those that are made of a root file system.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fairlead_tests::{Cluster, Node, sh, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn store(node: &Node) -> PathBuf {
    node.dir.join("state/images")
}

/// A folder of the test's own, for what is saved.
fn folder(cluster: &Cluster) -> PathBuf {
    let folder = cluster.dir().join("out");
    fs::create_dir(&folder).expect("a folder");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// An archive of the tasks' root file system with a big file in it, as `docker export` makes one.
fn big_root(cluster: &Cluster, folder: &Path) -> PathBuf {
    let archive = folder.join("root.tar");
    sh(&format!(
        "cp -a {root} {dir}/big; head -c 64000000 /dev/urandom >{dir}/big/random
         tar -C {dir}/big --numeric-owner -cf {dir}/root.tar .; rm -r {dir}/big",
        root = cluster.root().display(),
        dir = folder.display(),
    ));
    archive
}

fn ended(child: &mut Child) {
    wait_for("the command line's end", || match child.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn an_image_goes_from_node_to_node_and_back_to_other_tools() {
    let cluster = Cluster::new("imagesave", 2);
    let folder = folder(&cluster);
    let (first, second) = (cluster.node(1), cluster.node(2));
    let archive = cluster.archive();
    first
        .fairlead(&["image", "load", text(&archive)])
        .expect("loaded");
    let id = first.json(&["image", "ls"])[0]["id"].clone();
    let out = folder.join("saved.tar");
    first
        .fairlead(&["image", "save", "web:1", "-o", text(&out)])
        .expect("saved");
    assert_eq!(names(&folder), ["saved.tar"], "nothing else is left");

    // The same on standard output, and again.
    let piped = folder.join("piped.tar");
    let status = first
        .cli(&["image", "save", "web:1"])
        .stdout(File::create(&piped).expect("a file"))
        .status();
    assert!(status.expect("it ran").success());
    sh(&format!("cmp {} {}", out.display(), piped.display()));
    sh(&format!(
        "cd {}; skopeo copy -q --insecure-policy docker-archive:saved.tar:web:1 dir:copy",
        folder.display()
    ));

    let loaded = second
        .fairlead(&["image", "load", text(&out)])
        .expect("loaded");
    assert_eq!(json!(loaded.trim()), id);

    // A file that was there stays as it is when saving fails.
    for (arguments, reason) in [
        (&["image", "save", "none:1", "-o", text(&out)][..], "none:1"),
        (
            &["image", "save", "web:1", "-o", text(&folder)],
            "directory",
        ),
        (
            &["image", "save", "web:1", "-o", "/nonexistent/x.tar"],
            "/nonexistent",
        ),
    ] {
        let refused = first.fairlead(arguments).expect_err(reason);
        assert!(refused.contains(reason), "{refused}");
    }
    sh(&format!("cmp {} {}", out.display(), piped.display()));
    // What is no file is written to, not replaced.
    first
        .fairlead(&["image", "save", "web:1", "-o", "/dev/null"])
        .expect("written");
    sh("test -c /dev/null");

    // A file of the layer that somebody changed is noticed, and the old archive stays.
    let changed = store(first).join("l/0/etc/passwd");
    sh(&format!("sed -i s/web/wob/ {}", changed.display()));
    let refused = first
        .fairlead(&["image", "save", "web:1", "-o", text(&out)])
        .expect_err("it was changed");
    assert!(refused.contains("changed on the disk"), "{refused}");
    sh(&format!("cmp {} {}", out.display(), piped.display()));
    assert_eq!(names(&folder), ["copy", "piped.tar", "saved.tar"]);
}

#[test]
fn a_task_runs_from_an_imported_image() {
    let mut cluster = Cluster::new("imageimport", 1);
    let folder = folder(&cluster);
    let root = cluster.root();
    sh(&format!(
        "tar -C {} --numeric-owner -czf {}/root.tar.gz .",
        root.display(),
        folder.display()
    ));
    let archive = folder.join("root.tar.gz");
    let node = cluster.node(1);
    let said = node.json(&[
        "image",
        "import",
        "-c",
        "ENTRYPOINT [\"/bin/server\"]",
        "-c",
        "CMD [\"tcp:80\"]",
        "-c",
        "ENV MADE=here PATH=/bin",
        "-m",
        "made by a test",
        text(&archive),
        "made:1",
    ]);
    assert_eq!(said["names"], json!(["docker.io/library/made:1"]));
    let inspected = node.json(&["image", "inspect", "made:1"]);
    assert_eq!(
        inspected["config"]["history"][0]["comment"],
        "made by a test"
    );
    for (arguments, reason) in [
        (
            &["image", "import", "-c", "RUN x", text(&archive)][..],
            "`RUN x`",
        ),
        (
            &["image", "import", text(&archive), "Bad Name"],
            "not a valid",
        ),
        (
            &["image", "import", "--platform", "x", text(&archive)],
            "no platform",
        ),
        (&["image", "import", "/nonexistent"], "/nonexistent"),
        (&["image", "import", "/dev/null"], "not complete"),
        (&["image", "import", "/"], "/: "),
        (&["image", "import", "/bin/busybox"], "bad tar header"),
    ] {
        let refused = node.fairlead(arguments).expect_err(reason);
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    assert_eq!(
        node.json(&["image", "ls"]).as_array().map(Vec::len),
        Some(1)
    );

    let task = cluster.task("t", 1);
    task.set("/container/image", json!("made:1"));
    task.set("/container/command", json!([]));
    task.set("/container/args", json!([]));
    cluster.deploy();
    let node = cluster.node(1);
    node.await_task("t", "running");
    let pid = node.task_pid("t");
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its command");
    assert_eq!(command, "/bin/server\0tcp:80\0");
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("its environment");
    assert!(environment.contains("MADE=here"), "{environment:?}");
}

#[test]
fn who_goes_away_in_the_middle_leaves_nothing() {
    let mut cluster = Cluster::new("imagegone", 1);
    let folder = folder(&cluster);
    let node = cluster.node(1);
    let archive = big_root(&cluster, &folder);
    let tmp = store(node).join("tmp");

    // A half archive, then silence; then the end of who sends it.
    for signal in ["KILL", "TERM"] {
        let mut import = node
            .cli(&["image", "import", "-", "half:1"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let mut input = import.stdin.take().expect("its input");
        let mut file = File::open(&archive).expect("the archive");
        std::io::copy(&mut Read::take(&mut file, 30_000_000), &mut input).expect("sent");
        wait_for("the import to begin", || match names(&tmp).is_empty() {
            true => Err("no work in progress".to_owned()),
            false => Ok(()),
        });
        sh(&format!("kill -{signal} {}", import.id()));
        ended(&mut import);
        wait_for("the import to be given up", || match names(&tmp) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
        drop(input);
    }
    assert_eq!(node.json(&["image", "ls"]), json!([]));
    assert!(names(&store(node).join("l")).is_empty());

    node.fairlead(&["image", "import", text(&archive), "whole:1"])
        .expect("imported");
    fs::remove_file(&archive).expect("removed");

    // A reader that takes nothing holds the daemon back, and nobody else.
    let mut slow = node
        .cli(&["image", "save", "whole:1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut output = slow.stdout.take().expect("its output");
    let mut first = [0];
    output.read_exact(&mut first).expect("the first byte");
    let started = Instant::now();
    let removed = node.json(&["image", "rm", "--force", "whole:1"]);
    assert_eq!(removed[0]["bytes"], json!(0), "the layer is being read");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(names(&store(node).join("l")).len(), 1);
    // All of it comes, although the image is gone; then the layer goes too.
    let out = folder.join("out.tar");
    let mut all = first.as_slice().chain(output);
    std::io::copy(&mut all, &mut File::create(&out).expect("a file")).expect("received");
    assert!(slow.wait().expect("its end").success());
    wait_for("the layer to go", || match names(&store(node).join("l")) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(names(&store(node).join("layers")).is_empty());

    // Whoever is ended while it saves leaves no file, neither the one that was asked for nor another; nor
    // does who is left by the daemon.
    node.fairlead(&["image", "load", text(&out)])
        .expect("loaded");
    let keep = folder.join("keep.tar");
    fs::write(&keep, "old").expect("a file");
    for signal in ["INT", "TERM"] {
        let mut save = waiting(node, &folder, &keep);
        sh(&format!("kill -{signal} {}", save.id()));
        ended(&mut save);
        assert_eq!(names(&folder), ["keep.tar", "out.tar"], "{signal}");
        sh(&format!("kill -CONT {}", node.daemon_pid()));
    }
    let mut save = waiting(node, &folder, &keep);
    cluster.node_mut(1).stop(Signal::SIGKILL);
    ended(&mut save);
    assert_eq!(names(&folder), ["keep.tar", "out.tar"]);
    assert_eq!(fs::read_to_string(&keep).expect("the file"), "old");
    cluster.node_mut(1).start();
}

#[test]
fn archives_come_on_standard_input_and_whoever_goes_away_leaves_nothing() {
    let mut cluster = Cluster::new("imagestdin", 2);
    let folder = folder(&cluster);
    let archive = big_root(&cluster, &folder);
    let first = cluster.node(1);
    for name in ["web:1", "team/app:2"] {
        // Two images of one layer.
        first
            .fairlead(&[
                "image",
                "import",
                "-c",
                &format!("LABEL is={name}"),
                text(&archive),
                name,
            ])
            .expect("imported");
    }
    let saved = folder.join("saved.tar");
    let save = ["image", "save", "web:1", "team/app:2", "-o", text(&saved)];
    first.fairlead(&save).expect("saved");
    let tmp = store(cluster.node(2)).join("tmp");
    let load = |node: &Node, arguments: &[&str]| {
        let mut load = node.cli(&[&["image", "load"], arguments].concat());
        load.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        load.spawn().expect("it runs")
    };
    let send = |load: &mut Child, bytes: u64| {
        let mut input = load.stdin.take().expect("its input");
        let mut file = File::open(&saved).expect("the archive");
        std::io::copy(&mut Read::take(&mut file, bytes), &mut input).expect("sent");
        input
    };
    let given_up = || {
        wait_for("the load to be given up", || match names(&tmp) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    };

    // Half an archive and an end; then silence, and the end of who sends it; then that of the daemon.
    let node = cluster.node(2);
    let mut half = load(node, &["-"]);
    drop(send(&mut half, 30_000_000));
    let refused = half.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("truncated"),
        "{said}"
    );
    given_up();
    for signal in ["KILL", "TERM"] {
        let mut half = load(node, &[]);
        let input = send(&mut half, 30_000_000);
        wait_for("the load to begin", || match names(&tmp).is_empty() {
            true => Err("no work in progress".to_owned()),
            false => Ok(()),
        });
        sh(&format!("kill -{signal} {}", half.id()));
        ended(&mut half);
        given_up();
        drop(input);
    }
    let mut half = load(node, &[]);
    let input = send(&mut half, 30_000_000);
    cluster.node_mut(2).stop(Signal::SIGKILL);
    ended(&mut half);
    drop(input);
    assert_eq!(names(&tmp).len(), 1, "it was spooled");
    cluster.node_mut(2).start();
    assert!(names(&tmp).is_empty(), "{:?}", names(&tmp));
    let node = cluster.node(2);
    assert_eq!(node.json(&["image", "ls"]), json!([]));
    assert!(names(&store(node).join("l")).is_empty());

    // All of it, by a pipe, and by a file that only the command line reads.
    let expected = json!([["docker.io/library/web:1"], ["docker.io/team/app:2"]]);
    for arguments in [&["-"][..], &["-i", text(&saved)]] {
        let mut whole = load(node, arguments);
        if arguments == ["-"] {
            drop(send(&mut whole, u64::MAX));
        }
        let done = whole.wait_with_output().expect("its end");
        let (out, said) = (&done.stdout, String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{said}");
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert!(
            said.contains("loaded web:1") && said.contains("loaded team/app:2"),
            "{said}"
        );
        let images = node.json(&["image", "ls"]);
        let found: Vec<_> = images
            .as_array()
            .into_iter()
            .flatten()
            .map(|image| &image["names"])
            .collect();
        assert_eq!(found.len(), 2);
        assert!(
            expected
                .as_array()
                .expect("names")
                .iter()
                .all(|name| found.contains(&name)),
            "{found:?}"
        );
        node.fairlead(&["image", "rm", "web:1", "team/app:2"])
            .expect("removed");
    }
    assert!(names(&tmp).is_empty());
}

/// A save that has begun with its file, of a daemon that is stopped.
fn waiting(node: &Node, folder: &Path, out: &Path) -> Child {
    sh(&format!("kill -STOP {}", node.daemon_pid()));
    let before = names(folder).len();
    let save = node
        .cli(&["image", "save", "whole:1", "-o", text(out)])
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    wait_for("the file to be begun", || match names(folder) {
        found if found.len() > before => Ok(()),
        found => Err(format!("{found:?}")),
    });
    save
}
