//! Names, references, challenges and errors of registries.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::text(text));
