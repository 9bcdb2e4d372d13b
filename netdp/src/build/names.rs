//! Names of devices and of namespace files.

use std::path::{Path, PathBuf};

use crate::desired::Mac;

/// The routed leg between node and ingress, on the node's side.
pub(crate) const INGRESS_LEG: &str = "fl_ingress";
/// The same on the ingress side.
pub(crate) const NODE_LEG: &str = "node";

/// MACs of the leg's two ends, the node's first: known beforehand, so that neither has to ask for
/// the other's.
pub(crate) const LEG_MACS: (Mac, Mac) =
    (Mac([0x02, 0x4d, 0, 0, 0, 1]), Mac([0x02, 0x4d, 0, 0, 0, 2]));

/// File of an overlay network's namespace.
pub(crate) fn netns_of_network(run_dir: &Path, network: &str) -> PathBuf {
    run_dir.join("netns").join(format!("net-{network}"))
}

/// File of a task's namespace.
pub(crate) fn netns_of_task(run_dir: &Path, task: &str) -> PathBuf {
    run_dir.join("netns").join(format!("task-{task}"))
}

/// Directory of the records of what is programmed, one for each namespace.
pub(crate) fn records(run_dir: &Path) -> PathBuf {
    run_dir.join("tables")
}

/// The record of the namespace with this file.
pub(crate) fn record(run_dir: &Path, netns: &Path) -> PathBuf {
    records(run_dir).join(netns.file_name().unwrap_or_default())
}

/// The record of the node's own namespace.
pub(crate) fn record_of_node(run_dir: &Path) -> PathBuf {
    records(run_dir).join("node")
}

pub(super) fn bridge(vni: u32) -> String {
    format!("br{vni}")
}

pub(super) fn vxlan(vni: u32) -> String {
    format!("vx{vni}")
}

/// A task's port in an overlay's bridge. Interface names have 15 characters, so the id is hashed;
/// the inode of the task's namespace is hashed with it, because the port of a namespace that was
/// just removed stays for a while, and must not be taken for that of the next one.
pub(super) fn overlay_port(task: &str, inode: u64) -> String {
    format!("t{:012x}", hash(task, inode))
}

/// A task's port in the gwbridge.
pub(super) fn gateway_port(task: &str, inode: u64) -> String {
    format!("flg{:012x}", hash(task, inode))
}

fn hash(task: &str, inode: u64) -> u64 {
    fnv(&format!("{task}/{inode}")) >> 16
}

/// FNV-1a, 64 bits: the same after every restart.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_an_interface() {
        for id in [
            "a",
            "task-with-a-very-long-identifier-of-sixty-four-characters-000000",
        ] {
            assert!(overlay_port(id, u64::MAX).len() < 16);
            assert!(gateway_port(id, u64::MAX).len() < 16);
        }
        assert!(vxlan(0xff_ffff).len() < 16);
    }
}
