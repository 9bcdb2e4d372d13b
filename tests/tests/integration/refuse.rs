//! Bad input: refused as a whole, with the field and the reason, and without any effect.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use fairlead_api::v1::executor_client::ExecutorClient;
use fairlead_api::v1::{
    Action, AssignRequest, AssignmentType, Change, DescribeRequest, Network, Subnet, change,
};
use fairlead_tests::{Cluster, Node, Traces, try_sh, wait_for};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A change to a good assignment, and what the refusal has to contain.
type Case = (&'static str, fn(&mut Value), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "an unknown field",
        |a| a["tasks"][0]["colour"] = json!("red"),
        &["colour"],
    ),
    (
        "a wrong type",
        |a| a["tasks"][0]["slot"] = json!("three"),
        &["assignment.yaml:", "u64"],
    ),
    ("no identity", |a| a["node"] = json!({}), &["id"]),
    (
        "an identity that is no name",
        |a| a["tasks"][0]["id"] = json!("../../etc"),
        &["../../etc"],
    ),
    (
        "a duplicate",
        |a| {
            let again = a["tasks"][0].clone();
            a["tasks"].as_array_mut().expect("tasks").push(again);
        },
        &["tasks", "twice"],
    ),
    (
        "a VNI that is too small",
        |a| a["networks"][0]["subnets"][0]["vni"] = json!(4095),
        &["networks[\"app\"]", "vni", "4096"],
    ),
    (
        "a VNI that is too big",
        |a| a["networks"][0]["subnets"][0]["vni"] = json!(16_777_216),
        &["vni", "16777215"],
    ),
    (
        "a VNI of another network",
        |a| a["networks"][0]["subnets"][0]["vni"] = json!(4096),
        &["VNI 4096", "ingress"],
    ),
    (
        "a gwbridge with the underlay's subnet",
        |a| a["node"]["gwbridgeSubnets"] = json!(["192.0.0.0/16"]),
        &["192.0.0.0/16 overlaps 192.0.2.0/24", "gwbridgeSubnets"],
    ),
    (
        "no subnet",
        |a| a["networks"][0]["subnets"] = json!([]),
        &["networks[\"app\"].subnets"],
    ),
    (
        "a subnet that is none",
        |a| a["networks"][0]["subnets"][0]["cidr"] = json!("10.1.0.0/99"),
        &["10.1.0.0/99"],
    ),
    (
        "two ingress networks",
        |a| a["networks"][0]["ingress"] = json!(true),
        &["ingress"],
    ),
    (
        "an option that is not there yet",
        |a| a["networks"][0]["encrypted"] = json!(true),
        &["encrypted"],
    ),
    (
        "a VIP of another service",
        |a| {
            let mut again = a["services"][0].clone();
            again["id"] = json!("other");
            again["name"] = json!("other");
            again["ports"] = json!([]);
            a["services"].as_array_mut().expect("services").push(again);
        },
        &["virtualIps", "10.1.0.2"],
    ),
    (
        "a VIP of no subnet",
        |a| a["services"][0]["virtualIps"][0]["address"] = json!("192.168.0.1"),
        &["192.168.0.1", "subnet"],
    ),
    (
        "a published port of another service",
        |a| {
            let mut again = a["services"][0].clone();
            again["id"] = json!("other");
            again["name"] = json!("other");
            again["virtualIps"] = json!([]);
            a["services"].as_array_mut().expect("services").push(again);
        },
        &["8080/tcp"],
    ),
    (
        "port 0",
        |a| a["services"][0]["ports"][0]["target"] = json!(0),
        &["target", "0"],
    ),
    (
        "a port that is none",
        |a| a["services"][0]["ports"][0]["published"] = json!(65_536),
        &["65536"],
    ),
    (
        "a scheduler that is none",
        |a| a["services"][0]["labels"] = json!({"fairlead.scheduler": "fair"}),
        &["fairlead.scheduler", "fair"],
    ),
    (
        "an address of another task",
        |a| {
            let mut other = a["endpoints"][0].clone();
            other["id"] = json!("other-app");
            other["taskId"] = json!("other");
            other["nodeId"] = json!("n2");
            a["endpoints"]
                .as_array_mut()
                .expect("endpoints")
                .push(other);
        },
        &["addresses"],
    ),
    (
        "an address outside of the network",
        |a| a["tasks"][0]["networks"][0]["addresses"][0] = json!("10.7.0.11/24"),
        &["10.7.0.11"],
    ),
    (
        "a network that is not there",
        |a| a["tasks"][0]["networks"][0]["networkId"] = json!("void"),
        &["void"],
    ),
    (
        "an endpoint of no known node",
        |a| {
            let mut other = a["endpoints"][0].clone();
            other["id"] = json!("other-app");
            other["taskId"] = json!("other");
            other["nodeId"] = json!("n9");
            other["addresses"] = json!(["10.1.0.99"]);
            a["endpoints"]
                .as_array_mut()
                .expect("endpoints")
                .push(other);
        },
        &["n9"],
    ),
    (
        "a steering id of another node",
        |a| a["nodes"][1]["steeringId"] = json!(1),
        &["steeringId"],
    ),
    (
        "an older record",
        |a| a["nodes"][0]["version"] = json!(0),
        &["version"],
    ),
    (
        "another content of the same version",
        |a| a["nodes"][1]["vteps"] = json!(["192.0.2.77"]),
        &["version"],
    ),
    (
        "another definition of a task",
        |a| a["tasks"][0]["container"]["args"] = json!(["tcp:81"]),
        &["tasks[\"web-1\"]", "another task"],
    ),
    (
        "a subnet that changes under a task",
        |a| a["networks"][0]["subnets"][0]["vni"] = json!(5000),
        &["networks[\"app\"]"],
    ),
    (
        "a signal that is none",
        |a| new_task(a)["container"]["stopSignal"] = json!("SIGNONE"),
        &["stopSignal", "SIGNONE"],
    ),
    (
        "a capability that is none",
        |a| new_task(a)["container"]["capabilityAdd"] = json!(["CAP_EVERYTHING"]),
        &["capabilityAdd", "CAP_EVERYTHING"],
    ),
    (
        "a limit that is none",
        |a| new_task(a)["resources"] = json!({"limits": {"memory": -1}}),
        &["-1", "negative"],
    ),
    (
        "an image reference that is none",
        |a| new_task(a)["container"]["image"] = json!("dir:relative"),
        &["image", "relative"],
    ),
];

