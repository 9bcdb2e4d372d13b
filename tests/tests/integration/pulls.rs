//! What a task's image needs of its registry, and what becomes of it beside the task.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairlead_tests::{Cluster, Node, sh, wait_for};
use nix::sys::signal::Signal::{self, SIGKILL, SIGTERM};
use serde_json::{Value, json};

use crate::registry::{LINE, Line, PASSWORD, REGISTRY, Registry, USER};

/// A password that is not the right one.
const WRONG: &str = "pass:w0rd";

/// Soon enough for somebody who waits, however busy the machine.
const SOON: Duration = Duration::from_secs(90);

/// What Docker's API calls `X-Registry-Auth`.
fn registry_auth(password: &str) -> String {
    let text = json!({"username": USER, "password": password}).to_string();
    base64(&text)
}

fn base64(text: &str) -> String {
    let encoded = sh(&format!("printf %s '{text}' | base64 -w0"));
    // The alphabet for URLs, as Docker's clients write it.
    encoded.trim().replace('+', "-").replace('/', "_")
}

/// Which files below contain a text, as it is.
fn files_with(text: &str, below: &[&Path]) -> Vec<String> {
    let below: Vec<_> = below
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    // Whoever finds nothing ends with 1; a file may go while it is looked for.
    let found = sh(&format!(
        "grep -rlaF -s -e '{text}' {} || true",
        below.join(" ")
    ));
    found.lines().map(str::to_owned).collect()
}

fn images(node: &Node) -> Value {
    node.json(&["image", "ls"])
}

