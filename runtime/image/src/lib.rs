//! Container images: archives, layers, snapshots.
//!
//! A [`Store`] turns a [`Reference`] from a task spec into an [`Image`], and an image into a
//! [`Snapshot`]: directories that an overlayfs mount makes one root file system of, or, where overlayfs
//! cannot be used, a copy.
//!
//! ```no_run
//! # fn main() -> Result<(), image::ImageError> {
//! let store = image::Store::open("/var/lib/fairlead/images")?;
//! let image = store.resolve(&"docker-archive:/srv/web.tar".parse()?)?;
//! let snapshot = store.snapshot(&image, "task-1")?;
//! println!("{:?} in {:?}", image.command(), snapshot.root());
//! # Ok(())
//! # }
//! ```
//!
//! Everything is blocking and needs no runtime; a [`Store`] can be shared between threads. What
//! it keeps on disk, and why a crash cannot hurt it, is described at [`Store`].
//!
//! Archives are taken for hostile. Digests of everything are verified before anything becomes
//! visible; entries are written through directory descriptors that cannot leave the layer; what
//! one image may take is bounded by [`Limits`].
//!
//! [`Store::save`] makes archives of images again, byte for byte what was unpacked; [`Store::import`]
//! makes an image of a root file system.
//!
//! Unpacking makes devices and sets `trusted.*` attributes, so it needs `CAP_SYS_ADMIN` and
//! `CAP_MKNOD` in the initial user namespace.

mod change;
mod digest;
mod download;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod image;
mod limits;
mod name;
mod platform;
mod pull;
mod recipe;
mod reference;
mod registry;
mod saved;
mod source;
mod store;
mod tarball;
mod time;
mod unpack;

pub use change::ChangeError;
pub use digest::{Digest, DigestError};
pub use error::{ImageError, StoreError};
pub use health::{HealthCheck, SHORTEST, check_test};
pub use image::{Image, RootFs};
pub use limits::Limits;
pub use name::{Name, NameError};
pub use platform::{Platform, PlatformError};
pub use pull::{Progress, PullCanceller, PullEvent, PullOptions};
pub use recipe::SaveError;
pub use reference::{Reference, ReferenceError};
pub use registry::{Credentials, HostConfig, Mirror, Registries, RegistryError, TlsConfig};
pub use source::ArchiveError;
pub use store::{
    Collected, ImagePin, Import, Options, OverlayMount, Removed, Snapshot, SnapshotRoot,
    Snapshotter, Store, Stored, Usage, VolumeDirs,
};
pub use tarball::TarError;
pub use unpack::LayerError;
