//! Container primitives by the OCI runtime specification: namespaces, cgroups, mounts,
//! capabilities, filters of system calls, and the process inside them.
//!
//! The crate is synchronous and meant for a *small single-threaded* process: [`create`] clones the
//! caller with `clone3(2)`, and the child runs ordinary code until it executes the program. It
//! knows nothing of networks; it is handed a network namespace to join.
//!
//! ```no_run
//! # fn main() -> Result<(), container::ContainerError> {
//! use container::{CreateOptions, Rootfs, create, defaults};
//! let spec = defaults::default_spec();
//! let mut options = CreateOptions::new(Rootfs::Directory("/srv/rootfs".into()));
//! options.cgroup = Some(container::CgroupPath::new("/fairlead", "task-1"));
//! let created = create(&spec, options)?; // namespaces, mounts and limits stand, nothing runs yet
//! let started = created.start()?; // the program runs
//! let status = container::process::wait_child(&started.pidfd);
//! # Ok(()) }
//! ```
//!
//! A field of the specification that is not supported is refused by name, never ignored. Any
//! failure leaves nothing behind: no process, no mount, no cgroup.
//!
//! Kernel: 5.14 or later (`openat2`, `mount_setattr`, `clone3` with a cgroup, `cgroup.kill`).

mod capability;
pub mod cgroup;
mod copy;
mod cpulist;
mod create;
pub mod defaults;
mod dev;
mod enter;
mod error;
#[doc(hidden)] // for the programs of this repository
pub mod fault;
pub mod features;
mod gate;
pub mod hooks;
mod idmap;
mod init;
mod leave;
mod lsm;
mod mask;
mod mounts;
mod namespaces;
#[cfg(feature = "net-devices")]
mod netdev;
mod placement;
pub mod process;
mod procfs;
mod program;
pub mod protect;
pub mod rdt;
mod root;
mod rootfs;
mod seal;
pub mod seccomp;
pub mod shim;
mod stage;
mod sys;
mod terminal;
pub mod user;
mod validate;
pub mod volume;

pub use capability::parse_capability;
pub use cgroup::{Cgroup, CgroupError, CgroupPath};
pub use create::{CreateOptions, Created, Started, Stdio, create};
pub use enter::{EnterOptions, Target, enter};
pub use error::{ContainerError, SetupFailure};
pub use gate::{start_at, waits_at};
pub use hooks::Identity;
pub use rootfs::Rootfs;
pub use terminal::{connect_console, resize_terminal, size_of_terminal};
