//! Configure and Assign: checked, stored, then acted on.

use std::net::IpAddr;
use std::sync::Arc;

use fairlead_api::v1;
use ipnet::IpNet;
use prost::Message;
use tonic::Status;

use crate::config::EngineName;
use crate::model::{Assignment, gwbridge_subnets};
use crate::node::Node;
use crate::plan::View;
use crate::plane::PlaneError;
use crate::store::{Kind, Op, OwnRecord, StoreError};
use crate::task;
use crate::validate;

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<PlaneError> for Status {
    fn from(error: PlaneError) -> Self {
        match error {
            PlaneError::Ended => Self::unavailable(error.to_string()),
            PlaneError::Refused(_) => Self::failed_precondition(error.to_string()),
        }
    }
}

/// The engine to use: the node's configuration before the flag.
#[must_use]
pub fn engine(node: &v1::NodeConfig, flag: Option<EngineName>) -> Option<netdp::Engine> {
    match node.engine.as_str() {
        "ipvs" => Some(netdp::Engine::Ipvs),
        "nft" => Some(netdp::Engine::Nft),
        _ => flag.map(Into::into),
    }
}

/// Sets who this node is.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is wrong with it, `FAILED_PRECONDITION` for what cannot change now.
pub async fn configure(node: &Arc<Node>, config: v1::NodeConfig) -> Result<(), Status> {
    let _one = node.assigning.lock().await;
    let view = node.view();
    if view.config.as_ref() == Some(&config) {
        return Ok(());
    }
    check_config(node, &view, &config)?;
    switch_engine(node, &view, &config).await?;
    node.store.write(vec![Op::Config(config.clone())]).await?;
    node.set_config(config);
    node.plane()?.apply_later();
    Ok(())
}

/// Whether the node may become this.
fn check_config(node: &Node, view: &View, config: &v1::NodeConfig) -> Result<(), Status> {
    validate::node_config(config).map_err(|v| v.into_status("the configuration"))?;
    let subnets = gwbridge_subnets(config).unwrap_or_default();
    let is_new = |old: &v1::NodeConfig| gwbridge_subnets(old).ok().as_ref() != Some(&subnets);
    if view.config.as_ref().is_none_or(is_new) {
        check_subnets(&subnets, &node.options.gwbridge)?;
    }
    let Some(old) = view.config.as_ref().filter(|_| !view.locals.is_empty()) else {
        return Ok(());
    };
    let fixed = |what: &str, text: &dyn Fn(&v1::NodeConfig) -> String| {
        let (held, new) = (text(old), text(config));
        Status::failed_precondition(format!(
            "{what} of this node is {held} and cannot become {new} while it has tasks: take them \
             out of the assignment first"
        ))
    };
    if old.node_id != config.node_id {
        return Err(fixed("the id", &|c| format!("{:?}", c.node_id)));
    }
    if is_new(old) {
        return Err(fixed("the gwbridge", &|c| {
            format!("{:?}", c.gwbridge_subnets)
        }));
    }
    if old.engine != config.engine {
        return Err(fixed("the engine", &|c| format!("{:?}", c.engine)));
    }
    Ok(())
}

/// What the tasks send to the node, and get from it, would go to another device with the same subnet: that of
/// Docker has the same default.
fn check_subnets(subnets: &[IpNet], gwbridge: &str) -> Result<(), Status> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(|e| Status::unavailable(format!("cannot list the node's addresses: {e}")))?;
    for interface in interfaces.filter(|interface| interface.interface_name != gwbridge) {
        let Some(other) = network(&interface) else {
            continue;
        };
        let overlaps = |net: &&IpNet| net.contains(&other) || other.contains(*net);
        if let Some(subnet) = subnets.iter().find(overlaps) {
            return Err(Status::failed_precondition(format!(
                "the gwbridge's subnet {subnet} overlaps {other} of this node's interface {}: choose another one \
                 (gwbridge_subnets; gwbridgeSubnets in a file)",
                interface.interface_name
            )));
        }
    }
    Ok(())
}

