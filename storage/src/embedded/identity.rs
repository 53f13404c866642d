//! Profiles, wallets, keys, nonces; humans and their sessions.

use std::sync::Arc;

use async_trait::async_trait;
use fjall::Slice;

use super::{
    Draft, Embedded, Operation,
    codec::{decode, decode_sealed, encode_sealed},
    keys,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        AccountType, ApiKey, ApiKeyId, ChainFamily, Human, Profile, ProfileId, Session, UnixMillis, Wallet,
        WalletChange, WalletId, WalletRefused, WalletSet,
    },
    sealed::{SealedSecret, Sealer},
    store::{
        AgentClaimed, Change, Changed, HumanCreated, IdentityStore, KeyRecovered, NonceUsed, ProfileCreated,
        WalletLinked,
    },
};

const PROFILE: &str = "profile";
const WALLET: &str = "wallet";
const API_KEY: &str = "API key";
const HUMAN: &str = "human";
const SESSION: &str = "session";

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
    wallet_write(draft, wallet)?;
    api_key_write(draft, key)?;
    draft.change(Change::Profile(profile.id));
    Ok(ProfileCreated::Created)
}

fn profile_update(draft: &mut Draft<'_>, mut profile: Profile) -> StoreResult<Changed> {
    let place = keys::profile(profile.id);
    let Some(stored) = draft.read::<Profile>(PROFILE, &place)? else { return Ok(Changed::NotFound) };
    if stored.version != profile.version {
        return Ok(Changed::Stale);
    }
    profile.version += 1;
    profile.claimed_by = stored.claimed_by;
    profile.account_type = stored.account_type;
    draft.write(place, &profile)?;
    draft.change(Change::Profile(profile.id));
    Ok(Changed::Done)
}

fn agent_claim(
    draft: &mut Draft<'_>,
    agent: ProfileId,
    wallet: WalletId,
    human: ProfileId,
) -> StoreResult<AgentClaimed> {
    let place = keys::profile(agent);
    let Some(mut profile) = draft.read::<Profile>(PROFILE, &place)? else { return Ok(AgentClaimed::NotFound) };
    match profile.account_type {
        AccountType::Agent => {}
        AccountType::HumanClaimedAgent => return Ok(AgentClaimed::Already),
        AccountType::Human => return Ok(AgentClaimed::NotFound),
    }
    if wallets(draft, agent)?.check_proof(wallet).is_err() {
        return Ok(AgentClaimed::NotProven);
    }
    profile.claimed_by = Some(human);
    profile.account_type = AccountType::HumanClaimedAgent;
    profile.version += 1;
    draft.write(place.clone(), &profile)?;
    draft.put(keys::claimed_by(human, agent), place.bytes);
    draft.change(Change::Profile(agent));
    Ok(AgentClaimed::Done(profile))
}

/// A profile's wallets as the steps before left them.
fn wallets(draft: &Draft<'_>, profile: ProfileId) -> StoreResult<WalletSet> {
    let mut wallets = Vec::new();
    for place in draft.scan(&keys::wallets_of(profile))? {
        let wallet = draft.read::<Wallet>(WALLET, &keys::stored(place))?;
        wallets.push(wallet.ok_or_else(|| StoreError::Corrupt("an index names a wallet that is gone".into()))?);
    }
    Ok(WalletSet::new(wallets))
}

fn wallet_write(draft: &mut Draft<'_>, wallet: &Wallet) -> StoreResult<()> {
    let place = keys::wallet(wallet.family, &wallet.address);
    draft.write(place.clone(), wallet)?;
    draft.put(keys::wallet_of(wallet.profile, wallet.id), place.bytes);
    Ok(())
}

fn wallet_link(draft: &mut Draft<'_>, proven_by: WalletId, wallet: Wallet, most: usize) -> StoreResult<WalletLinked> {
    if let Some(known) = draft.read::<Wallet>(WALLET, &keys::wallet(wallet.family, &wallet.address))? {
        return Ok(WalletLinked::Known(known.profile));
    }
    match wallets(draft, wallet.profile)?.link(proven_by, wallet, most) {
        Ok(wallet) => {
            wallet_write(draft, &wallet)?;
            draft.change(Change::Profile(wallet.profile));
            Ok(WalletLinked::Linked(wallet))
        }
        Err(refused) => Ok(WalletLinked::Refused(refused)),
    }
}

fn wallet_update(
    draft: &mut Draft<'_>,
    profile: ProfileId,
    id: WalletId,
    proven_by: WalletId,
    change: &WalletChange,
) -> StoreResult<Result<Wallet, WalletRefused>> {
    let written = match wallets(draft, profile)?.change(id, proven_by, change) {
        Ok(written) => written,
        Err(refused) => return Ok(Err(refused)),
    };
    for wallet in &written {
        wallet_write(draft, wallet)?;
    }
    draft.change(Change::Profile(profile));
    Ok(written.into_iter().next().ok_or(WalletRefused::NotFound))
}

