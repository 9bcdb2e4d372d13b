//! The cgroup manager systemd, with a systemd of the test's own as the first process of a PID
//! namespace: on this machine's cgroups, whatever version they are.

#[path = "../common/mod.rs"]
mod common;
mod init;
mod limits;
mod ordinary;
mod podman;
mod units;
