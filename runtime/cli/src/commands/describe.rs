//! `node describe`: what this node offers.

use fairlead_api::v1;
use serde::Serialize;

use crate::error::CliError;
use crate::format::task::Resources;
use crate::format::{Mirror, quantity::Size};
use crate::output::table::Table;
use crate::output::{print, print_json};
use crate::socket::Daemon;

/// What a node offers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    node: Option<Configured>,
    hostname: String,
    architecture: String,
    os: String,
    kernel: String,
    version: String,
    engine: String,
    cgroups: String,
    resources: Resources,
    features: Vec<Feature>,
}

/// Who the node is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Configured {
    id: String,
    hostname: String,
    data_path_port: u32,
    gwbridge_subnets: Vec<String>,
    engine: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Feature {
    name: String,
    available: bool,
    detail: String,
}

/// Prints what the node offers.
pub async fn run(daemon: &mut Daemon, json: bool) -> Result<(), CliError> {
    let response = daemon.client.describe(v1::DescribeRequest {}).await;
    let response = response.map_err(|status| daemon.error("describe the node", &status))?;
    let description = description(response.into_inner());
    if json {
        print_json(&description)
    } else {
        print(&page(&description))
    }
}

fn description(response: v1::DescribeResponse) -> Description {
    let feature = |feature: v1::Feature| Feature {
        name: feature.name,
        available: feature.available,
        detail: feature.detail,
    };
    let configured = |config: v1::NodeConfig| Configured {
        id: config.node_id,
        hostname: config.hostname,
        data_path_port: config.data_path_port,
        gwbridge_subnets: config.gwbridge_subnets,
        engine: config.engine,
    };
    Description {
        node: response.config.map(configured),
        hostname: response.hostname,
        architecture: response.architecture,
        os: response.os,
        kernel: response.kernel,
        version: response.version,
        engine: response.engine,
        cgroups: response.cgroups,
        resources: Resources::from_proto(response.resources.unwrap_or_default()),
        features: response.features.into_iter().map(feature).collect(),
    }
}

fn page(node: &Description) -> String {
    let id = match &node.node {
        Some(config) => config.id.clone(),
        None => "not configured yet".to_owned(),
    };
    let Size(bytes) = node.resources.memory;
    let mut text = String::new();
    for (name, value) in [
        ("node", id),
        ("hostname", node.hostname.clone()),
        (
            "platform",
            format!("{} {} {}", node.os, node.architecture, node.kernel),
        ),
        ("cpus", format!("{}", node.resources.cpus.0 as f64 / 1e9)),
        ("memory", format!("{} MiB", bytes >> 20)),
        ("version", node.version.clone()),
        ("engine", node.engine.clone()),
        ("cgroups", node.cgroups.clone()),
    ] {
        text += format!("{:<11}{value}", format!("{name}:")).trim_end();
        text.push('\n');
    }
    let mut table = Table::new(&["FEATURE", "AVAILABLE", "DETAIL"]);
    for feature in &node.features {
        let available = super::list::yes_no(feature.available);
        table.row([feature.name.clone(), available, feature.detail.clone()]);
    }
    text + "\n" + &table.render()
}
