//! Cgroups of containers as transient units of systemd, which then knows their limits and does not
//! take them back.
//!
//! A [`UnitPath`] is what `linux.cgroupsPath` says; [`Manager`] is the connection to systemd: the
//! machine's for root, an ordinary user's own else. The library `container` makes the rest of the
//! cgroup below what systemd has made, and knows nothing of systemd.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use container::{CreateOptions, Rootfs, cgroup::Existing, create, defaults};
//! use systemd::{Manager, UnitPath};
//! let spec = defaults::default_spec();
//! let unit = UnitPath::from_spec(Some("system.slice:web:1"), "web-1")?;
//! let mut manager = Manager::connect()?;
//! let mut options = CreateOptions::new(Rootfs::Directory("/srv/rootfs".into()));
//! options.cgroup = Some(manager.cgroup(&unit)?);
//! options.existing_cgroup = Existing::Managed;
//! let held = manager.start(&unit, "web-1", &spec)?; // a process holds the unit
//! let created = create(&spec, options)?;
//! drop(held); // from now on the container does
//! # drop(created); manager.stop(&unit)?; Ok(()) }
//! ```
//!
//! The D-Bus part is written here, because of what the caller is: [`container::create`] needs a
//! process with a single thread, and `zbus` starts others; `rustbus` (0.19) reads in a circle for
//! ever when the other side closes during authentication, and knows no time-out there.

mod annotation;
mod bus;
mod device;
mod error;
mod hold;
mod manager;
mod property;
mod unit;
mod user;
mod wire;

pub use error::SystemdError;
pub use hold::Held;
pub use manager::Manager;
pub use unit::UnitPath;
