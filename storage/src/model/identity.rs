//! Who calls: profiles, their wallets and their keys.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ApiKeyId, ProfileId, WalletId},
    money::Micros,
    time::UnixMillis,
};

/// What kind of account a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountType {
    /// A program with a wallet.
    Agent,
    /// A human.
    Human,
    /// An agent that a human has claimed.
    HumanClaimedAgent,
}

/// An agent or a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its id.
    pub id: ProfileId,
    /// What it is.
    pub account_type: AccountType,
    /// 1 to 80 characters.
    pub display_name: String,
    /// A picture, if it gave one.
    pub avatar_url: Option<String>,
    /// The human who claimed it.
    pub claimed_by: Option<ProfileId>,
    /// Its score reached the mark.
    pub is_verified: bool,
    /// 0 to 1000.
    pub score: u16,
    /// An operator closed it.
    pub is_suspended: bool,
    /// When it registered.
    pub created_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// A family of chains: one form of address, one kind of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainFamily {
    /// Ethereum and its kin: 20 bytes.
    Evm,
    /// Solana: 32 bytes.
    Solana,
}

/// What a wallet may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletCapability {
    /// Signing in.
    Auth,
    /// Recovering the profile.
    Recovery,
    /// Paying.
    Payment,
    /// Being paid.
    Payout,
}

/// Whether a wallet is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletStatus {
    /// In use.
    Active,
    /// Kept, and not in use.
    Disabled,
}

/// A wallet linked to a profile; unique by family and address bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// Its id.
    pub id: WalletId,
    /// Whose it is.
    pub profile: ProfileId,
    /// Its family.
    pub family: ChainFamily,
    /// The address's bytes: 20 or 32.
    pub address: Vec<u8>,
    /// The owner's name for it.
    pub label: Option<String>,
    /// In use or not.
    pub status: WalletStatus,
    /// What it may be used for.
    pub capabilities: Vec<WalletCapability>,
    /// Paid from by default.
    pub default_payment: bool,
    /// Paid out to by default.
    pub default_payout: bool,
    /// When it was linked.
    pub created_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Call listings through the gateway.
    Gateway,
    /// Read own data.
    Read,
    /// Change own data.
    Write,
}

/// An API key's record. The key itself is shown once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub profile: ProfileId,
    /// SHA-256 of the key.
    pub key_sha256: [u8; 32],
    /// The owner's name for it.
    pub name: String,
    /// The first characters of the key, to tell it from others.
    pub key_prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// When it was last used, within some minutes.
    pub last_used_at: Option<UnixMillis>,
    /// The highest price it may agree to.
    pub max_price: Option<Micros>,
    /// What it may spend a day.
    pub daily_spend: Option<Micros>,
    /// Counts the changes.
    pub version: u64,
}

impl ApiKey {
    /// Not revoked, not expired.
    #[must_use]
    pub fn is_active(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}
