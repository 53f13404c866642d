//! The identities of the books under any sequence of transitions, in any order.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use storage::model::*;
use support::{BEGIN, evidence, facts, kept, quote};

/// Something that happens to a payment.
#[derive(Clone, Debug)]
enum Move {
    Settle(Rail, i64),
    Claim,
    Complete,
    Release,
    Owe,
    Fail,
    TakeBack(Rail, i64),
    RefundBegin,
    RefundSend,
    RefundConfirm,
    PayoutBegin,
    PayoutSend,
    PayoutConfirm,
}

fn moves() -> impl Strategy<Value = Move> {
    let rail = || prop_oneof![Just(Rail::Sandbox), Just(Rail::X402)];
    let amount = || prop_oneof![1i64..3_000_000, Just(1_000_000), Just(1)];
    prop_oneof![
        3 => (rail(), amount()).prop_map(|(rail, amount)| Move::Settle(rail, amount)),
        3 => Just(Move::Claim),
        2 => Just(Move::Complete),
        2 => Just(Move::Release),
        1 => Just(Move::Owe),
        1 => Just(Move::Fail),
        3 => (rail(), amount()).prop_map(|(rail, amount)| Move::TakeBack(rail, amount)),
        2 => Just(Move::RefundBegin),
        2 => Just(Move::RefundSend),
        2 => Just(Move::RefundConfirm),
        2 => Just(Move::PayoutBegin),
        2 => Just(Move::PayoutSend),
        2 => Just(Move::PayoutConfirm),
    ]
}

/// A payment, its refunds, and the only way to write them: as the store's steps do it.
struct Books {
    payment: Payment,
    refunds: Vec<Refund>,
    payouts: Vec<Payout>,
    claim: Option<Claim>,
    moment: u64,
}

impl Books {
    fn new(price: i64) -> Self {
        let now = UnixMillis(BEGIN);
        let mut quote = quote(ProfileId::mint(now), ProfileId::mint(now), now);
        quote.price = Micros(price);
        Self { payment: Payment::quoted(quote), refunds: Vec::new(), payouts: Vec::new(), claim: None, moment: BEGIN }
    }

    fn bound(&self) -> Micros {
        self.refunds.iter().find(|refund| refund.is_open()).map_or(Micros::ZERO, |refund| refund.amount)
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing { refund: self.bound(), paid_out: self.payouts.last().map(|payout| payout.until) }
    }

    fn money(&self, rail: Rail, amount: i64) -> Evidence {
        let shown = evidence(self.payment.quote.id, Micros(amount), UnixMillis(self.moment));
        Evidence { proof_key: format!("proof {}", self.moment), rail, ..shown }
    }

    fn end_claim(&mut self) {
        let (outgoing, now) = (self.outgoing(), UnixMillis(self.moment));
        self.payment.post_reversals(outgoing, &mut || PostingId::mint(now), now).expect("balanced");
    }

    /// As the store does: what it takes is fixed first, and added up then.
    fn payout_begin(&mut self, until: PostingId, now: UnixMillis) {
        let last = self.payouts.last();
        if last.is_some_and(Payout::is_open) {
            return;
        }
        let (seller, behind) = (self.payment.quote.seller, last.map(|payout| payout.until));
        let number = self.payouts.len() as u32 + 1;
        let stage = PayoutStage::Counting;
        let mut payout =
            Payout { seller, number, to: "0x".into(), behind, until, parts: Vec::new(), intended_at: now, stage };
        let parts = self.earned(&payout);
        if !parts.is_empty() {
            payout.counted(parts);
            self.payouts.push(payout);
        }
    }

    fn earned(&self, payout: &Payout) -> Vec<(Rail, Micros)> {
        let is_covered = self.payment.completed_by().is_some_and(|event| payout.covers(event));
        if is_covered { self.payment.earned_until(payout.until) } else { Vec::new() }
    }

