//! `features` (features.md, features-linux.md).

use super::state::print;
use crate::error::OciError;
use container::features;
use std::process::ExitCode;

pub fn run() -> Result<ExitCode, OciError> {
    let mut features = features::features();
    // The library makes cgroups in the file system; this program also has systemd make them.
    if let Some(linux) = features.linux_mut()
        && let Some(cgroup) = linux.cgroup_mut()
    {
        cgroup.set_systemd(Some(true)).set_systemd_user(Some(true));
    }
    // A prefix, since it ends with a dot.
    let annotations = vec!["org.systemd.property.".to_string()];
    features.set_potentially_unsafe_config_annotations(Some(annotations));
    print(&features)?;
    Ok(ExitCode::SUCCESS)
}
