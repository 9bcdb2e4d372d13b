//! Layers, which are unpacked into a folder of their own; as root also devices and owners. In a mount
//! namespace with a tmpfs at `/tmp` it is fast, and cannot hurt.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    // Why a layer is refused does not matter.
    let _ = image::fuzzing::layer(bytes, FOLDER.path());
});

// Else little that is spoiled would get past a header's checksum; some may fail there.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 8 != 0 {
        image::fuzzing::mend(&mut data[..size]);
    }
    size
});
