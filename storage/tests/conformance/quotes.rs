//! Opening quotes.

use std::sync::Arc;

use storage::{QuoteIdentity, QuoteOpened, SettleOutcome, StepOutcome, model::*};

use crate::{
    race,
    support::{Bench, DAY, HOUR, SECOND, answer, facts, kept, until},
};

/// The same question again, as a second request would ask it.
fn again(bench: &Bench, payment: &Payment) -> Quote {
    let now = bench.now();
    let mut quote = bench.quote(payment.quote.buyer, payment.quote.seller);
    quote.listing = payment.quote.listing;
    quote.body_sha256 = payment.quote.body_sha256;
    quote.idempotency_key = payment.quote.idempotency_key.clone();
    quote.created_at = now;
    quote
}

fn exists(found: QuoteOpened) -> PaymentId {
    match found {
        QuoteOpened::Exists(payment) => payment.quote.id,
        other => panic!("not the standing one: {other:?}"),
    }
}

fn opened(found: QuoteOpened) -> PaymentId {
    match found {
        QuoteOpened::Opened(payment) => payment.quote.id,
        other => panic!("not a new one: {other:?}"),
    }
}

pub async fn the_same_question_gets_the_same_quote(mut bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let same = again(&bench, &payment);
    assert_eq!(exists(bench.store.quote_open(same.clone(), 9).await.expect("open")), payment.quote.id);
    bench.reopen().await;
    assert_eq!(exists(bench.store.quote_open(same.clone(), 9).await.expect("open")), payment.quote.id);
    assert_eq!(*bench.get(payment.quote.id).await, *payment);
    for other in [
        Quote { currency: OriginCurrency::Sol, ..same.clone() },
        Quote { listing: ListingId::mint(bench.now()), ..same.clone() },
        Quote { body_sha256: [7; 32], ..same.clone() },
        Quote { buyer: bench.profile(), ..same.clone() },
        Quote { idempotency_key: Some("a".into()), ..same },
    ] {
        let other = Quote { id: PaymentId::mint(bench.now()), ..other };
        opened(bench.store.quote_open(other, 9).await.expect("open"));
    }
}

pub async fn equal_questions_at_once_get_one_quote(bench: Bench) {
    for key in [None, Some("once".to_string())] {
        let question = Quote { idempotency_key: key, ..bench.quote(bench.profile(), bench.profile()) };
        let store = Arc::clone(&bench.store);
        let found = race(|_| {
            let quote = Quote { id: PaymentId::mint(question.created_at), ..question.clone() };
            let store = Arc::clone(&store);
            async move { store.quote_open(quote, 1000).await.expect("open") }
        });
        let found = found.await;
        let winners = found.iter().filter(|found| matches!(found, QuoteOpened::Opened(_))).count();
        let mut ids: Vec<_> = found
            .into_iter()
            .map(|found| match found {
                QuoteOpened::Opened(payment) | QuoteOpened::Exists(payment) => payment.quote.id,
                other => panic!("{other:?}"),
            })
            .collect();
        ids.dedup();
        assert_eq!((winners, ids.len()), (1, 1));
    }
}

pub async fn a_quote_that_expired_or_was_paid_is_replaced(bench: Bench) {
    let first = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    bench.settle(&first, first.quote.price, None).await;
    let second = opened(bench.store.quote_open(again(&bench, &first), 9).await.expect("open"));
    assert_eq!(exists(bench.store.quote_open(again(&bench, &first), 9).await.expect("open")), second);
    bench.pass(900 * SECOND);
    let third = opened(bench.store.quote_open(again(&bench, &first), 9).await.expect("open"));
    assert!(matches!(bench.store.payment_fail(third).await, Ok(StepOutcome::Step(true, _))));
    let fourth = opened(bench.store.quote_open(again(&bench, &first), 9).await.expect("open"));
    // Late money for the one that was replaced takes nothing from the one that stands.
    let late = bench.get(second).await;
    assert!(matches!(bench.settle(&late, late.quote.price, None).await, SettleOutcome::Recorded { .. }));
    assert_eq!(exists(bench.store.quote_open(again(&bench, &first), 9).await.expect("open")), fourth);
}

fn keyed(bench: &Bench, key: &str) -> Quote {
    Quote { idempotency_key: Some(key.into()), ..bench.quote(bench.profile(), bench.profile()) }
}

