//! `requests`: see `crochet_fuzz::framing::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::framing::requests(data));
