//! `linux.resources.rdma`.

use super::Setting;
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::LinuxRdma;
use std::collections::{BTreeMap, HashMap};

/// `name` is that of the device.
pub fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(char::is_whitespace) {
        let reason = format!("\"{name}\" is no name of a device");
        Err(CgroupError::invalid("rdma", reason))
    } else {
        Ok(())
    }
}

pub fn settings(rdma: &HashMap<String, LinuxRdma>) -> Vec<Setting> {
    // By name, so that an error is the same each time.
    let devices: BTreeMap<_, _> = rdma.iter().collect();
    let devices = devices.into_iter().filter_map(|(name, limit)| {
        let mut value = name.clone();
        let keys = [
            ("hca_handle", limit.hca_handles()),
            ("hca_object", limit.hca_objects()),
        ];
        for (key, number) in keys {
            if let Some(number) = number {
                value.push_str(&format!(" {key}={number}"));
            }
        }
        (value != *name).then(|| Setting::new(format!("rdma.{name}"), "rdma.max", value))
    });
    devices.collect()
}