    fn make(&mut self, step: &Move) {
        self.moment += 1;
        let now = UnixMillis(self.moment);
        let (posting, outgoing) = (PostingId::mint(now), self.outgoing());
        let owner = Owner { node: 1, epoch: 1 };
        match step {
            Move::Settle(rail, amount) => {
                let money = self.money(*rail, *amount);
                self.payment.settle(money, posting, now).expect("balanced");
            }
            Move::Claim => {
                if let Claimed::Won(claim) = self.payment.claim(owner, 1, now) {
                    self.claim = Some(claim);
                }
            }
            Move::Complete => {
                let Some(claim) = self.claim else { return };
                let result = kept(ResultPlace::NotKept, b"", now);
                self.payment.complete(claim, facts(200), result, posting, now).expect("balanced");
                self.end_claim();
            }
            Move::Release => {
                let Some(claim) = self.claim else { return };
                let status = AttemptStatus::Released;
                self.payment.release(claim, status, facts(502), 10, posting, now).expect("balanced");
                self.end_claim();
            }
            Move::Owe => drop(self.payment.owe(posting, now).expect("balanced")),
            Move::Fail => drop(self.payment.fail()),
            Move::TakeBack(rail, amount) => {
                let reversal = self.money(*rail, *amount);
                let mint = &mut || PostingId::mint(now);
                self.payment.take_back(reversal, outgoing, mint, now).expect("balanced");
            }
            Move::RefundBegin => {
                if self.bound() == Micros::ZERO {
                    let number = self.refunds.len() as u32 + 1;
                    self.refunds.extend(self.payment.refund_begin(number, now));
                }
            }
            Move::RefundSend => {
                if let Some(refund) = self.refunds.last_mut() {
                    refund.send("reference", now);
                }
            }
            Move::RefundConfirm => {
                if let Some(refund) = self.refunds.last_mut() {
                    self.payment.refund_confirm(refund, posting, now).expect("balanced");
                }
            }
            Move::PayoutBegin => self.payout_begin(posting, now),
            Move::PayoutSend => {
                if let Some(payout) = self.payouts.last_mut() {
                    payout.send("reference", now);
                }
            }
            Move::PayoutConfirm => {
                if let Some(payout) = self.payouts.last_mut() {
                    payout.confirm(posting, now).expect("balanced");
                }
            }
        }
    }
}

/// What a rail holds: what it showed to come, less what it showed to go, less what was sent back over it.
fn assert_rail(books: &Books, rail: Rail) {
    let shown = books.payment.progress.evidence.iter().filter(|shown| shown.rail == rail);
    let shown: i64 = shown.map(|shown| shown.amount.0).sum();
    let sent = books.refunds.iter().filter(|refund| refund.rail == rail && !refund.is_open());
    let sent: i64 = sent.map(|refund| refund.amount.0).sum();
    let waits =
        books.payment.progress.evidence.iter().filter(|shown| shown.rail == rail && shown.amount < Micros::ZERO);
    let waits: i64 =
        if books.payment.reversal_waiting().is_some() { waits.map(|shown| -shown.amount.0).sum() } else { 0 };
    let held = -books.payment.balance(Account::Rail(rail));
    assert!((shown - sent..=shown - sent + waits).contains(&held), "{rail:?} holds {held} of {shown} less {sent}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_sequence_of_transitions_keeps_the_identities(
        price in prop_oneof![Just(1_000_000i64), Just(1), 1i64..2_000_000],
        steps in prop::collection::vec(moves(), 1..40),
    ) {
        let mut books = Books::new(price);
        for step in &steps {
            let before = books.payment.progress.clone();
            books.make(step);
            let faults = judge(&books.payment, &books.refunds);
            prop_assert!(faults.is_empty(), "{step:?} upon {before:?}: {faults:?}");
            assert_rail(&books, Rail::Sandbox);
            assert_rail(&books, Rail::X402);
            let mut totals = Totals::default();
            totals.count(&books.payment);
            for payout in &books.payouts {
                let earned = books.earned(payout).iter().map(|(_, part)| part.0).sum();
                prop_assert_eq!(payout.judge(Micros(earned)), Vec::<String>::new());
                payout.posting().into_iter().for_each(|posting| totals.count_posting(posting));
            }
            prop_assert!(totals.add_up(), "{totals:?}");
            let seller = books.payment.balance(Account::Seller(books.payment.quote.seller));
            let out: i64 = books.payouts.iter().map(|payout| payout.amount().0).sum();
            prop_assert!(seller >= out, "{out} micros of {seller} are paid out: {:?}", books.payouts);
            let is_same = before == books.payment.progress;
            prop_assert_eq!(is_same, before.version == books.payment.progress.version, "{:?}", step);
            prop_assert!(before.postings.iter().zip(&books.payment.progress.postings).all(|(a, b)| a == b));
        }
    }
}

