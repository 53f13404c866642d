//! A process that is killed at any moment loses nothing that it acknowledged, and leaves no half step.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use storage::{NonceUsed, PayoutOpened, SettleOutcome, StepOutcome, Store, StoreResult, TransferTold, model::*};
use support::{answer, assert_books, child, evidence, facts, kept, quote};

const KILLS: u64 = 30;
const TASKS: usize = 16;

fn open(folder: &Path) -> Arc<dyn Store> {
    // Small memtables, so that kills hit flushes and compactions too.
    let settings = support::settings(folder, "").clone();
    let settings = config::Storage { memtable_bytes: 1 << 20, ..settings };
    storage::open(&settings, Clock::system()).expect("the store opens")
}

/// What is told of a payment, each after the store answered; `begun` before it is asked.
async fn calls(store: &dyn Store, buyer: ProfileId, seller: ProfileId) -> StoreResult<()> {
    let clock = Clock::system();
    for n in 0u64.. {
        let quote = quote(buyer, seller, clock.now());
        let id = quote.id;
        child::tell(&format!("begun {id}"));
        store.quote_open(quote, u32::MAX).await?;
        child::tell(&format!("quoted {id}"));
        let request = storage::ClaimRequest { owner: store.owner(), request_bytes: n };
        let money = evidence(id, Micros(1_000_000), clock.now());
        let SettleOutcome::Recorded { claimed: Some(Claimed::Won(mut claim)), .. } =
            store.payment_settle(id, money, Some(request)).await?
        else {
            panic!("not claimed")
        };
        child::tell(&format!("claimed {id}"));
        if n % 5 == 4 {
            store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await?;
            child::tell(&format!("released {id}"));
            let StepOutcome::Step(Claimed::Won(next), _) = store.payment_claim(id, request).await? else {
                panic!("not claimed again")
            };
            claim = next;
        }
        if n % 7 == 6 {
            let mut nonce = [0; 32];
            nonce[..16].copy_from_slice(&id.bytes());
            store.nonce_use(nonce, clock.now().plus(Duration::from_secs(3600))).await?;
            child::tell(&format!("nonce {id}"));
        }
        if n % 13 == 12 {
            refund(store, id, claim).await?;
            continue;
        }
        let mut result = kept(ResultPlace::Inline, &answer(id), clock.now());
        if n % 11 == 10 {
            result.place = ResultPlace::Chunks;
            store.result_append(id, claim.attempt, 0, answer(id)).await?;
            store.result_seal(id, claim.attempt).await?;
        }
        let held = (result.place == ResultPlace::Inline).then(|| answer(id));
        store.payment_complete(id, claim, facts(200), result, held).await?;
        child::tell(&format!("completed {id}"));
    }
    Ok(())
}

/// A call that never runs: its money goes back.
async fn refund(store: &dyn Store, id: PaymentId, claim: Claim) -> StoreResult<()> {
    store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await?;
    store.payment_owe(id).await?;
    child::tell(&format!("owed {id}"));
    store.refund_begin(id).await?;
    child::tell(&format!("refunding {id}"));
    store.refund_sent(id, 1, format!("to-{id}")).await?;
    child::tell(&format!("sent {id}"));
    store.refund_confirm(id, 1).await?;
    child::tell(&format!("refunded {id}"));
    Ok(())
}

/// The seller is paid out again and again, whatever it has earned by then.
async fn payouts(store: &dyn Store, seller: ProfileId) -> StoreResult<()> {
    loop {
        let payout = match store.payout_open(seller, "0xto".into()).await? {
            PayoutOpened::Opened(payout) | PayoutOpened::Open(payout) => payout,
            PayoutOpened::NothingEarned => continue,
        };
        let (number, amount) = (payout.number, payout.amount());
        child::tell(&format!("payout opened {number} {amount}"));
        store.payout_sent(seller, number, format!("out-{number}")).await?;
        child::tell(&format!("payout sent {number} {amount}"));
        store.payout_confirm(seller, number).await?;
        child::tell(&format!("payout confirmed {number} {amount}"));
    }
}

/// The child: many calls at once, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_calls() {
    let Some(folder) = child::folder() else { return };
    let store = open(&folder);
    let now = Clock::system().now();
    let (buyer, seller) = (ProfileId::mint(now), ProfileId::mint(now));
    let hex = |id: ProfileId| id.to_string();
    child::tell(&format!("parties {} {}", hex(buyer), hex(seller)));
    let mut tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { calls(&*store, buyer, seller).await })
        })
        .collect();
    let paying = Arc::clone(&store);
    tasks.push(tokio::spawn(async move { payouts(&*paying, seller).await }));
    for task in tasks {
        task.await.expect("a task").expect("calls go on until the kill");
    }
}

