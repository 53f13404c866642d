//! `POST /auth/recover`: a wallet's proof is worth a new key. Old keys stay, unless it is asked to revoke them.

use actors::{
    keys,
    refusal::{Code, Refusal},
};
use storage::{
    Change, KeyRecovered,
    model::{Wallet, WalletCapability},
};

use super::{
    api_keys::{ACTIVE_KEYS_MAX, count_active},
    challenge::Purpose,
    pow,
    proof::{WalletProof, not_proven},
    register::{RegisteredView, new_key},
};
use crate::{
    extract::Ask,
    fields::{Fields, flag, parsed},
    reply::Reply,
};

struct Recovery {
    proof: WalletProof,
    pow_nonce: String,
    revoke_existing_keys: bool,
}

/// `POST /auth/recover`.
pub(crate) async fn recover(ask: Ask) -> Result<Reply, Refusal> {
    let Recovery { proof, pow_nonce, revoke_existing_keys } = ask.fields(read_recovery)?;
    let checked = proof.check(&ask.door, Purpose::Recover, (None, None), Some(&pow_nonce), ask.now)?;
    let address = checked.redeem(&ask.door).await?.verify()?;

    let store = ask.door.store.as_ref();
    let wallet = store.wallet_find(address.family(), address.bytes()).await?.ok_or(Code::WalletNotRegistered)?;
    let profile = store.profile_get(wallet.profile).await?.ok_or(Code::Internal)?;
    if profile.is_suspended {
        return Err(Code::ProfileSuspended.into());
    }
    check_wallet(&wallet)?;
    if !revoke_existing_keys && count_active(&store.api_key_list(profile.id).await?, ask.now) >= ACTIVE_KEYS_MAX {
        let refusal = Refusal::from(Code::Conflict);
        return Err(refusal.message("The profile has as many keys as it may have; recover with revoke_existing_keys."));
    }
    let new = keys::generate().map_err(|_| Code::Internal)?;
    let key = new_key(&new, "recovered", profile.id, ask.now);
    match store.api_key_recover(key, wallet.id, revoke_existing_keys).await? {
        KeyRecovered::Done(revoked) => {
            for sha256 in revoked {
                ask.door.changed(Change::ApiKey(sha256)).await?;
            }
            Reply::created(RegisteredView::new(&profile, new))
        }
        KeyRecovered::NotProven => Err(not_proven()),
    }
}

fn read_recovery(f: &mut Fields) -> Option<Recovery> {
    let proof = WalletProof::read(f);
    let pow_nonce = f.required("pow_nonce", parsed(pow::read_nonce));
    let revoke_existing_keys = f.optional("revoke_existing_keys", flag).unwrap_or(false);
    Some(Recovery { proof: proof?, pow_nonce: pow_nonce?, revoke_existing_keys })
}

fn check_wallet(wallet: &Wallet) -> Result<(), Refusal> {
    if wallet.may(WalletCapability::Recovery) { Ok(()) } else { Err(not_proven()) }
}
