//! `head`: see `crochet_fuzz::framing::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::framing::head(data));
