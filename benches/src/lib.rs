//! How fast is a part, and beside whom?
//!
//! `benches/` measures parts (criterion); [`peers`] measures the whole beside other gateways, and is what the binary
//! `duel` runs. `peers/` beside the sources holds the configurations of those others.
//!
//! *Never:* reaches into a gateway that it measures; it is asked over HTTP like anybody's.

#![expect(clippy::float_arithmetic, reason = "ratios and microseconds of a measurement, never money")]

pub mod peers;
