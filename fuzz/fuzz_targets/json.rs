//! `json`: see `crochet_fuzz::json::json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::json::json(data));
