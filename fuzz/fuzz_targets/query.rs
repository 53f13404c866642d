//! `query`: see `crochet_fuzz::text::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::text::query(data));
