//! The x402 rail, version 2: the buyer signs a transfer, and a facilitator settles it on the chain.
//! Source: the x402 specification, version 2, and ERC-3009.

pub mod authorization;
pub mod wire;
