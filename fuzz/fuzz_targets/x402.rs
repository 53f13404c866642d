//! `x402`: see `crochet_fuzz::x402::x402`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crochet_fuzz::x402::x402(data));
