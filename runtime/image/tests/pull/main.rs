//! Pulling from a real registry, the distribution's `docker-registry`, over good and bad lines.
//!
//! Every test has a network of its own, where the registry always has the same address, so they run
//! side by side.

#[path = "../common/mod.rs"]
mod common;

mod again;
mod bed;
mod child;
mod content;
mod faults;
mod http;
mod killed;
mod line;
mod login;
mod made;
mod mirrors;
mod pinned;
mod proxies;
mod secure;
#[path = "../common/taking.rs"]
mod taking;
mod tls;
mod together;
mod token;
mod tunnel;
