//! A task and what surrounds its container: resources, networks, ports, volumes.

use std::collections::BTreeMap;

use fairlead_api::v1;
use fairlead_api::v1::generic_resource::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::mirror::{Mirror, choice, mirror};
use super::network::Protocol;
use super::quantity::{Cpus, Size, Swap};
use super::value::{Cidr, Port};

mirror! {
    /// A task: one container, and everything that it needs.
    pub struct Task = v1::Task {
        /// Unique in the cluster: 1 to 64 of a-z, A-Z, 0-9, `_`, `.`, `-`; a letter or digit first.
        id: String = id,
        /// What runs in it.
        container: Present<Container> = container,
    } optional {
        /// Name of the container and its DNS name. Default: `<service>.<slot>.<id>`.
        name: String = name,
        /// Labels of the task.
        labels: BTreeMap<String, String> = labels,
        /// The service that the task belongs to.
        service_id: String = service_id,
        /// The name of that service.
        service_name: String = service_name,
        /// Number of the replica; 0 for a task of a global service.
        slot: u64 = slot,
        /// Limits and reservations.
        resources: Option<ResourceRequirements> = resources,
        /// Where the output goes.
        log_driver: Option<LogDriver> = log_driver,
        /// The networks to join, in the order of the interfaces.
        networks: Vec<NetworkAttachment> = networks,
        /// Ports of the node that lead to this task alone, past the routing mesh.
        host_ports: Vec<HostPort> = host_ports,
        /// How far the task shall go; never back.
        desired_state: TaskState = desired_state,
        /// Generic resources that were assigned to the task.
        assigned_generic_resources: Vec<GenericResource> = assigned_generic_resources,
        /// Cluster volumes.
        volumes: Vec<VolumeAttachment> = volumes,
    }
}

/// A part that the contract could leave out, and the file cannot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Present<T>(pub T);

impl<P: Default, T: Mirror<P>> Mirror<Option<P>> for Present<T> {
    fn into_proto(self) -> Option<P> {
        Some(self.0.into_proto())
    }
    fn from_proto(proto: Option<P>) -> Self {
        Self(T::from_proto(proto.unwrap_or_default()))
    }
}

/// State of a task, in order. A file may wish for `ready`, `running`, `complete`, `shutdown` and
/// `remove`; the others are only reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TaskState {
    #[serde(skip_deserializing)]
    New,
    #[serde(skip_deserializing)]
    Pending,
    #[serde(skip_deserializing)]
    Assigned,
    #[serde(skip_deserializing)]
    Accepted,
    #[serde(skip_deserializing)]
    Preparing,
    /// Prepared, and parked there.
    Ready,
    #[serde(skip_deserializing)]
    Starting,
    /// Runs until it ends.
    #[default]
    Running,
    /// Runs once, to its end: a job.
    Complete,
    /// Stopped; status and output are kept.
    Shutdown,
    #[serde(skip_deserializing)]
    Failed,
    #[serde(skip_deserializing)]
    Rejected,
    /// Stopped, and nothing of it is left.
    Remove,
    #[serde(skip_deserializing)]
    Orphaned,
    #[serde(skip_deserializing)]
    Unknown(i32),
}

