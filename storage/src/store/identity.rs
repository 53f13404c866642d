//! Profiles, wallets, keys, nonces; humans and their sessions.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{
        ApiKey, ApiKeyId, ChainFamily, Human, Profile, ProfileId, Session, UnixMillis, Wallet, WalletChange, WalletId,
        WalletRefused,
    },
};

/// What `profile_create` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileCreated {
    /// Profile, wallet and key are there.
    Created,
    /// The wallet belongs to this profile.
    WalletKnown(ProfileId),
}

/// What `wallet_link` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalletLinked {
    /// It is the profile's now.
    Linked(Wallet),
    /// The wallet belongs to this profile, which may be the one that asked.
    Known(ProfileId),
    /// `NotProven` or `Full`.
    Refused(WalletRefused),
}

/// What `api_key_recover` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRecovered {
    /// The new key is there; these, by their SHA-256, were revoked.
    Done(Vec<[u8; 32]>),
    /// The wallet is not, or no longer, an active recovery wallet of the key's profile.
    NotProven,
}

/// What `agent_claim` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentClaimed {
    /// The agent is this human's now.
    Done(Profile),
    /// It is somebody's already.
    Already,
    /// The wallet is not, or no longer, an active recovery wallet of the agent.
    NotProven,
    /// No such agent.
    NotFound,
}

/// What `human_create` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HumanCreated {
    /// Profile and account are there.
    Created,
    /// The e-mail address has an account.
    EmailKnown,
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

    /// Writes a profile whose `version` is still the stored one (it is counted up), with the change feed. Who claimed
    /// it stays as stored: that is `agent_claim`'s alone. The last writer never wins silently.
    async fn profile_update(&self, profile: Profile) -> StoreResult<Changed>;

    /// Makes an unclaimed agent this human's, when the wallet that was proven is its active recovery wallet in the
    /// same step. Of any number of claims one wins. Score and mark stay. Rules out checking the wallet first.
    async fn agent_claim(&self, agent: ProfileId, wallet: WalletId, human: ProfileId) -> StoreResult<AgentClaimed>;

    /// The agents that a human claimed, oldest first.
    async fn agents_claimed_by(&self, human: ProfileId) -> StoreResult<Vec<Profile>>;

    /// Adds a wallet to its profile for whoever proved `proven_by`, which must be an active recovery wallet of it in
    /// the same step. One winner for a wallet's (family, address bytes); at most `most` wallets a profile.
    ///
    /// Where two partitions are involved, the address is taken first (insert-if-absent, naming profile and wallet),
    /// then the profile's wallets are written onto the version that was read; an address whose wallet never came is
    /// free to be taken again.
    async fn wallet_link(&self, proven_by: WalletId, wallet: Wallet, most: usize) -> StoreResult<WalletLinked>;

    /// Changes a wallet for whoever proved `proven_by`, all wallets of the profile looked at as one
    /// ([`WalletSet`](crate::model::WalletSet), written onto the version that was read). Of two changes that together
    /// would strand a profile one wins. Rules out reading, deciding, then writing one row.
    async fn wallet_update(
        &self,
        profile: ProfileId,
        id: WalletId,
        proven_by: WalletId,
        change: WalletChange,
    ) -> StoreResult<Result<Wallet, WalletRefused>>;

    /// Closes a profile, or opens it again; written to the change feed in the same step. `Done` also when it was so.
    /// Rules out writing back a profile that was read before.
    async fn profile_suspend(&self, id: ProfileId, is_suspended: bool) -> StoreResult<Changed>;

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

    /// A new key for whoever proved `wallet`, which must be an active recovery wallet of the key's profile in the same
    /// step. With `revoke_others` every other key of the profile is revoked when this answers.
    async fn api_key_recover(&self, key: ApiKey, wallet: WalletId, revoke_others: bool) -> StoreResult<KeyRecovered>;

    /// Notes when keys, by their SHA-256, were last used; an earlier moment never replaces a later one. Many at once,
    /// seldom, and told to no cache: nothing is decided upon it.
    async fn api_keys_used(&self, used: Vec<([u8; 32], UnixMillis)>) -> StoreResult<()>;

    /// A human's profile and account, in one step; one winner for an e-mail address.
    async fn human_create(&self, profile: Profile, human: Human) -> StoreResult<HumanCreated>;

    /// The account with this e-mail address.
    async fn human_find(&self, email: &str) -> StoreResult<Option<Human>>;

    /// Replaces a password's hash, and ends every session that began before `at`, in one step. `None`: no such
    /// account.
    async fn human_password_set(&self, email: &str, password: String, at: UnixMillis) -> StoreResult<Option<Human>>;

    /// Signs a human in.
    async fn session_create(&self, session: Session) -> StoreResult<()>;

    /// The session with this SHA-256; not one that was ended, by itself or with all of its human's. Read from the
    /// store each time: what ended is gone on every node at once.
    async fn session_find(&self, id_sha256: &[u8; 32]) -> StoreResult<Option<Session>>;

    /// Notes that a session was used; one that ended stays ended.
    async fn session_seen(&self, id_sha256: [u8; 32], at: UnixMillis) -> StoreResult<()>;

    /// Ends a session; ending it twice is no error.
    async fn session_end(&self, id_sha256: [u8; 32]) -> StoreResult<()>;

    /// Uses up a nonce; kept until `until`. Of any number of uses one is fresh, over all nodes. Rules out look, then
    /// insert.
    async fn nonce_use(&self, nonce_sha256: [u8; 32], until: UnixMillis) -> StoreResult<NonceUsed>;

    /// Bytes under a name that the first asker draws and every later one gets: the secret behind challenges.
    async fn server_secret(&self, name: &str) -> StoreResult<[u8; 32]>;
}
