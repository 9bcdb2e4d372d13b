//! From the desired state to the spec of each namespace: pure functions.

mod balance;
mod guard;
mod gwbridge;
mod ingress;
mod ip;
mod names;
mod node;
mod overlay;
mod steering;
mod task;
mod view;

pub(crate) use ingress::{VirtualService, ipvs_protocol, virtual_services};
pub(crate) use names::{
    NODE_LEG, netns_of_network, netns_of_task, record, record_of_node, records,
};
pub(crate) use node::node;
pub(crate) use overlay::overlay;
pub(crate) use task::task;
pub(crate) use view::{Index, Underlay, View};