/// The furthest that a payment is known to have come.
fn acknowledged(told: &[String]) -> BTreeMap<PaymentId, &str> {
    let mut stages = BTreeMap::new();
    for line in told {
        let of_payment = |stage: &str| !matches!(stage, "parties" | "nonce" | "payout");
        if let Some((stage, id)) = line.split_once(' ').filter(|(stage, _)| of_payment(stage)) {
            stages.insert(id.parse().expect("an id"), stage);
        }
    }
    stages
}

/// Compares the store with what was told; returns how many steps were.
async fn check(store: &dyn Store, told: &[String]) -> usize {
    let Some(parties) = told.iter().find_map(|line| line.strip_prefix("parties ")) else { return 0 };
    let (buyer, seller) = parties.split_once(' ').expect("two parties");
    let (buyer, seller): (ProfileId, ProfileId) = (buyer.parse().expect("id"), seller.parse().expect("id"));
    let (mut attempts, mut ledger, mut earned) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (id, stage) in acknowledged(told) {
        let payment = store.payment_get(id).await.expect("readable");
        let Some(payment) = payment else {
            assert_eq!(stage, "begun", "{id} was acknowledged as {stage}, and is gone");
            continue;
        };
        assert_eq!((payment.quote.buyer, payment.quote.id), (buyer, id));
        assert_stage(&payment, stage);
        assert_whole(store, &payment).await;
        attempts.extend(payment.progress.attempts.iter().map(|attempt| (id, attempt.number)));
        for posting in &payment.progress.postings {
            let parties = posting.parties(&payment);
            ledger.extend(parties.contains(&buyer).then(|| posting.id()));
            earned.extend(parties.contains(&seller).then(|| posting.id()));
        }
    }
    for party in [buyer, seller] {
        assert_eq!(rows(store, party).await, attempts, "history shows what the records hold, to both");
    }
    assert_eq!(postings(store, buyer).await, ledger);
    let payouts = check_payouts(store, seller, told).await;
    earned.extend(payouts.iter().filter_map(Payout::posting).map(Posting::id));
    assert_eq!(postings(store, seller).await, earned);
    for line in told {
        if let Some(id) = line.strip_prefix("nonce ") {
            let mut nonce = [0; 32];
            nonce[..16].copy_from_slice(&id.parse::<PaymentId>().expect("id").bytes());
            let again = store.nonce_use(nonce, UnixMillis(u64::MAX)).await.expect("use");
            assert_eq!(again, NonceUsed::Again, "a used nonce is used for ever");
        }
    }
    told.iter().filter(|line| !line.starts_with("begun") && !line.starts_with("parties")).count()
}

/// Each payout is as far as was told, with the amount that was told, and a transfer is never another one later.
async fn check_payouts(store: &dyn Store, seller: ProfileId, told: &[String]) -> Vec<Payout> {
    let payouts = store.payout_list(seller).await.expect("listed");
    assert!(payouts.iter().rev().skip(1).all(|payout| !payout.is_open()), "one is open at a time");
    for line in told {
        let Some(rest) = line.strip_prefix("payout ") else { continue };
        let [stage, number, amount] = rest.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let number: u32 = number.parse().expect("a number");
        let payout = payouts.iter().find(|payout| payout.number == number);
        let payout = payout.unwrap_or_else(|| panic!("{line}, and it is gone"));
        assert_eq!(payout.amount().to_string(), amount, "{line}");
        let fits = match stage {
            "opened" => payout.stage != PayoutStage::Counting,
            "sent" => payout.reference() == Some(&format!("out-{number}")),
            "confirmed" => payout.posting().is_some(),
            other => panic!("{other}"),
        };
        assert!(fits, "{line}, and it is {:?}", payout.stage);
    }
    if let Some(sent) = payouts.iter().find(|payout| matches!(payout.stage, PayoutStage::Sent { .. })) {
        let again = store.payout_sent(seller, sent.number, "another".into()).await.expect("told");
        assert_eq!(again, TransferTold::OtherReference, "what was sent is not sent again");
    }
    payouts
}

/// The proof of the books, but for the sandbox, which knows nothing of these payments.
async fn prove(store: &dyn Store) {
    let (mut totals, mut after) = (Totals::default(), None);
    loop {
        let page = store.books_page(after).await.expect("books");
        let mut faults = page.faults.iter().filter(|fault| !fault.what.contains("the sandbox was paid"));
        assert_eq!(faults.next(), None, "the books are proven");
        totals.add(&page.totals);
        after = page.next;
        if after.is_none() {
            assert!(totals.add_up(), "{totals:?}");
            return;
        }
    }
}

