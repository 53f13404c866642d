//! `url`: see `crochet_fuzz::text::url`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::text::url(data));
