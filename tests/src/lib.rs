//! Integration tests: many nodes on one machine.
//!
//! A [`Cluster`] is a set of network namespaces: an underlay bridge, nodes that each run a real
//! `fairleadd`, and a client that is no node. What shall be on it is said with [`Cluster::network`],
//! [`Cluster::service`] and [`Cluster::task`], and takes effect with [`Cluster::deploy`], which writes a
//! file for each node and applies them with the command line `fairlead`, as a person would. Everything
//! has the test's name in its own, so that tests run side by side, and is removed when the
//! `Cluster` is dropped, also by a panic; what a killed run has left is removed by the next one.
//!
//! What is checked is checked with other people's tools: `curl`, `nft`, `ipvsadm`, `bridge`, `ip`,
//! `tcpdump`, `conntrack`, files of `/proc` and of cgroups.
//!
//! The programs come from the folder above the test's own (`target/debug`), or from
//! `FAIRLEAD_BIN_DIR`. `FAIRLEAD_TEST_ENGINE` asks the daemons for an engine, and
//! `FAIRLEAD_TEST_KEEP` leaves everything of a failed test as it is.

mod cleanup;
pub mod client;
mod cluster;
pub mod dns;
mod image;
mod load;
mod node;
mod programs;
mod spec;
pub mod tools;
pub mod witness;

pub use client::{Answer, Client, ask_tcp, ask_udp};
pub use cluster::{Builder, Cluster, Traces};
pub use load::{Load, Outcome};
pub use node::{Background, Node};
pub use programs::program;
pub use spec::{ServiceSpec, TaskSpec};
pub use tools::{has_br_netfilter, inside, output, sh, try_sh, wait_for};