pub async fn a_key_is_one_purchase_in_any_state(mut bench: Bench) {
    let payment = bench.open_quote(keyed(&bench, "order-1")).await;
    let (id, buyer) = (payment.quote.id, payment.quote.buyer);
    assert_eq!(exists(bench.store.quote_open(again(&bench, &payment), 9).await.expect("open")), id);
    let sol = Quote { currency: OriginCurrency::Sol, ..again(&bench, &payment) };
    assert_eq!(exists(bench.store.quote_open(sol, 9).await.expect("open")), id, "asked in another currency");
    let SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), .. } =
        bench.settle(&payment, payment.quote.price, Some(bench.request())).await
    else {
        panic!("not claimed")
    };
    assert_eq!(exists(bench.store.quote_open(again(&bench, &payment), 9).await.expect("open")), id);
    let result = kept(ResultPlace::Inline, &answer(id), bench.now());
    let done = bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await;
    assert!(matches!(done, Ok(StepOutcome::Step(Ended::Done, _))));
    assert_eq!(exists(bench.store.quote_open(again(&bench, &payment), 9).await.expect("open")), id);
    bench.reopen().await;
    assert_eq!(exists(bench.store.quote_open(again(&bench, &payment), 9).await.expect("open")), id);
    let found = bench.store.payment_by_key(buyer, "order-1").await.expect("read").expect("there");
    assert_eq!(found.quote.id, id);
    assert!(bench.store.payment_by_key(bench.profile(), "order-1").await.expect("read").is_none());
    // Two buyers may use the same key.
    opened(bench.store.quote_open(keyed(&bench, "order-1"), 9).await.expect("open"));
    // One that expired unpaid bought nothing.
    let unpaid = bench.open_quote(keyed(&bench, "order-2")).await;
    bench.pass(900 * SECOND);
    let second = opened(bench.store.quote_open(again(&bench, &unpaid), 9).await.expect("open"));
    let found = bench.store.payment_by_key(unpaid.quote.buyer, "order-2").await.expect("read").expect("there");
    assert_eq!(found.quote.id, second);
}

pub async fn a_key_reused_for_something_else_is_told(bench: Bench) {
    let payment = bench.open_quote(keyed(&bench, "order")).await;
    for other in [
        Quote { body_sha256: [9; 32], ..again(&bench, &payment) },
        Quote { listing: ListingId::mint(bench.now()), ..again(&bench, &payment) },
    ] {
        match bench.store.quote_open(other, 9).await.expect("open") {
            QuoteOpened::KeyReused(standing) => assert_eq!(standing.quote.id, payment.quote.id),
            found => panic!("{found:?}"),
        }
    }
}

pub async fn a_key_is_forgotten_after_its_time(bench: Bench) {
    let (payment, claim) = bench.claimed(keyed(&bench, "order")).await;
    let (id, buyer) = (payment.quote.id, payment.quote.buyer);
    let result = kept(ResultPlace::NotKept, b"", bench.now());
    bench.store.payment_complete(id, claim, facts(200), result, None).await.expect("completed");
    bench.pass(72 * HOUR - 1);
    assert!(bench.store.payment_by_key(buyer, "order").await.expect("read").is_some());
    bench.pass(1);
    assert!(bench.store.payment_by_key(buyer, "order").await.expect("read").is_none());
    assert_ne!(opened(bench.store.quote_open(again(&bench, &payment), 9).await.expect("open")), id);
    assert_eq!(bench.get(id).await.progress.state, PaymentState::Completed, "the payment itself stays");
}

pub async fn open_quotes_are_bounded_per_buyer(mut bench: Bench) {
    let (buyer, other) = (bench.profile(), bench.profile());
    let mut opened_ids = Vec::new();
    for _ in 0..3 {
        opened_ids.push(opened(bench.store.quote_open(bench.quote(buyer, other), 3).await.expect("open")));
    }
    let full = |found| assert!(matches!(found, Ok(QuoteOpened::TooManyOpen)), "{found:?}");
    full(bench.store.quote_open(bench.quote(buyer, other), 3).await);
    // One that stands is returned all the same.
    let first = bench.get(opened_ids[0]).await;
    exists(bench.store.quote_open(again(&bench, &first), 3).await.expect("open"));
    opened(bench.store.quote_open(bench.quote(other, buyer), 3).await.expect("another buyer"));
    bench.reopen().await;
    full(bench.store.quote_open(bench.quote(buyer, other), 3).await);
    bench.settle(&first, first.quote.price, None).await;
    opened(bench.store.quote_open(bench.quote(buyer, other), 3).await.expect("one was paid"));
    full(bench.store.quote_open(bench.quote(buyer, other), 3).await);
    bench.store.payment_fail(opened_ids[1]).await.expect("failed");
    opened(bench.store.quote_open(bench.quote(buyer, other), 3).await.expect("one failed"));
    bench.reopen().await;
    full(bench.store.quote_open(bench.quote(buyer, other), 3).await);
    bench.pass(900 * SECOND);
    opened(bench.store.quote_open(bench.quote(buyer, other), 3).await.expect("all expired"));
}

pub async fn an_open_quote_is_found_without_opening_one(bench: Bench) {
    for key in [None, Some("key".to_string())] {
        let quote = Quote { idempotency_key: key, ..bench.quote(bench.profile(), bench.profile()) };
        let identity = QuoteIdentity::from(&quote);
        assert!(bench.store.quote_find(&identity).await.expect("find").is_none());
        let payment = bench.open_quote(quote).await;
        assert_eq!(bench.store.quote_find(&identity).await.expect("find").expect("open"), payment);
        let other = QuoteIdentity { body_sha256: [1; 32], ..identity.clone() };
        assert!(bench.store.quote_find(&other).await.expect("find").is_none());
        bench.settle(&payment, payment.quote.price, None).await;
        assert!(bench.store.quote_find(&identity).await.expect("find").is_none());
    }
}

