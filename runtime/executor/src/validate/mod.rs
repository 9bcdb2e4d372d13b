//! From what arrives to what is held: every violation is collected with its place, and an
//! assignment with any of them changes nothing.

mod container;
mod cross;
mod health;
mod network;
mod task;
mod violations;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use fairlead_api::v1;
use netdp::Engine;
use v1::change::Object;

pub use ::container::parse_capability;
pub use ::container::process::parse_signal;
pub use network::{check_subnet, endpoint, network, node, service};
pub use task::{parse_size, task};
pub use violations::{At, Violations, is_id};

use crate::model::Assignment;
use crate::record::Local;
use violations::{check_id, check_name};

/// The state after `request`, built on `held`. `locals` are all tasks that are here, also those that
/// are being stopped and are in no set any more.
///
/// `INCREMENTAL` sets are the caller's to compare with what is held before this.
///
/// # Errors
/// Everything that is wrong with it.
pub fn assignment(
    request: &v1::AssignRequest,
    held: &Assignment,
    locals: &BTreeMap<String, Arc<Local>>,
    config: &v1::NodeConfig,
    engine: Engine,
) -> Result<Assignment, Violations> {
    let mut v = Violations::default();
    let complete = request.r#type == v1::AssignmentType::Complete as i32;
    if v1::AssignmentType::try_from(request.r#type).is_err() {
        v.add(At::Top("type"), network::unknown(request.r#type));
    }
    if request.results_in.is_empty() {
        v.add(At::Top("results_in"), "must not be empty");
    }
    if complete && !request.applies_to.is_empty() {
        v.add(
            At::Top("applies_to"),
            "a COMPLETE set applies to anything: leave it out",
        );
    }
    let mut new = if complete {
        Assignment::default()
    } else {
        held.clone()
    };
    new.results_in = request.results_in.clone();
    let mut seen = HashSet::new();
    for (i, change) in request.changes.iter().enumerate() {
        let list = At::Top("changes");
        let at = list.index(i);
        let Some(object) = &change.object else {
            v.add(
                at,
                "names no object, or one of a kind that this executor does not know",
            );
            continue;
        };
        let (kind, id) = name(object);
        if !seen.insert((kind, id)) {
            v.add(At::Object(kind, id), "appears twice in this set");
        }
        match v1::Action::try_from(change.action) {
            Ok(v1::Action::Update) => update(&mut v, &mut new, held, object),
            Ok(v1::Action::Remove) if complete => {
                v.add(
                    At::Object(kind, id),
                    "a COMPLETE set has no REMOVE: leave the object out",
                );
            }
            Ok(v1::Action::Remove) => remove(&mut v, &mut new, object),
            Err(_) => v.add(at.field("action"), network::unknown(change.action)),
        }
    }
    // References into objects that were refused themselves would only repeat the message.
    if v.is_empty() {
        cross::check(&mut v, &new, held, locals, config, engine);
    }
    if v.is_empty() { Ok(new) } else { Err(v) }
}

fn name(object: &Object) -> (&'static str, &str) {
    match object {
        Object::Task(o) => ("tasks", &o.id),
        Object::Network(o) => ("networks", &o.id),
        Object::Service(o) => ("services", &o.id),
        Object::Node(o) => ("nodes", &o.id),
        Object::Endpoint(o) => ("endpoints", &o.id),
        Object::Secret(o) => ("secrets", &o.id),
        Object::Config(o) => ("configs", &o.id),
    }
}

fn update(v: &mut Violations, new: &mut Assignment, held: &Assignment, object: &Object) {
    /// Keeps the held object where nothing of it changed: it was checked before, and what shares
    /// it sees that it is the same.
    macro_rules! put {
        ($map:ident, $proto:expr, $parse:path) => {
            match held.$map.get(&$proto.id) {
                Some(old) if old.proto == *$proto => {
                    new.$map.insert($proto.id.clone(), Arc::clone(old));
                }
                _ => {
                    if let Some(def) = $parse(v, $proto) {
                        new.$map.insert($proto.id.clone(), Arc::new(def));
                    }
                }
            }
        };
    }
    match object {
        Object::Task(o) => put!(tasks, o, task),
        Object::Network(o) => put!(networks, o, network),
        Object::Service(o) => put!(services, o, service),
        Object::Node(o) => {
            put!(nodes, o, node);
            if let (Some(new), Some(old)) = (new.nodes.get_mut(&o.id), held.nodes.get(&o.id))
                && new.answers_since != old.answers_since
                && new.answers_as(old)
            {
                Arc::make_mut(new).answers_since = old.answers_since;
            }
        }
        Object::Endpoint(o) => put!(endpoints, o, endpoint),
        Object::Secret(o) => v.add(At::Object("secrets", &o.id), "not supported yet"),
        Object::Config(o) => v.add(At::Object("configs", &o.id), "not supported yet"),
    }
}

fn remove(v: &mut Violations, new: &mut Assignment, object: &Object) {
    fn take<T>(map: &mut BTreeMap<String, T>, id: &str) {
        map.remove(id);
    }
    let (kind, id) = name(object);
    check_id(v, At::Object(kind, id).field("id"), id);
    match object {
        Object::Task(o) => take(&mut new.tasks, &o.id),
        Object::Network(o) => take(&mut new.networks, &o.id),
        Object::Service(o) => take(&mut new.services, &o.id),
        Object::Node(o) => take(&mut new.nodes, &o.id),
        Object::Endpoint(o) => take(&mut new.endpoints, &o.id),
        Object::Secret(_) | Object::Config(_) => {}
    }
}

/// Checks the identity of this node.
///
/// # Errors
/// Everything that is wrong with it.
pub fn node_config(config: &v1::NodeConfig) -> Result<(), Violations> {
    let mut v = Violations::default();
    let at = At::Top("config");
    check_id(&mut v, at.field("node_id"), &config.node_id);
    if !config.hostname.is_empty() {
        check_name(&mut v, at.field("hostname"), &config.hostname);
    }
    if config.data_path_port > 65_535 {
        v.add(
            at.field("data_path_port"),
            format!("{} is not in 1 to 65535", config.data_path_port),
        );
    }
    let mut nets: Vec<ipnet::IpNet> = Vec::new();
    for (i, text) in config.gwbridge_subnets.iter().enumerate() {
        let list = at.field("gwbridge_subnets");
        let at = list.index(i);
        if let Some(net) = check_subnet(&mut v, at, text) {
            if nets
                .iter()
                .any(|n| n.addr().is_ipv4() == net.addr().is_ipv4())
            {
                v.add(at, "a second subnet of the same family");
            }
            nets.push(net);
        }
    }
    if !nets.is_empty() && nets.iter().all(|n| n.addr().is_ipv6()) {
        v.add(at.field("gwbridge_subnets"), "an IPv4 subnet is needed");
    }
    if !matches!(config.engine.as_str(), "" | "ipvs" | "nft") {
        v.add(
            at.field("engine"),
            format!("{:?} is not ipvs or nft", config.engine),
        );
    }
    if v.is_empty() { Ok(()) } else { Err(v) }
}
