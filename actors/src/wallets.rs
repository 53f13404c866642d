//! Which of a profile's wallets money goes to or comes from, and how its address is written for a payment rail.

use storage::model::{ChainFamily, Wallet, WalletCapability};

/// The wallet for this: the default among those in use that may be used for it and that `fit`, else the first of them.
#[must_use]
pub fn preferred(wallets: &[Wallet], capability: WalletCapability, fit: impl Fn(&Wallet) -> bool) -> Option<&Wallet> {
    let is_default = |wallet: &&Wallet| match capability {
        WalletCapability::Payment => wallet.default_payment,
        WalletCapability::Payout => wallet.default_payout,
        WalletCapability::Auth | WalletCapability::Recovery => false,
    };
    let fitting = || wallets.iter().filter(|wallet| wallet.may(capability) && fit(wallet));
    fitting().find(is_default).or_else(|| fitting().next())
}

/// Its address as the chain's tools write it: hexadecimal after `0x`, or base58.
#[must_use]
pub fn address(wallet: &Wallet) -> String {
    match wallet.family {
        ChainFamily::Evm => format!("0x{}", hex::encode(&wallet.address)),
        ChainFamily::Solana => bs58::encode(&wallet.address).into_string(),
    }
}
