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

use super::{
    address::Address,
    challenge::{Purpose, wallet_address},
    me::ProfileView,
    nonce::Subject,
    pow,
    signature::Signature,
};
use crate::{
    extract::Ask,
    fields::{Fields, Lines, exact, parsed, text},
    reply::Reply,
};

/// What a new agent's score begins with.
const FIRST_SCORE: u16 = 300;

struct Registration {
    wallet: Address,
    signature: String,
    nonce: String,
    pow_nonce: String,
    display_name: Option<String>,
}

#[derive(Serialize)]
struct RegisteredView {
    profile: ProfileView,
    api_key: String,
    authorization_header: String,
}

/// `POST /register`.
pub(crate) async fn register(ask: Ask) -> Result<Reply, Refusal> {
    let given = ask.fields(read_registration)?;
    let signature = Signature::parse(given.wallet.family(), &given.signature)?;
    let subject = Subject { purpose: Purpose::Register, wallet: given.wallet.clone(), profile: None, other: None };
    let store = ask.door.store.as_ref();
    let challenge = ask.door.challenges.redeem(store, &subject, &given.nonce, &given.pow_nonce, ask.now).await?;
    signature.verify(&given.wallet, &challenge.message)?;

    let new_key = keys::generate().map_err(|_| Code::Internal)?;
    let profile = new_profile(&given, ask.now);
    let wallet = new_wallet(&given.wallet, profile.id, ask.now);
    let key = first_key(&new_key, profile.id, ask.now);
    match store.profile_create(profile.clone(), wallet, key).await? {
        ProfileCreated::Created => Reply::created(RegisteredView {
            profile: ProfileView::from(&profile),
            authorization_header: format!("Bearer {}", new_key.text),
            api_key: new_key.text,
        }),
        ProfileCreated::WalletKnown(_) => Err(Code::WalletAlreadyRegistered.into()),
    }
}

fn read_registration(f: &mut Fields) -> Option<Registration> {
    let wallet = f.required("wallet_address", wallet_address);
    let signature = f.required("signature", exact(1..=4096));
    let nonce = f.required("nonce", exact(1..=128));
    let pow_nonce = f.required("pow_nonce", parsed(pow::read_nonce));
    let display_name = f.optional("display_name", text(1..=80, Lines::One));
    Some(Registration { wallet: wallet?, signature: signature?, nonce: nonce?, pow_nonce: pow_nonce?, display_name })
}

fn new_profile(given: &Registration, now: UnixMillis) -> Profile {
    Profile {
        id: ProfileId::mint(now),
        account_type: AccountType::Agent,
        display_name: given.display_name.clone().unwrap_or_else(|| format!("Agent {}", given.wallet.abbreviated())),
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

fn first_key(new: &keys::NewKey, profile: ProfileId, now: UnixMillis) -> ApiKey {
    ApiKey {
        id: ApiKeyId::mint(now),
        profile,
        key_sha256: new.sha256,
        name: "default".into(),
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
