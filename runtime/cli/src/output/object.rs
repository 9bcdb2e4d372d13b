//! The objects of a node as programs see them: `--format json` of every list and of `inspect`.
//! What was assigned is under `spec`, in the words of the file; the rest is what the node made of it.

use fairlead_api::v1;
use serde::Serialize;

use super::time::rfc3339;
use crate::format::Mirror;
use crate::format::network::{EndpointRecord, EndpointState, Network, NodeRecord, Service};
use crate::format::task::{HostPort, Task, TaskState};

/// Anything that can be inspected.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Object {
    /// A task of this node.
    Task(Box<TaskObject>),
    /// A network.
    Network(NetworkObject),
    /// A service.
    Service(ServiceObject),
    /// A node of the cluster.
    Node(NodeObject),
    /// A task on a network.
    Endpoint(EndpointObject),
}

/// A task of this node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskObject {
    pub id: String,
    pub name: String,
    pub state: TaskState,
    pub desired_state: TaskState,
    /// When the state was reached, RFC 3339.
    pub since: Option<String>,
    #[serde(skip)]
    pub since_nanos: u64,
    pub message: String,
    pub error: String,
    pub container_id: String,
    /// 0 when there is none.
    pub pid: u32,
    /// Of an ended task.
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    /// Host-mode ports that are bound.
    pub ports: Vec<HostPort>,
    pub netns: String,
    pub gateway_addresses: Vec<String>,
    pub log_path: String,
    /// Of a task that has a health check and has been started.
    pub health: Option<Health>,
    pub spec: Task,
}

/// What the health check of a task has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub state: &'static str,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last probes, the oldest first.
    pub log: Vec<ProbeResult>,
}

/// What a probe has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    pub start: String,
    pub end: String,
    /// 0: healthy; -1: it took too long.
    pub exit_code: i32,
    pub output: String,
}

impl From<v1::TaskHealth> for Health {
    fn from(health: v1::TaskHealth) -> Self {
        let result = |result: v1::ProbeResult| ProbeResult {
            start: rfc3339(result.start),
            end: rfc3339(result.end),
            exit_code: result.exit_code,
            output: result.output,
        };
        Self {
            state: health_word(health.state),
            failing_streak: health.failing_streak,
            log: health.log.into_iter().map(result).collect(),
        }
    }
}

/// Docker's words.
pub fn health_word(state: i32) -> &'static str {
    match v1::HealthState::try_from(state) {
        Ok(v1::HealthState::Starting) => "starting",
        Ok(v1::HealthState::Healthy) => "healthy",
        Ok(v1::HealthState::Unhealthy) => "unhealthy",
        Ok(v1::HealthState::Unspecified) | Err(_) => "unknown",
    }
}

impl From<v1::TaskView> for TaskObject {
    fn from(view: v1::TaskView) -> Self {
        let spec = Task::from_proto(view.task.unwrap_or_default());
        let status = view.status.unwrap_or_default();
        let state = TaskState::from_proto(status.state);
        let container = status.container.unwrap_or_default();
        let ended =
            status.state >= v1::TaskState::Complete as i32 && !container.container_id.is_empty();
        Self {
            id: spec.id.clone(),
            name: task_name(&spec),
            state,
            desired_state: spec.desired_state,
            since: (status.timestamp != 0).then(|| rfc3339(status.timestamp)),
            since_nanos: status.timestamp,
            message: status.message,
            error: status.error,
            container_id: container.container_id,
            pid: container.pid,
            exit_code: (ended && container.pid == 0).then_some(container.exit_code),
            oom_killed: container.oom_killed,
            ports: Vec::from_proto(status.ports),
            netns: view.netns,
            gateway_addresses: view.gateway_addresses,
            log_path: view.log_path,
            health: view.health.map(Health::from),
            spec,
        }
    }
}

