//! `spec`.

use crate::args;
use crate::error::OciError;
use container::defaults;
use oci_spec::runtime::{LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

pub fn run(args: &args::Spec) -> Result<ExitCode, OciError> {
    let path = args.bundle.join("config.json");
    let mut spec = defaults::default_spec();
    if args.rootless {
        make_rootless(&mut spec);
    }
    let json = serde_json::to_string_pretty(&spec).map_err(|error| OciError::Json {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    // Somebody's work must not be lost.
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(format!("{json}\n").as_bytes()))
        .map_err(OciError::file("create", path))?;
    Ok(ExitCode::SUCCESS)
}

/// What an ordinary user can have: its own id as root, no limits, no network but the host's.
fn make_rootless(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let map = |id: u32| {
        let line = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(id)
            .size(1u32);
        line.build().ok().map(|line| vec![line])
    };
    linux.set_uid_mappings(map(nix::unistd::geteuid().as_raw()));
    linux.set_gid_mappings(map(nix::unistd::getegid().as_raw()));
    linux.set_resources(None);
    let user = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::User)
        .build();
    if let Some(list) = linux.namespaces_mut() {
        list.extend(user.ok());
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        // Only one group is mapped.
        if let Some(options) = mount.options_mut() {
            options.retain(|option| !option.starts_with("gid="));
        }
    }
}
