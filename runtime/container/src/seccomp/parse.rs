//! A profile from its text.

use crate::error::ContainerError;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;

/// Reads a profile in the form of the specification (`linux.seccomp` of `config.json`).
///
/// # Errors
/// What is not JSON, has the wrong type or an unknown value, or is missing, named by its field:
/// `linux.seccomp.syscalls[3].args[0].op`. Docker's own form is refused: there some fields make an
/// entry conditional, and read without them it would allow what it should not. Other fields that
/// the specification does not have are ignored, as it asks. What the values mean is
/// [`super::check`]'s.
pub fn parse(json: &[u8]) -> Result<LinuxSeccomp, ContainerError> {
    let failed = |path: &str, error: String| {
        let field = match path.trim_start_matches('.') {
            "" => "linux.seccomp".to_string(),
            path => format!("linux.seccomp.{path}"),
        };
        ContainerError::invalid(field, error)
    };
    let value: Value = serde_json::from_slice(json).map_err(|e| failed("", e.to_string()))?;
    not_of_docker("linux.seccomp", &value)?;
    let entries = value.get("syscalls").and_then(Value::as_array);
    for (i, entry) in entries.into_iter().flatten().enumerate() {
        not_of_docker(&format!("linux.seccomp.syscalls[{i}]"), entry)?;
    }
    serde_path_to_error::deserialize(&value).map_err(|error| {
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
