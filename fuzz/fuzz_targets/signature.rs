//! `signature`: see `crochet_fuzz::answer::signature`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::answer::signature(data));
