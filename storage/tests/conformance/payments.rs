//! Money, claims and their ends.

use std::sync::Arc;

use storage::{SettleOutcome, StepOutcome, StoreError, model::*};

use crate::{
    RACERS, race,
    support::{Bench, SECOND, answer, assert_books, balance, evidence, facts, kept},
};

fn step<T>(outcome: Result<StepOutcome<T>, StoreError>) -> T {
    match outcome.expect("the store answers") {
        StepOutcome::Step(found, payment) => {
            assert_books(&payment);
            found
        }
        StepOutcome::NotFound => panic!("not found"),
    }
}

fn recorded(outcome: SettleOutcome) -> (Settled, Option<Claimed>, Arc<Payment>) {
    match outcome {
        SettleOutcome::Recorded { settled, claimed, payment } => {
            assert_books(&payment);
            (settled, claimed, payment)
        }
        other => panic!("not recorded: {other:?}"),
    }
}

async fn complete(bench: &Bench, id: PaymentId, claim: Claim) -> Ended {
    let result = kept(ResultPlace::Inline, &answer(id), bench.now());
    step(bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await)
}

pub async fn a_paid_call_from_quote_to_result(mut bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    let (settled, claimed, payment) = recorded(bench.settle(&payment, Micros(1_000_000), Some(bench.request())).await);
    let claim = Claim { owner: bench.store.owner(), attempt: 1 };
    assert_eq!((settled, claimed), (Settled::InFull, Some(Claimed::Won(claim))));
    assert_eq!(payment.progress.state, PaymentState::Claimed(claim));
    assert_eq!(bench.get(id).await, payment, "what was answered is what is read");
    assert_eq!(complete(&bench, id, claim).await, Ended::Done);
    assert_eq!(complete(&bench, id, claim).await, Ended::NotOwner, "it ends once");
    let done = bench.get(id).await;
    assert_eq!(done.progress.state, PaymentState::Completed);
    assert_eq!(balance(&done.progress.postings, |account| matches!(account, Account::Seller(_))), 951_000);
    assert_eq!(balance(&done.progress.postings, |account| account == Account::Marketplace), 49_000);
    bench.reopen().await;
    assert_eq!(bench.get(id).await, done, "the next life reads the same");
    assert_eq!(bench.store.result_read(&done, 0).await.expect("read"), Some(answer(id)));
}

pub async fn one_claim_of_many_wins(bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    assert_eq!(step(bench.store.payment_claim(id, bench.request()).await), Claimed::NotSettled);
    bench.settle(&payment, payment.quote.price, None).await;
    let (store, request) = (Arc::clone(&bench.store), bench.request());
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { step(store.payment_claim(id, request).await) }
    });
    let found = found.await;
    assert_eq!(found.iter().filter(|claimed| matches!(claimed, Claimed::Won(_))).count(), 1);
    assert_eq!(found.iter().filter(|claimed| matches!(claimed, Claimed::Held(_))).count(), RACERS - 1);
    let (store, now) = (Arc::clone(&bench.store), bench.now());
    let ends = race(|_| {
        let store = Arc::clone(&store);
        let claim = Claim { owner: store.owner(), attempt: 1 };
        let result = kept(ResultPlace::NotKept, b"", now);
        async move { step(store.payment_complete(id, claim, facts(200), result, None).await) }
    });
    assert_eq!(ends.await.iter().filter(|ended| **ended == Ended::Done).count(), 1);
    assert_eq!(step(bench.store.payment_claim(id, bench.request()).await), Claimed::Completed);
    assert_eq!(bench.get(id).await.progress.postings.len(), 2);
}

pub async fn one_settle_and_claim_of_many_wins(bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let (store, request, now) = (Arc::clone(&bench.store), bench.request(), bench.now());
    let (id, price) = (payment.quote.id, payment.quote.price);
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { recorded(store.payment_settle(id, evidence(id, price, now), Some(request)).await.expect("settle")) }
    });
    let found = found.await;
    assert_eq!(found.iter().filter(|(settled, _, _)| *settled == Settled::InFull).count(), 1);
    assert_eq!(found.iter().filter(|(settled, _, _)| *settled == Settled::Known).count(), RACERS - 1);
    assert_eq!(found.iter().filter(|(_, claimed, _)| matches!(claimed, Some(Claimed::Won(_)))).count(), 1);
    assert_eq!(bench.get(id).await.progress.evidence.len(), 1);
}