/// The network that an interface's address is in.
fn network(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpNet> {
    let ip = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
    };
    let (address, mask) = (interface.address.as_ref()?, interface.netmask.as_ref()?);
    let net = IpNet::with_netmask(ip(address)?, ip(mask)?).ok()?;
    Some(net.trunc())
}

/// The data plane has another engine from now on, where the configuration says so.
async fn switch_engine(node: &Node, view: &View, config: &v1::NodeConfig) -> Result<(), Status> {
    let wanted = engine(config, node.options.engine);
    let old = view.config.as_ref();
    if old.map(|old| engine(old, node.options.engine)) != Some(wanted) {
        let plane = node.plane()?;
        plane.reopen(wanted).await?;
        // Whether or not the configuration can be written.
        plane.apply_later();
    }
    Ok(())
}

/// Takes in what should be on this node; the name of the state now held.
///
/// # Errors
/// As the contract says.
pub async fn assign(node: &Arc<Node>, mut request: v1::AssignRequest) -> Result<String, Status> {
    let _one = node.assigning.lock().await;
    let view = node.view();
    let changed = request.node_config.take();
    let changed = changed.filter(|config| view.config.as_ref() != Some(config));
    if let Some(config) = &changed {
        check_config(node, &view, config)?;
    }
    let Some(config) = changed.as_ref().or(view.config.as_ref()) else {
        return Err(Status::failed_precondition(
            "this node is not configured: call Configure before the first assignment, or send the \
             configuration with it",
        ));
    };
    let held = &view.assignment;
    if request.r#type == v1::AssignmentType::Incremental as i32
        && request.applies_to != held.results_in
    {
        return Err(Status::failed_precondition(format!(
            "the set applies to {:?}, but {:?} is held: send a COMPLETE set",
            request.applies_to, held.results_in
        )));
    }
    let plane = node.plane()?;
    let facts = plane.facts();
    let engine = match &changed {
        Some(config) => engine(config, node.options.engine).unwrap_or(facts.best_engine()),
        None => facts.engine,
    };
    let new = validate::assignment(&request, held, &view.locals, config, engine)
        .map_err(|v| v.into_status("the assignment"))?;

    let mut ops = difference(&new, held);
    ops.extend(own_record(&new, held, &config.node_id));
    if let Some(config) = &changed {
        switch_engine(node, &view, config).await?;
        ops.push(Op::Config(config.clone()));
    }
    node.store.write(ops).await?;

    // Nothing below can fail: what is stored is what is acted on.
    if let Some(config) = changed {
        node.set_config(config);
    }
    let results_in = new.results_in.clone();
    for (id, want) in node.set_assignment(new) {
        task::follow(node, &id, want);
    }
    plane.apply_later();
    Ok(results_in)
}

/// What is remembered of this node's record beside its content, where that changed.
fn own_record(new: &Assignment, held: &Assignment, id: &str) -> Option<Op> {
    let own = new.nodes.get(id)?;
    let same = held.nodes.get(id).is_some_and(|old| Arc::ptr_eq(old, own));
    (!same).then(|| {
        Op::OwnRecord(OwnRecord {
            node: id.to_owned(),
            version: own.proto.version,
            answers_since: own.answers_since,
        })
    })
}

/// What has to be written so that the store holds `new` instead of `held`.
fn difference(new: &Assignment, held: &Assignment) -> Vec<Op> {
    let mut ops = vec![Op::ResultsIn(new.results_in.clone())];
    macro_rules! compare {
        ($field:ident, $kind:expr) => {
            for (id, object) in &new.$field {
                let same = held
                    .$field
                    .get(id)
                    .is_some_and(|old| Arc::ptr_eq(old, object));
                if !same {
                    ops.push(Op::Put($kind, id.clone(), object.proto.encode_to_vec()));
                }
            }
            for id in held
                .$field
                .keys()
                .filter(|id| !new.$field.contains_key(*id))
            {
                ops.push(Op::Remove($kind, id.clone()));
            }
        };
    }
    compare!(tasks, Kind::Task);
    compare!(networks, Kind::Network);
    compare!(services, Kind::Service);
    compare!(nodes, Kind::Node);
    compare!(endpoints, Kind::Endpoint);
    ops
}
