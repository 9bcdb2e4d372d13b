//! Images of registries: a task names one, and the node gets it.

use std::fs;

use fairlead_tests::Cluster;
use serde_json::{Value, json};

use crate::registry::{REGISTRY, Registry};

fn names(images: &Value) -> Vec<String> {
    let images = images.as_array().expect("a list");
    let names = images
        .iter()
        .flat_map(|image| image["names"].as_array().expect("names"));
    names
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn a_task_brings_its_image_and_keeps_it() {
    let mut cluster = Cluster::new("pull", 1);
    let mut served = Registry::new(&cluster);
    let image = format!("{REGISTRY}/web:1");
    cluster.task("t", 1).set("/container/image", json!(image));
    cluster.deploy();
    let node = cluster.node(1);
    node.await_task("t", "running");

    // Its files are the image's, and the node knows who uses it.
    let passwd = format!("/proc/{}/root/etc/passwd", node.task_pid("t"));
    let passwd = fs::read_to_string(passwd).expect("the image's file");
    assert!(passwd.contains("web:x:101:102"), "{passwd}");
    let images = node.json(&["image", "ls"]);
    assert_eq!(names(&images), [image.as_str()]);
    assert_eq!(images[0]["tasks"], json!(["t"]));
    let refused = node
        .fairlead(&["image", "rm", &image])
        .expect_err("it is in use");
    assert!(refused.contains("in use by the tasks t"), "{refused}");

    // A second task with the same image needs no registry: what is here will do.
    served.end();
    cluster.task("u", 1).set("/container/image", json!(image));
    cluster.deploy();
    cluster.node(1).await_task("u", "running");

    // When nobody uses it, it can go.
    cluster.clear();
    cluster.deploy();
    let node = cluster.node(1);
    node.await_no_task("t");
    node.await_no_task("u");
    let usage = node.json(&["image", "df"]);
    assert_eq!(
        (&usage["images"], &usage["imagesInUse"]),
        (&json!(1), &json!(0))
    );
    assert!(usage["reclaimableBytes"].as_u64() > Some(0), "{usage}");
    let kept = node.json(&["image", "prune"]);
    assert_eq!(kept["removed"], json!([]), "it has a name");
    let kept = node.json(&["image", "prune", "--all", "--until", "1h"]);
    assert_eq!(kept["removed"], json!([]), "it was used just now");
    let gone = node.json(&["image", "prune", "--all"]);
    assert_eq!(gone["removed"], json!([images[0]["id"]]));
    assert_eq!(node.json(&["image", "ls"]), json!([]));
}

#[test]
fn an_image_that_is_not_there_rejects_the_task_with_the_reason() {
    let mut cluster = Cluster::new("nopull", 1);
    let _served = Registry::new(&cluster);
    let missing = format!("{REGISTRY}/nothing:1");
    cluster.task("t", 1).set("/container/image", json!(missing));
    cluster.apply(&[]).expect("the assignment is good");
    let status = cluster.node(1).await_task("t", "rejected");
    let error = status["error"].as_str().unwrap_or_default();
    assert!(
        error.contains(&missing) && error.contains("not found"),
        "{error}"
    );
    assert_eq!(cluster.node(1).json(&["image", "ls"]), json!([]));
}

#[test]
fn people_pull_and_remove_images() {
    let cluster = Cluster::new("imagecli", 1);
    let _served = Registry::new(&cluster);
    let node = cluster.node(1);
    let pulled = node.run(&["image", "pull", &format!("{REGISTRY}/web:1")]);
    let said = String::from_utf8_lossy(&pulled.stderr).into_owned();
    assert!(pulled.status.success(), "{said}");
    assert!(said.contains("pulling") && said.contains("done"), "{said}");
    let id = String::from_utf8_lossy(&pulled.stdout).trim().to_owned();
    // Again: nothing has to come.
    let again = node.run(&["image", "pull", &format!("{REGISTRY}/web:1")]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        again.status.success() && !said.contains("pulling"),
        "{said}"
    );

    // A second name for the same image, from an archive.
    let archive = cluster.archive();
    node.fairlead(&["image", "load", archive.to_str().expect("UTF-8")])
        .expect("loaded");
    let listed = node.json(&["image", "ls"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(names(&listed).len(), 2);
    let inspected = node.json(&["image", "inspect", &id[7..19]]);
    assert_eq!(
        inspected["config"]["config"]["Entrypoint"],
        json!(["/bin/server"])
    );

    let refused = node
        .fairlead(&["image", "rm", &id])
        .expect_err("it has two names");
    assert!(refused.contains("in use by the names"), "{refused}");
    let untagged = node.json(&["image", "rm", "web:1"]);
    assert_eq!(untagged[0]["removed"], json!(""));
    let removed = node.json(&["image", "rm", &format!("{REGISTRY}/web:1")]);
    assert_eq!(removed[0]["removed"], json!(id));
    assert_eq!(node.json(&["image", "ls"]), json!([]));

    for (name, reason) in [
        ("127.0.0.1:5000/none:1", "not found"),
        ("127.0.0.1:1/none", "127.0.0.1:1"),
        ("Bad Name", "not a valid repository"),
        ("dir:/", "only a name"),
    ] {
        let refused = node.fairlead(&["image", "pull", name]).expect_err(name);
        assert!(refused.contains(reason), "{name}: {refused}");
    }
}