pub async fn one_proof_buys_one_payment(mut bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let mut payments = Vec::new();
    for _ in 0..RACERS {
        payments.push(bench.open_quote(bench.quote(buyer, seller)).await.quote.id);
    }
    let money = evidence(payments[0], Micros(1_000_000), bench.now());
    let (store, request) = (Arc::clone(&bench.store), bench.request());
    let found = race(|n| {
        let (store, money, id) = (Arc::clone(&store), money.clone(), payments[n]);
        async move { (id, store.payment_settle(id, money, Some(request)).await.expect("settle")) }
    });
    let found = found.await;
    let winners: Vec<_> =
        found.iter().filter(|(_, outcome)| matches!(outcome, SettleOutcome::Recorded { .. })).collect();
    assert_eq!(winners.len(), 1);
    let winner = winners[0].0;
    for (id, outcome) in &found {
        assert!(*id == winner || matches!(outcome, SettleOutcome::ProofUsed(by) if *by == winner), "{outcome:?}");
    }
    bench.reopen().await;
    for id in payments {
        let outcome = bench.store.payment_settle(id, money.clone(), None).await.expect("settle");
        match outcome {
            SettleOutcome::Recorded { settled, .. } => assert_eq!((id, settled), (winner, Settled::Known)),
            SettleOutcome::ProofUsed(by) => assert_eq!(by, winner),
            SettleOutcome::NotFound => panic!("gone"),
        }
    }
}

pub async fn too_little_is_owed_and_buys_nothing(bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let (settled, claimed, after) = recorded(bench.settle(&payment, Micros(999_999), Some(bench.request())).await);
    assert_eq!((settled, claimed), (Settled::Underpaid { missing: Micros(1) }, None));
    assert_eq!(after.progress.state, PaymentState::Owed);
    assert_eq!(step(bench.store.payment_claim(payment.quote.id, bench.request()).await), Claimed::Closed);
    let (settled, claimed, _) = recorded(bench.settle(&payment, Micros(999_999), Some(bench.request())).await);
    assert_eq!((settled, claimed), (Settled::Known, Some(Claimed::Closed)));
}

pub async fn too_much_completes_and_owes_the_rest(bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    let (settled, claimed, after) = recorded(bench.settle(&payment, Micros(1_500_000), Some(bench.request())).await);
    assert_eq!(settled, Settled::InFull);
    let Some(Claimed::Won(claim)) = claimed else { panic!("{claimed:?}") };
    assert_eq!(balance(&after.progress.postings, |account| matches!(account, Account::Owed(_))), 500_000);
    assert_eq!(complete(&bench, id, claim).await, Ended::Done);
    assert_books(&*bench.get(id).await);
}

pub async fn money_again_is_owed_in_any_state(mut bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    let mut owed = 0;
    for extra in 1..=3 {
        let state = bench.get(id).await.progress.state;
        let (settled, _, after) = match extra {
            1 => recorded(bench.settle(&payment, payment.quote.price, Some(bench.request())).await),
            _ => recorded(bench.settle(&payment, Micros(extra), None).await),
        };
        if extra > 1 {
            owed += extra;
            assert_eq!((settled, after.progress.state), (Settled::Again, state));
        }
        assert_eq!(balance(&after.progress.postings, |account| matches!(account, Account::Owed(_))), owed);
        if extra == 2 {
            let claim = Claim { owner: bench.store.owner(), attempt: 1 };
            assert_eq!(complete(&bench, id, claim).await, Ended::Done);
        }
    }
    let before = bench.get(id).await;
    bench.reopen().await;
    assert_eq!(bench.get(id).await, before);
    assert_eq!(before.progress.state, PaymentState::Completed);
}

pub async fn money_for_an_expired_or_failed_payment_counts(bench: Bench) {
    let expired = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let failed = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    assert!(step(bench.store.payment_fail(failed.quote.id).await));
    bench.pass(1_000 * SECOND);
    for payment in [expired, failed] {
        let (settled, claimed, _) = recorded(bench.settle(&payment, payment.quote.price, Some(bench.request())).await);
        assert_eq!(settled, Settled::InFull);
        let Some(Claimed::Won(claim)) = claimed else { panic!("{claimed:?}") };
        assert_eq!(complete(&bench, payment.quote.id, claim).await, Ended::Done);
    }
}

