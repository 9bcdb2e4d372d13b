//! Manifests, indexes and configurations, as a registry sends them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::fuzzing::documents(bytes));
