//! What buyers sign, before anybody moves money with it.

use std::sync::Arc;

use storage::{Intended, SettleOutcome, model::*};

use crate::{
    RACERS, race,
    support::{Bench, SECOND},
};

fn intent(proof: &str, identifier: Option<&str>, now: UnixMillis) -> Intent {
    Intent {
        proof_key: proof.into(),
        identifier: identifier.map(str::to_string),
        rail: Rail::X402,
        signed: b"signed".to_vec(),
        expires_at: UnixMillis(now.0 + 60_000),
        recorded_at: now,
    }
}

fn paid(intent: &Intent, amount: Micros, now: UnixMillis) -> Evidence {
    let proof_key = intent.proof_key.clone();
    Evidence { proof_key, rail: Rail::X402, reference: "0xabc".into(), amount, recorded_at: now }
}

pub async fn what_was_signed_is_found_until_it_is_paid(mut bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let (id, intent) = (payment.quote.id, intent("x402:money", Some("x402-id:mine"), bench.now()));
    assert_eq!(bench.store.payment_intent(id).await, Ok(None));
    assert!(bench.store.payment_by_proof("x402:money").await.expect("read").is_none());
    let found = bench.store.payment_intend(id, intent.clone()).await.expect("the store answers");
    assert!(matches!(found, Intended::Recorded(payment) if payment.progress.state == PaymentState::Pending));
    bench.reopen().await;
    assert_eq!(bench.store.payment_intent(id).await, Ok(Some(intent.clone())), "it outlives the process");
    for name in ["x402:money", "x402-id:mine"] {
        let found = bench.store.payment_by_proof(name).await.expect("read").expect("found");
        assert_eq!((found.quote.id, found.progress.state), (id, PaymentState::Pending), "{name}");
    }
    let evidence = paid(&intent, payment.quote.price, bench.now());
    let settled = bench.store.payment_settle(id, evidence, Some(bench.request())).await.expect("the store answers");
    assert!(matches!(
        settled,
        SettleOutcome::Recorded { settled: Settled::InFull, claimed: Some(Claimed::Won(_)), .. }
    ));
    assert_eq!(bench.store.payment_intent(id).await, Ok(None), "there is nothing left to ask about");
    let found = bench.store.payment_by_proof("x402:money").await.expect("read").expect("found");
    assert_eq!(found.quote.id, id, "the money still leads to what it bought");
    let late = bench.store.payment_intend(id, self::intent("x402:more", None, bench.now())).await;
    assert!(matches!(late.expect("the store answers"), Intended::Late(_)), "it is paid");
    assert!(bench.store.payment_by_proof("x402:more").await.expect("read").is_none());
}

pub async fn a_payment_has_one_intent_and_money_one_payment(bench: Bench) {
    let buyer = bench.profile();
    let first = bench.open_quote(bench.quote(buyer, bench.profile())).await.quote.id;
    let second = bench.open_quote(bench.quote(buyer, bench.profile())).await.quote.id;
    let now = bench.now();
    let intend =
        async |id, proof, name| bench.store.payment_intend(id, intent(proof, name, now)).await.expect("answers");
    assert!(matches!(intend(first, "x402:a", Some("name")).await, Intended::Recorded(_)));
    match intend(first, "x402:b", None).await {
        Intended::Standing(standing, _) => assert_eq!(standing.proof_key, "x402:a"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(intend(second, "x402:a", None).await, Intended::Used(other) if other == first));
    assert!(matches!(intend(second, "x402:c", Some("name")).await, Intended::Used(other) if other == first));
    assert_eq!(bench.get(second).await.progress.state, PaymentState::Quoted, "nothing was written");
    assert!(bench.store.payment_by_proof("x402:c").await.expect("read").is_none());
    let unknown = PaymentId::mint(now);
    assert!(matches!(intend(unknown, "x402:d", None).await, Intended::NotFound));
    // What was refused is over for the payment; money that comes all the same counts.
    assert!(matches!(bench.store.payment_fail(first).await.expect("answers"), storage::StepOutcome::Step(true, _)));
    assert!(bench.store.payment_intent(first).await.expect("read").is_some());
    let price = bench.get(first).await.quote.price;
    let evidence = paid(&intent("x402:a", None, now), price, now);
    let settled = bench.store.payment_settle(first, evidence, None).await.expect("answers");
    assert!(matches!(settled, SettleOutcome::Recorded { settled: Settled::InFull, .. }));
}

pub async fn of_many_intents_with_one_signature_one_is_recorded(bench: Bench) {
    let mut ids = Vec::new();
    for _ in 0..RACERS {
        ids.push(bench.open_quote(bench.quote(bench.profile(), bench.profile())).await.quote.id);
    }
    let (store, now, ids) = (Arc::clone(&bench.store), bench.now(), Arc::new(ids));
    let found = race(|n| {
        let (store, id) = (Arc::clone(&store), ids[n]);
        async move { store.payment_intend(id, intent("x402:one", None, now)).await.expect("answers") }
    });
    let found = found.await;
    assert_eq!(found.iter().filter(|found| matches!(found, Intended::Recorded(_))).count(), 1);
    assert_eq!(found.iter().filter(|found| matches!(found, Intended::Used(_))).count(), RACERS - 1);
    let winner = bench.store.payment_by_proof("x402:one").await.expect("read").expect("found");
    assert_eq!(winner.progress.state, PaymentState::Pending);
}

pub async fn what_was_refused_goes_in_time_and_what_is_not_known_stays(bench: Bench) {
    let open = async |proof| {
        let id = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await.quote.id;
        bench.store.payment_intend(id, intent(proof, None, bench.now())).await.expect("answers");
        id
    };
    let (unknown, refused) = (open("x402:unknown").await, open("x402:refused").await);
    bench.store.payment_fail(refused).await.expect("answers");
    bench.pass(9 * 24 * 3600 * SECOND);
    crate::support::until("what was refused is tidied away", async || {
        bench.store.payment_get(refused).await.expect("read").is_none()
    })
    .await;
    assert!(bench.store.payment_intent(refused).await.expect("read").is_none());
    assert!(bench.store.payment_by_proof("x402:refused").await.expect("read").is_none());
    assert_eq!(bench.get(unknown).await.progress.state, PaymentState::Pending, "money may have moved");
    assert!(bench.store.payment_intent(unknown).await.expect("read").is_some());
}
