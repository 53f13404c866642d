//! `POST /register`: a wallet becomes a profile with a key.

use actors::{
    keys,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::{
    ProfileCreated,
    model::{
        AccountType, ApiKey, ApiKeyId, Profile, ProfileId, Scope, UnixMillis, Wallet, WalletCapability, WalletId,
        WalletStatus,
    },
};

use super::{address::Address, challenge::Purpose, me::ProfileView, pow, proof::WalletProof};
use crate::{
    extract::Ask,
    fields::{Fields, Lines, parsed, text},
    reply::Reply,
};

/// What a new agent's score begins with.
const FIRST_SCORE: u16 = 300;

struct Registration {
    proof: WalletProof,
    pow_nonce: String,
    display_name: Option<String>,
}

/// A profile and the one answer that has its key.
#[derive(Serialize)]
pub(crate) struct RegisteredView {
    profile: ProfileView,
    api_key: String,
    authorization_header: String,
}

impl RegisteredView {
    pub(crate) fn new(profile: &Profile, key: keys::NewKey) -> Self {
        Self {
            profile: ProfileView::from(profile),
            authorization_header: format!("Bearer {}", key.text),
            api_key: key.text,
        }
    }
}

/// `POST /register`.
pub(crate) async fn register(ask: Ask) -> Result<Reply, Refusal> {
    let Registration { proof, pow_nonce, display_name } = ask.fields(read_registration)?;
    let checked = proof.check(&ask.door, Purpose::Register, (None, None), Some(&pow_nonce), ask.now)?;
    let address = checked.redeem(&ask.door).await?.verify()?;

    let new = keys::generate().map_err(|_| Code::Internal)?;
    let profile = new_profile(&address, display_name, ask.now);
    let wallet = new_wallet(&address, profile.id, ask.now);
    let key = new_key(&new, "default", profile.id, ask.now);
    match ask.door.store.profile_create(profile.clone(), wallet, key).await? {
        ProfileCreated::Created => Reply::created(RegisteredView::new(&profile, new)),
        ProfileCreated::WalletKnown(_) => Err(Code::WalletAlreadyRegistered.into()),
    }
}

fn read_registration(f: &mut Fields) -> Option<Registration> {
    let proof = WalletProof::read(f);
    let pow_nonce = f.required("pow_nonce", parsed(pow::read_nonce));
    let display_name = f.optional("display_name", text(1..=80, Lines::One));
    Some(Registration { proof: proof?, pow_nonce: pow_nonce?, display_name })
}

fn new_profile(address: &Address, display_name: Option<String>, now: UnixMillis) -> Profile {
    Profile {
        id: ProfileId::mint(now),
        account_type: AccountType::Agent,
        display_name: display_name.unwrap_or_else(|| format!("Agent {}", address.abbreviated())),
        avatar_url: None,
        claimed_by: None,
        is_verified: false,
        score: FIRST_SCORE,
        is_suspended: false,
        created_at: now,
        version: 0,
    }
}

fn new_wallet(address: &Address, profile: ProfileId, now: UnixMillis) -> Wallet {
    use WalletCapability::{Auth, Payment, Payout, Recovery};
    Wallet {
        id: WalletId::mint(now),
        profile,
        family: address.family(),
        address: address.bytes().to_vec(),
        label: None,
        status: WalletStatus::Active,
        capabilities: vec![Auth, Recovery, Payment, Payout],
        default_payment: true,
        default_payout: true,
        created_at: now,
        version: 0,
    }
}

/// The key that a wallet's proof is worth: all scopes, no caps, no end.
pub(crate) fn new_key(new: &keys::NewKey, name: &str, profile: ProfileId, now: UnixMillis) -> ApiKey {
    ApiKey {
        id: ApiKeyId::mint(now),
        profile,
        key_sha256: new.sha256,
        name: name.into(),
        key_prefix: new.prefix.clone(),
        scopes: vec![Scope::Gateway, Scope::Read, Scope::Write],
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        max_price: None,
        daily_spend: None,
        version: 0,
    }
}
