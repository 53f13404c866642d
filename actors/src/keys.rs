//! API keys: their text, and who a key turns out to be. A mistyped or invented key is refused by its checksum, without
//! a look-up; a known one costs a hash and a read of the cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use storage::{
    Store,
    model::{ApiKey, ChainFamily, Clock, OriginCurrency, Profile, Scope, UnixMillis, Wallet, WalletStatus},
};

use crate::{
    limiter::{BuyerRate, Limiter},
    refusal::{Code, Refusal},
};

const PREFIX: &[u8] = b"am_k_";
const RANDOM: usize = 32;
const CHECK: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key that was just made: the only moment its text exists here.
pub struct NewKey {
    /// What its owner keeps.
    pub text: String,
    /// What we keep.
    pub sha256: [u8; 32],
    /// What is shown to tell it from others.
    pub prefix: String,
}

/// Makes a key: `am_k_`, 32 random base62 characters, 6 of checksum.
///
/// # Errors
/// When the system has no randomness.
pub fn generate() -> Result<NewKey, getrandom::Error> {
    let mut text = PREFIX.to_vec();
    while text.len() < PREFIX.len() + RANDOM {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 on would make the first digits likelier than the others.
        let digits = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| BASE62.get(usize::from(byte % 62)));
        let missing = PREFIX.len() + RANDOM - text.len();
        text.extend(digits.take(missing));
    }
    let check = checksum(&text);
    text.extend_from_slice(&check);
    let sha256 = Sha256::digest(&text).into();
    let text = String::from_utf8_lossy(&text).into_owned();
    let prefix = text.chars().take(PREFIX.len() + 6).collect();
    Ok(NewKey { text, sha256, prefix })
}

fn checksum(text: &[u8]) -> [u8; CHECK] {
    let mut rest = crc32fast::hash(text) as usize;
    let mut check = [b'0'; CHECK];
    for place in check.iter_mut().rev() {
        *place = BASE62.get(rest % 62).copied().unwrap_or(b'0');
        rest /= 62;
    }
    check
}

/// Whether the text has a key's form and its checksum is right.
#[must_use]
pub fn is_well_formed(text: &[u8]) -> bool {
    text.len() == PREFIX.len() + RANDOM + CHECK
        && text.starts_with(PREFIX)
        && text.split_last_chunk::<CHECK>().is_some_and(|(head, check)| checksum(head) == *check)
}

/// Who a credential turned out to be.
pub struct Caller {
    /// The key's record.
    pub key: ApiKey,
    /// Its profile.
    pub profile: Profile,
    /// The profile's rate on this node.
    pub rate: Arc<BuyerRate>,
    /// What it pays in when it does not say: the chain of its default payment wallet, else USDC.
    pub default_currency: OriginCurrency,
    /// When its use was last noted, in Unix milliseconds.
    pub(crate) noted_at: AtomicU64,
}

impl Caller {
    /// Demands a scope.
    ///
    /// # Errors
    /// `ProfileSuspended`, `ScopeRequired`.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        if self.profile.is_suspended {
            return Err(Code::ProfileSuspended.into());
        }
        if self.key.scopes.contains(&scope) {
            return Ok(());
        }
        let name = match scope {
            Scope::Gateway => "gateway",
            Scope::Read => "read",
            Scope::Write => "write",
        };
        Err(Refusal::from(Code::ScopeRequired).detail("required_scope", name))
    }
}

struct Cached {
    caller: Arc<Caller>,
    read_at: UnixMillis,
}

/// The read cache of keys. Bounded; follows the change feed; believes nothing longer than its time to live.
pub struct Keys {
    store: Arc<dyn Store>,
    clock: Clock,
    limiter: Arc<Limiter>,
    cache: DashMap<[u8; 32], Cached>,
    max: usize,
    ttl_ms: u64,
    /// Keys that were used since their uses were last written.
    used: DashMap<[u8; 32], UnixMillis>,
    use_every: Duration,
}

/// Uses that one step of the store writes.
const USES: usize = 512;

