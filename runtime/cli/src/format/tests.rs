//! The format: what it stands for, what it refuses, and that its schema says the same.

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_api::v1;
use fairlead_api::v1::change::Object;
use serde_json::Value;

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// The files that a page shows.
fn files_in(page: &str) -> Vec<String> {
    let text = read(page);
    let parts = text.split("```yaml\n").skip(1);
    // One within a list is indented, all of it alike: YAML does not mind.
    let files: Vec<String> = parts
        .map(|part| part.split_once("```").unwrap().0.to_owned())
        .collect();
    assert!(!files.is_empty(), "no file in {page}");
    files
}

/// The full example of the documentation.
fn full_example() -> String {
    files_in("docs/assignment.md").swap_remove(0)
}

fn examples() -> Vec<String> {
    let files = (1..=3).map(|node| read(&format!("examples/web/node-{node}.yaml")));
    let pages = ["README.md", "docs/operations.md"];
    files
        .chain([full_example()])
        .chain(pages.into_iter().flat_map(files_in))
        .collect()
}

/// A document with one task of these fields, indented by two spaces.
fn with_task(fields: &str) -> String {
    format!("version: 1\nnode: {{id: n1}}\ntasks:\n- id: t1\n{fields}")
}

/// Documents that are wrong, each with the place and a part of the reason.
fn bad_documents() -> Vec<(String, &'static str, &'static str)> {
    let base = "version: 1\nnode: {id: n1}\n";
    let more = |text: &str| format!("{base}{text}");
    vec![
        (String::from("[]"), "1:", "expected"),
        ("node: {id: n1}\n".into(), "1:", "missing field `version`"),
        ("version: 2\nnode: {id: n1}\n".into(), "1:10", "version 2"),
        ("version: 1\n".into(), "1:", "missing field `node`"),
        ("version: 1\nnode: {}\n".into(), "2:7", "missing field `id`"),
        (
            "version: 1\nnode: {id: 7}\n".into(),
            "2:12",
            "must be quoted",
        ),
        (
            "version: 1\nnode: {id: n1, colour: red}\n".into(),
            "2:16",
            "unknown field `colour`",
        ),
        (
            "version: 1\nnode: {id: n1, engine: magic}\n".into(),
            "2:24",
            "magic",
        ),
        (
            "version: 1\nnode: {id: n1, dataPathPort: 70000}\n".into(),
            "2:30",
            "no port",
        ),
        (
            "version: 1\nnode: {id: n1, gwbridgeSubnets: [10.0.0.1]}\n".into(),
            "2:34",
            "prefix",
        ),
        (more("colour: red\n"), "3:1", "unknown field `colour`"),
        (
            more("networks: [{id: a, name: a}]\n"),
            "3:20",
            "missing field `subnets`",
        ),
        (
            more("networks: [{id: a, name: a, subnets: [{cidr: ten, vni: 1}]}]\n"),
            "3:46",
            "prefix",
        ),
        (
            more("networks: [{id: a, name: a, subnets: [{cidr: 10.0.0.0/8, vni: -1}]}]\n"),
            "3:63",
            "",
        ),
        (
            more("services: [{id: a, name: a, endpointMode: VIP}]\n"),
            "3:43",
            "VIP",
        ),
        (
            more("services: [{id: a, name: a, ports: [{published: 65536, target: 1}]}]\n"),
            "3:49",
            "no port",
        ),
        (
            more(
                "services: [{id: a, name: a, ports: [{published: 1, target: 1, protocol: icmp}]}]\n",
            ),
            "3:73",
            "icmp",
        ),
        (
            more(
                "services: [{id: a, name: a, virtualIps: [{networkId: n, address: 10.0.0.1/24}]}]\n",
            ),
            "3:66",
            "no IP address",
        ),
        (
            more("nodes: [{id: a, version: 1, vteps: [host]}]\n"),
            "3:37",
            "no IP address",
        ),
        (
            more("nodes: [{id: a, vteps: []}]\n"),
            "3:17",
            "missing field `version`",
        ),
        (
            more(
                "endpoints: [{id: a, version: 1, networkId: n, taskId: t, nodeId: n, addresses: [], state: there}]\n",
            ),
            "3:91",
            "there",
        ),
        (with_task("  slot: 1\n"), "5:3", "missing field `container`"),
        (
            with_task("  container: {}\n"),
            "5:14",
            "missing field `image`",
        ),
        (
            with_task("  container: {image: x}\n  desiredState: failed\n"),
            "6:17",
            "failed",
        ),
        (
            with_task("  container: {image: x}\n  slot: -1\n"),
            "6:9",
            "",
        ),
        (
            with_task("  container: {image: x}\n  hostPorts: [{target: 1, mode: ingress}]\n"),
            "6:33",
            "ingress",
        ),
        (
            with_task("  container: {image: x, stopGracePeriod: 10}\n"),
            "5:42",
            "quoted",
        ),
        (
            with_task("  container: {image: x, stopGracePeriod: 10 s}\n"),
            "5:42",
            "no duration",
        ),
        (
            with_task("  container: {image: x, readOnly: yes}\n"),
            "5:35",
            "boolean",
        ),
        (
            with_task("  container: {image: x, env: {A: b}}\n"),
            "5:",
            "",
        ),
        (
            with_task("  container: {image: x, mounts: [{target: /a}]}\n"),
            "5:",
            "`type`",
        ),
        (
            with_task("  container: {image: x}\n  resources: {limits: {memory: 64M}}\n"),
            "6:32",
            "no size",
        ),
        (
            with_task("  container: {image: x}\n  resources: {limits: {cpus: -1}}\n"),
            "6:30",
            "CPUs",
        ),
        (
            with_task("  container: {image: x}\n  assignedGenericResources: [{kind: gpu}]\n"),
            "6:",
            "one of `named` and `discrete`",
        ),
        (more("secrets: [{id: a, name: a}]\n"), "3:", "exactly one"),
        (
            more("secrets: [{id: a, name: a, data: x, file: y}]\n"),
            "3:",
            "exactly one",
        ),
        (
            more("configs: [{id: a, name: a, dataBase64: \"!\"}]\n"),
            "3:",
            "base64",
        ),
    ]
}

