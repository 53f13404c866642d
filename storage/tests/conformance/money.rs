//! Money that goes back, and the proof of the books.

use std::sync::Arc;

use storage::{BooksPage, RefundBegun, StepOutcome, TakeBackOutcome, TransferTold, model::*};

use crate::{
    RACERS, race,
    support::{Bench, answer, evidence, facts, kept},
};

const PRICE: i64 = 1_000_000;

fn step<T>(outcome: StepOutcome<T>) -> T {
    match outcome {
        StepOutcome::Step(found, _) => found,
        StepOutcome::NotFound => panic!("not found"),
    }
}

/// A payment that the sandbox's own record shows as paid, too.
async fn paid(bench: &Bench, amount: i64) -> Arc<Payment> {
    let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    let record = SandboxPayment {
        payment: payment.quote.id,
        reference: "reference".into(),
        amount: Micros(amount),
        recipient: "marketplace".into(),
        outcome: SandboxOutcome::Reorg,
        paid_at: bench.now(),
        settles_at: bench.now(),
    };
    bench.store.sandbox_pay(record).await.expect("paid");
    bench.settle(&payment, Micros(amount), None).await;
    bench.get(payment.quote.id).await
}

async fn claim(bench: &Bench, id: PaymentId) -> Claim {
    match step(bench.store.payment_claim(id, bench.request()).await.expect("claim")) {
        Claimed::Won(claim) => claim,
        other => panic!("not claimed: {other:?}"),
    }
}

async fn complete(bench: &Bench, id: PaymentId, claim: Claim) {
    let result = kept(ResultPlace::Inline, &answer(id), bench.now());
    let ended = bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await.expect("complete");
    assert_eq!(step(ended), Ended::Done);
}

fn reversal(bench: &Bench, id: PaymentId, amount: i64) -> Evidence {
    Evidence { proof_key: format!("reversal:{id}"), ..evidence(id, Micros(amount), bench.now()) }
}

async fn take_back(bench: &Bench, id: PaymentId, amount: i64) -> TakenBack {
    match bench.store.payment_take_back(id, reversal(bench, id, amount)).await.expect("taken back") {
        TakeBackOutcome::Recorded(found, _) => found,
        other => panic!("not recorded: {other:?}"),
    }
}

/// The proof of all books; there must be nothing wrong with them.
async fn proven(bench: &Bench) -> (Totals, Vec<Waiting>) {
    let (mut totals, mut waiting, mut after) = (Totals::default(), Vec::new(), None);
    loop {
        let page: BooksPage = bench.store.books_page(after).await.expect("books");
        assert_eq!(page.faults, [], "nothing is wrong");
        totals.add(&page.totals);
        waiting.extend(page.waiting);
        after = page.next;
        if after.is_none() {
            assert!(totals.add_up(), "{totals:?}");
            return (totals, waiting);
        }
    }
}

pub async fn a_reversal_counts_once_and_closes_what_is_not_paid_any_more(mut bench: Bench) {
    let id = paid(&bench, PRICE).await.quote.id;
    let (store, money) = (Arc::clone(&bench.store), reversal(&bench, id, PRICE));
    let found = race(|_| {
        let (store, money) = (Arc::clone(&store), money.clone());
        async move { store.payment_take_back(id, money).await.expect("taken back") }
    });
    let of = |wanted| move |found: &TakeBackOutcome| matches!(found, TakeBackOutcome::Recorded(found, _) if *found == wanted);
    let found = found.await;
    drop(store);
    assert_eq!(found.iter().filter(|found| of(TakenBack::Posted)(found)).count(), 1);
    assert_eq!(found.iter().filter(|found| of(TakenBack::Known)(found)).count(), RACERS - 1);
    assert_eq!(step(bench.store.payment_claim(id, bench.request()).await.expect("claim")), Claimed::Closed);
    let other = paid(&bench, PRICE).await.quote.id;
    let stolen = bench.store.payment_take_back(other, reversal(&bench, id, PRICE)).await.expect("told");
    assert!(matches!(stolen, TakeBackOutcome::ProofUsed(of) if of == id), "one proof, one payment");
    let unknown = PaymentId::mint(bench.now());
    let unknown = bench.store.payment_take_back(unknown, reversal(&bench, unknown, 1)).await.expect("told");
    assert!(matches!(unknown, TakeBackOutcome::NotFound));
    let nothing = bench
        .store
        .payment_take_back(other, Evidence { proof_key: "0".into(), ..evidence(other, Micros(0), bench.now()) });
    assert!(nothing.await.is_err(), "a reversal of nothing is none");
    bench.reopen().await;
    assert_eq!(proven(&bench).await.0.moved["taken_back"], i128::from(PRICE));
}

