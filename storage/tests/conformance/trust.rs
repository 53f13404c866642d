//! Reviews, scores, and the roll-ups that both rest on.

use std::collections::{HashMap, HashSet};

use storage::{Changed, ReviewCreated, StepOutcome, Store, model::*};

use crate::{
    race,
    support::{Bench, DAY, SECOND, answer, facts, kept},
};

const ROUNDS: usize = 1_000;

/// A profile that a store knows.
async fn registered(bench: &Bench) -> Profile {
    let (id, now) = (bench.profile(), bench.now());
    let profile = Profile {
        id,
        account_type: AccountType::Agent,
        display_name: "agent".into(),
        avatar_url: None,
        claimed_by: None,
        is_verified: false,
        score: 300,
        is_suspended: false,
        created_at: now,
        version: 0,
    };
    let wallet = Wallet {
        id: WalletId::mint(now),
        profile: id,
        family: ChainFamily::Evm,
        address: [&id.bytes()[..], &[0; 4]].concat(),
        label: None,
        status: WalletStatus::Active,
        capabilities: vec![WalletCapability::Payout],
        default_payment: true,
        default_payout: true,
        created_at: now,
        version: 0,
    };
    let key = ApiKey {
        id: ApiKeyId::mint(now),
        profile: id,
        key_sha256: [id.bytes(), id.bytes()].concat().try_into().expect("32 bytes"),
        name: "key".into(),
        key_prefix: "am_k_".into(),
        scopes: Vec::new(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        max_price: None,
        daily_spend: None,
        version: 0,
    };
    bench.store.profile_create(profile.clone(), wallet, key).await.expect("created");
    profile
}

async fn complete(bench: &Bench, quote: Quote) -> PaymentId {
    let (payment, claim) = bench.claimed(quote).await;
    let (id, result) = (payment.quote.id, kept(ResultPlace::Inline, &answer(payment.quote.id), bench.now()));
    let done = bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await;
    assert!(matches!(done, Ok(StepOutcome::Step(Ended::Done, _))), "{done:?}");
    id
}

async fn fail(bench: &Bench, quote: Quote) {
    let (payment, claim) = bench.claimed(quote).await;
    let facts = CallFacts { error_code: Some("SELLER_ERROR".into()), ..facts(502) };
    bench.store.payment_release(payment.quote.id, claim, AttemptStatus::Released, facts).await.expect("released");
}

async fn roll_up(store: &dyn Store) -> HashSet<ListingId> {
    let mut listings = HashSet::new();
    loop {
        let found = store.roll_up().await.expect("rolled up");
        listings.extend(found.listings);
        if !found.more {
            return listings;
        }
    }
}

fn review(listing: ListingId, seller: ProfileId, reviewer: ProfileId, now: UnixMillis) -> Review {
    Review {
        id: ReviewId::mint(now),
        listing,
        seller,
        reviewer,
        rating: Rating { accuracy: 5, reliability: 4, value: 3 },
        title: Some("title".into()),
        comment: None,
        reviewer_score: 300,
        calls: 0,
        value: Micros::ZERO,
        weight: 0,
        created_at: now,
    }
}

pub async fn of_two_reviews_by_one_buyer_one_wins(bench: Bench) {
    let seller = bench.profile();
    let quotes: Vec<Quote> = (0..ROUNDS).map(|_| bench.quote(bench.profile(), seller)).collect();
    // All at once, so that they share commits.
    let bench = std::sync::Arc::new(bench);
    let calls: Vec<_> = quotes
        .iter()
        .cloned()
        .map(|quote| {
            let bench = bench.clone();
            tokio::spawn(async move { complete(&bench, quote).await })
        })
        .collect();
    for call in calls {
        call.await.expect("a call");
    }
    roll_up(&*bench.store).await;
    let now = bench.now();
    for quote in quotes {
        let create = || {
            let (store, review) = (bench.store.clone(), review(quote.listing, seller, quote.buyer, now));
            tokio::spawn(async move { store.review_create(review, UnixMillis(0)).await.expect("asked") })
        };
        let (one, two) = (create(), create());
        let found = [one.await.expect("one"), two.await.expect("two")];
        let created = found.iter().filter(|found| matches!(found, ReviewCreated::Created(_))).count();
        assert_eq!((created, found.contains(&ReviewCreated::Exists)), (1, true), "{found:?}");
        let ratings = bench.store.ratings_get(quote.listing).await.expect("ratings");
        assert_eq!((ratings.count, ratings.histogram), (1, [0, 0, 0, 1, 0]));
        assert_eq!(bench.store.review_list(quote.listing, 0, 9).await.expect("list").len(), 1);
    }
    roll_up(&*bench.store).await;
    assert_eq!(bench.store.standing_get(seller).await.expect("standing").reviews, ROUNDS as u64);
}

pub async fn a_review_needs_evidence_and_weighs_by_it(mut bench: Bench) {
    let (buyer, seller) = (registered(&bench).await.id, registered(&bench).await.id);
    let quote = bench.quote(buyer, seller);
    let listing = quote.listing;
    let create = async |bench: &Bench, since: u64| {
        let review = review(listing, seller, buyer, bench.now());
        bench.store.review_create(review, UnixMillis(since)).await.expect("asked")
    };
    assert_eq!(create(&bench, 0).await, ReviewCreated::NoEvidence, "nothing was bought");
    fail(&bench, Quote { id: PaymentId::mint(bench.now()), ..quote.clone() }).await;
    let free = Quote { id: PaymentId::mint(bench.now()), price: Micros::ZERO, body_sha256: [9; 32], ..quote.clone() };
    complete(&bench, free).await;
    roll_up(&*bench.store).await;
    assert_eq!(create(&bench, 0).await, ReviewCreated::NoEvidence, "a call that failed, and one that cost nothing");
    complete(&bench, Quote { body_sha256: [7; 32], ..quote.clone() }).await;
    assert_eq!(roll_up(&*bench.store).await, HashSet::from([listing]));
    let bought = bench.now();
    bench.pass(DAY);
    assert_eq!(create(&bench, bought.0 + 1).await, ReviewCreated::NoEvidence, "too long ago");
    let ReviewCreated::Created(written) = create(&bench, bought.0).await else { panic!("not created") };
    assert_eq!((written.calls, written.value), (1, quote.price));
    assert_eq!(written.weight, review_weight(300, quote.price));
    bench.reopen().await;
    assert_eq!(bench.store.review_get(listing, buyer).await.expect("read"), Some(written.clone()));
    assert_eq!(bench.store.review_list(listing, 0, 10).await.expect("list"), [written]);
    assert_eq!(bench.store.review_list(listing, 1, 10).await.expect("list"), []);
    assert_eq!(create(&bench, bought.0).await, ReviewCreated::Exists);
    assert_eq!(roll_up(&*bench.store).await, HashSet::from([listing]), "the review waited for the next life");
    let standing = bench.store.standing_get(seller).await.expect("standing");
    assert_eq!((standing.reviews, standing.buyers_ever, standing.calls), (1, 1, 2));
}

pub async fn reviews_are_listed_newest_first(bench: Bench) {
    let seller = bench.profile();
    let listing = bench.quote(seller, seller).listing;
    let mut expected = Vec::new();
    for _ in 0..5 {
        let quote = Quote { listing, ..bench.quote(bench.profile(), seller) };
        let buyer = quote.buyer;
        complete(&bench, quote).await;
        roll_up(&*bench.store).await;
        bench.pass(SECOND);
        let review = review(listing, seller, buyer, bench.now());
        expected.insert(0, review.id);
        bench.store.review_create(review, UnixMillis(0)).await.expect("created");
    }
    let ids = |reviews: Vec<Review>| reviews.into_iter().map(|review| review.id).collect::<Vec<_>>();
    assert_eq!(ids(bench.store.review_list(listing, 0, 2).await.expect("list")), expected[..2]);
    assert_eq!(ids(bench.store.review_list(listing, 2, 9).await.expect("list")), expected[2..]);
}

pub async fn what_happened_is_counted_exactly_once(mut bench: Bench) {
    let (buyer, seller) = (registered(&bench).await.id, registered(&bench).await.id);
    let listing = bench.quote(buyer, seller).listing;
    let quote = |bench: &Bench| Quote { listing, ..bench.quote(buyer, seller) };
    let mut payments = Vec::new();
    for n in 0..12 {
        match n % 4 {
            0 => fail(&bench, quote(&bench)).await,
            1 => {
                // Too little: owed back.
                let payment = bench.open_quote(quote(&bench)).await;
                bench.settle(&payment, Micros(700_000), None).await;
                payments.push(payment.quote.id);
            }
            _ => payments.push(complete(&bench, quote(&bench)).await),
        }
        if n % 3 == 0 {
            roll_up(&*bench.store).await;
        }
        if n == 7 {
            bench.reopen().await;
        }
    }
    roll_up(&*bench.store).await;
    assert_eq!(roll_up(&*bench.store).await, HashSet::new(), "nothing is counted twice");
    let sums = bench.store.sums_get(buyer).await.expect("sums");
    let expected = Sums {
        paid: Micros(3 * 1_000_000 + 3 * 700_000 + 6 * 1_000_000),
        spent: Micros(6_000_000),
        in_suspense: Micros(3_000_000),
        owed: Micros(3 * 700_000),
        ..Sums::default()
    };
    assert_eq!(sums, expected);
    let sums = bench.store.sums_get(seller).await.expect("sums");
    assert_eq!(sums, Sums { earned: Micros(6 * 951_000), fees: Micros(6 * 49_000), ..Sums::default() });
    let stats = bench.store.tally_get(listing).await.expect("tally").stats(day_of(bench.now()));
    assert_eq!((stats.calls, stats.handled, stats.p50_ms), (9, 6, Some(0)));
    let standing = bench.store.standing_get(seller).await.expect("standing");
    assert_eq!((standing.handled, standing.failed, standing.buyers), (6_000, 3_000, 1_000));
    assert_eq!((standing.value, standing.calls, standing.buyers_ever), (6_000_000, 9, 1));
    let bought = bench.store.bought_get(listing, buyer).await.expect("bought");
    assert_eq!((bought.calls, bought.value), (6, Micros(6_000_000)));
}

pub async fn sums_are_those_of_the_ledger_under_a_storm(bench: Bench) {
    let profiles: Vec<ProfileId> = (0..4).map(|_| bench.profile()).collect();
    let bench = std::sync::Arc::new(bench);
    let found = race(|n| {
        let (bench, profiles) = (bench.clone(), profiles.clone());
        async move {
            let mut done = Vec::new();
            for round in 0..6 {
                let (buyer, seller) = (profiles[(n + round) % 4], profiles[(n + 1) % 4]);
                match n % 4 {
                    0 => {
                        bench.store.roll_up().await.expect("rolled up");
                    }
                    1 => {
                        let payment = bench.open_quote(bench.quote(buyer, seller)).await;
                        bench.settle(&payment, Micros(1_250_000), None).await;
                        bench.store.payment_owe(payment.quote.id).await.expect("owed");
                        done.push(payment.quote.id);
                    }
                    _ => done.push(complete(&bench, bench.quote(buyer, seller)).await),
                }
            }
            done
        }
    });
    let ids: Vec<PaymentId> = found.await.into_iter().flatten().collect();
    roll_up(&*bench.store).await;
    let mut expected: HashMap<ProfileId, Sums> = HashMap::new();
    for id in ids {
        let payment = bench.get(id).await;
        for place in 0..payment.progress.postings.len() {
            let parties = HashSet::from([payment.quote.buyer, payment.quote.seller]);
            for party in parties {
                expected.entry(party).or_default().add(&Sums::of_posting(&payment, place, party));
            }
        }
    }
    for (party, expected) in expected {
        let sums = bench.store.sums_get(party).await.expect("sums");
        assert_eq!(sums, expected);
        let parts = [sums.spent, sums.in_suspense, sums.owed, sums.refunded, sums.taken_back];
        assert_eq!(sums.paid.0, parts.iter().map(|part| part.0).sum::<i64>(), "{sums:?}");
    }
}

pub async fn free_calls_are_tallied_and_make_no_standing(bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let listing = bench.quote(buyer, seller).listing;
    let call = |n: u32| FreeCall {
        id: PaymentId::mint(bench.now()).into(),
        buyer,
        seller,
        listing,
        status: if n == 0 { AttemptStatus::Released } else { AttemptStatus::Completed },
        request_bytes: 1,
        facts: CallFacts { seller_ms: n, error_code: (n == 0).then(|| "SELLER_TIMEOUT".into()), ..facts(200) },
        started_at: bench.now(),
        ended_at: bench.now(),
    };
    bench.store.free_calls_write((0..=20).map(call).collect()).await.expect("written");
    assert_eq!(roll_up(&*bench.store).await, HashSet::from([listing]));
    let tally = bench.store.tally_get(listing).await.expect("tally");
    let stats = tally.stats(day_of(bench.now()));
    assert_eq!((stats.calls, stats.handled, stats.p50_ms, stats.p95_ms), (21, 20, Some(10), Some(19)));
    assert_eq!(bench.store.standing_get(seller).await.expect("standing"), Standing::default());
    assert_eq!(bench.store.sums_get(seller).await.expect("sums"), Sums::default());
    assert_eq!(bench.store.score_due(None, 9).await.expect("due"), []);
}

pub async fn kin_do_not_lift_each_other(bench: Bench) {
    // Nobody has claimed anybody here: a profile that buys of itself is the plainest kin.
    let one = registered(&bench).await.id;
    complete(&bench, bench.quote(one, one)).await;
    roll_up(&*bench.store).await;
    assert_eq!(bench.store.standing_get(one).await.expect("standing"), Standing::default());
}

pub async fn a_score_is_due_until_it_was_made_of_everything(mut bench: Bench) {
    let (buyer, seller) = (registered(&bench).await, registered(&bench).await);
    let cursor = bench.store.changes_since(0).await.expect("feed").next;
    complete(&bench, bench.quote(buyer.id, seller.id)).await;
    roll_up(&*bench.store).await;
    bench.reopen().await;
    assert_eq!(bench.store.score_due(None, 9).await.expect("due"), [seller.id], "survives a restart");
    assert_eq!(bench.store.score_due(Some(seller.id), 9).await.expect("due"), []);
    let standing = bench.store.standing_get(seller.id).await.expect("standing");
    complete(&bench, bench.quote(buyer.id, seller.id)).await;
    roll_up(&*bench.store).await;
    let components = Components { reliability: 1, accuracy: 2, volume: 3, longevity: 4, reputation: 5 };
    let score = Score {
        profile: seller.id,
        score: 812,
        is_verified: true,
        components,
        sample: Sample::default(),
        computed_at: bench.now(),
    };
    let put = bench.store.score_put(score, standing.version).await.expect("put");
    assert_eq!(put, Changed::Stale, "more has counted since");
    assert_eq!(bench.store.score_due(None, 9).await.expect("due"), [seller.id]);
    let standing = bench.store.standing_get(seller.id).await.expect("standing");
    assert_eq!(bench.store.score_put(score, standing.version).await.expect("put"), Changed::Done);
    assert_eq!(bench.store.score_due(None, 9).await.expect("due"), []);
    assert_eq!(bench.store.score_get(seller.id).await.expect("score"), Some(score));
    let profile = bench.store.profile_get(seller.id).await.expect("read").expect("there");
    assert_eq!((profile.score, profile.is_verified), (812, true));
    let changes = bench.store.changes_since(cursor).await.expect("feed");
    assert!(changes.gap || changes.items.contains(&storage::Change::Profile(seller.id)), "{changes:?}");
    let nobody = Score { profile: bench.profile(), ..score };
    assert_eq!(bench.store.score_put(nobody, 0).await.expect("put"), Changed::NotFound);
    let all = bench.store.profile_scan(None, 9).await.expect("scan");
    let mut ids = [buyer.id, seller.id];
    ids.sort_unstable();
    assert_eq!(all.iter().map(|profile| profile.id).collect::<Vec<_>>(), ids);
    assert_eq!(bench.store.profile_scan(Some(ids[0]), 9).await.expect("scan").len(), 1);
}