fn api_key_recover(
    draft: &mut Draft<'_>,
    key: &ApiKey,
    wallet: WalletId,
    revoke_others: bool,
) -> StoreResult<KeyRecovered> {
    if wallets(draft, key.profile)?.check_proof(wallet).is_err() {
        return Ok(KeyRecovered::NotProven);
    }
    let mut revoked = Vec::new();
    if revoke_others {
        for place in draft.scan(&keys::api_keys_of(key.profile))? {
            let Some(mut other) = draft.read::<ApiKey>(API_KEY, &keys::stored(place))? else { continue };
            if other.revoked_at.is_none() {
                other.revoked_at = Some(key.created_at);
                other.version += 1;
                api_key_write(draft, &other)?;
                revoked.push(other.key_sha256);
            }
        }
    }
    api_key_write(draft, key)?;
    Ok(KeyRecovered::Done(revoked))
}

fn api_keys_used(draft: &mut Draft<'_>, used: &[([u8; 32], UnixMillis)]) -> StoreResult<()> {
    for (sha256, at) in used {
        let place = keys::api_key(sha256);
        let Some(mut key) = draft.read::<ApiKey>(API_KEY, &place)? else { continue };
        if key.last_used_at.is_none_or(|last| last < *at) {
            key.last_used_at = Some(*at);
            draft.write(place, &key)?;
        }
    }
    Ok(())
}

fn human_create(draft: &mut Draft<'_>, profile: &Profile, human: &Human) -> StoreResult<HumanCreated> {
    let (email, place) = (keys::email(&human.email), keys::human(human.profile));
    if draft.get(&email)?.is_some() {
        return Ok(HumanCreated::EmailKnown);
    }
    draft.write(keys::profile(profile.id), profile)?;
    draft.write(place.clone(), human)?;
    draft.put(email, place.bytes);
    draft.change(Change::Profile(profile.id));
    Ok(HumanCreated::Created)
}

fn human_password_set(
    draft: &mut Draft<'_>,
    email: &str,
    password: String,
    at: UnixMillis,
) -> StoreResult<Option<Human>> {
    let Some(place) = draft.get(&keys::email(email))?.map(keys::stored) else { return Ok(None) };
    let Some(mut human) = draft.read::<Human>(HUMAN, &place)? else { return Ok(None) };
    human.password = password;
    // A session of the same millisecond may be of the old password: it goes too.
    human.sessions_from = UnixMillis(at.0.saturating_add(1)).max(human.sessions_from);
    human.version += 1;
    draft.write(place, &human)?;
    Ok(Some(human))
}

fn session_create(draft: &mut Draft<'_>, session: &Session) -> StoreResult<()> {
    draft.write(keys::session(&session.id_sha256), session)?;
    draft.put(keys::session_end(session.ends_at, &session.id_sha256), Slice::from(&[] as &[u8]));
    Ok(())
}

fn session_seen(draft: &mut Draft<'_>, id_sha256: &[u8; 32], at: UnixMillis) -> StoreResult<()> {
    let place = keys::session(id_sha256);
    let Some(mut session) = draft.read::<Session>(SESSION, &place)? else { return Ok(()) };
    session.seen_at = session.seen_at.max(at);
    draft.write(place, &session)
}

fn session_end(draft: &mut Draft<'_>, id_sha256: &[u8; 32]) -> StoreResult<()> {
    let place = keys::session(id_sha256);
    if let Some(session) = draft.read::<Session>(SESSION, &place)? {
        draft.remove(keys::session_end(session.ends_at, id_sha256));
        draft.remove(place);
    }
    Ok(())
}