pub async fn a_price_of_nothing_moves_nothing(bench: Bench) {
    let quote = Quote {
        price: Micros::ZERO,
        idempotency_key: Some("free".into()),
        ..bench.quote(bench.profile(), bench.profile())
    };
    let payment = bench.open_quote(quote).await;
    let (settled, claimed, after) = recorded(bench.settle(&payment, Micros::ZERO, Some(bench.request())).await);
    assert_eq!((settled, after.progress.postings.len()), (Settled::InFull, 0));
    let Some(Claimed::Won(claim)) = claimed else { panic!("{claimed:?}") };
    assert_eq!(complete(&bench, payment.quote.id, claim).await, Ended::Done);
    assert_eq!(bench.get(payment.quote.id).await.progress.postings.len(), 0);
    let paid = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let nothing = evidence(paid.quote.id, Micros::ZERO, bench.now());
    assert!(bench.store.payment_settle(paid.quote.id, nothing, None).await.is_err(), "no money is no evidence");
    assert_eq!(bench.get(paid.quote.id).await.progress.state, PaymentState::Quoted);
}

pub async fn released_is_usable_again_until_attempts_are_used_up(bench: Bench) {
    let (payment, mut claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    for attempt in 1..=10 {
        assert_eq!(claim.attempt, attempt);
        let released = bench.store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await;
        assert_eq!(step(released), Ended::Done);
        bench.pass(1);
        match step(bench.store.payment_claim(id, bench.request()).await) {
            Claimed::Won(next) => claim = next,
            Claimed::Closed => assert_eq!(attempt, 10),
            other => panic!("{other:?}"),
        }
    }
    let ended = bench.get(id).await;
    assert_eq!(ended.progress.state, PaymentState::Owed);
    assert_eq!(ended.progress.attempts.len(), 10);
    assert_eq!(balance(&ended.progress.postings, |account| matches!(account, Account::Owed(_))), 1_000_000);
}

pub async fn a_late_writer_changes_nothing(mut bench: Bench) {
    let (payment, late) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    bench.reopen().await;
    let Claimed::Won(claim) = step(bench.store.payment_claim(id, bench.request()).await) else { panic!("held") };
    assert_eq!((claim.attempt, claim.owner.epoch), (2, late.owner.epoch + 1));
    let before = bench.get(id).await;
    assert_eq!(complete(&bench, id, late).await, Ended::NotOwner);
    let released = bench.store.payment_release(id, late, AttemptStatus::Released, facts(502)).await;
    assert_eq!(step(released), Ended::NotOwner);
    let forged = Claim { attempt: 1, ..claim };
    assert_eq!(complete(&bench, id, forged).await, Ended::NotOwner);
    assert_eq!(bench.get(id).await, before);
    assert!(bench.store.result_read(&before, 0).await.expect("read").is_none());
    assert_eq!(complete(&bench, id, claim).await, Ended::Done);
}

pub async fn claims_of_a_life_that_ended_are_found_and_taken_over(mut bench: Bench) {
    let mut claims = Vec::new();
    for _ in 0..5 {
        let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
        claims.push((payment.quote.id, claim));
        bench.pass(1);
    }
    let (ended, claim) = claims.remove(0);
    assert_eq!(complete(&bench, ended, claim).await, Ended::Done);
    bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    assert_eq!(bench.store.claims_overdue(10).await.expect("claims"), [], "this life's own are not overdue");
    bench.reopen().await;
    assert_eq!(bench.store.claims_overdue(10).await.expect("claims"), claims, "oldest first");
    assert_eq!(bench.store.claims_overdue(2).await.expect("claims"), claims[..2]);
    // Recovery releases one; buyers' own retries take over two others: by claim, and by the same money again.
    let (released, claim) = claims[0];
    let interrupted = bench.store.payment_release(released, claim, AttemptStatus::Interrupted, facts(0)).await;
    assert_eq!(step(interrupted), Ended::Done);
    let Claimed::Won(second) = step(bench.store.payment_claim(claims[1].0, bench.request()).await) else {
        panic!("held")
    };
    assert_eq!(second, Claim { owner: bench.store.owner(), attempt: 2 });
    let third = bench.get(claims[2].0).await;
    let (settled, claimed, _) = recorded(bench.settle(&third, third.quote.price, Some(bench.request())).await);
    assert_eq!((settled, claimed), (Settled::Known, Some(Claimed::Won(second))));
    let attempts = &bench.get(claims[1].0).await.progress.attempts;
    let end = attempts[0].end.as_ref().expect("ended");
    assert_eq!((end.status, end.facts.error_code.as_deref()), (AttemptStatus::Interrupted, Some("INTERRUPTED")));
    assert!(attempts[1].end.is_none());
    assert_eq!(bench.store.claims_overdue(10).await.expect("claims"), claims[3..]);
    // Of many that take over at once, one wins.
    let (store, request, id) = (Arc::clone(&bench.store), bench.request(), claims[3].0);
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { step(store.payment_claim(id, request).await) }
    });
    assert_eq!(found.await.iter().filter(|claimed| matches!(claimed, Claimed::Won(_))).count(), 1);
}

