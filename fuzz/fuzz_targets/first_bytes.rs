//! Do any first bytes of a connection (PROXY header, ClientHello, HTTP/2 preface) break their readers?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| limani::fuzz::first_bytes(bytes));