fn settled(amount: i64) -> Books {
    let mut books = Books::new(1_000_000);
    books.make(&Move::Settle(Rail::Sandbox, amount));
    books
}

fn stands(books: &Books) -> (&'static str, [i64; 4]) {
    let (payment, quote) = (&books.payment, &books.payment.quote);
    let accounts =
        [Account::Suspense(quote.id), Account::Owed(quote.buyer), Account::Seller(quote.seller), Account::Marketplace];
    (payment.progress.state.name(), accounts.map(|account| payment.balance(account)))
}

#[test]
fn a_reversal_takes_from_those_who_hold_the_money() {
    let taken = |amount| Move::TakeBack(Rail::Sandbox, amount);
    let mut books = settled(1_500_000);
    books.make(&taken(400_000));
    assert_eq!(stands(&books), ("settled", [1_000_000, 100_000, 0, 0]), "a surplus goes first and the call stays");
    books.make(&taken(300_000));
    assert_eq!(stands(&books), ("owed", [0, 800_000, 0, 0]), "a price that is not whole buys nothing");
    let mut books = settled(1_000_000);
    books.make(&Move::Claim);
    books.make(&taken(1_000_000));
    assert_eq!(stands(&books), ("claimed", [1_000_000, 0, 0, 0]), "it waits for the end of the call");
    books.make(&Move::Complete);
    assert_eq!(stands(&books), ("completed", [0, 0, 0, 0]), "seller and marketplace give what they earned");
    let mut books = settled(1_000_000);
    for step in [Move::Owe, Move::RefundBegin, taken(1_000_000), Move::RefundSend, Move::RefundConfirm] {
        books.make(&step);
    }
    assert_eq!(stands(&books), ("refunded", [0, 0, 0, -1_000_000]), "what is gone twice is the marketplace's loss");
    let mut books = settled(1_000_000);
    for step in [Move::Claim, Move::Complete, Move::PayoutBegin, taken(1_000_000)] {
        books.make(&step);
    }
    assert_eq!(stands(&books), ("completed", [0, 0, 951_000, -951_000]), "so is what the seller has been paid");
    let mut books = settled(1_000_000);
    books.make(&taken(1_000_001));
    assert_eq!(stands(&books), ("settled", [1_000_000, 0, 0, 0]), "more than came in is not believed");
}

#[test]
fn damage_of_each_kind_is_told() {
    let books = settled(1_500_000);
    let faults = |change: &dyn Fn(&mut Payment)| {
        let mut payment = books.payment.clone();
        change(&mut payment);
        judge(&payment, &[]).join("; ")
    };
    assert_eq!(faults(&|_| {}), "");
    let told = faults(&|payment| drop(payment.progress.postings.pop()));
    assert!(told.contains("are posted as settled"), "{told}");
    let told = faults(&|payment| drop(payment.progress.evidence.pop()));
    assert!(told.contains("the evidence shows 0"), "{told}");
    let told = faults(&|payment| payment.progress.state = PaymentState::Completed);
    assert!(told.contains("0 postings of a completed call"), "{told}");
    let told = faults(&|payment| payment.progress.postings.extend(payment.progress.postings.clone()));
    assert!(told.contains("stands twice"), "{told}");
    let told = faults(&|payment| payment.progress.state = PaymentState::Refunding);
    assert!(told.contains("no refund is open"), "{told}");
}
