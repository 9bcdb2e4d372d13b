//! The text of `ipvsadm`: its commands, so that people can move between the tools, and its tables.
//!
//! [`save`] writes what `ipvsadm -Sn` writes, and [`parse`] reads that and every other command that
//! `ipvsadm -R` takes and that changes something. [`parse_pools`] reads a whole table for
//! [`plan`](crate::plan): where `ipvsadm -R` only adds, the difference then also takes away.
//!
//! ```no_run
//! use ipvs::{Client, plan, text};
//!
//! fn restore(client: &mut Client, saved: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let desired = text::parse_pools(saved)?;
//!     let operations = plan(&client.pools()?, &desired);
//!     Ok(client.apply(&operations)?)
//! }
//! ```
//!
//! # Where `ipvsadm` 1.31 differs
//!
//! - It saves no thresholds of destinations, though it restores them (`-x`, `-y`); [`save`] writes
//!   them.
//! - It takes weights of 65,535 at most; the kernel's limit is higher.
//! - It saves marks from 2^31 on as negative numbers, which it does not restore; [`parse`] does.
//! - It gives routed and tunnelled destinations the port of their service when it restores them; one
//!   that they have of their own is kept here.
//! - It sorts addresses and marks that are 2^31 or more apart the wrong way round: 192.168.0.1 before
//!   10.0.0.1. Its tables and saves have the same lines otherwise.
//!
//! What the format has no word for is written as what comes nearest:
//! [local](crate::Forward::Local) destinations as routed ones (the kernel treats a routed
//! destination whose address is local the same), tunnels of unknown type as `ipip`, more than one
//! kind of checksum as one.

mod line;
mod options;
mod parse;
mod problem;
mod table;
mod value;
mod write;

pub use parse::{parse, parse_lines, parse_pools};
pub use problem::{ParseError, Problem};
pub use table::{CONNECTIONS_HEAD, Columns, Table, tunnel_info};
pub use write::{command, save, scheduler_flags};

#[cfg(test)]
mod tests;
