//! Bytes as the kernel sends them, in every way that the crate reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ipvs::fuzzing::read_all(bytes));
