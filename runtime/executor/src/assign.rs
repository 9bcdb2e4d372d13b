//! Configure and Assign: checked, stored, then acted on.

use std::sync::Arc;

use fairlead_api::v1;
use prost::Message;
use tonic::Status;

use crate::config::EngineName;
use crate::model::{Assignment, gwbridge_subnets};
use crate::node::Node;
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
    validate::node_config(&config).map_err(|v| v.into_status("the configuration"))?;
    let _one = node.assigning.lock().await;
    let view = node.view();
    if view.config.as_ref() == Some(&config) {
        return Ok(());
    }
    if let Some(old) = &view.config
        && !view.locals.is_empty()
    {
        let fixed = |what: &str, held: String, new: String| {
            Status::failed_precondition(format!(
                "{what} of this node is {held} and cannot become {new} while it has tasks: take them \
                 out of the assignment first"
            ))
        };
        if old.node_id != config.node_id {
            return Err(fixed(
                "the id",
                format!("{:?}", old.node_id),
                format!("{:?}", config.node_id),
            ));
        }
        if gwbridge_subnets(old).ok() != gwbridge_subnets(&config).ok() {
            let text = |c: &v1::NodeConfig| format!("{:?}", c.gwbridge_subnets);
            return Err(fixed("the gwbridge", text(old), text(&config)));
        }
        if old.engine != config.engine {
            let text = |c: &v1::NodeConfig| format!("{:?}", c.engine);
            return Err(fixed("the engine", text(old), text(&config)));
        }
    }
    let plane = node.plane()?;
    let wanted = engine(&config, node.options.engine);
    if view
        .config
        .as_ref()
        .map(|old| engine(old, node.options.engine))
        != Some(wanted)
    {
        plane.reopen(wanted).await?;
        // Whether or not the configuration can be written.
        plane.apply_later();
    }
    node.store.write(vec![Op::Config(config.clone())]).await?;
    node.set_config(config);
    plane.apply_later();
    Ok(())
}

/// Takes in what should be on this node; the name of the state now held.
///
/// # Errors
/// As the contract says.
pub async fn assign(node: &Arc<Node>, request: v1::AssignRequest) -> Result<String, Status> {
    let _one = node.assigning.lock().await;
    let view = node.view();
    let Some(config) = &view.config else {
        return Err(Status::failed_precondition(
            "this node is not configured: call Configure before the first assignment",
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
    let new = validate::assignment(&request, held, config, plane.facts().engine)
        .map_err(|v| v.into_status("the assignment"))?;

    let mut ops = difference(&new, held);
    ops.extend(own_record(&new, held, &config.node_id));
    node.store.write(ops).await?;

    // Nothing below can fail: what is stored is what is acted on.
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