/// The name of a task's container, also where the specification leaves it to the node.
pub fn task_name(task: &Task) -> String {
    match (task.name.as_str(), task.service_name.as_str()) {
        ("", "") => task.id.clone(),
        ("", service) => format!("{service}.{}.{}", task.slot, task.id),
        (name, _) => name.to_owned(),
    }
}

/// A network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkObject {
    pub id: String,
    pub name: String,
    /// Whether it is in the kernel.
    pub active: bool,
    /// As programmed, in bytes; 0 when it is not active.
    pub mtu: u32,
    pub netns: String,
    pub local_endpoints: u32,
    pub remote_endpoints: u32,
    /// What the kernel refuses of it on this node.
    pub errors: Vec<String>,
    pub spec: Network,
}

impl From<v1::NetworkView> for NetworkObject {
    fn from(view: v1::NetworkView) -> Self {
        let spec = Network::from_proto(view.network.unwrap_or_default());
        Self {
            id: spec.id.clone(),
            name: spec.name.clone(),
            active: view.active,
            mtu: view.mtu,
            netns: view.netns,
            local_endpoints: view.local_endpoints,
            remote_endpoints: view.remote_endpoints,
            errors: view.errors,
            spec,
        }
    }
}

/// A service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceObject {
    pub id: String,
    pub name: String,
    pub engine: String,
    pub scheduler: String,
    pub backends: Vec<Backend>,
    /// What is not done of it on this node.
    pub errors: Vec<String>,
    pub spec: Service,
}

/// An endpoint behind a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    pub network_id: String,
    pub endpoint_id: String,
    pub task_id: String,
    pub node_id: String,
    pub addresses: Vec<String>,
    pub state: EndpointState,
    /// Whether it gets connections.
    pub enabled: bool,
    /// Why not.
    pub reason: String,
}

impl From<v1::ServiceView> for ServiceObject {
    fn from(view: v1::ServiceView) -> Self {
        let spec = Service::from_proto(view.service.unwrap_or_default());
        let backend = |view: v1::BackendView| Backend {
            state: EndpointState::from_proto(view.state),
            network_id: view.network_id,
            endpoint_id: view.endpoint_id,
            task_id: view.task_id,
            node_id: view.node_id,
            addresses: view.addresses,
            enabled: view.enabled,
            reason: view.reason,
        };
        Self {
            id: spec.id.clone(),
            name: spec.name.clone(),
            engine: view.engine,
            scheduler: view.scheduler,
            backends: view.backends.into_iter().map(backend).collect(),
            errors: view.errors,
            spec,
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeObject {
    pub id: String,
    pub spec: NodeRecord,
}

impl From<v1::NodeRecord> for NodeObject {
    fn from(record: v1::NodeRecord) -> Self {
        let spec = NodeRecord::from_proto(record);
        Self {
            id: spec.id.clone(),
            spec,
        }
    }
}

/// A task on a network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointObject {
    pub id: String,
    pub spec: EndpointRecord,
}

impl From<v1::EndpointRecord> for EndpointObject {
    fn from(record: v1::EndpointRecord) -> Self {
        let spec = EndpointRecord::from_proto(record);
        Self {
            id: spec.id.clone(),
            spec,
        }
    }
}

/// Everything that an answer holds.
pub fn objects(response: v1::InspectResponse) -> Vec<Object> {
    let tasks = response
        .tasks
        .into_iter()
        .map(|view| Object::Task(Box::new(view.into())));
    tasks
        .chain(
            response
                .networks
                .into_iter()
                .map(|view| Object::Network(view.into())),
        )
        .chain(
            response
                .services
                .into_iter()
                .map(|view| Object::Service(view.into())),
        )
        .chain(
            response
                .nodes
                .into_iter()
                .map(|record| Object::Node(record.into())),
        )
        .chain(
            response
                .endpoints
                .into_iter()
                .map(|record| Object::Endpoint(record.into())),
        )
        .collect()
}
