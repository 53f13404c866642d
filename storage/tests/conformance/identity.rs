//! Profiles, wallets, keys, nonces, secrets.

use std::sync::Arc;

use storage::{NonceUsed, ProfileCreated, model::*};

use crate::{
    race,
    support::{Bench, SECOND},
};

fn profile(now: UnixMillis) -> Profile {
    Profile {
        id: ProfileId::mint(now),
        account_type: AccountType::Agent,
        display_name: "an agent".into(),
        avatar_url: None,
        claimed_by: None,
        is_verified: false,
        score: 0,
        is_suspended: false,
        created_at: now,
        version: 1,
    }
}

fn wallet(profile: ProfileId, address: &[u8], now: UnixMillis) -> Wallet {
    Wallet {
        id: WalletId::mint(now),
        profile,
        family: ChainFamily::Evm,
        address: address.to_vec(),
        label: None,
        status: WalletStatus::Active,
        capabilities: vec![WalletCapability::Auth],
        default_payment: true,
        default_payout: true,
        created_at: now,
        version: 1,
    }
}

fn api_key(profile: ProfileId, sha256: [u8; 32], now: UnixMillis) -> ApiKey {
    ApiKey {
        id: ApiKeyId::mint(now),
        profile,
        key_sha256: sha256,
        name: "key".into(),
        key_prefix: "am_k_".into(),
        scopes: vec![Scope::Gateway],
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        max_price: None,
        daily_spend: None,
        version: 1,
    }
}

pub async fn a_wallet_makes_one_profile(mut bench: Bench) {
    let (store, now) = (Arc::clone(&bench.store), bench.now());
    let found = race(|n| {
        let (store, profile) = (Arc::clone(&store), profile(now));
        let (wallet, key) = (wallet(profile.id, &[7; 20], now), api_key(profile.id, [n as u8; 32], now));
        async move {
            let created = store.profile_create(profile.clone(), wallet.clone(), key.clone()).await.expect("create");
            (profile, wallet, key, created)
        }
    });
    let found = found.await;
    drop(store);
    let winners: Vec<_> = found.iter().filter(|(.., created)| *created == ProfileCreated::Created).collect();
    assert_eq!(winners.len(), 1);
    let (profile, wallet, key, _) = winners[0];
    bench.reopen().await;
    for (other, _, other_key, created) in &found {
        if other.id != profile.id {
            assert_eq!(*created, ProfileCreated::WalletKnown(profile.id));
            assert!(bench.store.profile_get(other.id).await.expect("read").is_none(), "nothing of the losers is there");
            assert!(bench.store.api_key_find(&other_key.key_sha256).await.expect("read").is_none());
        }
    }
    assert_eq!(bench.store.profile_get(profile.id).await.expect("read").as_ref(), Some(profile));
    assert_eq!(bench.store.wallet_find(ChainFamily::Evm, &[7; 20]).await.expect("read").as_ref(), Some(wallet));
    assert!(bench.store.wallet_find(ChainFamily::Solana, &[7; 20]).await.expect("read").is_none());
    assert_eq!(bench.store.wallet_list(profile.id).await.expect("read"), std::slice::from_ref(wallet));
    assert_eq!(bench.store.api_key_list(profile.id).await.expect("read"), std::slice::from_ref(key));
}

pub async fn keys_are_found_listed_and_revoked(mut bench: Bench) {
    let profile = profile(bench.now());
    let first = api_key(profile.id, [1; 32], bench.now());
    let wallet = wallet(profile.id, &[1; 20], bench.now());
    bench.store.profile_create(profile.clone(), wallet, first.clone()).await.expect("create");
    bench.pass(SECOND);
    let second = api_key(profile.id, [2; 32], bench.now());
    bench.store.api_key_create(second.clone()).await.expect("create");
    assert_eq!(bench.store.api_key_list(profile.id).await.expect("list"), [first.clone(), second.clone()]);
    assert!(bench.store.api_key_revoke(bench.profile(), first.id, bench.now()).await.expect("revoke").is_none());
    let revoked_at = bench.now();
    let revoked = bench.store.api_key_revoke(profile.id, first.id, revoked_at).await.expect("revoke").expect("known");
    bench.pass(SECOND);
    let again = bench.store.api_key_revoke(profile.id, first.id, bench.now()).await.expect("revoke").expect("known");
    assert_eq!((revoked.revoked_at, again), (Some(revoked_at), revoked.clone()), "the first moment stays");
    bench.reopen().await;
    assert_eq!(bench.store.api_key_find(&[1; 32]).await.expect("find"), Some(revoked.clone()));
    assert_eq!(bench.store.api_key_list(profile.id).await.expect("list"), [revoked, second]);
    assert!(bench.store.api_key_find(&[3; 32]).await.expect("find").is_none());
}

pub async fn a_nonce_is_fresh_once(mut bench: Bench) {
    let (store, until) = (Arc::clone(&bench.store), UnixMillis(bench.now().0 + SECOND));
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { store.nonce_use([5; 32], until).await.expect("use") }
    });
    assert_eq!(found.await.iter().filter(|used| **used == NonceUsed::Fresh).count(), 1);
    drop(store);
    bench.reopen().await;
    assert_eq!(bench.store.nonce_use([5; 32], until).await.expect("use"), NonceUsed::Again);
    assert_eq!(bench.store.nonce_use([6; 32], until).await.expect("use"), NonceUsed::Fresh);
}

pub async fn a_secret_is_drawn_once(mut bench: Bench) {
    let store = Arc::clone(&bench.store);
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { store.server_secret("challenges").await.expect("secret") }
    });
    let mut found = found.await;
    found.dedup();
    assert_eq!(found.len(), 1);
    drop(store);
    bench.reopen().await;
    assert_eq!(bench.store.server_secret("challenges").await.expect("secret"), found[0]);
    assert_ne!(bench.store.server_secret("others").await.expect("secret"), found[0]);
}
