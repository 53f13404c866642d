//! Profiles, wallets, keys, nonces.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{ApiKey, ApiKeyId, ChainFamily, Profile, ProfileId, UnixMillis, Wallet},
};

/// What `profile_create` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileCreated {
    /// Profile, wallet and key are there.
    Created,
    /// The wallet belongs to this profile.
    WalletKnown(ProfileId),
}

/// What `nonce_use` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceUsed {
    /// First use.
    Fresh,
    /// Used before.
    Again,
}

/// What a change that names a version found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Written.
    Done,
    /// Somebody else changed it first: read again.
    Stale,
    /// No such record.
    NotFound,
}

/// Who calls.
#[async_trait]
pub trait IdentityStore: Send + Sync {
    /// A profile with its first wallet and key, in one step; one winner for a wallet's (family, address bytes). Rules
    /// out looking the wallet up first.
    async fn profile_create(&self, profile: Profile, wallet: Wallet, key: ApiKey) -> StoreResult<ProfileCreated>;

    /// A profile by id.
    async fn profile_get(&self, id: ProfileId) -> StoreResult<Option<Profile>>;

    /// The wallet with this address.
    async fn wallet_find(&self, family: ChainFamily, address: &[u8]) -> StoreResult<Option<Wallet>>;

    /// A profile's wallets, oldest first.
    async fn wallet_list(&self, profile: ProfileId) -> StoreResult<Vec<Wallet>>;

    /// The key with this SHA-256.
    async fn api_key_find(&self, key_sha256: &[u8; 32]) -> StoreResult<Option<ApiKey>>;

    /// A new key of an existing profile.
    async fn api_key_create(&self, key: ApiKey) -> StoreResult<()>;

    /// A profile's keys, oldest first.
    async fn api_key_list(&self, profile: ProfileId) -> StoreResult<Vec<ApiKey>>;

    /// Revokes a key of this profile at `at`; written to the change feed in the same step. `None`: no such key of
    /// this profile. Revoking twice keeps the first moment.
    async fn api_key_revoke(&self, profile: ProfileId, id: ApiKeyId, at: UnixMillis) -> StoreResult<Option<ApiKey>>;

    /// Uses up a nonce; kept until `until`. Of any number of uses one is fresh, over all nodes. Rules out look, then
    /// insert.
    async fn nonce_use(&self, nonce_sha256: [u8; 32], until: UnixMillis) -> StoreResult<NonceUsed>;

    /// Bytes under a name that the first asker draws and every later one gets: the secret behind challenges.
    async fn server_secret(&self, name: &str) -> StoreResult<[u8; 32]>;
}
