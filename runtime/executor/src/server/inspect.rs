//! What is there: what the agent sent, and what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_api::v1::{self, Kind};
use tonic::Status;

use crate::node::Node;
use crate::plan::{self, View};
use crate::plane::{Applied, Facts};

pub(super) fn inspect(
    node: &Node,
    request: &v1::InspectRequest,
) -> Result<v1::InspectResponse, Status> {
    let kind = Kind::try_from(request.kind)
        .map_err(|_| Status::invalid_argument(format!("kind: {} is no kind", request.kind)))?;
    let view = node.view();
    let facts = node.plane()?.facts();
    let assignment = &view.assignment;
    let is = |k: Kind| kind == Kind::Unspecified || kind == k;

    let mut candidates: Vec<(Kind, &str, String)> = Vec::new();
    if is(Kind::Task) {
        candidates.extend(
            view.locals
                .iter()
                .map(|(id, l)| (Kind::Task, id.as_str(), l.def.name())),
        );
    }
    if is(Kind::Network) {
        let list = assignment.networks.iter();
        candidates.extend(list.map(|(id, n)| (Kind::Network, id.as_str(), n.proto.name.clone())));
    }
    if is(Kind::Service) {
        let list = assignment.services.iter();
        candidates.extend(list.map(|(id, s)| (Kind::Service, id.as_str(), s.proto.name.clone())));
    }
    if is(Kind::Node) {
        let list = assignment.nodes.keys();
        candidates.extend(list.map(|id| (Kind::Node, id.as_str(), String::new())));
    }
    if is(Kind::Endpoint) {
        let list = assignment.endpoints.keys();
        candidates.extend(list.map(|id| (Kind::Endpoint, id.as_str(), String::new())));
    }
    let chosen = choose(&candidates, &request.name)?;

    let mut response = v1::InspectResponse {
        assignment: assignment.results_in.clone(),
        ..Default::default()
    };
    for (kind, id) in chosen {
        match kind {
            Kind::Task => response.tasks.extend(task(node, &view, id)),
            Kind::Network => response.networks.extend(network(&view, &facts, id)),
            Kind::Service => response.services.extend(service(&view, &facts, id)),
            Kind::Node => {
                response
                    .nodes
                    .extend(assignment.nodes.get(id).map(|n| n.proto.clone()));
            }
            Kind::Endpoint => {
                response
                    .endpoints
                    .extend(assignment.endpoints.get(id).map(|e| e.proto.clone()));
            }
            Kind::Unspecified => {}
        }
    }
    Ok(response)
}

