//! `envelope`: see `crochet_fuzz::json::envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::json::envelope(data));
