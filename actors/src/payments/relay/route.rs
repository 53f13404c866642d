//! Chains and tokens as Relay names them.

use storage::model::OriginCurrency;

/// A chain, by Relay's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chain(u64);

/// Solana.
pub const SOLANA: Chain = Chain(792_703_809);
/// Base.
pub const BASE: Chain = Chain(8453);
/// Ethereum.
pub const ETHEREUM: Chain = Chain(1);

/// Ether on any EVM chain.
const NATIVE_EVM: &str = "0x0000000000000000000000000000000000000000";
/// SOL.
const NATIVE_SOLANA: &str = "11111111111111111111111111111111";
const USDC_ON_SOLANA: &str = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
const USDC_ON_BASE: &str = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913";
const USDC_ON_ETHEREUM: &str = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48";

impl Chain {
    /// Relay's number.
    #[must_use]
    pub fn id(self) -> u64 {
        self.0
    }

    /// Whether its accounts are 20 bytes.
    #[must_use]
    pub fn is_evm(self) -> bool {
        self != SOLANA
    }
}

/// A token on its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it is.
    pub chain: Chain,
    /// Its contract or mint; a fixed address for the chain's own coin.
    pub address: &'static str,
}

/// What we are paid in: a millionth is one micro.
pub const SETTLEMENT: Token = Token { chain: BASE, address: USDC_ON_BASE };

impl Token {
    /// What a buyer pays in that names this currency.
    #[must_use]
    pub fn of(currency: OriginCurrency) -> Self {
        match currency {
            OriginCurrency::Sol => Self { chain: SOLANA, address: NATIVE_SOLANA },
            OriginCurrency::UsdcSol => Self { chain: SOLANA, address: USDC_ON_SOLANA },
            OriginCurrency::Eth => Self { chain: ETHEREUM, address: NATIVE_EVM },
            OriginCurrency::Usdc => Self { chain: ETHEREUM, address: USDC_ON_ETHEREUM },
        }
    }

    /// Whether Relay's pair names this token.
    #[must_use]
    pub fn is(&self, chain: u64, address: &str) -> bool {
        self.chain.id() == chain && self.chain.same_account(self.address, address)
    }
}