/// A file of the root file system that a task runs in.
fn file_of(node: &Node, task: &str, file: &str) -> String {
    let path = format!("/proc/{}/root/{file}", node.task_pid(task));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A folder of the store of images.
fn store(node: &Node, folder: &str) -> PathBuf {
    node.dir.join("state/images").join(folder)
}

fn entries(node: &Node, folder: &str) -> usize {
    fs::read_dir(store(node, folder)).expect(folder).count()
}

/// Folders of layers that are on the disk.
fn layers(node: &Node) -> usize {
    entries(node, "l")
}

#[test]
fn credentials_come_with_the_task_and_are_shown_to_nobody() {
    let mut cluster = Cluster::new("pullauth", 1);
    let _served = Registry::locked(&cluster);
    let image = format!("{REGISTRY}/web:1");
    let auth = registry_auth(PASSWORD);
    let wanted = |cluster: &mut Cluster, task: &str, auth: &str| {
        let options = json!({"registryAuth": auth});
        cluster
            .task(task, 1)
            .set("/container/image", json!(image))
            .set("/container/pullOptions", options);
        cluster.apply(&[]).expect("the assignment is good");
    };
    let refused = |node: &Node, task: &str| {
        let status = node.await_task(task, "rejected");
        let error = status["error"].as_str().unwrap_or_default();
        assert!(
            error.contains(&image) && error.contains("access denied (status 401)"),
            "{task}: {error}"
        );
    };
    wanted(&mut cluster, "nobody", "");
    wanted(&mut cluster, "wrong", &registry_auth(WRONG));
    refused(cluster.node(1), "nobody");
    refused(cluster.node(1), "wrong");
    assert_eq!(images(cluster.node(1)), json!([]));

    wanted(&mut cluster, "right", &auth);
    let node = cluster.node(1);
    node.await_task("right", "running");
    let passwd = file_of(node, "right", "etc/passwd");
    assert!(passwd.contains("web:x:101:102"), "{passwd}");

    // What one has brought with his password is not for who has none.
    wanted(&mut cluster, "later", "");
    let node = cluster.node(1);
    refused(node, "later");

    // Nobody is told, and no file has it but the store of the assignment, which only root reads.
    let inspected = node.json(&["inspect", "right"]).to_string();
    assert!(inspected.contains(&image), "{inspected}");
    let [state, run, log] = ["state", "run", "daemon.log"].map(|name| node.dir.join(name));
    assert!(
        !files_with("access denied", &[&log]).is_empty(),
        "the log tells of pulls"
    );
    let basic = |password| base64(&format!("{USER}:{password}"));
    for secret in [PASSWORD, WRONG, &basic(PASSWORD), &basic(WRONG)] {
        assert!(!inspected.contains(secret), "{inspected}");
        assert_eq!(
            files_with(secret, &[&state, &run, &log]),
            [""; 0],
            "{secret}"
        );
    }
    assert!(!inspected.contains(&auth), "{inspected}");
    let store = state.join("executor.redb").display().to_string();
    assert_eq!(files_with(&auth, &[&state, &run, &log]), [store]);
}

/// Runs a task with the image; what the image says it is.
fn which(cluster: &mut Cluster, task: &str, image: &str) -> String {
    cluster.task(task, 1).set("/container/image", json!(image));
    cluster.apply(&[]).expect("the assignment is good");
    cluster.node(1).await_task(task, "running");
    file_of(cluster.node(1), task, "etc/which")
}

#[test]
fn a_tag_that_has_moved_is_followed_if_its_registry_answers() {
    let mut cluster = Cluster::new("pullmoved", 1);
    let image = format!("{REGISTRY}/web:1");
    let root = cluster.root();
    let mark = |text: &str| fs::write(root.join("etc/which"), text).expect("a file");
    let runs = |cluster: &mut Cluster, task: &str| which(cluster, task, &image);
    mark("old");
    let mut served = Registry::new(&cluster);
    assert_eq!(runs(&mut cluster, "one"), "old");
    let old = images(cluster.node(1))[0]["id"].clone();
    mark("new");
    served.push(&cluster, "web:1");

    // The registry does not answer: what is here will do.
    served.end();
    assert_eq!(runs(&mut cluster, "two"), "old");
    assert_eq!(images(cluster.node(1)).as_array().map(Vec::len), Some(1));

    served.start();
    served.push(&cluster, "other:1"); // it answers now
    assert_eq!(runs(&mut cluster, "three"), "new");
    let node = cluster.node(1);
    for task in ["one", "two"] {
        assert_eq!(file_of(node, task, "etc/which"), "old");
    }
    // The name is the new one's; the old one is there for its tasks.
    let images = images(node);
    let images = images.as_array().expect("a list");
    assert_eq!(images.len(), 2, "{images:?}");
    for found in images {
        let is_old = found["id"] == old;
        let tasks: &[&str] = if is_old { &["one", "two"] } else { &["three"] };
        assert_eq!(found["tasks"], json!(tasks), "{found}");
        let names: &[&str] = if is_old { &[] } else { &[&image] };
        assert_eq!(found["names"], json!(names), "{found}");
    }
}

/// Mirrors and passwords of a file, and that images that are here will do.
#[test]
fn what_the_operator_says_of_registries_counts() {
    let mut cluster = Cluster::builder("pullfile", 1).without_daemons();
    let file = cluster.node(1).dir.join("registries.yaml");
    let text = json!({
        "mirrors": {"registry.example": {"endpoint": [format!("http://{REGISTRY}")]}},
        "configs": {REGISTRY: {"auth": {"username": USER, "password": PASSWORD}}},
    });
    fs::write(&file, text.to_string()).expect("the file");
    let file = file.display().to_string();
    let node = cluster.node_mut(1);
    node.with_arguments(&["--registries", &file, "--prefer-local-images"]);
    node.start();
    let image = "registry.example/web:1";
    let root = cluster.root();
    let mark = |text: &str| fs::write(root.join("etc/which"), text).expect("a file");
    let runs = |cluster: &mut Cluster, task: &str| which(cluster, task, image);
    mark("old");
    let served = Registry::locked(&cluster);
    assert_eq!(runs(&mut cluster, "one"), "old");
    assert_eq!(images(cluster.node(1))[0]["names"], json!([image]));
    mark("new");
    served.push(&cluster, "web:1");
    // Nobody asks; a person may.
    assert_eq!(runs(&mut cluster, "two"), "old");
    let node = cluster.node(1);
    node.fairlead(&["image", "pull", image]).expect("pulled");
    assert_eq!(runs(&mut cluster, "three"), "new");

    let node = cluster.node(1);
    let [state, run, log] = ["state", "run", "daemon.log"].map(|name| node.dir.join(name));
    assert_eq!(files_with(PASSWORD, &[&state, &run, &log]), [""; 0]);
}

#[test]
fn a_task_that_goes_while_its_image_comes_holds_nobody_up() {
    let mut cluster = Cluster::new("pullslow", 1);
    let _served = Registry::new(&cluster);
    // More than what comes before the layer, and less than the layer.
    let line = Line::new(&cluster, 200_000);
    let image = format!("{LINE}/web:1");
    cluster.task("t", 1).set("/container/image", json!(image));
    cluster.apply(&[]).expect("the assignment is good");
    line.await_stop();
    cluster.node(1).await_task("t", "preparing");
    // Another one waits for what the first gets.
    cluster.task("u", 1).set("/container/image", json!(image));
    cluster.apply(&[]).expect("the assignment is good");
    cluster.node(1).await_task("u", "preparing");

    let started = Instant::now();
    cluster.remove_task("t");
    cluster.apply(&[]).expect("the assignment is good");
    let node = cluster.node(1);
    node.await_no_task("t");
    // A pull that nobody ends tries for some minutes.
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(images(node), json!([]), "nothing has come yet");
    assert_eq!(node.task("u")["state"], "preparing");

    line.pass(None);
    node.await_task("u", "running");
    assert_eq!(images(node)[0]["tasks"], json!(["u"]));
}

/// A file that cannot be compressed, and where in it a layer that is little else is held up.
const NOISE: usize = 6 << 20;
const MIDDLE: usize = 3 << 20;

/// Far more than the head of an answer.
const HEAD: usize = 4 << 10;

#[test]
fn a_daemon_that_ends_while_an_image_comes_goes_on_where_it_was() {
    let mut cluster = Cluster::new("pullkilled", 1);
    let noise = cluster.root().join("etc/noise").display().to_string();
    sh(&format!("head -c {NOISE} /dev/urandom >{noise}"));
    let noise = fs::read(noise).expect("what cannot be compressed");
    let _served = Registry::new(&cluster);
    let line = Line::new(&cluster, 0);
    line.pass(None);
    let manifest = cluster.node(1).exec(&format!(
        "skopeo inspect --raw --tls-verify=false docker://{REGISTRY}/web:1"
    ));
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
    let [config, layer] = ["/config/digest", "/layers/0/digest"].map(|part| {
        let digest = manifest.pointer(part).and_then(Value::as_str);
        digest.expect(part).to_owned()
    });
    let rounds: [(&str, usize, Signal); 4] = [
        ("/manifests/1", 0, SIGKILL),
        (&config, 0, SIGKILL),
        (&layer, MIDDLE, SIGKILL),
        (&layer, MIDDLE, SIGTERM),
    ];
    for (round, (part, bytes, signal)) in rounds.into_iter().enumerate() {
        let (task, what) = (format!("t{round}"), format!("{signal} at {part}"));
        let image = format!("{LINE}/web:1");
        line.hold_at(part, bytes);
        cluster.task(&task, 1).set("/container/image", json!(image));
        cluster.apply(&[]).expect("the assignment is good");
        let blob = store(cluster.node(1), "blobs").join(layer.trim_start_matches("sha256:"));
        let came = || fs::metadata(&blob).map_or(0, |file| file.len());
        line.await_stop();
        wait_for("what may pass to be on the disk", || {
            let came = came();
            match came + HEAD as u64 >= bytes as u64 {
                true => Ok(()),
                false => Err(format!("{came} bytes")),
            }
        });

        cluster.node_mut(1).stop(signal);
        let came = came();
        let node = cluster.node_mut(1);
        if bytes > 0 {
            assert!(came < bytes as u64, "{came}: {what}");
            let unpacked = entries(node, "tmp");
            assert!(unpacked > 0 || signal == SIGTERM, "nothing was unpacked");
        }
        assert_eq!(entries(node, "images"), 0, "{what}");
        // It answers while the registry does not.
        node.start();
        line.pass(None);
        node.await_task(&task, "running");
        // Who is held up for long asks again.
        let asked = line.offsets(&layer);
        let again = asked.get(1..).unwrap_or_default();
        assert!(
            asked.first() == Some(&0)
                && again.iter().all(|offset| *offset == came)
                && (bytes == 0 || !again.is_empty()),
            "{what}: {came} bytes had come, and it was asked for from {asked:?}"
        );
        let path = format!("/proc/{}/root/etc/noise", node.task_pid(&task));
        assert!(fs::read(&path).expect(&path) == noise, "{what}");
        for folder in ["tmp", "blobs"] {
            assert_eq!(entries(node, folder), 0, "{folder}: {what}");
        }

        cluster.remove_task(&task);
        cluster.apply(&[]).expect("the assignment is good");
        let node = cluster.node(1);
        node.await_no_task(&task);
        node.fairlead(&["image", "prune", "--all"]).expect("pruned");
        assert_eq!(layers(node), 0, "the next one is to pull it anew");
    }
}

#[test]
fn an_image_stays_while_a_task_asks_for_it() {
    let mut cluster = Cluster::new("pullstays", 1);
    let _served = Registry::new(&cluster);
    let line = Line::new(&cluster, 0);
    line.pass(None);
    let image = format!("{LINE}/web:1");
    let node = cluster.node(1);
    node.fairlead(&["image", "pull", &image]).expect("pulled");
    let id = images(node)[0]["id"].clone();

    // The registry is asked what the name means by now, and does not say.
    line.pass(Some(0));
    cluster.task("t", 1).set("/container/image", json!(image));
    cluster.apply(&[]).expect("the assignment is good");
    line.await_stop();
    let node = cluster.node(1);
    let pruned = node.json(&["image", "prune", "--all"]);
    assert_eq!(pruned["removed"], json!([]));
    let refused = node.fairlead(&["image", "rm", &image]).expect_err("in use");
    assert!(refused.contains("in use by the tasks t"), "{refused}");
    assert_eq!(images(node)[0]["tasks"], json!(["t"]));

    // It goes away: what is here will do, and is here.
    drop(line);
    node.await_task("t", "running");
    cluster.clear();
    cluster.apply(&[]).expect("the assignment is good");
    let node = cluster.node(1);
    node.await_no_task("t");
    let pruned = node.json(&["image", "prune", "--all"]);
    assert_eq!(pruned["removed"], json!([id]));
}

#[test]
fn an_image_that_was_removed_by_force_goes_with_its_last_task() {
    let mut cluster = Cluster::new("pullforce", 1);
    let image = format!("docker-archive:{}", cluster.archive().display());
    for task in ["ends", "leaves"] {
        cluster.task(task, 1).set("/container/image", json!(image));
    }
    cluster.deploy();
    let node = cluster.node(1);
    assert_eq!(layers(node), 1);
    let refused = node.fairlead(&["image", "rm", "web:1"]).expect_err("used");
    assert!(refused.contains("tasks ends, leaves"), "{refused}");
    let removed = node.json(&["image", "rm", "--force", "web:1"]);
    assert_ne!(removed[0]["removed"], json!(""));
    assert_eq!(images(node), json!([]));

    // They go on with its files, also when they open them only now.
    for task in ["ends", "leaves"] {
        assert!(file_of(node, task, "etc/passwd").contains("web:x:101:102"));
    }
    let own = node.dir.join("state/images/snapshots/ends");
    assert!(own.exists());
    node.exec(&format!("kill -KILL {}", node.task_pid("ends")));
    node.await_task("ends", "failed");
    wait_for("its root file system to go", || match own.exists() {
        true => Err(format!("{} is there", own.display())),
        false => Ok(()),
    });
    assert!(file_of(node, "leaves", "etc/group").contains("web"));
    assert_eq!(layers(node), 1);

    cluster.remove_task("leaves");
    cluster.apply(&[]).expect("the assignment is good");
    let node = cluster.node(1);
    node.await_no_task("leaves");
    assert_eq!(layers(node), 0);
    let usage = node.json(&["image", "df"]);
    assert_eq!(usage["layers"].as_u64().unwrap_or(0), 0, "{usage}");
}
