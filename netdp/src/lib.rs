//! The network data plane of a Fairlead node: links, overlays, gwbridge, ingress, service load
//! balancing and DNS.
//!
//! The executor hands over what should be, as one [`Desired`] value; [`DataPlane::apply`] makes the
//! kernel so and reports what it could not do. [`DataPlane::reconcile`] compares everything with the
//! kernel again and repairs what somebody damaged. Both may be cut off at any point: the next call,
//! by this process or a later one, goes on from what it finds.

mod desired;

pub use desired::{
    Backend, Desired, Endpoint, Engine, Gateway, Leg, Mac, MacParseError, Network, Node, Peer,
    Port, Protocol, Sandbox, Scheduler, Segment, Service, Steering,
};
