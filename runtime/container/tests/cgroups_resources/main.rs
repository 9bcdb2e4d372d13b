//! Every field of `linux.resources`: in the kernel's files as this test reads them, changed in
//! place, and refused by name.

#[path = "../common/mod.rs"]
mod common;
mod cpu;
mod devices;
mod memory;
mod other;
mod rules;

use common::{Sandbox, in_process};
use container::cgroup::{Existing, Layout, Version};
use container::{Cgroup, CgroupError, CgroupPath};
use oci_spec::runtime::LinuxResources;
use std::fs;
use std::path::{Path, PathBuf};

const MIB: i64 = 1 << 20;

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).expect("resources")
}

/// The directory of the sandbox's cgroup, found by this test itself.
fn dir(sandbox: &Sandbox, controller: &str) -> Option<(Version, PathBuf)> {
    let layout = Layout::detect().expect("layout");
    let hierarchy = layout.with_controller(controller)?;
    let parent = sandbox.parent.trim_start_matches('/');
    let path = hierarchy.mountpoint.join(parent).join("task");
    Some((hierarchy.version, path))
}

/// The content of the file of either version.
fn file(sandbox: &Sandbox, controller: &str, v1: &str, v2: &str) -> String {
    let (version, dir) = dir(sandbox, controller).expect(controller);
    let name = if version == Version::V1 { v1 } else { v2 };
    let path = dir.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_string()
}

fn create(sandbox: &Sandbox, json: serde_json::Value) -> Cgroup {
    Cgroup::create(&sandbox.parent, "task", &resources(json)).expect("create")
}

fn is_v1(controller: &str) -> bool {
    let layout = Layout::detect().expect("layout");
    layout.with_controller(controller).map(|h| h.version) == Some(Version::V1)
}
