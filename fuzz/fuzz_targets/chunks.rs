//! `chunks`: see `crochet_fuzz::framing::chunks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::framing::chunks(data));
