//! `api_key`: see `crochet_fuzz::keys::api_key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::keys::api_key(data));
