//! Attacks on the making of a container, by the image and by somebody who shares the root file
//! system or a volume with it. Each was known to work on one runtime or another.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod no_pivot;
mod procfs;
mod races;
