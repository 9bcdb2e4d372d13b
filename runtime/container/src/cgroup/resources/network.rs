//! `linux.resources.network`: the controllers `net_cls` and `net_prio`, which version 2 has not.

use super::{Setting, given};
use crate::cgroup::error::{CgroupError, Result};
use oci_spec::runtime::LinuxNetwork;

pub fn asks_class(network: &LinuxNetwork) -> bool {
    given(network.class_id()).is_some()
}

pub fn asks_priorities(network: &LinuxNetwork) -> bool {
    network.priorities().iter().flatten().next().is_some()
}

pub fn check(network: &LinuxNetwork) -> Result<()> {
    for (i, entry) in network.priorities().iter().flatten().enumerate() {
        let name = entry.name();
        // IFNAMSIZ is 16 with the final NUL.
        let usable = (1..16).contains(&name.len())
            && !name.contains(['/', ':', '\0'])
            && !name.contains(char::is_whitespace);
        if !usable {
            let reason = format!("\"{name}\" is no name of a network interface");
            return Err(CgroupError::invalid(
                format!("network.priorities[{i}]"),
                reason,
            ));
        }
    }
    Ok(())
}

pub fn class_settings(network: &LinuxNetwork) -> Vec<Setting> {
    let class = given(network.class_id());
    class
        .map(|class| Setting::new("network.classID", "net_cls.classid", class))
        .into_iter()
        .collect()
}

pub fn priority_settings(network: &LinuxNetwork) -> Vec<Setting> {
    let entries = network.priorities().iter().flatten().enumerate();
    entries
        .map(|(i, entry)| {
            let value = format!("{} {}", entry.name(), entry.priority());
            Setting::new(
                format!("network.priorities[{i}]"),
                "net_prio.ifpriomap",
                value,
            )
        })
        .collect()
}