impl Keys {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, limiter: Arc<Limiter>, knobs: &config::Actors) -> Self {
        let ttl_ms = u64::try_from(knobs.keys_ttl.as_millis()).unwrap_or(u64::MAX);
        let (max, use_every) = (knobs.keys_max, knobs.key_use_every);
        Self { store, clock, limiter, cache: DashMap::new(), max, ttl_ms, used: DashMap::new(), use_every }
    }

    /// Who this key is.
    ///
    /// # Errors
    /// `Unauthenticated` for a key that is malformed, unknown, revoked or expired, all alike; `StoreUnavailable`.
    pub async fn caller(&self, text: &[u8]) -> Result<Arc<Caller>, Refusal> {
        if !is_well_formed(text) {
            return Err(Code::Unauthenticated.into());
        }
        let sha256: [u8; 32] = Sha256::digest(text).into();
        let now = self.clock.now();
        if let Some(cached) = self.cache.get(&sha256)
            && now.0.saturating_sub(cached.read_at.0) < self.ttl_ms
        {
            return self.active(&sha256, &cached.caller, now);
        }
        self.look_up(sha256, now).await
    }

    async fn look_up(&self, sha256: [u8; 32], now: UnixMillis) -> Result<Arc<Caller>, Refusal> {
        let Some(key) = self.store.api_key_find(&sha256).await? else {
            self.cache.remove(&sha256);
            return Err(Code::Unauthenticated.into());
        };
        let Some(profile) = self.store.profile_get(key.profile).await? else {
            return Err(Code::Unauthenticated.into());
        };
        let rate = self.limiter.buyer(profile.id);
        let wallets = self.store.wallet_list(profile.id).await?;
        let (default_currency, noted_at) = (default_currency(&wallets), AtomicU64::new(0));
        let caller = Arc::new(Caller { key, profile, rate, default_currency, noted_at });
        if self.cache.len() >= self.max {
            crate::bound::make_room(&self.cache, self.max);
        }
        self.cache.insert(sha256, Cached { caller: caller.clone(), read_at: now });
        self.active(&sha256, &caller, now)
    }

    /// The caller, unless its key has ended. Notes the use, seldom: a call costs one look at a number.
    fn active(&self, sha256: &[u8; 32], caller: &Arc<Caller>, now: UnixMillis) -> Result<Arc<Caller>, Refusal> {
        if !caller.key.is_active(now) {
            return Err(Code::Unauthenticated.into());
        }
        let noted_at = UnixMillis(caller.noted_at.load(Ordering::Relaxed));
        if noted_at.0 == 0 || now.since(noted_at) >= self.use_every {
            caller.noted_at.store(now.0, Ordering::Relaxed);
            if self.used.len() < self.max {
                self.used.insert(*sha256, now);
            }
        }
        Ok(caller.clone())
    }

    /// Writes when keys were last used, many in one step. What the store does not take is not told again: the next use
    /// is noted as this one was.
    pub async fn write_uses(&self) {
        let used: Vec<([u8; 32], UnixMillis)> = self.used.iter().map(|entry| (*entry.key(), *entry.value())).collect();
        for batch in used.chunks(USES) {
            for (sha256, at) in batch {
                self.used.remove_if(sha256, |_, noted| noted == at);
            }
            if let Err(error) = self.store.api_keys_used(batch.to_vec()).await {
                tracing::warn!(%error, count = batch.len(), "when keys were last used could not be written");
            }
        }
    }

    /// Writes uses every `actors.key_use_every`, until the process ends.
    pub(crate) async fn keep_writing_uses(&self) {
        loop {
            tokio::time::sleep(self.use_every).await;
            self.write_uses().await;
        }
    }

    /// Forgets one key: the next call reads it anew.
    pub(crate) fn forget(&self, sha256: &[u8; 32]) {
        self.cache.remove(sha256);
    }

    /// Forgets all keys of a profile.
    pub(crate) fn forget_profile(&self, profile: storage::model::ProfileId) {
        self.cache.retain(|_, cached| cached.caller.profile.id != profile);
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        self.cache.clear();
    }
}

fn default_currency(wallets: &[Wallet]) -> OriginCurrency {
    let default = wallets.iter().find(|wallet| wallet.default_payment && wallet.status == WalletStatus::Active);
    match default.map(|wallet| wallet.family) {
        Some(ChainFamily::Solana) => OriginCurrency::Sol,
        Some(ChainFamily::Evm) | None => OriginCurrency::Usdc,
    }
}

/// Takes the key out of an `Authorization` value.
///
/// # Errors
/// `Unauthenticated` when there is none, or another scheme.
pub fn bearer(authorization: Option<&str>) -> Result<&str, Refusal> {
    let value = authorization.ok_or(Code::Unauthenticated)?;
    let (scheme, token) = value.split_once(' ').ok_or(Code::Unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Code::Unauthenticated.into());
    }
    Ok(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_a_mistyped_or_invented_key_fails_its_checksum() {
        let key = generate().expect("randomness");
        assert!(is_well_formed(key.text.as_bytes()));
        assert_eq!(key.text.len(), 43);
        assert!(key.text.starts_with(&key.prefix));
        for place in 5..key.text.len() {
            let mut text = key.text.clone().into_bytes();
            text[place] = if text[place] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(&text), "place {place}");
        }
        assert!(!is_well_formed(b"am_k_"));
        assert!(!is_well_formed(&[b'a'; 43]));
    }

    #[test]
    fn bearer_only() {
        assert_eq!(bearer(Some("Bearer abc")).expect("good"), "abc");
        assert_eq!(bearer(Some("bearer  abc")).expect("good"), "abc");
        for value in [None, Some(""), Some("Basic abc"), Some("Bearer")] {
            assert_eq!(bearer(value).expect_err("bad").code(), Code::Unauthenticated);
        }
    }
}
