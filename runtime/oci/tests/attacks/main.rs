//! Attacks on the runtime by what runs in its containers, and commands that get in each other's
//! way.

mod cgroups;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod executable;

use common::Bundle;

/// A container that runs.
fn running(name: &str, args: &[&str]) -> Bundle {
    let bundle = Bundle::new(name);
    bundle.args(args);
    assert_eq!(bundle.create("c", &[]).code, 0);
    bundle.oci(&["start", "c"]).ok();
    bundle
}