/// The id, else the name, else the one id that begins so. Without a kind, one name may name things
/// of several kinds: all of them are meant.
fn choose<'a>(
    candidates: &[(Kind, &'a str, String)],
    name: &str,
) -> Result<Vec<(Kind, &'a str)>, Status> {
    let all = |fits: &dyn Fn(&(Kind, &'a str, String)) -> bool| -> Vec<(Kind, &'a str)> {
        candidates
            .iter()
            .filter(|c| fits(c))
            .map(|(kind, id, _)| (*kind, *id))
            .collect()
    };
    if name.is_empty() {
        return Ok(all(&|_| true));
    }
    let by_id = all(&|(_, id, _)| *id == name);
    let found = if by_id.is_empty() {
        all(&|(_, _, own)| own == name)
    } else {
        by_id
    };
    let found = if found.is_empty() {
        all(&|(_, id, _)| id.starts_with(name))
    } else {
        found
    };
    if found.is_empty() {
        return Err(Status::not_found(format!(
            "nothing here has the id or name {name:?}"
        )));
    }
    let mut count: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
    for (kind, id) in &found {
        count.entry(*kind).or_default().push(id);
    }
    if let Some(ids) = count.values().find(|ids| ids.len() > 1) {
        const SHOWN: usize = 5;
        let shown: Vec<&str> = ids.iter().take(SHOWN).copied().collect();
        return Err(Status::invalid_argument(format!(
            "{name:?} is ambiguous: {} ids, {}{}",
            ids.len(),
            shown.join(", "),
            if ids.len() > SHOWN { ", ..." } else { "" }
        )));
    }
    Ok(found)
}

fn task(node: &Node, view: &View, id: &str) -> Option<v1::TaskView> {
    let local = view.locals.get(id)?;
    let netns = local
        .record
        .sandbox
        .then(|| {
            node.plane()
                .ok()
                .map(|plane| plane.sandbox_path(id).display().to_string())
        })
        .flatten();
    Some(v1::TaskView {
        task: Some(without_secrets(local.def.proto.clone())),
        status: Some(local.status()),
        netns: netns.unwrap_or_default(),
        gateway_addresses: local.record.gateway.clone(),
        log_path: node.options.log_path(id).display().to_string(),
        health: local.health.as_deref().cloned(),
    })
}

fn network(view: &View, facts: &Facts, id: &str) -> Option<v1::NetworkView> {
    let network = view.assignment.networks.get(id)?;
    let own = view.config.as_ref().map(|config| config.node_id.as_str());
    let here = view
        .assignment
        .endpoints
        .values()
        .filter(|endpoint| endpoint.exists() && endpoint.proto.network_id == id);
    let (local, remote): (Vec<_>, Vec<_>) =
        here.partition(|endpoint| Some(endpoint.proto.node_id.as_str()) == own);
    let state = facts
        .last
        .as_ref()
        .and_then(|applied: &Arc<Applied>| applied.report.networks.get(id));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(v1::NetworkView {
        network: Some(network.proto.clone()),
        active: state.is_some(),
        mtu: state.map_or(0, |state| state.mtu),
        netns: state
            .map(|state| state.netns.display().to_string())
            .unwrap_or_default(),
        local_endpoints: count(local.len()),
        remote_endpoints: count(remote.len()),
        errors: errors(facts, &netdp::Object::Network(id.to_owned())),
    })
}

fn service(view: &View, facts: &Facts, id: &str) -> Option<v1::ServiceView> {
    let service = view.assignment.services.get(id)?;
    let config = view.config.as_ref()?;
    let endpoints = view.assignment.endpoints.values();
    let backends = endpoints
        .filter(|endpoint| endpoint.exists() && endpoint.proto.service_id == id)
        .map(|endpoint| {
            let record = &endpoint.proto;
            let (backend, waits) = plan::backend(view, config, endpoint);
            v1::BackendView {
                network_id: record.network_id.clone(),
                endpoint_id: record.id.clone(),
                task_id: record.task_id.clone(),
                node_id: record.node_id.clone(),
                addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
                state: endpoint.state as i32,
                enabled: matches!(backend, netdp::Backend::Enabled(_)),
                reason: match (waits, backend) {
                    (Some(reason), _) => reason,
                    (None, netdp::Backend::Draining) => "draining".to_owned(),
                    (None, _) => String::new(),
                },
            }
        });
    Some(v1::ServiceView {
        service: Some(service.proto.clone()),
        backends: backends.collect(),
        engine: facts.engine.name().to_owned(),
        scheduler: service
            .scheduler
            .unwrap_or(facts.engine.default_scheduler())
            .name()
            .to_owned(),
        errors: errors(facts, &netdp::Object::Service(id.to_owned())),
    })
}

/// What the last run of the data plane could not do of an object.
fn errors(facts: &Facts, object: &netdp::Object) -> Vec<String> {
    let failures = facts.last.iter().flat_map(|last| &last.report.failures);
    failures
        .filter(|failure| failure.object == *object)
        .map(|failure| failure.error.to_string())
        .collect()
}

/// What only the daemon needs to know.
fn without_secrets(mut task: v1::Task) -> v1::Task {
    let options = task
        .container
        .as_mut()
        .and_then(|c| c.pull_options.as_mut());
    if let Some(options) = options {
        options.registry_auth.clear();
    }
    task
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<(Kind, &'static str, String)> {
        vec![
            (Kind::Task, "abc1", "web.1".into()),
            (Kind::Task, "abc2", "web.2".into()),
            (Kind::Service, "s1", "web".into()),
            (Kind::Network, "n1", "web".into()),
        ]
    }

    #[test]
    fn by_id_name_and_beginning() {
        let all = some();
        assert_eq!(choose(&all, "abc1").unwrap(), [(Kind::Task, "abc1")]);
        assert_eq!(choose(&all, "web.2").unwrap(), [(Kind::Task, "abc2")]);
        assert_eq!(choose(&all, "s").unwrap(), [(Kind::Service, "s1")]);
        assert_eq!(choose(&all, "web").unwrap().len(), 2);
        assert_eq!(choose(&all, "").unwrap().len(), 4);
    }

    #[test]
    fn what_is_not_there_or_not_one_is_refused() {
        let all = some();
        assert_eq!(
            choose(&all, "zz").unwrap_err().code(),
            tonic::Code::NotFound
        );
        let error = choose(&all, "ab").unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(
            error.message().contains("abc1, abc2"),
            "{}",
            error.message()
        );
    }
}