const PRICE: i64 = 1_000_000;

fn cap(bench: &Bench, quotes: i64) -> SpendCap {
    SpendCap { key: ApiKeyId::mint(bench.now()), max: Micros(quotes * PRICE) }
}

fn over_cap(found: QuoteOpened) -> Micros {
    match found {
        QuoteOpened::OverCap { spent } => spent,
        other => panic!("within the cap: {other:?}"),
    }
}

async fn ask(bench: &Bench, quote: Quote, cap: SpendCap) -> QuoteOpened {
    bench.store.quote_open_within(quote, 1000, cap).await.expect("open")
}

pub async fn a_capped_key_agrees_to_its_cap_and_not_to_more(mut bench: Bench) {
    let (buyer, cap, other) = (bench.profile(), cap(&bench, 2), cap(&bench, 1));
    let first = bench.quote(buyer, bench.profile());
    opened(ask(&bench, first.clone(), cap).await);
    let same = Quote { id: PaymentId::mint(bench.now()), ..first.clone() };
    assert_eq!(exists(ask(&bench, same.clone(), cap).await), first.id, "asked again it counts once");
    let second = opened(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
    let refused = bench.quote(buyer, bench.profile());
    assert_eq!(over_cap(ask(&bench, refused.clone(), cap).await), Micros(2 * PRICE));
    assert!(bench.store.payment_get(refused.id).await.expect("read").is_none(), "nothing was opened");
    bench.reopen().await;
    assert_eq!(exists(ask(&bench, same, cap).await), first.id, "what it agreed to stands");
    over_cap(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
    opened(ask(&bench, bench.quote(buyer, bench.profile()), other).await);
    let paid = bench.get(second).await;
    bench.settle(&paid, paid.quote.price, None).await;
    over_cap(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
    bench.pass(DAY);
    opened(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
}

pub async fn a_capped_keys_questions_at_once_fit_into_its_cap(bench: Bench) {
    let (buyer, cap) = (bench.profile(), cap(&bench, 5));
    let store = Arc::clone(&bench.store);
    let quotes: Arc<Vec<Quote>> = Arc::new((0..crate::RACERS).map(|_| bench.quote(buyer, bench.profile())).collect());
    let found = race(|n| {
        let (store, quote) = (Arc::clone(&store), quotes[n].clone());
        async move { matches!(store.quote_open_within(quote, 1000, cap).await, Ok(QuoteOpened::Opened(_))) }
    });
    assert_eq!(found.await.into_iter().filter(|opened| *opened).count(), 5);
}

pub async fn a_standing_quote_counts_for_every_capped_key_that_asks(bench: Bench) {
    let (buyer, narrow, wide) = (bench.profile(), cap(&bench, 0), cap(&bench, 1));
    let standing = bench.open_quote(bench.quote(buyer, bench.profile())).await;
    over_cap(ask(&bench, again(&bench, &standing), narrow).await);
    assert_eq!(exists(ask(&bench, again(&bench, &standing), wide).await), standing.quote.id);
    over_cap(ask(&bench, bench.quote(buyer, bench.profile()), wide).await);
    let full = bench.store.quote_open_within(bench.quote(buyer, buyer), 1, wide).await;
    assert!(matches!(full, Ok(QuoteOpened::TooManyOpen)), "{full:?}");
}

pub async fn an_expired_unpaid_quote_gives_back_and_late_money_takes_again(bench: Bench) {
    let (buyer, cap) = (bench.profile(), cap(&bench, 2));
    let unpaid = opened(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
    let paid = opened(ask(&bench, bench.quote(buyer, bench.profile()), cap).await);
    let settled = bench.get(paid).await;
    bench.settle(&settled, settled.quote.price, None).await;
    bench.pass(900 * SECOND);
    let mut given = None;
    until("what was not paid for is given back", async || {
        let quote = bench.quote(buyer, bench.profile());
        match ask(&bench, quote, cap).await {
            QuoteOpened::Opened(payment) => given = Some(payment),
            found => drop(over_cap(found)),
        }
        given.is_some()
    })
    .await;
    // What was paid for is not.
    assert_eq!(over_cap(ask(&bench, bench.quote(buyer, bench.profile()), cap).await), Micros(2 * PRICE));
    let late = bench.get(unpaid).await;
    assert!(matches!(bench.settle(&late, late.quote.price, None).await, SettleOutcome::Recorded { .. }));
    assert_eq!(over_cap(ask(&bench, bench.quote(buyer, bench.profile()), cap).await), Micros(3 * PRICE));
    let late = bench.get(given.expect("given").quote.id).await;
    bench.settle(&late, late.quote.price, None).await;
    assert_eq!(over_cap(ask(&bench, bench.quote(buyer, bench.profile()), cap).await), Micros(3 * PRICE), "in time");
}
