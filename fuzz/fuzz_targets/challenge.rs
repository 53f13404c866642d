//! `challenge`: see `crochet_fuzz::wallet::challenge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::wallet::challenge(data));
