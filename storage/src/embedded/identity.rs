//! Profiles, wallets, keys, nonces.

use async_trait::async_trait;
use fjall::Slice;

use super::{Draft, Embedded, Operation, codec::decode, keys};
use crate::{
    error::{StoreError, StoreResult},
    model::{ApiKey, ApiKeyId, ChainFamily, Profile, ProfileId, UnixMillis, Wallet},
    store::{Change, IdentityStore, NonceUsed, ProfileCreated},
};

const PROFILE: &str = "profile";
const WALLET: &str = "wallet";
const API_KEY: &str = "API key";

impl super::Shared {
    /// The records that the values of a range name.
    fn named<T: serde::de::DeserializeOwned>(&self, what: &str, range: &keys::Range) -> StoreResult<Vec<T>> {
        let engine = self.engine()?;
        let mut records = Vec::new();
        for found in engine.scan(range) {
            let key = keys::stored(found?.1);
            let record = engine.get(&key)?;
            let record = record.ok_or_else(|| StoreError::Corrupt(format!("an index names a {what} that is gone")))?;
            records.push(decode(what, &record)?);
        }
        Ok(records)
    }
}

fn api_key_write(draft: &mut Draft<'_>, key: &ApiKey) -> StoreResult<()> {
    let place = keys::api_key(&key.key_sha256);
    draft.write(place.clone(), key)?;
    draft.put(keys::api_key_of(key.profile, key.id), place.bytes);
    draft.change(Change::ApiKey(key.key_sha256));
    Ok(())
}

fn profile_create(
    draft: &mut Draft<'_>,
    profile: &Profile,
    wallet: &Wallet,
    key: &ApiKey,
) -> StoreResult<ProfileCreated> {
    let place = keys::wallet(wallet.family, &wallet.address);
    if let Some(known) = draft.read::<Wallet>(WALLET, &place)? {
        return Ok(ProfileCreated::WalletKnown(known.profile));
    }
    draft.write(keys::profile(profile.id), profile)?;
    draft.write(place.clone(), wallet)?;
    draft.put(keys::wallet_of(wallet.profile, wallet.id), place.bytes);
    api_key_write(draft, key)?;
    draft.change(Change::Profile(profile.id));
    Ok(ProfileCreated::Created)
}

fn api_key_revoke(
    draft: &mut Draft<'_>,
    profile: ProfileId,
    id: ApiKeyId,
    at: UnixMillis,
) -> StoreResult<Option<ApiKey>> {
    let Some(place) = draft.get(&keys::api_key_of(profile, id))? else { return Ok(None) };
    let Some(mut key) = draft.read::<ApiKey>(API_KEY, &keys::stored(place))? else { return Ok(None) };
    if key.revoked_at.is_none() {
        key.revoked_at = Some(at);
        key.version += 1;
        api_key_write(draft, &key)?;
    }
    Ok(Some(key))
}

fn nonce_use(draft: &mut Draft<'_>, nonce: [u8; 32], until: UnixMillis) -> StoreResult<NonceUsed> {
    let place = keys::nonce(&nonce);
    if let Some(known) = draft.read::<UnixMillis>("nonce", &place)? {
        if draft.now < known {
            return Ok(NonceUsed::Again);
        }
        draft.remove(keys::nonce_end(known, &nonce));
    }
    draft.write(place, &until)?;
    draft.put(keys::nonce_end(until, &nonce), Slice::from(&[] as &[u8]));
    Ok(NonceUsed::Fresh)
}

fn server_secret(draft: &mut Draft<'_>, name: &str) -> StoreResult<[u8; 32]> {
    let place = keys::secret(name);
    if let Some(secret) = draft.read("secret", &place)? {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    draft.write(place, &secret)?;
    Ok(secret)
}

#[async_trait]
impl IdentityStore for Embedded {
    async fn profile_create(&self, profile: Profile, wallet: Wallet, key: ApiKey) -> StoreResult<ProfileCreated> {
        let decide = move |draft: &mut Draft<'_>| profile_create(draft, &profile, &wallet, &key);
        self.shared.run(Operation::ProfileCreate, decide).await
    }

    async fn profile_get(&self, id: ProfileId) -> StoreResult<Option<Profile>> {
        let _timing = self.shared.measures.time(Operation::ProfileGet);
        self.shared.read(PROFILE, &keys::profile(id))
    }

    async fn wallet_find(&self, family: ChainFamily, address: &[u8]) -> StoreResult<Option<Wallet>> {
        let _timing = self.shared.measures.time(Operation::WalletFind);
        self.shared.read(WALLET, &keys::wallet(family, address))
    }

    async fn wallet_list(&self, profile: ProfileId) -> StoreResult<Vec<Wallet>> {
        let _timing = self.shared.measures.time(Operation::WalletList);
        self.shared.named(WALLET, &keys::wallets_of(profile))
    }

    async fn api_key_find(&self, key_sha256: &[u8; 32]) -> StoreResult<Option<ApiKey>> {
        let _timing = self.shared.measures.time(Operation::ApiKeyFind);
        self.shared.read(API_KEY, &keys::api_key(key_sha256))
    }

    async fn api_key_create(&self, key: ApiKey) -> StoreResult<()> {
        self.shared.run(Operation::ApiKeyCreate, move |draft| api_key_write(draft, &key)).await
    }

    async fn api_key_list(&self, profile: ProfileId) -> StoreResult<Vec<ApiKey>> {
        let _timing = self.shared.measures.time(Operation::ApiKeyList);
        self.shared.named(API_KEY, &keys::api_keys_of(profile))
    }

    async fn api_key_revoke(&self, profile: ProfileId, id: ApiKeyId, at: UnixMillis) -> StoreResult<Option<ApiKey>> {
        self.shared.run(Operation::ApiKeyRevoke, move |draft| api_key_revoke(draft, profile, id, at)).await
    }

    async fn nonce_use(&self, nonce_sha256: [u8; 32], until: UnixMillis) -> StoreResult<NonceUsed> {
        self.shared.run(Operation::NonceUse, move |draft| nonce_use(draft, nonce_sha256, until)).await
    }

    async fn server_secret(&self, name: &str) -> StoreResult<[u8; 32]> {
        let name = name.to_string();
        self.shared.run(Operation::ServerSecret, move |draft| server_secret(draft, &name)).await
    }
}