/// A second task, so that what is wrong with it is not that it has changed.
fn new_task(assignment: &mut Value) -> &mut Value {
    let mut task = assignment["tasks"][0].clone();
    task["id"] = json!("new");
    task["name"] = json!("new");
    task["networks"] = json!([]);
    let tasks = assignment["tasks"].as_array_mut().expect("tasks");
    tasks.push(task);
    tasks.last_mut().expect("just added")
}

/// A node with a service and a task, on which nothing may change.
struct Bed {
    cluster: Cluster,
    good: Value,
    pid: u64,
    held: Value,
    traces: Traces,
}

fn bed(test: &str) -> Bed {
    let mut cluster = Cluster::new(test, 2);
    cluster.service("web").tcp(8080, 80);
    cluster.replicas("web", &[1]);
    cluster.deploy();
    let node = cluster.node(1);
    Bed {
        good: cluster.assignment(1),
        pid: node.task_pid("web-1"),
        held: held(node),
        traces: cluster.traces(),
        cluster,
    }
}

/// Everything that the node holds, and makes of it.
fn held(node: &Node) -> Value {
    let kinds = [
        &["ps"][..],
        &["network", "ls"],
        &["service", "ls"],
        &["node", "ls"],
        &["endpoint", "ls"],
        &["node", "describe"],
    ];
    kinds.iter().map(|kind| node.json(kind)).collect()
}

impl Bed {
    fn node(&self) -> &Node {
        self.cluster.node(1)
    }

    fn unchanged(&self, what: &str) {
        assert_eq!(held(self.node()), self.held, "{what}");
        assert_eq!(self.node().task_pid("web-1"), self.pid, "{what}");
        assert_eq!(self.cluster.traces(), self.traces, "{what}");
    }
}

