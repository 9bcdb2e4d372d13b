//! Control groups: version 2, version 1, and machines that have controllers in both.
//!
//! The crate `cgroups-rs` is not used: it takes a machine with both versions for version 1 alone,
//! works on path strings (a container that owns its cgroup could redirect them), knows neither
//! device programs nor birth into a cgroup by `clone3`, and brings an older `nix` and D-Bus along.

mod below;
mod create;
mod delegate;
mod device;
mod dir;
mod error;
mod events;
mod freezer;
mod group;
mod kill;
mod layout;
mod own;
mod part;
mod path;
mod resources;
mod shims;
pub mod stats;
mod walk;

pub use create::Existing;
pub use device::allowed_devices;
pub use error::CgroupError;
pub use events::{Event, Events};
pub use freezer::FreezerState;
pub use group::Cgroup;
pub(crate) use layout::unescape;
pub use layout::{Hierarchy, Layout, LayoutKind, Version};
pub use part::Part;
pub use path::{CgroupPath, DEFAULT_PARENT};
pub use resources::{cpu_list, cpu_weight, io_weight};
pub use shims::{SHIMS, enter, remove_parent};
pub use stats::{RuncEvent, Stats};
