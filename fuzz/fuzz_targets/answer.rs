//! `answer`: see `crochet_fuzz::answer::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::answer::answer(data));
