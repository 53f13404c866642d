//! Results: held ones with the payment, larger ones in chunks.

use bytes::Bytes;
use storage::{StepOutcome, model::*};

use crate::support::{Bench, HOUR, answer, facts, kept};

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
