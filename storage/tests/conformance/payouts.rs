//! Payouts to sellers.

use std::sync::Arc;

use storage::{BooksPage, PayoutOpened, StepOutcome, TakeBackOutcome, TransferTold, model::*};

use crate::{
    RACERS, race,
    support::{Bench, DAY, HOUR, answer, evidence, facts, kept},
};

const NET: i64 = 951_000;

/// A completed call of this seller's.
async fn sold(bench: &Bench, seller: ProfileId) -> PaymentId {
    let (payment, claim) = bench.claimed(bench.quote(bench.profile(), seller)).await;
    let id = payment.quote.id;
    let result = kept(ResultPlace::Inline, &answer(id), bench.now());
    let ended = bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await.expect("complete");
    assert!(matches!(ended, StepOutcome::Step(Ended::Done, _)));
    id
}

async fn open(bench: &Bench, seller: ProfileId) -> PayoutOpened {
    bench.store.payout_open(seller, "0xto".into()).await.expect("opened")
}

async fn opened(bench: &Bench, seller: ProfileId) -> Payout {
    match open(bench, seller).await {
        PayoutOpened::Opened(payout) => payout,
        other => panic!("not opened: {other:?}"),
    }
}

async fn finish(bench: &Bench, payout: &Payout) {
    let told = bench.store.payout_sent(payout.seller, payout.number, "0xa".into()).await.expect("told");
    assert_eq!(told, TransferTold::Done);
    let told = bench.store.payout_confirm(payout.seller, payout.number).await.expect("told");
    assert_eq!(told, TransferTold::Done);
}

async fn take_back(bench: &Bench, id: PaymentId) {
    let reversal = Evidence { proof_key: format!("reversal:{id}"), ..evidence(id, Micros(1_000_000), bench.now()) };
    let found = bench.store.payment_take_back(id, reversal).await.expect("taken back");
    assert!(matches!(found, TakeBackOutcome::Recorded(TakenBack::Posted, _)), "{found:?}");
}

/// The proof of all books, but for the sandbox, which knows nothing of these payments.
async fn proven(bench: &Bench) -> (Totals, Vec<Payout>) {
    let (mut totals, mut payouts, mut after) = (Totals::default(), Vec::new(), None);
    loop {
        let page: BooksPage = bench.store.books_page(after).await.expect("books");
        let faults = page.faults.iter().filter(|fault| !fault.what.contains("the sandbox was paid"));
        assert_eq!(faults.count(), 0, "{:?}", page.faults);
        totals.add(&page.totals);
        payouts.extend(page.payouts);
        after = page.next;
        if after.is_none() {
            assert!(totals.add_up(), "{totals:?}");
            return (totals, payouts);
        }
    }
}

