//! Decisions of which entries a layer has, which is unpacked into a folder of its own; as root also devices
//! and owners. In a mount namespace with a tmpfs at `/tmp` it is fast, and cannot hurt.
#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

libfuzzer_sys::fuzz_target!(|decisions: &[u8]| {
    // Why a layer is refused does not matter.
    let _ = image::fuzzing::entries(decisions, FOLDER.path());
});
