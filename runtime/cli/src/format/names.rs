//! The daemon speaks of fields as the contract calls them; a person wrote them as the file does.

use super::container::{
    BindOptions, ConfigReference, Container, DnsConfig, FileTarget, HealthConfig, Mount,
    Privileges, PullOptions, SecretReference, SelinuxContext, TmpfsOptions, Ulimit, VolumeOptions,
};
use super::network::{
    EndpointRecord, Network, NodeRecord, Service, ServicePort, Subnet, VirtualIp,
};
use super::task::{
    HostPort, LogDriver, NetworkAttachment, ResourceRequirements, Resources, Task, VolumeAttachment,
};

/// Name in the contract and name of the Rust field, of every field of the file.
const FIELDS: &[&[(&str, &str)]] = &[
    BindOptions::FIELDS,
    ConfigReference::FIELDS,
    Container::FIELDS,
    DnsConfig::FIELDS,
    EndpointRecord::FIELDS,
    FileTarget::FIELDS,
    HealthConfig::FIELDS,
    HostPort::FIELDS,
    LogDriver::FIELDS,
    Mount::FIELDS,
    Network::FIELDS,
    NetworkAttachment::FIELDS,
    NodeRecord::FIELDS,
    Privileges::FIELDS,
    PullOptions::FIELDS,
    ResourceRequirements::FIELDS,
    Resources::FIELDS,
    SecretReference::FIELDS,
    SelinuxContext::FIELDS,
    Service::FIELDS,
    ServicePort::FIELDS,
    Subnet::FIELDS,
    Task::FIELDS,
    TmpfsOptions::FIELDS,
    Ulimit::FIELDS,
    VirtualIp::FIELDS,
    VolumeAttachment::FIELDS,
    VolumeOptions::FIELDS,
    // Of the node's own section.
    &[("node_id", "node_id"), ("config", "node")],
];

/// A field as the file names it: `tasks["t1"].host_ports[0].published_port` becomes
/// `tasks["t1"].hostPorts[0].published`. What stands in brackets stays as it is.
pub fn in_file(field: &str) -> String {
    let field = match field.strip_prefix("config.node_id") {
        Some(rest) => format!("node.id{rest}"),
        None => field.to_owned(),
    };
    let mut text = String::with_capacity(field.len());
    let mut word = String::new();
    let mut in_brackets = false;
    let mut in_quotes = false;
    for letter in field.chars() {
        match letter {
            '"' => in_quotes = !in_quotes,
            '[' if !in_quotes => in_brackets = true,
            ']' if !in_quotes => in_brackets = false,
            _ => {}
        }
        if !in_brackets && (letter.is_ascii_alphanumeric() || letter == '_') {
            word.push(letter);
        } else {
            text.push_str(&rename(&word));
            word.clear();
            text.push(letter);
        }
    }
    text + &rename(&word)
}

/// One word of the contract as the file has it.
fn rename(word: &str) -> String {
    let pair = FIELDS
        .iter()
        .flat_map(|fields| fields.iter())
        .find(|(proto, _)| *proto == word);
    camel_case(pair.map_or(word, |(_, field)| field))
}

fn camel_case(word: &str) -> String {
    let mut parts = word.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_at_checked(1) {
        Some((initial, rest)) => text + &initial.to_ascii_uppercase() + rest,
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn fields_are_named_as_in_the_file() {
        for (contract, file) in [
            (
                "tasks[\"t_1\"].networks[0].addresses[0]",
                "tasks[\"t_1\"].networks[0].addresses[0]",
            ),
            (
                "tasks[\"t1\"].host_ports[0].published_port",
                "tasks[\"t1\"].hostPorts[0].published",
            ),
            (
                "tasks[\"a]b\"].resources.limits.nano_cpus",
                "tasks[\"a]b\"].resources.limits.cpus",
            ),
            (
                "services[\"web\"].ports[1].target_port",
                "services[\"web\"].ports[1].target",
            ),
            ("endpoints[\"e\"].node_id", "endpoints[\"e\"].nodeId"),
            ("config.node_id", "node.id"),
            ("config.gwbridge_subnets[0]", "node.gwbridgeSubnets[0]"),
            ("node_id", "nodeId"),
            ("", ""),
        ] {
            assert_eq!(in_file(contract), file);
        }
    }

    /// The words are looked up without knowing the message, so each may have one meaning only.
    #[test]
    fn no_word_has_two_names() {
        let mut names = BTreeMap::new();
        for (proto, field) in FIELDS.iter().flat_map(|fields| fields.iter()) {
            assert_eq!(names.entry(proto).or_insert(field), &field, "{proto}");
        }
    }
}