pub async fn a_payout_takes_all_that_was_earned_once_whoever_asks_how_often(mut bench: Bench) {
    let seller = bench.profile();
    assert_eq!(open(&bench, seller).await, PayoutOpened::NothingEarned);
    for _ in 0..3 {
        sold(&bench, seller).await;
        sold(&bench, bench.profile()).await;
    }
    let store = Arc::clone(&bench.store);
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { store.payout_open(seller, "0xto".into()).await.expect("opened") }
    });
    let found = found.await;
    drop(store);
    assert_eq!(found.iter().filter(|found| matches!(found, PayoutOpened::Opened(_))).count(), 1);
    let amounts = found.iter().map(|found| match found {
        PayoutOpened::Opened(payout) | PayoutOpened::Open(payout) => (payout.number, payout.amount().0),
        PayoutOpened::NothingEarned => panic!("something was"),
    });
    assert!(amounts.clone().all(|found| found == (1, 3 * NET)) && amounts.count() == RACERS);
    // Earned meanwhile: the next one's.
    sold(&bench, seller).await;
    bench.reopen().await;
    let PayoutOpened::Open(payout) = open(&bench, seller).await else { panic!("one is open per seller") };
    assert_eq!((payout.amount(), payout.to.as_str(), payout.reference()), (Micros(3 * NET), "0xto", None));
    assert_eq!(proven(&bench).await.1, std::slice::from_ref(&payout));
    let told = |number: u32, text: &'static str| bench.store.payout_sent(seller, number, text.into());
    assert_eq!(bench.store.payout_confirm(seller, 1).await.expect("told"), TransferTold::NotSent);
    assert_eq!(told(2, "0xa").await.expect("told"), TransferTold::NoTransfer);
    assert_eq!(told(1, "0xa").await.expect("told"), TransferTold::Done);
    assert_eq!(told(1, "0xa").await.expect("told"), TransferTold::Done);
    assert_eq!(told(1, "0xb").await.expect("told"), TransferTold::OtherReference);
    let store = Arc::clone(&bench.store);
    let confirmed = race(|_| {
        let store = Arc::clone(&store);
        async move { store.payout_confirm(seller, 1).await.expect("told") }
    });
    assert!(confirmed.await.iter().all(|told| *told == TransferTold::Done));
    let (totals, open_ones) = proven(&bench).await;
    assert_eq!((totals.moved["paid_out"], open_ones.len()), (i128::from(3 * NET), 0));
    let next = opened(&bench, seller).await;
    assert_eq!((next.number, next.amount(), next.behind), (2, Micros(NET), Some(payout.until)));
    finish(&bench, &next).await;
    assert_eq!(open(&bench, seller).await, PayoutOpened::NothingEarned);
    assert_eq!(bench.store.payout_list(seller).await.expect("listed").len(), 2);
    let totals = proven(&bench).await.0;
    assert_eq!(totals.accounts["seller"], i128::from(3 * NET), "what is left is the other sellers'");
    let rows = bench.store.ledger_list(seller, &HistoryFilter::default(), None, 100).await.expect("page").rows;
    let paid: Vec<_> = rows.iter().filter(|row| row.entry_type == EntryType::Payout).collect();
    let [second, first] = paid[..] else { panic!("{paid:?}") };
    assert_eq!((second.amount, first.amount, first.direction), (Micros(NET), Micros(3 * NET), Direction::Debit));
    assert_eq!((first.reference.as_deref(), first.payment, first.listing), (Some("0xa"), None, None));
    while bench.store.roll_up().await.expect("rolled up").more {}
    let sums = bench.store.sums_get(seller).await.expect("sums");
    assert_eq!((sums.earned, sums.paid_out), (Micros(4 * NET), Micros(4 * NET)));
}

pub async fn money_taken_back_before_a_payout_is_not_paid_and_after_it_is_the_marketplaces_loss(bench: Bench) {
    let seller = bench.profile();
    let (gone, stays, later) = (sold(&bench, seller).await, sold(&bench, seller).await, sold(&bench, seller).await);
    take_back(&bench, gone).await;
    let payout = opened(&bench, seller).await;
    assert_eq!(payout.amount(), Micros(2 * NET));
    // Open already: its file may have been sent.
    take_back(&bench, stays).await;
    finish(&bench, &payout).await;
    take_back(&bench, later).await;
    for id in [stays, later] {
        let payment = bench.get(id).await;
        assert_eq!(payment.balance(Account::Seller(seller)), NET, "the seller has it");
        assert_eq!(payment.balance(Account::Marketplace), -NET, "and the marketplace gave it");
    }
    let totals = proven(&bench).await.0;
    assert_eq!(totals.accounts["seller"], 0);
    assert_eq!(open(&bench, seller).await, PayoutOpened::NothingEarned);
    // Nothing to pay, and what comes later is paid in full.
    let (even, last) = (sold(&bench, seller).await, sold(&bench, seller).await);
    take_back(&bench, even).await;
    let payout = opened(&bench, seller).await;
    assert_eq!(payout.amount(), Micros(NET));
    take_back(&bench, last).await;
    finish(&bench, &payout).await;
    proven(&bench).await;
}

