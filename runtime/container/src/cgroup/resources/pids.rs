//! `linux.resources.pids`.

use super::{Setting, not_negative, or_max};
use crate::cgroup::error::Result;
use oci_spec::runtime::LinuxPids;

pub fn asks(pids: &LinuxPids) -> bool {
    pids.limit() != 0
}

pub fn check(pids: &LinuxPids) -> Result<()> {
    not_negative("pids.limit", Some(pids.limit()))
}

pub fn settings(pids: &LinuxPids) -> Vec<Setting> {
    // 0 cannot be told from a limit that is left out.
    if asks(pids) {
        vec![Setting::new("pids.limit", "pids.max", or_max(pids.limit()))]
    } else {
        Vec::new()
    }
}
