//! Profiles, wallets, keys, nonces, secrets; humans and their sessions.

use std::sync::Arc;

use storage::{
    AgentClaimed, Changed, HumanCreated, KeyRecovered, NonceUsed, ProfileCreated, Store, WalletLinked, model::*,
};

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

pub async fn a_profile_is_closed_and_opened_and_caches_are_told(mut bench: Bench) {
    let profile = profile(bench.now());
    let id = profile.id;
    let (wallet, key) = (wallet(id, &[5; 20], bench.now()), api_key(id, [5; 32], bench.now()));
    bench.store.profile_create(profile.clone(), wallet, key).await.expect("create");
    let cursor = bench.store.changes_since(0).await.expect("changes").next;
    for is_suspended in [true, true, false] {
        assert_eq!(bench.store.profile_suspend(id, is_suspended).await, Ok(storage::Changed::Done));
    }
    let changes = bench.store.changes_since(cursor).await.expect("changes");
    assert_eq!(changes.items, [storage::Change::Profile(id); 2], "what stays as it was is no change");
    assert_eq!(bench.store.profile_suspend(id, true).await, Ok(storage::Changed::Done));
    bench.reopen().await;
    let found = bench.store.profile_get(id).await.expect("read").expect("there");
    assert_eq!(found, Profile { is_suspended: true, version: profile.version + 3, ..profile });
    assert_eq!(bench.store.profile_suspend(bench.profile(), true).await, Ok(storage::Changed::NotFound));
}

pub async fn e8_a_nonce_is_fresh_once(mut bench: Bench) {
    let (store, until) = (Arc::clone(&bench.store), UnixMillis(bench.now().0 + SECOND));
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { store.nonce_use([5; 32], until).await.expect("use") }
    });
    assert_eq!(found.await.iter().filter(|used| **used == NonceUsed::Fresh).count(), 1);
    let rounds = rounds(move |n| {
        let store = Arc::clone(&store);
        async move {
            let nonce = [[7; 16], ProfileId::from_bytes((n as u128).to_be_bytes()).bytes()].concat();
            let nonce: [u8; 32] = nonce.try_into().expect("32 bytes");
            let (a, b) = tokio::join!(store.nonce_use(nonce, until), store.nonce_use(nonce, until));
            [a.expect("use"), b.expect("use")].iter().filter(|used| **used == NonceUsed::Fresh).count()
        }
    });
    assert!(rounds.await.iter().all(|winners| *winners == 1));
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

/// Rounds of a race between two.
const ROUNDS: usize = 1_000;
/// Rounds at a time: they share commits.
const AT_ONCE: usize = 100;

/// Runs all rounds, some at a time, and returns what each found.
async fn rounds<T: Send + 'static, F: Future<Output = T> + Send + 'static>(round: impl Fn(usize) -> F) -> Vec<T> {
    let mut found = Vec::new();
    for start in (0..ROUNDS).step_by(AT_ONCE) {
        let tasks: Vec<_> = (start..start + AT_ONCE).map(|n| tokio::spawn(round(n))).collect();
        for task in tasks {
            found.push(task.await.expect("a round"));
        }
    }
    found
}

/// An address that no other number has.
fn address(n: usize, which: u8) -> Vec<u8> {
    [vec![which; 12], (n as u64).to_be_bytes().to_vec()].concat()
}

fn all_capabilities() -> Vec<WalletCapability> {
    use WalletCapability::{Auth, Payment, Payout, Recovery};
    vec![Auth, Recovery, Payment, Payout]
}

/// An agent with a wallet that may do everything.
async fn agent(store: &dyn Store, n: usize, now: UnixMillis) -> (Profile, Wallet) {
    let profile = profile(now);
    let wallet = Wallet { capabilities: all_capabilities(), ..wallet(profile.id, &address(n, 1), now) };
    let mut sha256 = [3; 32];
    sha256[..8].copy_from_slice(&(n as u64).to_be_bytes());
    let key = api_key(profile.id, sha256, now);
    let created = store.profile_create(profile.clone(), wallet.clone(), key).await.expect("create");
    assert_eq!(created, ProfileCreated::Created);
    (profile, wallet)
}

fn another(first: &Wallet, n: usize, which: u8) -> Wallet {
    let id = WalletId::mint(first.created_at);
    Wallet { id, address: address(n, which), default_payment: false, default_payout: false, ..first.clone() }
}

async fn link(store: &dyn Store, first: &Wallet, n: usize, which: u8) -> Wallet {
    match store.wallet_link(first.id, another(first, n, which), 9).await.expect("link") {
        WalletLinked::Linked(wallet) => wallet,
        other => panic!("{other:?}"),
    }
}

fn disable() -> WalletChange {
    WalletChange { status: Some(WalletStatus::Disabled), ..WalletChange::default() }
}