pub async fn a_clock_that_goes_back_loses_no_earnings(mut bench: Bench) {
    let seller = bench.profile();
    sold(&bench, seller).await;
    let payout = opened(&bench, seller).await;
    finish(&bench, &payout).await;
    bench.back(DAY);
    sold(&bench, seller).await;
    bench.reopen().await;
    bench.back(HOUR);
    sold(&bench, seller).await;
    let payout = opened(&bench, seller).await;
    assert_eq!(payout.amount(), Micros(2 * NET), "what was earned after a payout is never before it");
    finish(&bench, &payout).await;
    assert_eq!(proven(&bench).await.0.accounts["seller"], 0);
}

pub async fn what_was_taken_back_is_not_paid_out_where_the_clock_went_back_since(mut bench: Bench) {
    let seller = bench.profile();
    let (gone, stays) = (sold(&bench, seller).await, sold(&bench, seller).await);
    bench.pass(HOUR);
    take_back(&bench, gone).await;
    bench.back(HOUR / 2);
    let payout = opened(&bench, seller).await;
    assert_eq!(payout.amount(), Micros(NET), "not what the rail has taken");
    finish(&bench, &payout).await;
    // The same from one life to the next.
    let late = sold(&bench, seller).await;
    bench.pass(HOUR);
    take_back(&bench, late).await;
    sold(&bench, seller).await;
    bench.reopen().await;
    bench.back(HOUR / 2);
    let payout = opened(&bench, seller).await;
    assert_eq!(payout.amount(), Micros(NET), "and all that was earned until now");
    take_back(&bench, stays).await;
    finish(&bench, &payout).await;
    assert_eq!(bench.get(stays).await.balance(Account::Seller(seller)), NET, "the seller has it");
    proven(&bench).await;
}

pub async fn sellers_to_whom_something_is_due_are_listed_in_pages(bench: Bench) {
    let sellers: Vec<_> = (0..5).map(|_| bench.profile()).collect();
    for seller in &sellers {
        sold(&bench, *seller).await;
    }
    while bench.store.roll_up().await.expect("rolled up").more {}
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = bench.store.payable_list(after, 2).await.expect("listed");
        assert!(page.rows.len() <= 2);
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected: Vec<_> = sellers.iter().map(|seller| (*seller, Micros(NET))).collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "sellers, and no buyers");
    let payout = opened(&bench, sellers[0]).await;
    finish(&bench, &payout).await;
    while bench.store.roll_up().await.expect("rolled up").more {}
    let page = bench.store.payable_list(None, 100).await.expect("listed");
    assert_eq!((page.rows.len(), page.next), (4, None), "nothing is due to who was paid");
}

pub async fn payouts_beside_calls_and_reversals_count_everything_once(bench: Bench) {
    let (seller, bench) = (bench.profile(), Arc::new(bench));
    let selling: Vec<_> = (0..8)
        .map(|task| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let mut taken = 0;
                for n in 0..25 {
                    let id = sold(&bench, seller).await;
                    bench.pass(1);
                    if (task + n) % 3 == 0 {
                        take_back(&bench, id).await;
                        taken += 1;
                    }
                }
                taken
            })
        })
        .collect();
    let paying = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            for _ in 0..40 {
                if let PayoutOpened::Opened(payout) | PayoutOpened::Open(payout) = open(&bench, seller).await {
                    finish(&bench, &payout).await;
                }
            }
        })
    };
    let mut taken = 0;
    for task in selling {
        taken += task.await.expect("sold");
    }
    paying.await.expect("paid");
    while let PayoutOpened::Opened(payout) | PayoutOpened::Open(payout) = open(&bench, seller).await {
        finish(&bench, &payout).await;
    }
    let (totals, open_ones) = proven(&bench).await;
    assert_eq!((totals.accounts["seller"], open_ones.len()), (0, 0), "all that was earned went out, and no more");
    assert_eq!(totals.moved["taken_back"], i128::from(taken) * 1_000_000);
    let out = totals.moved["paid_out"];
    assert!(out >= i128::from(200 - taken) * i128::from(NET) && out <= 200 * i128::from(NET), "{out}");
}
