//! The side-by-side runner: our gateway and others on one core, visited in turn.
//!
//! A busy machine slows everything by a fifth and more, so a time alone says little. Slices of 50 ms in turn, the
//! order changed each round, slow all contestants alike; the ratio of two in one run holds within a few per cent.
//! What is compared is CPU time of the whole process, by its own clock, for each answered call.

pub mod answer;
pub mod contest;
pub mod crochet;
pub mod figures;
pub mod generator;
pub mod machine;
pub mod process;
pub mod report;
pub mod rivals;
pub mod stock;
pub mod sustain;