#[test]
fn a_bad_assignment_is_refused_as_a_whole() {
    let bed = bed("refuse");
    let mut wrong = Vec::new();
    for (what, change, expected) in CASES {
        let mut bad = bed.good.clone();
        change(&mut bad);
        // Something good comes with it, that must not take effect either.
        let network = json!({"id": "extra", "name": "extra", "subnets": [{"cidr": "10.200.0.0/24", "vni": 9000}]});
        bad["networks"]
            .as_array_mut()
            .expect("networks")
            .push(network);
        bad["node"]["hostname"] = json!("renamed");
        match bed.node().apply(&bad) {
            Ok(output) => wrong.push(format!("{what} is taken: {output}")),
            Err(error) => {
                let missing: Vec<_> = expected
                    .iter()
                    .filter(|part| !error.contains(**part))
                    .collect();
                if !missing.is_empty() {
                    wrong.push(format!("{what}: {missing:?} is not in: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bed.unchanged("after all of them");
    // The same again is nothing new.
    let output = bed.node().apply(&bed.good).expect("the good one");
    assert!(output.contains('='), "{output}");
    bed.unchanged("after the good one");
}

#[test]
fn what_is_no_assignment_at_all() {
    let bed = bed("refuse-text");
    for text in [
        "",
        "version: 2\nnode: {id: n1}\n",
        "[1, 2",
        "node: {id: n1}\n",
        "version: 1\nversion: 1\nnode: {id: n1}\n",
        "\u{0}\u{1}",
        "version: 1\nnode: &a [*a]\n",
    ] {
        let error = bed.node().apply_text(text).expect_err(text);
        assert!(error.contains("assignment.yaml"), "{text:?}: {error}");
    }
    bed.unchanged("afterwards");
}

/// Images are looked at when their task is prepared.
#[test]
fn an_image_that_cannot_be_used_rejects_its_task() {
    let mut cluster = Cluster::new("bad-images", 1);
    cluster.deploy();
    let before = cluster.traces();
    let dir = cluster.dir();
    let good = cluster.archive();
    let bytes = fs::read(&good).expect("archive");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("archive");
        format!("docker-archive:{}", path.display())
    };
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let images = [
        (
            "missing",
            format!("docker-archive:{}/no-such.tar", dir.display()),
            "no-such.tar",
        ),
        (
            "short",
            write("short.tar", &bytes[..bytes.len() / 3]),
            "short.tar",
        ),
        (
            "garbage",
            write("garbage.tar", b"this is no archive"),
            "garbage.tar",
        ),
        ("flipped", write("flipped.tar", &flipped), "flipped.tar"),
        ("nothing", write("nothing.tar", b""), "nothing.tar"),
        (
            "folder",
            format!("dir:{}/no-such-folder", dir.display()),
            "no-such-folder",
        ),
        (
            "other-tag",
            format!("docker-archive:{}:web:2", good.display()),
            "web:2",
        ),
    ];
    for (task, image, _) in &images {
        cluster.task(task, 1).set("/container/image", json!(image));
    }
    cluster.apply(&[]).expect("taken");
    for (task, _, expected) in &images {
        let status = cluster.node(1).await_task(task, "rejected");
        let error = status["error"].as_str().unwrap_or_default();
        assert!(
            error.contains(expected),
            "{task}: {expected:?} is not in: {status}"
        );
    }
    wait_for("nothing to be left", || match cluster.traces() {
        now if now == before => Ok(()),
        now => Err(format!("{now:#?}")),
    });
    cluster.clear();
    cluster.apply(&[]).expect("taken");
    for (task, ..) in &images {
        cluster.node(1).await_no_task(task);
    }
    let snapshots = fs::read_dir(cluster.node(1).dir.join("state/images/snapshots"));
    assert_eq!(snapshots.expect("snapshots").count(), 0);
}

/// What the command line would never send.
#[test]
fn raw_calls_of_the_socket() {
    let bed = bed("raw");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let mut client = connect(bed.node()).await;
        let refused = |status: &Status, code: Code, expected: &str| {
            assert!(
                status.code() == code && status.message().contains(expected),
                "{status:?}"
            );
        };
        let network = |vni| Network {
            id: "extra".into(),
            name: "extra".into(),
            subnets: vec![Subnet {
                cidr: "10.200.0.0/24".into(),
                gateway: String::new(),
                vni,
            }],
            ..Network::default()
        };
        let update = |network| Change {
            action: Action::Update.into(),
            object: Some(change::Object::Network(network)),
        };
        // Does not apply to what is held.
        let request = AssignRequest {
            r#type: AssignmentType::Incremental.into(),
            applies_to: "never-was".into(),
            results_in: "next".into(),
            changes: vec![update(network(9000))],
            node_config: None,
        };
        let status = client
            .assign(request.clone())
            .await
            .expect_err("does not apply");
        refused(&status, Code::FailedPrecondition, "never-was");
        // Nameless, empty and unknown.
        let status = client
            .assign(AssignRequest {
                results_in: String::new(),
                ..request.clone()
            })
            .await;
        assert!(status.is_err(), "{status:?}");
        let status = client
            .assign(AssignRequest {
                r#type: 7,
                ..request.clone()
            })
            .await
            .expect_err("type 7");
        refused(&status, Code::InvalidArgument, "7");
        let complete = AssignRequest {
            r#type: AssignmentType::Complete.into(),
            applies_to: String::new(),
            ..request.clone()
        };
        let nothing = Change {
            action: Action::Update.into(),
            object: None,
        };
        let status = client
            .assign(AssignRequest {
                changes: vec![nothing],
                ..complete.clone()
            })
            .await;
        assert_eq!(status.expect_err("no object").code(), Code::InvalidArgument);
        let removal = Change {
            action: Action::Remove.into(),
            ..update(network(9000))
        };
        let status = client
            .assign(AssignRequest {
                changes: vec![removal],
                ..complete.clone()
            })
            .await;
        assert_eq!(status.expect_err("a removal").code(), Code::InvalidArgument);
        let twice = vec![update(network(9000)), update(network(9001))];
        let status = client
            .assign(AssignRequest {
                changes: twice,
                ..complete.clone()
            })
            .await;
        refused(&status.expect_err("twice"), Code::InvalidArgument, "extra");
        // Larger than either side promises to take.
        let mut huge = network(9000);
        huge.labels
            .insert("big".into(), "x".repeat(fairlead_api::MAX_MESSAGE_BYTES));
        let status = client
            .assign(AssignRequest {
                changes: vec![update(huge)],
                ..complete
            })
            .await;
        assert!(status.is_err(), "a huge message is taken");
        let mut again = connect(bed.node()).await;
        again
            .describe(DescribeRequest {})
            .await
            .expect("it still answers");
    });
    // No gRPC at all; half of a call; nobody at the other end.
    let open = || UnixStream::connect(bed.node().socket()).expect("connects");
    let mut stream = open();
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("written");
    stream.shutdown(Shutdown::Write).expect("half closed");
    stream
        .read_to_end(&mut Vec::new())
        .expect("it is closed from the other side");
    let mut stream = open();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x7f")
        .expect("written");
    drop(stream);
    let idle: Vec<UnixStream> = (0..200).map(|_| open()).collect();
    bed.node()
        .fairlead(&["node", "describe"])
        .expect("it answers beside 200 idle connections");
    drop(idle);
    bed.unchanged("afterwards");
}

async fn connect(node: &Node) -> ExecutorClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", node.socket().display()));
    let channel = endpoint
        .expect("an address")
        .connect()
        .await
        .expect("connects");
    // The limit that is tried is the daemon's.
    ExecutorClient::new(channel).max_encoding_message_size(usize::MAX)
}

#[test]
fn somebody_without_privileges() {
    let bed = bed("peer");
    let node = bed.node();
    let cli = bed.cluster.dir().join("fairlead");
    let program = node.cli(&[]).get_program().to_owned();
    // Not by this process: what another test starts meanwhile would hold the copy open for writing
    // for a moment, and it could not be executed.
    let copied = Command::new("cp").arg(program).arg(&cli).status();
    assert!(
        copied.expect("cp").success(),
        "the program, where everybody can read it"
    );
    for arguments in ["node describe", "ps"] {
        let script = format!(
            "setpriv --reuid 65534 --regid 65534 --clear-groups {} --socket {} {arguments}",
            cli.display(),
            node.socket().display()
        );
        let error = try_sh(&script).expect_err("refused by the socket's mode");
        assert!(
            error.to_lowercase().contains("permission denied"),
            "{error}"
        );
        // Also when somebody has loosened it.
        fs::set_permissions(node.socket(), fs::Permissions::from_mode(0o666)).expect("mode");
        let error = try_sh(&script).expect_err("refused by the daemon");
        assert!(
            error.contains("user 65534 may not use this socket"),
            "{error}"
        );
        fs::set_permissions(node.socket(), fs::Permissions::from_mode(0o660)).expect("mode");
    }
    bed.unchanged("afterwards");
}