fn profile_suspend(draft: &mut Draft<'_>, id: ProfileId, is_suspended: bool) -> StoreResult<Changed> {
    let place = keys::profile(id);
    let Some(mut profile) = draft.read::<Profile>(PROFILE, &place)? else { return Ok(Changed::NotFound) };
    if profile.is_suspended != is_suspended {
        profile.is_suspended = is_suspended;
        profile.version += 1;
        draft.write(place, &profile)?;
        draft.change(Change::Profile(id));
    }
    Ok(Changed::Done)
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

fn server_secret(draft: &mut Draft<'_>, sealer: &Sealer, name: &str) -> StoreResult<[u8; 32]> {
    let place = keys::secret(name);
    if let Some(kept) = draft.get(&place)? {
        return decode_sealed::<SealedSecret>("secret", &kept)?.open(sealer, name);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    draft.put(place, encode_sealed(&SealedSecret::seal(sealer, name, &secret)?)?);
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

    async fn profile_update(&self, profile: Profile) -> StoreResult<Changed> {
        self.shared.run(Operation::ProfileUpdate, move |draft| profile_update(draft, profile)).await
    }

    async fn agent_claim(&self, agent: ProfileId, wallet: WalletId, human: ProfileId) -> StoreResult<AgentClaimed> {
        self.shared.run(Operation::AgentClaim, move |draft| agent_claim(draft, agent, wallet, human)).await
    }

    async fn agents_claimed_by(&self, human: ProfileId) -> StoreResult<Vec<Profile>> {
        let _timing = self.shared.measures.time(Operation::AgentsClaimedBy);
        self.shared.named(PROFILE, &keys::agents_of(human))
    }

    async fn wallet_link(&self, proven_by: WalletId, wallet: Wallet, most: usize) -> StoreResult<WalletLinked> {
        self.shared.run(Operation::WalletLink, move |draft| wallet_link(draft, proven_by, wallet, most)).await
    }

    async fn wallet_update(
        &self,
        profile: ProfileId,
        id: WalletId,
        proven_by: WalletId,
        change: WalletChange,
    ) -> StoreResult<Result<Wallet, WalletRefused>> {
        let decide = move |draft: &mut Draft<'_>| wallet_update(draft, profile, id, proven_by, &change);
        self.shared.run(Operation::WalletUpdate, decide).await
    }

    async fn profile_suspend(&self, id: ProfileId, is_suspended: bool) -> StoreResult<Changed> {
        self.shared.run(Operation::ProfileSuspend, move |draft| profile_suspend(draft, id, is_suspended)).await
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

    async fn api_key_recover(&self, key: ApiKey, wallet: WalletId, revoke_others: bool) -> StoreResult<KeyRecovered> {
        let decide = move |draft: &mut Draft<'_>| api_key_recover(draft, &key, wallet, revoke_others);
        self.shared.run(Operation::ApiKeyRecover, decide).await
    }

    async fn api_keys_used(&self, used: Vec<([u8; 32], UnixMillis)>) -> StoreResult<()> {
        self.shared.run(Operation::ApiKeysUsed, move |draft| api_keys_used(draft, &used)).await
    }

    async fn human_create(&self, profile: Profile, human: Human) -> StoreResult<HumanCreated> {
        self.shared.run(Operation::HumanCreate, move |draft| human_create(draft, &profile, &human)).await
    }

    async fn human_find(&self, email: &str) -> StoreResult<Option<Human>> {
        let _timing = self.shared.measures.time(Operation::HumanFind);
        let place = self.shared.engine()?.get(&keys::email(email))?;
        place.map_or(Ok(None), |place| self.shared.read(HUMAN, &keys::stored(place)))
    }

    async fn human_password_set(&self, email: &str, password: String, at: UnixMillis) -> StoreResult<Option<Human>> {
        let email = email.to_string();
        let decide = move |draft: &mut Draft<'_>| human_password_set(draft, &email, password, at);
        self.shared.run(Operation::HumanPasswordSet, decide).await
    }

    async fn session_create(&self, session: Session) -> StoreResult<()> {
        self.shared.run(Operation::SessionCreate, move |draft| session_create(draft, &session)).await
    }

    async fn session_find(&self, id_sha256: &[u8; 32]) -> StoreResult<Option<Session>> {
        let _timing = self.shared.measures.time(Operation::SessionFind);
        let Some(session) = self.shared.read::<Session>(SESSION, &keys::session(id_sha256))? else { return Ok(None) };
        let human: Option<Human> = self.shared.read(HUMAN, &keys::human(session.profile))?;
        Ok(human.filter(|human| human.sessions_from <= session.created_at).map(|_| session))
    }

    async fn session_seen(&self, id_sha256: [u8; 32], at: UnixMillis) -> StoreResult<()> {
        self.shared.run(Operation::SessionSeen, move |draft| session_seen(draft, &id_sha256, at)).await
    }

    async fn session_end(&self, id_sha256: [u8; 32]) -> StoreResult<()> {
        self.shared.run(Operation::SessionEnd, move |draft| session_end(draft, &id_sha256)).await
    }

    async fn nonce_use(&self, nonce_sha256: [u8; 32], until: UnixMillis) -> StoreResult<NonceUsed> {
        self.shared.run(Operation::NonceUse, move |draft| nonce_use(draft, nonce_sha256, until)).await
    }

    async fn server_secret(&self, name: &str) -> StoreResult<[u8; 32]> {
        let (name, sealer) = (name.to_string(), Arc::clone(&self.shared.sealer));
        self.shared.run(Operation::ServerSecret, move |draft| server_secret(draft, &sealer, &name)).await
    }
}