impl TaskState {
    /// In the order of the contract's numbers.
    const ALL: [(Self, v1::TaskState, &'static str); 14] = [
        (Self::New, v1::TaskState::New, "new"),
        (Self::Pending, v1::TaskState::Pending, "pending"),
        (Self::Assigned, v1::TaskState::Assigned, "assigned"),
        (Self::Accepted, v1::TaskState::Accepted, "accepted"),
        (Self::Preparing, v1::TaskState::Preparing, "preparing"),
        (Self::Ready, v1::TaskState::Ready, "ready"),
        (Self::Starting, v1::TaskState::Starting, "starting"),
        (Self::Running, v1::TaskState::Running, "running"),
        (Self::Complete, v1::TaskState::Complete, "complete"),
        (Self::Shutdown, v1::TaskState::Shutdown, "shutdown"),
        (Self::Failed, v1::TaskState::Failed, "failed"),
        (Self::Rejected, v1::TaskState::Rejected, "rejected"),
        (Self::Remove, v1::TaskState::Remove, "remove"),
        (Self::Orphaned, v1::TaskState::Orphaned, "orphaned"),
    ];

    /// The word for it.
    pub fn word(self) -> String {
        match (self, Self::ALL.iter().find(|(state, ..)| *state == self)) {
            (_, Some((_, _, word))) => (*word).to_owned(),
            (Self::Unknown(number), None) => format!("state {number}"),
            (_, None) => format!("state {}", self.into_proto()),
        }
    }
}

impl Mirror<i32> for TaskState {
    fn into_proto(self) -> i32 {
        match (self, Self::ALL.iter().find(|(state, ..)| *state == self)) {
            (_, Some((_, proto, _))) => *proto as i32,
            (Self::Unknown(number), None) => number,
            (_, None) => i32::MAX,
        }
    }
    fn from_proto(number: i32) -> Self {
        let known = Self::ALL
            .iter()
            .find(|(_, proto, _)| *proto as i32 == number);
        known.map_or(Self::Unknown(number), |(state, ..)| *state)
    }
}

mirror! {
    /// Limits and reservations of a task.
    pub struct ResourceRequirements = v1::ResourceRequirements {} optional {
        /// What the task cannot exceed.
        limits: Option<Resources> = limits,
        /// What is set aside for it.
        reservations: Option<Resources> = reservations,
        /// Swap that the task may use; default: as much as memory.
        swap: Option<Swap> = swap_bytes,
        /// How readily the kernel swaps the task: 0 to 100.
        memory_swappiness: Option<i64> = memory_swappiness,
    }
}

mirror! {
    /// An amount of a node's resources.
    pub struct Resources = v1::Resources {} optional {
        /// CPUs, such as 1.5. 0: no limit.
        cpus: Cpus = nano_cpus,
        /// Memory, such as 64MiB. 0: no limit.
        memory: Size = memory_bytes,
        /// What the task may add to its root file system, such as 10GiB. 0: no limit. Only as a limit.
        storage: Size = storage_bytes,
        /// Generic resources, such as GPUs.
        generic: Vec<GenericResource> = generic,
    }
}

/// A generic resource: one by name, or a number of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GenericResource", extend("oneOf" = [{"required": ["named"]}, {"required": ["discrete"]}]))]
struct GenericFields {
    /// What it is, such as `gpu`.
    kind: String,
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    named: Option<String>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    discrete: Option<i64>,
}

/// A generic resource: one by name, or a number of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "GenericFields", into = "GenericFields")]
#[schemars(with = "GenericFields")]
pub struct GenericResource {
    /// What it is.
    pub kind: String,
    /// Which one, or how many; a newer daemon may answer neither.
    pub value: Option<Value>,
}

impl TryFrom<GenericFields> for GenericResource {
    type Error = String;

    fn try_from(fields: GenericFields) -> Result<Self, String> {
        let value = match (fields.named, fields.discrete) {
            (Some(name), None) => Value::Named(name),
            (None, Some(number)) => Value::Discrete(number),
            _ => return Err("a generic resource has one of `named` and `discrete`".to_owned()),
        };
        Ok(Self {
            kind: fields.kind,
            value: Some(value),
        })
    }
}

impl From<GenericResource> for GenericFields {
    fn from(resource: GenericResource) -> Self {
        let (named, discrete) = match resource.value {
            Some(Value::Named(name)) => (Some(name), None),
            Some(Value::Discrete(number)) => (None, Some(number)),
            None => (None, None),
        };
        Self {
            kind: resource.kind,
            named,
            discrete,
        }
    }
}

impl Mirror<v1::GenericResource> for GenericResource {
    fn into_proto(self) -> v1::GenericResource {
        v1::GenericResource {
            kind: self.kind,
            value: self.value,
        }
    }
    fn from_proto(proto: v1::GenericResource) -> Self {
        Self {
            kind: proto.kind,
            value: proto.value,
        }
    }
}

mirror! {
    /// Where the output of a task goes.
    pub struct LogDriver = v1::LogDriver {} optional {
        /// `json-file`, the default.
        name: String = name,
        /// `max-size`, such as `10m`, and `max-file`.
        options: BTreeMap<String, String> = options,
    }
}

mirror! {
    /// One network that a task joins.
    pub struct NetworkAttachment = v1::NetworkAttachment {
        /// The network.
        network_id: String = network_id,
        /// The task's addresses there with prefix length, at most one of each family.
        addresses: Vec<Cidr> = addresses,
    } optional {
        /// Aliases of the service on this network.
        aliases: Vec<String> = aliases,
        /// Default: 02:42 and the IPv4 address. Needed where the network has no IPv4.
        mac: String = mac,
        /// Options of the network driver.
        driver_options: BTreeMap<String, String> = driver_options,
    }
}

mirror! {
    /// A port of the node that leads to one task.
    pub struct HostPort = v1::PortConfig {
        /// The port in the task.
        target: Port = target_port,
    } optional {
        /// The port of the node. 0: the node takes a free one and reports it.
        published: Port = published_port,
        /// The protocol.
        protocol: Protocol = protocol,
        /// A name for people.
        name: String = name,
        /// Always `host`: ports of the routing mesh belong to the service.
        mode: HostMode = publish_mode,
    }
}

choice! {
    /// How a task's own port is published.
    pub enum HostMode = v1::PublishMode {
        /// At the node of the task only.
        #[default]
        Host = Host,
    }
}

mirror! {
    /// A cluster volume in a task.
    pub struct VolumeAttachment = v1::VolumeAttachment {
        /// The volume.
        id: String = id,
        /// What the task's specification calls it.
        source: String = source,
        /// Where it is mounted.
        target: String = target,
    } optional {}
}
