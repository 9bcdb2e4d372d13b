//! What this node knows of a task beyond its definition: written before it is acted on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_api::v1;
use ipnet::IpNet;

use crate::model::{NetworkDef, TaskDef};
use crate::task::Want;
use crate::validate;

/// The stored form of a task's runtime state.
///
/// It carries the definitions that it was made from, because a task is stopped and cleaned up after
/// the agent took it, and perhaps its networks, out of the assignment.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskRecord {
    /// The definition.
    #[prost(message, optional, tag = "1")]
    pub task: Option<v1::Task>,
    /// As reported.
    #[prost(message, optional, tag = "2")]
    pub status: Option<v1::TaskStatus>,
    /// The networks it joined, as they were then.
    #[prost(message, repeated, tag = "3")]
    pub networks: Vec<v1::Network>,
    /// Intent: it has, or is about to get, a network namespace.
    #[prost(bool, tag = "4")]
    pub sandbox: bool,
    /// Its addresses on the gwbridge, CIDR.
    #[prost(string, repeated, tag = "5")]
    pub gateway: Vec<String>,
    /// Its ports on the node, all of them with their numbers.
    #[prost(message, repeated, tag = "6")]
    pub host_ports: Vec<v1::PortConfig>,
    /// Intent: it has, or is about to get, a root file system.
    #[prost(bool, tag = "7")]
    pub snapshot: bool,
    /// Intent: a shim and a cgroup exist, or are about to.
    #[prost(bool, tag = "8")]
    pub process: bool,
    /// Its shim; 0: not known.
    #[prost(uint32, tag = "9")]
    pub shim_pid: u32,
    /// Start time of the shim, in clock ticks since boot: a pid alone may be another process.
    #[prost(uint64, tag = "10")]
    pub shim_start: u64,
    /// The signal that asks it to stop.
    #[prost(int32, tag = "11")]
    pub stop_signal: i32,
    /// Intent: it is being stopped, so it is no backend any more.
    #[prost(bool, tag = "12")]
    pub stopping: bool,
    /// It has left the assignment: nothing of it may stay.
    #[prost(bool, tag = "13")]
    pub removing: bool,
    /// It has a health check: it runs only once a probe has succeeded.
    #[prost(bool, tag = "14")]
    pub health_check: bool,
    /// Intent: it is being stopped because it is unhealthy; why, in words. This is how it ends.
    #[prost(string, tag = "15")]
    pub unhealthy: String,
}

/// A task on this node, with its record parsed.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its definition.
    pub def: Arc<TaskDef>,
    /// What is stored.
    pub record: TaskRecord,
    /// The networks it joined.
    pub networks: Vec<Arc<NetworkDef>>,
    /// Its addresses on the gwbridge.
    pub gateway: Vec<IpNet>,
    /// Its ports on the node.
    pub host_ports: Vec<netdp::Port>,
    /// What its health check has found; not stored, see [`crate::task`].
    pub health: Option<Arc<v1::TaskHealth>>,
}

impl Local {
    /// A task that was just assigned.
    #[must_use]
    pub fn new(def: Arc<TaskDef>) -> Self {
        let status = v1::TaskStatus {
            task_id: def.proto.id.clone(),
            state: v1::TaskState::Assigned as i32,
            timestamp: now(),
            message: "assigned".to_owned(),
            ..Default::default()
        };
        let record = TaskRecord {
            task: Some(def.proto.clone()),
            status: Some(status),
            ..Default::default()
        };
        Self {
            def,
            record,
            networks: Vec::new(),
            gateway: Vec::new(),
            host_ports: Vec::new(),
            health: None,
        }
    }

    /// A task as it was stored.
    ///
    /// # Errors
    /// What in it does not have the form that this version of the daemon writes.
    pub fn restore(record: TaskRecord) -> Result<Self, String> {
        let mut v = validate::Violations::default();
        let proto = record.task.as_ref().ok_or("it has no definition")?;
        let def = validate::task(&mut v, proto)
            .map(Arc::new)
            .ok_or_else(|| first(&v))?;
        let networks = record
            .networks
            .iter()
            .map(|n| {
                validate::network(&mut v, n)
                    .map(Arc::new)
                    .ok_or_else(|| first(&v))
            })
            .collect::<Result<_, _>>()?;
        let mut local = Self {
            def,
            record,
            networks,
            gateway: Vec::new(),
            host_ports: Vec::new(),
            health: None,
        };
        local.parse()?;
        Ok(local)
    }

    /// Brings the parsed fields in line with the record.
    ///
    /// # Errors
    /// What in the record has not its form.
    pub fn parse(&mut self) -> Result<(), String> {
        self.gateway = self
            .record
            .gateway
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| format!("gateway address {text:?}"))
            })
            .collect::<Result<_, _>>()?;
        self.host_ports = self
            .record
            .host_ports
            .iter()
            .map(|port| host_port(port).ok_or_else(|| format!("host port {port:?}")))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> v1::TaskStatus {
        self.record.status.clone().unwrap_or_default()
    }

    /// What the agent wants of it.
    #[must_use]
    pub fn want(&self) -> Want {
        Want {
            desired: self.def.desired(),
            removing: self.record.removing,
        }
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> v1::TaskState {
        self.record
            .status
            .as_ref()
            .map_or(v1::TaskState::New, v1::TaskStatus::state)
    }

    /// Whether anything of it may be in the kernel or on disk, beside its log.
    #[must_use]
    pub fn has_traces(&self) -> bool {
        self.record.sandbox || self.record.snapshot || self.record.process
    }

    /// The gwbridge addresses, without prefix length.
    pub fn gateway_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.gateway.iter().map(IpNet::addr)
    }
}

fn first(v: &validate::Violations) -> String {
    v.list()
        .first()
        .map_or_else(String::new, |v| format!("{}: {}", v.field, v.reason))
}

fn host_port(port: &v1::PortConfig) -> Option<netdp::Port> {
    Some(netdp::Port {
        protocol: match port.protocol() {
            v1::Protocol::Tcp => netdp::Protocol::Tcp,
            v1::Protocol::Udp => netdp::Protocol::Udp,
            v1::Protocol::Sctp => netdp::Protocol::Sctp,
        },
        published: u16::try_from(port.published_port).ok()?,
        target: u16::try_from(port.target_port).ok()?,
    })
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
