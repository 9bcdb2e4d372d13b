//! One network namespace: what should be in it, as a value, and bringing it there.
//!
//! A [`Spec`] is computed from the desired state without touching the kernel (module `build`). A
//! [`Namespace`] holds the sockets of one namespace and compares a spec with what the kernel has:
//! what lacks is made, what differs is set, what is ours and not in the spec is removed.

mod devices;
mod dump;
mod entries;
mod handle;
mod links;
mod parts;
mod record;
mod routing;
mod settle;
mod spec;
mod sysctls;
mod tables;

pub(crate) use dump::addresses;
pub(crate) use handle::{Cleanup, Namespace};
pub(crate) use links::probe_link;
pub(crate) use record::remove as remove_record;
pub(crate) use settle::settle;
pub(crate) use spec::{
    Destination, FdbEntry, Link, LinkKind, Neighbour, PolicyRule, Port, Route, Spec, VethPeer,
};
