//! Linux IPVS over generic netlink.
//!
//! IPVS is the kernel's layer-4 load balancer. A *service* (an address and port of a protocol, or a
//! firewall mark) has a *scheduler* and *destinations*; each new connection goes to the destination
//! that the scheduler picks, by one of several *forwarding methods*. This crate speaks to it as
//! `ipvsadm` does, through the netlink family `IPVS` (`include/uapi/linux/ip_vs.h`). It blocks,
//! needs no async runtime (one may be used: feature `tokio`), starts no process and has no unsafe
//! code.
//!
//! | to | see |
//! |---|---|
//! | read and change services and destinations | [`Client`] |
//! | make them be what they should be | [`plan`], [`Client::apply`] |
//! | take a destination out without harm | [`Client::wait_drained`] |
//! | see connections | [`ConnectionTable`] |
//! | read and write what `ipvsadm` does | [`text`] |
//! | change the kernel's settings | [`sysctl`] |
//! | share connections with another director | [`SyncDaemon`] |
//!
//! # A service
//!
//! ```no_run
//! use ipvs::{Client, Destination, DestinationId, Forward, Scheduler, Service, ServiceId};
//!
//! # fn main() -> Result<(), ipvs::IpvsError> {
//! let mut client = Client::open()?;
//! let web = ServiceId::tcp([192, 0, 2, 1], 80);
//! client.add_service(Service::new(web, Scheduler::WLC))?;
//! for last in [1, 2] {
//!     let id = DestinationId::new([10, 0, 0, last], 8080);
//!     client.add_destination(web, Destination::new(id, Forward::Masquerade))?;
//! }
//! for entry in client.destinations(&web)? {
//!     println!("{} has {} connections", entry.destination.id, entry.active_connections);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! To drain a destination give it weight 0 with [`Client::set_destination`]: it keeps its
//! connections and gets no new ones. [`Client::wait_drained`] waits until they are over.
//!
//! # From what is to what should be
//!
//! [`Client::pools`] reads all services with their destinations, [`plan`] compares them with what
//! should be, and [`Client::apply`] carries out the difference: the smallest list of operations, in
//! an order that never leaves a service without destinations, with many requests in flight at once
//! and each error tied to its operation. Done again, it does nothing.
//!
//! ```no_run
//! use ipvs::{Client, Pool, plan};
//!
//! fn converge(client: &mut Client, desired: &[Pool]) -> Result<(), Box<dyn std::error::Error>> {
//!     let operations = plan(&client.pools()?, desired);
//!     if let Err(error) = client.apply(&operations) {
//!         for failure in &error.failures {
//!             eprintln!("{failure}");
//!         }
//!         return Err(error.into());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Namespaces
//!
//! Services, time-outs and settings belong to a network namespace. [`Client::open`] takes that of
//! the calling thread, [`Client::open_in`] any other; the client then stays there, wherever its
//! users are. [`sysctl`] has the settings below `net.ipv4.vs`.
//!
//! ```no_run
//! use std::{fs::File, os::fd::AsFd};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let namespace = File::open("/run/netns/blue")?;
//! let mut client = ipvs::Client::open_in(namespace.as_fd())?;
//! client.set_timeouts(ipvs::Timeouts { tcp: Some(432_000), ..Default::default() })?;
//! ipvs::sysctl::EXPIRE_NODEST_CONN.set_in(namespace.as_fd(), true)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the kernel needs
//!
//! Module `ip_vs` and one module per scheduler, `ip_vs_rr` and so on. The kernel loads them itself
//! when they are first asked for; where it cannot, [`IpvsError::NotAvailable`] and
//! [`IpvsError::UnknownScheduler`] name the module and the kernel option. Everything but
//! [`Client::open`] needs CAP_NET_ADMIN in the initial user namespace.
//!
//! # Traps
//!
//! - A deleted destination's connections stay in the table. By default their packets are dropped
//!   without a word until they time out; [`EXPIRE_NODEST_CONN`](sysctl::EXPIRE_NODEST_CONN) ends them.
//! - An established TCP connection that is silent for [`Timeouts::tcp`], 900 seconds at first, is
//!   forgotten, and its next packet goes nowhere.
//! - In a namespace in which no interface was ever up (not even `lo`), the kernel refuses IPv4
//!   destinations with EINVAL.
//! - The kernel's list of more than about a hundred services is unreliable while somebody changes
//!   services in *any* network namespace: entries come twice or not at all. This crate reads such
//!   lists until they are steady, which makes that very unlikely; other tools, `ipvsadm` among
//!   them, do not.
//! - The kernel keeps deleted destinations for two minutes, and looks for each new one of the
//!   namespace among them. Adding thousands right after deleting thousands takes several times as
//!   long; [`plan`] avoids it, as it deletes only what goes.
//! - A mark service balances every packet with that mark that comes by, whatever it is.
//! - The modules of the schedulers `lblc` and `lblcr` should be loaded ahead, see
//!   [`Scheduler::LBLC`].
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod batch;
mod channel;
mod client;
mod connection;
mod destination;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod name;
mod netns;
mod operation;
mod pauses;
mod plan;
mod service;
mod socket;
mod stats;
mod sync;
pub mod sysctl;
#[cfg(test)]
mod testing;
pub mod text;
mod uapi;
mod wire;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncClient;
pub use client::Client;
pub use connection::{
    Connection, ConnectionError, ConnectionState, ConnectionTable, Connections, PersistenceData,
};
pub use destination::{
    Destination, DestinationEntry, DestinationId, Forward, Tunnel, TunnelFlags, TunnelKind,
};
pub use error::{BatchError, DecodeError, Failure, IpvsError};
pub use name::{InvalidName, Name, Scheduler};
pub use operation::Operation;
pub use plan::{Pool, PoolEntry, plan};
pub use service::{Family, Netmask, Protocol, Service, ServiceEntry, ServiceFlags, ServiceId};
pub use stats::{Info, Stats, Timeouts};
pub use sync::{SyncDaemon, SyncRole};
pub use sysctl::{Sysctl, SysctlError, SysctlInfo};
