//! Layers, which are unpacked into a folder of their own; as root also devices and owners. In a mount
//! namespace with a tmpfs at `/tmp` it is fast, and cannot hurt.
#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::layer(bytes, FOLDER.path()));
