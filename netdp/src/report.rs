//! What a call of the data plane led to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::NetdpError;

/// A thing that the desired state names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The node's own namespace.
    Node,
    /// A network, by id.
    Network(String),
    /// A task's namespace, by task id.
    Sandbox(String),
    /// A service, by id.
    Service(String),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Sandbox(id) => write!(f, "task {id}"),
            Self::Service(id) => write!(f, "service {id}"),
        }
    }
}

/// Something that could not be done. It is tried again by every later call.
#[derive(Debug)]
pub struct Failure {
    /// What it is about.
    pub object: Object,
    /// Why not.
    pub error: NetdpError,
}

/// Something that was not as programmed, and is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// Where.
    pub object: Object,
    /// What.
    pub detail: String,
}

/// A network that is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkState {
    /// MTU of its devices, bytes.
    pub mtu: u32,
    /// File of its namespace.
    pub netns: PathBuf,
}

/// What a call led to.
#[derive(Debug, Default)]
pub struct Report {
    /// What could not be done.
    pub failures: Vec<Failure>,
    /// What was repaired; only by [`crate::DataPlane::reconcile`].
    pub healed: Vec<Healed>,
    /// The networks that are in the kernel, by id.
    pub networks: BTreeMap<String, NetworkState>,
}

impl Report {
    pub(crate) fn fail(&mut self, object: &Object, errors: impl IntoIterator<Item = NetdpError>) {
        let failures = errors.into_iter().map(|error| Failure {
            object: object.clone(),
            error,
        });
        self.failures.extend(failures);
    }

    /// Whether everything about an object was done.
    #[must_use]
    pub fn is_done(&self, object: &Object) -> bool {
        !self
            .failures
            .iter()
            .any(|failure| failure.object == *object)
    }
}
