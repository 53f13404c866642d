//! `body`: see `crochet_fuzz::text::body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::text::body(data));
