//! Without a kernel: programs are run by an interpreter, and compared with what the profile says.

mod bytes;
mod interpreter;
mod meaning;
mod refused;

use oci_spec::runtime::LinuxSeccomp;

/// A profile from JSON.
fn profile(json: &str) -> LinuxSeccomp {
    super::parse(json.as_bytes()).expect("profile")
}