fn assert_stage(payment: &Payment, stage: &str) {
    let state = payment.progress.state;
    let attempts = payment.progress.attempts.len();
    let fits = match stage {
        "begun" | "quoted" => true,
        "claimed" => attempts >= 1,
        "released" => attempts >= 1 && payment.progress.attempts[0].end.is_some(),
        "completed" => state == PaymentState::Completed,
        "owed" => matches!(state, PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded),
        "refunding" | "sent" => matches!(state, PaymentState::Refunding | PaymentState::Refunded),
        "refunded" => state == PaymentState::Refunded,
        other => panic!("{other}"),
    };
    assert!(fits, "{} was acknowledged as {stage}, and is {state:?}", payment.quote.id);
}

/// Whatever a payment came to, all of it is there.
async fn assert_whole(store: &dyn Store, payment: &Payment) {
    let (id, progress) = (payment.quote.id, &payment.progress);
    let refunds = store.refund_list(id).await.expect("listed");
    assert_eq!(judge(payment, &refunds), Vec::<String>::new(), "{id}");
    if progress.state != PaymentState::Refunded {
        assert_books(payment);
    }
    match progress.state {
        PaymentState::Quoted => assert_eq!((progress.evidence.len(), progress.postings.len()), (0, 0)),
        PaymentState::Claimed(_) | PaymentState::Settled => assert_eq!(progress.postings.len(), 1),
        PaymentState::Completed => {
            assert_eq!(progress.postings.len(), 2);
            let read = store.result_read(payment, 0).await.expect("readable");
            assert_eq!(read, Some(answer(id)), "the answer of {id}");
        }
        PaymentState::Owed => assert_eq!((progress.postings.len(), refunds.len()), (2, 0)),
        PaymentState::Refunding => assert!(progress.postings.len() == 2 && refunds[0].is_open()),
        PaymentState::Refunded => assert_eq!(refunds[0].reference(), Some(&*format!("to-{id}"))),
        other => panic!("{id} is {other:?}"),
    }
    // The proof is there exactly when the money is.
    let other = PaymentId::mint(Clock::system().now());
    if !progress.evidence.is_empty() {
        let money = evidence(id, Micros(1_000_000), UnixMillis(0));
        let again = store.payment_settle(id, money, None).await.expect("settle");
        assert!(matches!(again, SettleOutcome::Recorded { settled: Settled::Known, .. }), "{other}: {again:?}");
    }
}

async fn rows(store: &dyn Store, party: ProfileId) -> BTreeSet<(PaymentId, u32)> {
    let (mut rows, mut after) = (BTreeSet::new(), None);
    loop {
        let filter = HistoryFilter::default();
        let page = store.gateway_request_list(party, &filter, after.as_ref(), 1000).await.expect("page");
        for row in page.rows {
            assert!(rows.insert((row.payment.expect("paid"), row.attempt)), "a row twice");
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

async fn postings(store: &dyn Store, party: ProfileId) -> BTreeSet<PostingId> {
    let (mut rows, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.ledger_list(party, &HistoryFilter::default(), after.as_ref(), 1000).await.expect("page");
        for row in page.rows {
            assert!(rows.insert(row.id), "a row twice");
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_no_step_is_half_in_thirty_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut steps, mut worst) = (0, Duration::ZERO);
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..KILLS {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lines = usize::try_from(dice >> 33).expect("small") % 3000;
        let mut running = child::start("child_calls", folder.path());
        running.wait_told(lines);
        let told = running.kill();
        let begun = Instant::now();
        let store = open(folder.path());
        worst = worst.max(begun.elapsed());
        let found = check(&*store, &told).await;
        // The whole proof reads all that the lives before left, too.
        if kill % 5 == 4 {
            prove(&*store).await;
        }
        eprintln!("kill {kill}: {found} steps acknowledged, none lost");
        steps += found;
        store.close().await.expect("closed");
    }
    eprintln!("{KILLS} kills, {steps} steps acknowledged, 0 lost, 0 half; longest start {} ms", worst.as_millis());
    assert!(steps > 1000, "the children did too little to prove anything: {steps}");
}

/// The child that only makes a store.
#[tokio::test]
async fn child_opens() {
    let Some(folder) = child::folder() else { return };
    child::tell("begun");
    drop(open(&folder));
}

#[tokio::test]
async fn a_process_killed_while_it_makes_the_store_leaves_one_that_opens() {
    for n in 0..12u32 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = child::start("child_opens", folder.path());
        running.wait_told(1);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(800) * n {
            std::hint::spin_loop();
        }
        running.kill();
        let store = open(folder.path());
        let (buyer, seller) = (ProfileId::mint(UnixMillis(1)), ProfileId::mint(UnixMillis(2)));
        store.quote_open(quote(buyer, seller, Clock::system().now()), 1).await.expect("it works");
        store.close().await.expect("closed");
    }
}
