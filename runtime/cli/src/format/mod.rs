//! The assignment of one node as a file: what `docs/assignment.md` describes.
//!
//! The types that parse it are the ones its JSON schema is made from, and also the ones that
//! `inspect` shows objects with, so a person meets one set of words.

mod base64;
pub mod container;
mod mirror;
pub mod names;
pub mod network;
pub mod position;
pub mod quantity;
pub mod secret;
pub mod task;
pub mod value;

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use fairlead_api::v1;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

pub use mirror::Mirror;
use network::{EndpointRecord, Network, NodeRecord, Service};
use secret::Blob;
use task::Task;
use value::{Cidr, Port};

/// The assignment of one node: what shall be on it, and what it must know of the other nodes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// Version of this format: 1.
    pub version: FormatVersion,
    /// Name of the state after this assignment; default: a hash of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub results_in: Option<String>,
    /// The node that this is for.
    pub node: Node,
    /// Networks that its tasks join, and the ingress network.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// Services whose names and addresses its tasks use, or whose ports it publishes.
    #[serde(default)]
    pub services: Vec<Service>,
    /// All nodes of the cluster, this one included.
    #[serde(default)]
    pub nodes: Vec<NodeRecord>,
    /// All tasks on those networks, wherever they run.
    #[serde(default)]
    pub endpoints: Vec<EndpointRecord>,
    /// What runs here.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// Secrets of those tasks.
    #[serde(default)]
    pub secrets: Vec<Blob>,
    /// Configs of those tasks.
    #[serde(default)]
    pub configs: Vec<Blob>,
}

/// The node that an assignment is for. It is sent before the rest.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Its id, the one of its record in `nodes`.
    pub id: String,
    /// Its host name; default: the kernel's.
    #[serde(default)]
    pub hostname: String,
    /// UDP port of VXLAN; default 4789.
    #[serde(default)]
    pub data_path_port: Port,
    /// Subnets of the node-local bridge with prefix length: IPv4, and at most one IPv6; default
    /// 172.18.0.0/16.
    #[serde(default)]
    pub gwbridge_subnets: Vec<Cidr>,
    /// What balances published ports; default: `ipvs` where the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Engine")]
    pub engine: Option<Engine>,
    /// Socket of the node's daemon, used where no `--socket` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub socket: Option<PathBuf>,
}

/// What balances published ports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Engine {
    /// The kernel's load balancer.
    Ipvs,
    /// Maps of nftables.
    Nft,
}

/// The only version of the format.
#[derive(Clone, Copy, Debug)]
pub struct FormatVersion;

impl<'de> Deserialize<'de> for FormatVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(format!(
                "version {other} of the format is not known, only 1"
            ))),
        }
    }
}

impl Serialize for FormatVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(1)
    }
}

impl JsonSchema for FormatVersion {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "FormatVersion".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": 1 })
    }
}

impl Assignment {
    /// Parses a document. The error has the line and column, where there are any.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|e| describe(&e))
    }

    /// The node's identity, as it is sent with the assignment.
    pub fn node_config(&self) -> v1::NodeConfig {
        let engine = match self.node.engine {
            None => "",
            Some(Engine::Ipvs) => "ipvs",
            Some(Engine::Nft) => "nft",
        };
        v1::NodeConfig {
            node_id: self.node.id.clone(),
            hostname: self.node.hostname.clone(),
            data_path_port: self.node.data_path_port.0,
            gwbridge_subnets: self.node.gwbridge_subnets.clone().into_proto(),
            engine: engine.to_owned(),
        }
    }

    /// The name of the state after this assignment: the given one, or a hash of the content.
    fn name(&self) -> String {
        match (&self.results_in, serde_json::to_vec(self)) {
            (Some(name), _) => name.clone(),
            (None, Ok(content)) => hash(&[&content]),
            // The types have no maps with keys other than texts, so this is not reached; a name
            // that differs each time would still be right.
            (None, Err(error)) => hash(&[error.to_string().as_bytes()]),
        }
    }

    /// The set that replaces everything on the node.
    pub fn into_request(self) -> v1::AssignRequest {
        use v1::change::Object;
        let results_in = self.name();
        let node_config = Some(self.node_config());
        let objects = (self
            .networks
            .into_iter()
            .map(|o| Object::Network(o.into_proto())))
        .chain(
            self.services
                .into_iter()
                .map(|o| Object::Service(o.into_proto())),
        )
        .chain(self.nodes.into_iter().map(|o| Object::Node(o.into_proto())))
        .chain(
            self.endpoints
                .into_iter()
                .map(|o| Object::Endpoint(o.into_proto())),
        )
        .chain(
            self.secrets
                .into_iter()
                .map(|o| Object::Secret(o.into_secret())),
        )
        .chain(
            self.configs
                .into_iter()
                .map(|o| Object::Config(o.into_config())),
        )
        .chain(self.tasks.into_iter().map(|o| Object::Task(o.into_proto())));
        v1::AssignRequest {
            r#type: v1::AssignmentType::Complete.into(),
            applies_to: String::new(),
            results_in,
            changes: objects.map(update).collect(),
            node_config,
        }
    }
}

/// A change that puts an object in place.
pub fn update(object: v1::change::Object) -> v1::Change {
    v1::Change {
        action: v1::Action::Update.into(),
        object: Some(object),
    }
}

/// A short name for some content: the first 128 bits of its SHA-256.
pub fn hash(parts: &[&[u8]]) -> String {
    let digest = parts
        .iter()
        .fold(Sha256::new(), |hasher, part| hasher.chain_update(part));
    digest.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A file that was read, and what it says.
#[derive(Clone, Debug)]
pub struct Document {
    /// How messages call it.
    pub origin: String,
    /// The text, for the lines in messages.
    pub text: String,
    /// What it says.
    pub assignment: Assignment,
}

impl Document {
    /// Reads a file, `-` for standard input, and the files that its secrets and configs name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let (origin, base, text) = if path == Path::new("-") {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            (
                "standard input".to_owned(),
                PathBuf::new(),
                read.map(|_| text),
            )
        } else {
            let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
            (path.display().to_string(), base, fs::read_to_string(path))
        };
        let text = text.map_err(|error| format!("cannot read {origin}: {error}"))?;
        let mut assignment =
            Assignment::parse(&text).map_err(|reason| format!("{origin}:{reason}"))?;
        for blob in assignment.secrets.iter_mut().chain(&mut assignment.configs) {
            blob.resolve(&base)
                .map_err(|reason| format!("{origin}: {reason}"))?;
        }
        Ok(Self {
            origin,
            text,
            assignment,
        })
    }
}

/// The JSON schema of the format, as text.
pub fn schema() -> Result<String, serde_json::Error> {
    let schema = schemars::schema_for!(Assignment);
    serde_json::to_string_pretty(&schema).map(|text| text + "\n")
}

/// YAML 1.2 without guesses: a text that looks like a number is quoted, `yes` is a text.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        no_schema: true,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// `line:column: reason` of a parser's error.
fn describe(error: &serde_saphyr::Error) -> String {
    let reason = error.to_string();
    // The parser's advice to programmers.
    let reason = reason.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    match error.location() {
        Some(location) => {
            let suffix = format!(" at line {}, column {}", location.line(), location.column());
            let reason = reason.strip_suffix(&suffix).unwrap_or(&reason);
            format!("{}:{}: {reason}", location.line(), location.column())
        }
        None => format!(" {reason}"),
    }
}

#[cfg(test)]
mod tests;
