//! A profile from its text.

use super::docker::{self, Machine};
use crate::error::ContainerError;
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde_json::Value;

/// Reads a profile in the form of the specification (`linux.seccomp` of `config.json`).
///
/// # Errors
/// What is not JSON, has the wrong type or an unknown value, or is missing, named by its field:
/// `linux.seccomp.syscalls[3].args[0].op`. Docker's own form is refused: there some fields make an
/// entry conditional, and read without them it would allow what it should not (see
/// [`parse_docker`]). Other fields that
/// the specification does not have are ignored, as it asks. What the values mean is
/// [`super::check`]'s.
pub fn parse(json: &[u8]) -> Result<LinuxSeccomp, ContainerError> {
    let value: Value = serde_json::from_slice(json).map_err(|e| failed("", e.to_string()))?;
    read(&value)
}

/// As [`parse`], also in Docker's own form, with `archMap` and with entries that count only for
/// some architectures, capabilities and kernels (`includes`, `excludes`): it is resolved for this
/// machine, and for a container with these capabilities in its bounding set.
///
/// # Errors
/// As there; and conditions that are none.
pub fn parse_docker(
    json: &[u8],
    capabilities: &Capabilities,
) -> Result<LinuxSeccomp, ContainerError> {
    let mut value: Value = serde_json::from_slice(json).map_err(|e| failed("", e.to_string()))?;
    let path = "/proc/sys/kernel/osrelease";
    let release = std::fs::read_to_string(path)
        .map_err(|e| failed("", format!("read the kernel's version in {path}: {e}")))?;
    let kernel = docker::kernel_version(&release)
        .ok_or_else(|| failed("", format!("{release:?} in {path} is no version")))?;
    let machine = Machine {
        capabilities,
        arch: docker::native().0,
        kernel,
    };
    docker::resolve(&mut value, machine)?;
    read(&value)
}

fn failed(path: &str, error: String) -> ContainerError {
    let field = match path.trim_start_matches('.') {
        "" => "linux.seccomp".to_string(),
        path => format!("linux.seccomp.{path}"),
    };
    ContainerError::invalid(field, error)
}

fn read(value: &Value) -> Result<LinuxSeccomp, ContainerError> {
    not_of_docker("linux.seccomp", value)?;
    let entries = value.get("syscalls").and_then(Value::as_array);
    for (i, entry) in entries.into_iter().flatten().enumerate() {
        not_of_docker(&format!("linux.seccomp.syscalls[{i}]"), entry)?;
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        failed(&path, error.into_inner().to_string())
    })
}

fn not_of_docker(field: &str, value: &Value) -> Result<(), ContainerError> {
    for key in ["archMap", "includes", "excludes"] {
        if value.get(key).is_some() {
            let reason = "is of Docker's own form of profiles; the specification's is that form \
                          resolved for one machine and one set of capabilities";
            return Err(ContainerError::unsupported(
                format!("{field}.{key}"),
                reason,
            ));
        }
    }
    Ok(())
}