#[test]
fn every_bad_document_is_refused_with_its_place() {
    let mut wrong = Vec::new();
    for (text, place, reason) in bad_documents() {
        match Assignment::parse(&text) {
            Err(error) if error.starts_with(place) && error.contains(reason) => {}
            other => wrong.push(format!(
                "{text}expected {place}, {reason}: {:?}",
                other.err()
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a schema cannot see, because it is checked after YAML was parsed.
#[test]
fn yaml_itself_is_checked() {
    for (text, place, reason) in [
        ("", "1:1", "end of input"),
        ("version: [\n", "", ""),
        (
            "version: 1\nnode: {id: a, id: b}\n",
            "2:15",
            "duplicate mapping key: id",
        ),
        (
            "version: 1\nnode: {id: a}\n---\nversion: 1\nnode: {id: b}\n",
            "",
            "multiple",
        ),
        ("version: 1\nnode: !secret {id: a}\n", "2:", "tag"),
    ] {
        let error = Assignment::parse(text).expect_err(text);
        assert!(
            error.starts_with(place) && error.contains(reason),
            "{text}\n{error}"
        );
        assert!(!error.contains("Policy"), "{error}");
    }
}

#[test]
fn examples_are_read() {
    for text in examples() {
        let assignment = Assignment::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let request = assignment.into_request();
        assert_eq!(request.r#type, v1::AssignmentType::Complete as i32);
        assert!(!request.results_in.is_empty());
    }
}

/// What is written is what is sent, and what is sent can be shown as it was written.
#[test]
fn nothing_is_lost_on_the_way() {
    let assignment = Assignment::parse(&full_example()).unwrap();
    let task = assignment.tasks[0].clone();
    assert_eq!(Task::from_proto(task.clone().into_proto()), task);
    let written = serde_json::to_string(&assignment).unwrap();
    let again = Assignment::parse(&written).unwrap();
    assert_eq!(again.tasks, assignment.tasks);
    assert_eq!(again.networks, assignment.networks);
    assert_eq!(again.endpoints, assignment.endpoints);
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
}

#[test]
fn values_become_the_units_of_the_contract() {
    let request = Assignment::parse(&full_example()).unwrap().into_request();
    let mut tasks = request
        .changes
        .iter()
        .filter_map(|change| match &change.object {
            Some(Object::Task(task)) => Some(task),
            _ => None,
        });
    let task = tasks.next_back().unwrap();
    let container = task.container.as_ref().unwrap();
    assert_eq!(container.stop_grace_period, Some(90_000_000_000));
    assert_eq!(
        container.healthcheck.as_ref().unwrap().start_period,
        1_500_000_000
    );
    let file = container.secrets[0].file.as_ref().unwrap();
    assert_eq!(file.mode, 0o400);
    let resources = task.resources.as_ref().unwrap();
    assert_eq!(resources.swap_bytes, Some(-1));
    let limits = resources.limits.as_ref().unwrap();
    assert_eq!(
        (limits.nano_cpus, limits.memory_bytes),
        (1_500_000_000, 64 << 20)
    );
    assert_eq!(task.desired_state, v1::TaskState::Running as i32);
    assert_eq!(
        task.host_ports[0].publish_mode,
        v1::PublishMode::Host as i32
    );
    let secret = request
        .changes
        .iter()
        .find_map(|change| match &change.object {
            Some(Object::Secret(secret)) => Some(secret.data.as_slice()),
            _ => None,
        });
    assert_eq!(secret, Some(b"secret".as_slice()));
}

#[test]
fn the_name_follows_from_the_content() {
    let name = |text: &str| Assignment::parse(text).unwrap().into_request().results_in;
    let base = "version: 1\nnode: {id: n1}\n";
    assert_eq!(name(base), name("node:\n  id: n1\nversion: 1 # the same\n"));
    assert_ne!(name(base), name("version: 1\nnode: {id: n2}\n"));
    assert_eq!(name(&format!("{base}resultsIn: mine\n")), "mine");
}

#[test]
fn files_of_secrets_start_at_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yaml");
    let text = "version: 1\nnode: {id: n1}\nsecrets: [{id: a, name: a, file: key}]\n";
    fs::write(&path, text).unwrap();
    let error = Document::read(&path).unwrap_err();
    assert!(
        error.contains("`a`: cannot read") && error.contains("key"),
        "{error}"
    );
    fs::write(directory.path().join("key"), [0, 255]).unwrap();
    let request = Document::read(&path).unwrap().assignment.into_request();
    let Some(Object::Secret(secret)) = &request.changes[0].object else {
        panic!("{request:?}")
    };
    assert_eq!(secret.data, [0, 255]);
}

#[test]
fn the_schema_in_the_documentation_is_the_one_of_the_types() {
    assert!(
        schema().unwrap() == read("docs/assignment.schema.json"),
        "docs/assignment.schema.json is old: `fairlead schema > docs/assignment.schema.json`"
    );
}

/// An independent validator of JSON schemas, python3-jsonschema, comes to the same results. Reads
/// the schema and documents from standard input, prints for each document whether it is valid.
const VALIDATOR: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema, documents = json.load(sys.stdin)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(json.dumps([validator.is_valid(document) for document in documents]))
";

#[test]
fn another_validator_agrees_with_the_parser() {
    let installed = Command::new("python3")
        .args(["-c", "from jsonschema import Draft202012Validator"])
        .stderr(Stdio::null())
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "python3-jsonschema is not installed: apt-get install python3-jsonschema"
        );
        eprintln!("skipped: python3-jsonschema is not installed");
        return;
    }
    let to_json = |text: &str| -> Value {
        serde_saphyr::from_str_with_options(text, yaml_options()).unwrap()
    };
    let good: Vec<String> = examples();
    let bad: Vec<String> = bad_documents().into_iter().map(|(text, ..)| text).collect();
    let documents: Vec<Value> = good.iter().chain(&bad).map(|text| to_json(text)).collect();
    let schema: Value = serde_json::from_str(&schema().unwrap()).unwrap();
    let mut python = Command::new("python3")
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(&(schema, &documents)).unwrap();
    python.stdin.take().unwrap().write_all(&input).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let valid: Vec<bool> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(valid.len(), documents.len());
    for (index, (text, valid)) in good.iter().chain(&bad).zip(valid).enumerate() {
        assert_eq!(valid, index < good.len(), "{text}");
    }
}
