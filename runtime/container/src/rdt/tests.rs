//! What is written, with a directory in resctrl's place: no kernel at hand has that.

use super::*;
use oci_spec::runtime::LinuxIntelRdtBuilder;

fn rdt(json: serde_json::Value) -> LinuxIntelRdt {
    serde_json::from_value(json).expect("intelRdt")
}

/// With a class "gold".
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("tempdir");
    fs::write(root.path().join("schemata"), "L3:0=ffff\n").expect("write");
    let gold = root.path().join("gold");
    fs::create_dir_all(gold.join("mon_groups")).expect("mkdir");
    fs::write(
        gold.join("schemata"),
        "    L3:0=00ff;1=000f\n    MB:0=100;1=50\n",
    )
    .expect("write");
    root
}

fn read(root: &tempfile::TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).expect(path)
}

#[test]
fn a_class_of_the_containers_own() {
    let root = root();
    let asked = rdt(serde_json::json!({
        "l3CacheSchema": "L3:0=ff;1=f\nMB:0=10", "memBwSchema": "MB:0=70",
    }));
    check_at(&asked, root.path()).expect("valid");
    join_at(&asked, "web", 77, root.path())
        .expect("joined")
        .keep();
    assert_eq!(read(&root, "web/schemata"), "L3:0=ff;1=f\nMB:0=70\n");
    assert_eq!(read(&root, "web/tasks"), "77");
    let error = join_at(&asked, "web", 78, root.path()).expect_err("there already");
    assert!(error.to_string().contains("web"), "{error}");
    // In resctrl the files go with the directory.
    fs::remove_file(root.path().join("web/schemata")).expect("remove");
    fs::remove_file(root.path().join("web/tasks")).expect("remove");
    remove_at(&asked, "web", root.path()).expect("removed");
    assert!(!root.path().join("web").exists());
    remove_at(&asked, "web", root.path()).expect("gone is fine");
}

#[test]
fn a_class_that_is_there() {
    let root = root();
    let named = |schemata: &[&str]| {
        rdt(serde_json::json!({ "closID": "gold", "schemata": schemata, "enableMonitoring": true }))
    };
    join_at(&named(&["L3:0=ff;1=f", "MB:1=50"]), "web", 77, root.path())
        .expect("the same")
        .keep();
    assert_eq!(read(&root, "gold/tasks"), "77");
    assert_eq!(read(&root, "gold/mon_groups/web/tasks"), "77");
    fs::remove_file(root.path().join("gold/mon_groups/web/tasks")).expect("remove");
    remove_at(&named(&[]), "web", root.path()).expect("removed");
    assert!(!root.path().join("gold/mon_groups/web").exists());
    assert!(root.path().join("gold").exists(), "it is others' too");
    for other in ["L3:0=f", "L2:0=f", "MB:7=50"] {
        let error = join_at(&named(&[other]), "x", 1, root.path()).expect_err(other);
        assert!(error.to_string().contains("other schemata"), "{error}");
    }
    let missing = rdt(serde_json::json!({ "closID": "silver" }));
    let error = join_at(&missing, "x", 1, root.path()).expect_err("missing");
    assert!(error.to_string().contains("silver"), "{error}");
    assert!(!root.path().join("silver").exists());
}

#[test]
fn refused() {
    let root = root();
    for (field, bad) in [
        ("closID", serde_json::json!({ "closID": "../x" })),
        ("closID", serde_json::json!({ "closID": "a/b" })),
        ("closID", serde_json::json!({ "closID": "" })),
        ("closID", serde_json::json!({ "closID": "info" })),
        ("schemata", serde_json::json!({ "schemata": ["a\nb"] })),
        ("schemata", serde_json::json!({ "schemata": ["L3"] })),
        (
            "schemata",
            serde_json::json!({ "schemata": ["L3:0=f"], "memBwSchema": "MB:0=1" }),
        ),
        (
            "schemata",
            serde_json::json!({ "closID": "/", "schemata": ["L3:0=f"] }),
        ),
    ] {
        let error = check_at(&rdt(bad.clone()), root.path())
            .expect_err(field)
            .to_string();
        assert!(error.contains(field), "{bad}: {error}");
    }
    let empty = tempfile::tempdir().expect("tempdir");
    let any = LinuxIntelRdtBuilder::default().build().expect("intelRdt");
    let error = check_at(&any, empty.path())
        .expect_err("no resctrl")
        .to_string();
    assert!(error.contains("resctrl is not mounted"), "{error}");
}
