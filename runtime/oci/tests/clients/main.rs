//! Programs that others wrote drive `fairlead-oci`: podman, containerd and Docker, as the
//! distribution has them (`scripts/setup --test`).

mod common;
mod containerd;
mod docker;
mod podman;
mod rootless;
