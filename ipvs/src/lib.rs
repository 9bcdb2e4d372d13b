//! Linux IPVS over generic netlink: services, destinations, time-outs.
#![forbid(unsafe_code)]

mod batch;
mod channel;
mod client;
mod destination;
mod error;
mod name;
mod netns;
mod operation;
mod plan;
mod service;
mod socket;
mod stats;
mod sysctl;
#[cfg(test)]
mod testing;
mod uapi;
mod wire;

pub use client::Client;
pub use destination::{
    Destination, DestinationEntry, DestinationId, Forward, Tunnel, TunnelFlags, TunnelKind,
};
pub use error::{BatchError, DecodeError, Failure, IpvsError};
pub use name::{InvalidName, Name, Scheduler};
pub use operation::Operation;
pub use plan::{Pool, plan};
pub use service::{Family, Netmask, Protocol, Service, ServiceEntry, ServiceFlags, ServiceId};
pub use stats::{Info, Stats, Timeouts};
pub use sysctl::{Sysctl, SysctlError, set_sysctls_in};
