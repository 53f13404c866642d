//! `config`: see `crochet_fuzz::text::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::text::config(data));
