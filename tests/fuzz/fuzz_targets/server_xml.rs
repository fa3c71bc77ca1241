#![no_main]
//! See `ringtribe_fuzz::TARGETS`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringtribe_fuzz::play("server_xml", input));
