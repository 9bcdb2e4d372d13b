//! The network data plane of a Fairlead node: links, overlays, gwbridge, ingress, service load
//! balancing and DNS.
//!
//! The executor hands over what should be, as one [`Desired`] value; [`DataPlane::apply`] makes the
//! kernel so and reports what it could not do. [`DataPlane::reconcile`] compares everything with the
//! kernel again and repairs what somebody damaged. Both may be cut off at any point: the next call,
//! by this process or a later one, goes on from what it finds.

mod balancer;
mod build;
mod conntrack;
mod desired;
pub mod dns;
mod error;
mod features;
mod namespace;
mod netlink;
mod netns;
mod nft;
mod plane;
mod ports;
mod published;
mod report;
mod underlay;

pub use desired::{
    Backend, Desired, Endpoint, Engine, Gateway, Leg, Mac, MacParseError, Network, Node, Peer,
    Port, Protocol, Sandbox, Scheduler, Segment, Service, Steering,
};
pub use error::NetdpError;
pub use features::{Feature, best_engine};
pub use netlink::NetlinkError;
pub use plane::{DataPlane, Settings};
pub use report::{Failure, Healed, NetworkState, Object, Report};