pub async fn a_profile_is_written_onto_its_version(mut bench: Bench) {
    let (profile, _) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let changed = Profile { score: 700, is_suspended: true, claimed_by: Some(bench.profile()), ..profile.clone() };
    assert_eq!(bench.store.profile_update(changed.clone()).await.expect("update"), Changed::Done);
    assert_eq!(bench.store.profile_update(changed.clone()).await.expect("update"), Changed::Stale);
    let unknown = Profile { id: bench.profile(), ..changed.clone() };
    assert_eq!(bench.store.profile_update(unknown).await.expect("update"), Changed::NotFound);
    bench.reopen().await;
    let stored = bench.store.profile_get(profile.id).await.expect("read").expect("there");
    assert_eq!(stored, Profile { version: profile.version + 1, claimed_by: None, ..changed });
}

pub async fn e12_of_two_changes_that_strand_together_one_wins(bench: Bench) {
    let now = bench.now();
    let found = rounds(|n| {
        let store = Arc::clone(&bench.store);
        async move {
            let (profile, a) = agent(store.as_ref(), n, now).await;
            let b = link(store.as_ref(), &a, n, 2).await;
            let (first, second) = tokio::join!(
                store.wallet_update(profile.id, a.id, a.id, disable()),
                store.wallet_update(profile.id, b.id, b.id, disable()),
            );
            let answers = [first.expect("update"), second.expect("update")];
            let left = store.wallet_list(profile.id).await.expect("list");
            let refused = answers.into_iter().filter_map(Result::err).collect::<Vec<_>>();
            (refused, left.iter().filter(|wallet| wallet.may(WalletCapability::Recovery)).count())
        }
    });
    for (refused, left) in found.await {
        assert_eq!((refused, left), (vec![WalletRefused::WouldStrand], 1));
    }
}

pub async fn e12_a_wallet_that_lost_its_right_proves_nothing(bench: Bench) {
    let (store, now) = (bench.store.as_ref(), bench.now());
    let (profile, a) = agent(store, 1, now).await;
    let b = link(store, &a, 1, 2).await;
    let disabled = store.wallet_update(profile.id, b.id, a.id, disable()).await.expect("update").expect("allowed");
    assert_eq!((disabled.status, disabled.version), (WalletStatus::Disabled, b.version + 1));
    let rename = WalletChange { label: Some(Some("x".into())), ..WalletChange::default() };
    let refused = store.wallet_update(profile.id, a.id, b.id, rename).await.expect("update");
    assert_eq!(refused, Err(WalletRefused::NotProven));
    let refused = store.wallet_link(b.id, another(&a, 1, 3), 9).await.expect("link");
    assert_eq!(refused, WalletLinked::Refused(WalletRefused::NotProven));
    let key = api_key(profile.id, [9; 32], now);
    assert_eq!(store.api_key_recover(key, b.id, true).await.expect("recover"), KeyRecovered::NotProven);
    assert!(store.api_key_find(&[9; 32]).await.expect("find").is_none());
    let claimed = store.agent_claim(profile.id, b.id, bench.profile()).await.expect("claim");
    assert_eq!(claimed, AgentClaimed::NotProven);
    // Another profile's wallet proves nothing either.
    let (other, c) = agent(store, 2, now).await;
    assert_eq!(store.wallet_update(profile.id, a.id, c.id, disable()).await, Ok(Err(WalletRefused::NotProven)));
    assert_eq!(store.wallet_update(other.id, a.id, c.id, disable()).await, Ok(Err(WalletRefused::NotFound)));
}