pub async fn owed_and_failed_only_from_where_they_may(bench: Bench) {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    assert!(!step(bench.store.payment_owe(id).await), "nothing was paid");
    bench.settle(&payment, payment.quote.price, None).await;
    assert!(!step(bench.store.payment_fail(id).await), "it was paid");
    assert!(step(bench.store.payment_owe(id).await));
    assert!(!step(bench.store.payment_owe(id).await));
    assert_eq!(step(bench.store.payment_claim(id, bench.request()).await), Claimed::Closed);
    let (payment, _) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    assert!(!step(bench.store.payment_owe(payment.quote.id).await), "the seller is being called");
}

pub async fn unknown_payments_are_not_found(bench: Bench) {
    let id = PaymentId::mint(bench.now());
    let claim = Claim { owner: bench.store.owner(), attempt: 1 };
    assert!(bench.store.payment_get(id).await.expect("read").is_none());
    let settled = bench.store.payment_settle(id, evidence(id, Micros(1), bench.now()), None).await;
    assert!(matches!(settled, Ok(SettleOutcome::NotFound)));
    assert!(matches!(bench.store.payment_claim(id, bench.request()).await, Ok(StepOutcome::NotFound)));
    assert!(matches!(bench.store.payment_owe(id).await, Ok(StepOutcome::NotFound)));
    assert!(matches!(bench.store.payment_fail(id).await, Ok(StepOutcome::NotFound)));
    let released = bench.store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await;
    assert!(matches!(released, Ok(StepOutcome::NotFound)));
    // The money that found no payment may still find its own.
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let money = Evidence { amount: Micros(1_000_000), ..evidence(id, Micros(1), bench.now()) };
    let settled = bench.store.payment_settle(payment.quote.id, money, None).await.expect("settle");
    assert_eq!(recorded(settled).0, Settled::InFull);
}

pub async fn books_add_up_under_a_storm(bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let mut payments = Vec::new();
    for _ in 0..8 {
        payments.push(bench.open_quote(bench.quote(buyer, seller)).await.quote.id);
    }
    let (store, request, now) = (Arc::clone(&bench.store), bench.request(), bench.now());
    race(|n| {
        let (store, payments) = (Arc::clone(&store), payments.clone());
        async move {
            for (round, id) in payments.into_iter().enumerate() {
                let amount = Micros(400_000 + 300_000 * ((n + round) % 4) as i64);
                let settled = store.payment_settle(id, evidence(id, amount, now), Some(request)).await.expect("settle");
                if let (_, Some(Claimed::Won(claim)), _) = recorded(settled) {
                    if n % 2 == 0 {
                        step(store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await);
                    } else {
                        let result = kept(ResultPlace::NotKept, b"", now);
                        step(store.payment_complete(id, claim, facts(200), result, None).await);
                    }
                }
                step(store.payment_owe(id).await);
            }
        }
    })
    .await;
    for id in payments {
        let payment = bench.get(id).await;
        assert_books(&payment);
        let completed = payment.progress.postings.iter().filter(|posting| posting.kind() == PostingKind::Completed);
        assert!(completed.count() <= 1);
        let money: i64 = payment.progress.evidence.iter().map(|evidence| evidence.amount.0).sum();
        assert_eq!(money, 400_000 + 700_000 + 1_000_000 + 1_300_000, "every amount once");
    }
}

pub async fn the_sandbox_keeps_the_first_record(mut bench: Bench) {
    let record = |reference: &str| SandboxPayment {
        payment: PaymentId::from_bytes([3; 16]),
        reference: reference.into(),
        amount: Micros(5),
        recipient: "somebody".into(),
        outcome: SandboxOutcome::Success,
        paid_at: bench.now(),
        settles_at: bench.now(),
    };
    let first = record("first");
    let store = Arc::clone(&bench.store);
    assert!(store.sandbox_get(first.payment).await.expect("read").is_none());
    let found = race(|n| {
        let (store, record) = (Arc::clone(&store), record(&n.to_string()));
        async move { store.sandbox_pay(record).await.expect("pay") }
    });
    let mut found = found.await;
    found.dedup();
    assert_eq!(found.len(), 1, "all were told the same record");
    drop(store);
    bench.reopen().await;
    assert_eq!(bench.store.sandbox_get(first.payment).await.expect("read").as_ref(), found.first());
}
