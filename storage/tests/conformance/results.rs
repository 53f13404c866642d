//! Results: held ones with the payment, larger ones in chunks.

use std::sync::Arc;

use bytes::Bytes;
use storage::{StepOutcome, model::*};

use crate::{
    race,
    support::{Bench, HOUR, answer, facts, kept},
};

async fn complete(bench: &Bench, id: PaymentId, claim: Claim, result: KeptResult, held: Option<Bytes>) {
    let done = bench.store.payment_complete(id, claim, facts(200), result, held).await;
    assert!(matches!(done, Ok(StepOutcome::Step(Ended::Done, _))), "{done:?}");
}

pub async fn a_held_result_round_trips(mut bench: Bench) {
    let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    assert_eq!(bench.store.result_read(&payment, 0).await.expect("read"), None, "not completed yet");
    let bytes = Bytes::from((0..256 * 1024).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    complete(&bench, id, claim, kept(ResultPlace::Inline, &bytes, bench.now()), Some(bytes.clone())).await;
    for _ in 0..2 {
        let done = bench.get(id).await;
        assert_eq!(bench.store.result_read(&done, 0).await.expect("read"), Some(bytes.clone()));
        assert_eq!(bench.store.result_read(&done, 1).await.expect("read"), None);
        bench.reopen().await;
    }
}

pub async fn a_chunked_result_round_trips(mut bench: Bench) {
    let (payment, first) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    // A first attempt breaks off; its chunks must not show in the second.
    bench.store.result_append(id, 1, 0, Bytes::from_static(b"broken off")).await.expect("append");
    bench.store.payment_release(id, first, AttemptStatus::Released, facts(502)).await.expect("released");
    let Ok(StepOutcome::Step(Claimed::Won(claim), _)) = bench.store.payment_claim(id, bench.request()).await else {
        panic!("not claimed")
    };
    let chunk = |n: u32| Bytes::from(vec![n as u8; 64 * 1024 + n as usize]);
    for n in 0..80 {
        // The call goes on past the end of a bucket.
        bench.pass(HOUR / 10);
        bench.store.result_append(id, claim.attempt, n, chunk(n)).await.expect("append");
    }
    bench.store.result_seal(id, claim.attempt).await.expect("sealed");
    let mut result = kept(ResultPlace::Chunks, b"", bench.now());
    result.bytes = (0..80).map(|n| chunk(n).len() as u64).sum();
    complete(&bench, id, claim, result, None).await;
    for _ in 0..2 {
        let done = bench.get(id).await;
        for n in 0..80 {
            assert_eq!(bench.store.result_read(&done, n).await.expect("read"), Some(chunk(n)), "{n}");
        }
        assert_eq!(bench.store.result_read(&done, 80).await.expect("read"), None);
        bench.reopen().await;
    }
}

pub async fn an_empty_result_is_empty(bench: Bench) {
    for held in [None, Some(Bytes::new())] {
        let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
        let mut result = kept(ResultPlace::Inline, b"", bench.now());
        result.encoding = ResultEncoding::Nothing;
        complete(&bench, payment.quote.id, claim, result, held).await;
        let done = bench.get(payment.quote.id).await;
        assert_eq!(bench.store.result_read(&done, 0).await.expect("read"), Some(Bytes::new()));
    }
}

pub async fn results_end_with_their_time(bench: Bench) {
    let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    complete(&bench, id, claim, kept(ResultPlace::Inline, &answer(id), bench.now()), Some(answer(id))).await;
    let (unkept, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    complete(&bench, unkept.quote.id, claim, kept(ResultPlace::NotKept, b"too large", bench.now()), None).await;
    assert_eq!(bench.store.result_read(&*bench.get(unkept.quote.id).await, 0).await.expect("read"), None);
    bench.pass(72 * HOUR - 1);
    let done = bench.get(id).await;
    assert_eq!(bench.store.result_read(&done, 0).await.expect("read"), Some(answer(id)));
    bench.pass(1);
    assert_eq!(bench.store.result_read(&done, 0).await.expect("read"), None);
    assert!(done.progress.result.is_some(), "the digest stays");
}

pub async fn chunks_out_of_order_are_refused(bench: Bench) {
    let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let (id, chunk) = (payment.quote.id, Bytes::from_static(b"chunk"));
    assert!(bench.store.result_append(id, claim.attempt, 1, chunk.clone()).await.is_err(), "the first is missing");
    bench.store.result_append(id, claim.attempt, 0, chunk.clone()).await.expect("append");
    assert!(bench.store.result_append(id, claim.attempt, 2, chunk.clone()).await.is_err(), "one is missing");
    assert!(bench.store.result_append(id, 7, 0, chunk.clone()).await.is_err(), "no such attempt");
    assert!(bench.store.result_append(PaymentId::mint(bench.now()), 1, 0, chunk).await.is_err(), "no such payment");
    assert!(bench.store.result_seal(id, 7).await.is_err());
}

async fn unkept(bench: &Bench) -> Arc<Payment> {
    let (payment, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = payment.quote.id;
    complete(bench, id, claim, kept(ResultPlace::NotKept, b"too large", bench.now()), None).await;
    bench.get(id).await
}

async fn resend(bench: &Bench, id: PaymentId) -> bool {
    match bench.store.result_resend(id).await.expect("the store answers") {
        StepOutcome::Step(taken, _) => taken,
        StepOutcome::NotFound => panic!("not found"),
    }
}

pub async fn a_result_that_was_not_kept_is_sent_again_once(mut bench: Bench) {
    let before = unkept(&bench).await;
    let id = before.quote.id;
    let store = Arc::clone(&bench.store);
    let taken = race(|_| {
        let store = Arc::clone(&store);
        async move { matches!(store.result_resend(id).await, Ok(StepOutcome::Step(true, _))) }
    });
    assert_eq!(taken.await.into_iter().filter(|taken| *taken).count(), 1);
    drop(store);
    for _ in 0..2 {
        assert!(!resend(&bench, id).await);
        let after = bench.get(id).await;
        assert_eq!(after.progress.result.as_ref().map(|result| result.place), Some(ResultPlace::Resent));
        assert_eq!(after.progress.postings, before.progress.postings, "no money moves");
        assert_eq!(after.progress.attempts, before.progress.attempts);
        assert_eq!((after.progress.state, &after.quote), (PaymentState::Completed, &before.quote));
        bench.reopen().await;
    }
}

pub async fn a_repetition_that_did_not_reach_the_seller_comes_back(bench: Bench) {
    let id = unkept(&bench).await.quote.id;
    let back = || async { matches!(bench.store.result_resend_return(id).await, Ok(StepOutcome::Step(true, _))) };
    assert!(!back().await, "it was not taken");
    assert!(resend(&bench, id).await);
    assert!(back().await);
    assert!(!back().await, "it comes back once");
    assert!(resend(&bench, id).await);
    assert!(!resend(&bench, id).await);
}

pub async fn nothing_else_is_sent_again(bench: Bench) {
    let (held, claim) = bench.claimed(bench.quote(bench.profile(), bench.profile())).await;
    let id = held.quote.id;
    assert!(!resend(&bench, id).await, "still running");
    complete(&bench, id, claim, kept(ResultPlace::Inline, &answer(id), bench.now()), Some(answer(id))).await;
    assert!(!resend(&bench, id).await, "kept");
    let late = unkept(&bench).await.quote.id;
    bench.pass(72 * HOUR);
    assert!(!resend(&bench, late).await, "its time is over");
    let nobody = PaymentId::mint(bench.now());
    assert!(matches!(bench.store.result_resend(nobody).await, Ok(StepOutcome::NotFound)));
    assert!(matches!(bench.store.result_resend_return(nobody).await, Ok(StepOutcome::NotFound)));
}
