//! Does any manifest break the way from files to a snapshot?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| limani::fuzz::manifests(bytes));