pub async fn a_reversal_while_the_call_runs_is_posted_when_it_ends(mut bench: Bench) {
    let done = paid(&bench, PRICE).await.quote.id;
    let won = claim(&bench, done).await;
    assert_eq!(take_back(&bench, done, PRICE).await, TakenBack::Waits);
    proven(&bench).await;
    complete(&bench, done, won).await;
    let payment = bench.get(done).await;
    assert_eq!(payment.progress.state, PaymentState::Completed, "the call was handled, whatever the money does");
    assert_eq!((payment.balance(Account::Seller(payment.quote.seller)), payment.balance(Account::Marketplace)), (0, 0));
    let released = paid(&bench, PRICE).await.quote.id;
    let won = claim(&bench, released).await;
    take_back(&bench, released, PRICE).await;
    step(bench.store.payment_release(released, won, AttemptStatus::Released, facts(502)).await.expect("released"));
    assert_eq!(bench.get(released).await.progress.state, PaymentState::Owed);
    // Its owner dies: whoever takes the claim over finds the payment closed.
    let orphan = paid(&bench, PRICE).await.quote.id;
    claim(&bench, orphan).await;
    take_back(&bench, orphan, PRICE).await;
    bench.reopen().await;
    assert_eq!(step(bench.store.payment_claim(orphan, bench.request()).await.expect("claim")), Claimed::Closed);
    let (totals, waiting) = proven(&bench).await;
    assert_eq!((totals.moved["taken_back"], waiting), (i128::from(3 * PRICE), Vec::new()));
}

pub async fn a_refund_is_intended_sent_and_confirmed_once(mut bench: Bench) {
    let id = paid(&bench, PRICE).await.quote.id;
    let begun = step(bench.store.refund_begin(id).await.expect("told"));
    assert_eq!(begun, (RefundBegun::NothingOwed, None), "the money waits for its call");
    step(bench.store.payment_owe(id).await.expect("owed"));
    let store = Arc::clone(&bench.store);
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { step(store.refund_begin(id).await.expect("begun")) }
    });
    let found = found.await;
    drop(store);
    assert_eq!(found.iter().filter(|(begun, _)| *begun == RefundBegun::Begun).count(), 1);
    assert!(found.iter().all(|(_, refund)| refund.as_ref().is_some_and(|refund| refund.amount == Micros(PRICE))));
    bench.reopen().await;
    assert_eq!(bench.get(id).await.progress.state, PaymentState::Refunding, "the intent is durable");
    assert_eq!(proven(&bench).await.1[0].reason, WaitReason::Transfer);
    let told = async |number: u32, text: &str| {
        step(bench.store.refund_sent(id, number, text.to_string()).await.expect("told"))
    };
    assert_eq!(step(bench.store.refund_confirm(id, 1).await.expect("told")), TransferTold::NotSent);
    assert_eq!(told(2, "0xa").await, TransferTold::NoTransfer);
    assert_eq!((told(1, "0xa").await, told(1, "0xa").await), (TransferTold::Done, TransferTold::Done));
    assert_eq!(told(1, "0xb").await, TransferTold::OtherReference);
    let store = Arc::clone(&bench.store);
    let confirmed = race(|_| {
        let store = Arc::clone(&store);
        async move { step(store.refund_confirm(id, 1).await.expect("told")) }
    });
    let confirmed = confirmed.await;
    assert!(confirmed.iter().all(|told| *told == TransferTold::Done));
    let refunds = bench.store.refund_list(id).await.expect("listed");
    assert_eq!((refunds.len(), refunds[0].reference(), refunds[0].is_open()), (1, Some("0xa"), false));
    let payment = bench.get(id).await;
    assert_eq!(payment.progress.state, PaymentState::Refunded);
    assert_eq!(step(bench.store.refund_begin(id).await.expect("told")).0, RefundBegun::NothingOwed);
    let (totals, waiting) = proven(&bench).await;
    assert_eq!(
        (totals.moved["refunded"], totals.accounts["rail:sandbox"], waiting),
        (i128::from(PRICE), 0, Vec::new())
    );
    let rows: Vec<_> =
        payment.progress.postings.iter().flat_map(|p| ledger_rows(&payment, p, payment.quote.buyer)).collect();
    let last = rows.last().expect("a row");
    assert_eq!((last.entry_type, last.direction), (EntryType::Adjustment, Direction::Debit));
}

