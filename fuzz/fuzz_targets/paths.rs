//! Does any path of a request break its normal form?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| limani::fuzz::paths(bytes));