pub async fn e13_of_two_links_of_a_wallet_one_wins(bench: Bench) {
    let now = bench.now();
    let found = rounds(|n| {
        let store = Arc::clone(&bench.store);
        async move {
            let (one, a) = agent(store.as_ref(), 2 * n, now).await;
            let (two, b) = agent(store.as_ref(), 2 * n + 1, now).await;
            let (first, second) = tokio::join!(
                store.wallet_link(a.id, another(&a, n, 2), 9),
                store.wallet_link(b.id, another(&b, n, 2), 9),
            );
            let owner = store.wallet_find(ChainFamily::Evm, &address(n, 2)).await.expect("find").expect("there");
            let (lists, answers) = (
                [
                    store.wallet_list(one.id).await.expect("list").len(),
                    store.wallet_list(two.id).await.expect("list").len(),
                ],
                [first.expect("link"), second.expect("link")],
            );
            (owner.profile, lists, answers)
        }
    });
    for (owner, mut lists, answers) in found.await {
        let (won, lost) = match &answers {
            [WalletLinked::Linked(won), WalletLinked::Known(lost)]
            | [WalletLinked::Known(lost), WalletLinked::Linked(won)] => (won, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!((won.profile, *lost), (owner, owner));
        lists.sort_unstable();
        assert_eq!(lists, [1, 2], "nothing of the loser is there");
    }
}

pub async fn a_profile_has_so_many_wallets_at_most(bench: Bench) {
    let (profile, a) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let found = race(|n| {
        let (store, wallet, proof) = (Arc::clone(&bench.store), another(&a, 1, 2 + n as u8), a.id);
        async move { store.wallet_link(proof, wallet, 5).await.expect("link") }
    });
    let found = found.await;
    let full = WalletLinked::Refused(WalletRefused::Full);
    assert_eq!(found.iter().filter(|linked| **linked == full).count(), crate::RACERS - 4);
    let wallets = bench.store.wallet_list(profile.id).await.expect("list");
    assert_eq!(wallets.len(), 5);
    assert_eq!(wallets.iter().filter(|wallet| wallet.default_payout).count(), 1);
}

pub async fn one_default_of_each_kind_under_a_storm(mut bench: Bench) {
    let (profile, a) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let mut wallets = vec![a.clone()];
    for which in 2..8 {
        wallets.push(link(bench.store.as_ref(), &a, 1, which).await);
    }
    let found = race(|n| {
        let (store, id, proof) = (Arc::clone(&bench.store), wallets[n % wallets.len()].id, a.id);
        let change = WalletChange {
            default_payment: Some(n % 3 != 0),
            default_payout: Some(n % 2 == 0),
            ..WalletChange::default()
        };
        async move { store.wallet_update(profile.id, id, proof, change).await.expect("update") }
    });
    assert!(found.await.iter().all(Result::is_ok));
    bench.reopen().await;
    let wallets = bench.store.wallet_list(profile.id).await.expect("list");
    assert!(wallets.iter().filter(|wallet| wallet.default_payment).count() <= 1);
    assert!(wallets.iter().filter(|wallet| wallet.default_payout).count() <= 1);
}

pub async fn an_agent_is_claimed_once(mut bench: Bench) {
    let (before, wallet) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let found = race(|n| {
        let (store, human) = (Arc::clone(&bench.store), ProfileId::from_bytes([n as u8; 16]));
        async move { (human, store.agent_claim(before.id, wallet.id, human).await.expect("claim")) }
    });
    let found = found.await;
    let winners: Vec<_> = found.iter().filter(|(_, claimed)| matches!(claimed, AgentClaimed::Done(_))).collect();
    let [(human, AgentClaimed::Done(profile))] = winners.as_slice() else { panic!("{winners:?}") };
    assert!(found.iter().all(|(one, claimed)| one == human || *claimed == AgentClaimed::Already));
    bench.reopen().await;
    let account_type = AccountType::HumanClaimedAgent;
    let expected = Profile { account_type, claimed_by: Some(*human), version: before.version + 1, ..before.clone() };
    assert_eq!((profile, bench.store.profile_get(before.id).await), (&expected, Ok(Some(expected.clone()))));
    assert_eq!(bench.store.agents_claimed_by(*human).await.expect("list"), [expected]);
    assert!(bench.store.agents_claimed_by(bench.profile()).await.expect("list").is_empty());
    let unknown = bench.store.agent_claim(bench.profile(), wallet.id, *human).await.expect("claim");
    assert_eq!(unknown, AgentClaimed::NotFound);
}

pub async fn recovery_makes_a_key_and_revokes_the_others(mut bench: Bench) {
    let (profile, wallet) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let (_, stranger) = agent(bench.store.as_ref(), 2, bench.now()).await;
    bench.pass(SECOND);
    let second = api_key(profile.id, [2; 32], bench.now());
    let done = bench.store.api_key_recover(second.clone(), wallet.id, false).await.expect("recover");
    assert_eq!(done, KeyRecovered::Done(vec![]));
    let keys = bench.store.api_key_list(profile.id).await.expect("list");
    assert!(keys.len() == 2 && keys.iter().all(|key| key.revoked_at.is_none()));
    bench.pass(SECOND);
    let third = api_key(profile.id, [4; 32], bench.now());
    let stolen = bench.store.api_key_recover(third.clone(), stranger.id, true).await.expect("recover");
    assert_eq!(stolen, KeyRecovered::NotProven);
    let done = bench.store.api_key_recover(third.clone(), wallet.id, true).await.expect("recover");
    assert_eq!(done, KeyRecovered::Done(vec![keys[0].key_sha256, [2; 32]]));
    bench.reopen().await;
    let keys = bench.store.api_key_list(profile.id).await.expect("list");
    let revoked: Vec<_> = keys.iter().map(|key| key.revoked_at).collect();
    assert_eq!(revoked, [Some(third.created_at), Some(third.created_at), None]);
    let found = bench.store.api_key_find(&[2; 32]).await.expect("find").expect("there");
    assert!(!found.is_active(bench.now()));
    let others = bench.store.api_key_list(stranger.profile).await.expect("list");
    assert!(others.iter().all(|key| key.is_active(bench.now())));
}

pub async fn a_last_use_never_goes_back(mut bench: Bench) {
    let (profile, _) = agent(bench.store.as_ref(), 1, bench.now()).await;
    let key = bench.store.api_key_list(profile.id).await.expect("list").remove(0);
    let at = |n: u64| UnixMillis(bench.now().0 + n);
    let changes = bench.store.changes_since(0).await.expect("feed").next;
    let uses = vec![(key.key_sha256, at(2)), ([8; 32], at(9)), (key.key_sha256, at(1))];
    bench.store.api_keys_used(uses).await.expect("noted");
    let expected = ApiKey { last_used_at: Some(at(2)), ..key.clone() };
    assert_eq!(bench.store.changes_since(0).await.expect("feed").next, changes, "no cache has to forget anything");
    bench.reopen().await;
    assert_eq!(bench.store.api_key_find(&key.key_sha256).await.expect("find"), Some(expected));
    assert!(bench.store.api_key_find(&[8; 32]).await.expect("find").is_none());
}

fn human(profile: ProfileId, email: &str, now: UnixMillis) -> Human {
    let password = "$argon2id$".to_string();
    Human { profile, email: email.into(), password, sessions_from: now, created_at: now, version: 0 }
}

pub async fn an_email_makes_one_human(mut bench: Bench) {
    let now = bench.now();
    let found = race(|_| {
        let store = Arc::clone(&bench.store);
        let profile = Profile { account_type: AccountType::Human, ..profile(now) };
        let human = human(profile.id, "ann@example.org", now);
        async move { (human.clone(), store.human_create(profile, human).await.expect("create")) }
    });
    let found = found.await;
    let winners: Vec<_> = found.iter().filter(|(_, created)| *created == HumanCreated::Created).collect();
    let [(ann, _)] = winners.as_slice() else { panic!("{winners:?}") };
    bench.reopen().await;
    assert_eq!(bench.store.human_find("ann@example.org").await.expect("find").as_ref(), Some(ann));
    assert!(bench.store.human_find("ann@example.com").await.expect("find").is_none());
    for (other, _) in found.iter().filter(|(other, _)| other.profile != ann.profile) {
        assert!(
            bench.store.profile_get(other.profile).await.expect("read").is_none(),
            "nothing of the losers is there"
        );
    }
}

pub async fn e16_sessions_end_one_by_one_and_all_at_once(mut bench: Bench) {
    let now = bench.now();
    let ann = Profile { account_type: AccountType::Human, ..profile(now) };
    bench.store.human_create(ann.clone(), human(ann.id, "ann@example.org", now)).await.expect("create");
    let session = |n: u8, now: UnixMillis| Session {
        id_sha256: [n; 32],
        profile: ann.id,
        created_at: now,
        seen_at: now,
        ends_at: UnixMillis(now.0 + 60 * SECOND),
    };
    for n in 1..=3 {
        bench.store.session_create(session(n, now)).await.expect("create");
    }
    bench.store.session_seen([1; 32], UnixMillis(now.0 + 5)).await.expect("seen");
    bench.store.session_seen([1; 32], UnixMillis(now.0 + 4)).await.expect("seen");
    bench.store.session_end([2; 32]).await.expect("end");
    bench.store.session_end([2; 32]).await.expect("end twice");
    bench.store.session_seen([2; 32], now).await.expect("seen");
    bench.reopen().await;
    let find = |n: u8| {
        let store = Arc::clone(&bench.store);
        async move { store.session_find(&[n; 32]).await.expect("find") }
    };
    assert_eq!(find(1).await, Some(Session { seen_at: UnixMillis(now.0 + 5), ..session(1, now) }));
    assert_eq!((find(2).await, find(3).await, find(4).await), (None, Some(session(3, now)), None));
    let store = Arc::clone(&bench.store);
    assert!(store.human_password_set("nobody@example.org", "x".into(), now).await.expect("set").is_none());
    let changed = store.human_password_set("ann@example.org", "new".into(), now).await.expect("set").expect("known");
    assert_eq!((changed.password.as_str(), changed.version), ("new", 1));
    assert_eq!(store.human_find("ann@example.org").await.expect("find"), Some(changed));
    assert_eq!((find(1).await, find(3).await), (None, None), "of the old password");
    bench.pass(SECOND);
    let fresh = session(5, bench.now());
    store.session_create(fresh.clone()).await.expect("create");
    assert_eq!(find(5).await, Some(fresh));
}
