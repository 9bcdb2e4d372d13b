//! What a compiled filter was made from.

use super::arch;
use libseccomp::ScmpVersion;
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;

/// Raised whenever the same profile gives another program.
const COMPILER: u32 = 1;

/// SHA-256 of all that the program depends on: the profile without its listener, the versions of
/// this compiler and of libseccomp, the architecture. Not the kernel: what it lacks is found out
/// by asking it, each time.
pub type Digest = [u8; 32];

/// The digest of a profile.
pub fn of(profile: &LinuxSeccomp) -> Digest {
    let mut program = Cow::Borrowed(profile);
    if profile.listener_path().is_some() || profile.listener_metadata().is_some() {
        let program = program.to_mut();
        program.set_listener_path(None).set_listener_metadata(None);
    }
    let mut hash = Sha256::new();
    hash.update(b"fairlead seccomp filter\0");
    hash.update(COMPILER.to_le_bytes());
    hash.update((arch::native() as u32).to_le_bytes());
    let library = ScmpVersion::current().map_or([0, 0, 0], |v| [v.major, v.minor, v.micro]);
    for part in library {
        hash.update(part.to_le_bytes());
    }
    // Structures, lists and numbers only: the same profile is always written in the same way, and
    // writing it cannot fail.
    hash.update(serde_json::to_vec(program.as_ref()).unwrap_or_default());
    hash.finalize().into()
}