pub async fn a_surplus_is_refunded_while_its_call_stays_completed(bench: Bench) {
    let id = paid(&bench, PRICE + 300).await.quote.id;
    let won = claim(&bench, id).await;
    complete(&bench, id, won).await;
    let (_, refund) = step(bench.store.refund_begin(id).await.expect("begun"));
    assert_eq!(refund.expect("a refund").amount, Micros(300));
    step(bench.store.refund_sent(id, 1, "0xa".into()).await.expect("sent"));
    step(bench.store.refund_confirm(id, 1).await.expect("confirmed"));
    assert_eq!(bench.get(id).await.progress.state, PaymentState::Completed);
    let (totals, _) = proven(&bench).await;
    assert_eq!(totals.accounts["rail:sandbox"], -i128::from(PRICE), "the rail holds what was earned");
}

pub async fn a_buyers_sums_add_up_when_money_is_taken_back_after_its_refund(bench: Bench) {
    for is_called in [false, true] {
        let payment = paid(&bench, PRICE + 300).await;
        let (id, buyer) = (payment.quote.id, payment.quote.buyer);
        if is_called {
            let won = claim(&bench, id).await;
            complete(&bench, id, won).await;
        } else {
            step(bench.store.payment_owe(id).await.expect("owed"));
        }
        step(bench.store.refund_begin(id).await.expect("begun"));
        step(bench.store.refund_sent(id, 1, "0xa".into()).await.expect("sent"));
        step(bench.store.refund_confirm(id, 1).await.expect("confirmed"));
        assert_eq!(take_back(&bench, id, PRICE + 300).await, TakenBack::Posted);
        while bench.store.roll_up().await.expect("rolled up").more {}
        let sums = bench.store.sums_get(buyer).await.expect("sums");
        let parts = [sums.spent, sums.in_suspense, sums.owed, sums.refunded, sums.taken_back];
        assert_eq!(sums.paid.0, parts.iter().map(|part| part.0).sum::<i64>(), "{sums:?}");
        assert_eq!((sums.paid.0, sums.taken_back.0, sums.spent), (PRICE + 300, PRICE + 300, Micros(-sums.refunded.0)));
    }
    proven(&bench).await;
}

pub async fn the_books_are_proven_in_parts_and_lies_are_told(bench: Bench) {
    for n in 0..300 {
        let id = paid(&bench, PRICE).await.quote.id;
        if n % 3 == 0 {
            let won = claim(&bench, id).await;
            complete(&bench, id, won).await;
        }
    }
    let first = bench.store.books_page(None).await.expect("books");
    assert!(first.totals.payments < 300 && first.next.is_some(), "a part is bounded");
    let (totals, waiting) = proven(&bench).await;
    assert_eq!((totals.payments, waiting.len()), (300, 200));
    // Money that the sandbox never saw.
    let lie = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    bench.settle(&lie, Micros(PRICE), None).await;
    let (mut faults, mut after) = (Vec::new(), None);
    loop {
        let page = bench.store.books_page(after).await.expect("books");
        faults.extend(page.faults);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected = format!("the sandbox was paid 0 micros and {PRICE} are booked");
    assert_eq!(faults, [Discrepancy { payment: Some(lie.quote.id), what: expected }]);
}
