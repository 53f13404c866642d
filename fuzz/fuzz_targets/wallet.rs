//! `wallet`: see `crochet_fuzz::wallet::wallet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::wallet::wallet(data));
