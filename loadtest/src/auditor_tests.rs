//! Books that are right, and each way to make them wrong.

use super::*;

const PRICE: i64 = 1_000_000;
const PART: i64 = 951_000;

/// One completed purchase after a failed attempt, and all that is right about it.
struct World {
    purchases: Vec<Purchase>,
    books: Vec<SellerBook>,
    account: Account,
    had_kills: bool,
}

fn ledger_row(kind: &str, direction: &str, micros: i64) -> LedgerRow {
    LedgerRow {
        id: format!("posting of {kind}"),
        payment: "pay_1".into(),
        kind: kind.into(),
        direction: direction.into(),
        micros,
    }
}

fn request_row(attempt: u32, status: &str) -> RequestRow {
    let (charged_micros, fee_micros) = if status == "completed" { (PRICE, PRICE - PART) } else { (0, 0) };
    RequestRow {
        id: "gw_req_1".into(),
        attempt,
        status: status.into(),
        charged_micros,
        fee_micros,
        seller_micros: charged_micros - fee_micros,
        error_code: String::new(),
    }
}

impl World {
    fn right() -> Self {
        let mut purchase = Purchase::new(0, 0, 0);
        purchase.payment = "pay_1".into();
        purchase.price_micros = PRICE;
        purchase.seller_micros = PART;
        purchase.end = End::Completed;
        let call = |attempt, status| Handled { attempt, status, charged_micros: PRICE };
        let requests = vec![request_row(2, "completed"), request_row(1, "released")];
        let paid = ledger_row("gateway_payment", "debit", PRICE);
        let earned = ledger_row("seller_credit", "credit", PART);
        Self {
            purchases: vec![purchase],
            books: vec![SellerBook::from([("gw_req_1".to_owned(), vec![call(1, 500), call(2, 200)])])],
            account: Account {
                buyers: vec![Histories { ledger: vec![paid], requests: requests.clone() }],
                sellers: vec![Histories { ledger: vec![earned], requests }],
            },
            had_kills: false,
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let findings = compare(&self.purchases, &self.books, &self.account, self.had_kills);
        findings.wrong.iter().map(|finding| finding.fault).collect()
    }

    fn calls(&mut self) -> &mut Vec<Handled> {
        self.books[0].get_mut("gw_req_1").unwrap()
    }

    fn both(&mut self, change: impl Fn(&mut Vec<RequestRow>)) {
        change(&mut self.account.buyers[0].requests);
        change(&mut self.account.sellers[0].requests);
    }
}

/// Plants one fault and asks that a finding of this kind is among those found.
#[track_caller]
fn planted(fault: Fault, plant: impl FnOnce(&mut World)) {
    let mut world = World::right();
    plant(&mut world);
    let found = world.faults();
    assert!(found.contains(&fault), "{fault:?} was planted, found {found:?}");
}

#[test]
fn right_books_are_found_right_and_add_up() {
    let world = World::right();
    let findings = compare(&world.purchases, &world.books, &world.account, false);
    assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    assert_eq!((findings.spent_micros, findings.earned_micros, findings.fees_micros), (PRICE, PART, PRICE - PART));
    assert_eq!((findings.ledger_rows, findings.request_rows, findings.seller_calls), (2, 4, 2));
}

#[test]
fn a_lost_posting_row_or_call_is_found() {
    planted(Fault::Lost, |world| world.account.buyers[0].ledger.clear());
    planted(Fault::Lost, |world| world.account.sellers[0].ledger.clear());
    planted(Fault::Lost, |world| world.both(Vec::clear));
    planted(Fault::Lost, |world| world.both(|rows| rows.retain(|row| row.attempt != 1)));
    planted(Fault::Lost, |world| world.both(|rows| rows[0] = request_row(2, "released")));
    planted(Fault::Wrong, |world| world.account.sellers[0].requests.clear());
    planted(Fault::Wrong, |world| world.calls().clear());
}

#[test]
fn a_doubled_posting_row_call_or_payment_is_found() {
    planted(Fault::Doubled, |world| {
        let mut again = world.account.buyers[0].ledger[0].clone();
        again.id = "another posting".into();
        world.account.buyers[0].ledger.push(again);
    });
    planted(Fault::Doubled, |world| {
        let mut again = world.account.sellers[0].ledger[0].clone();
        again.id = "another posting".into();
        world.account.sellers[0].ledger.push(again);
    });
    planted(Fault::Doubled, |world| {
        let again = world.account.buyers[0].ledger[0].clone();
        world.account.buyers[0].ledger.push(again);
    });
    planted(Fault::Doubled, |world| world.both(|rows| rows.push(request_row(3, "completed"))));
    planted(Fault::Doubled, |world| {
        let again = world.calls()[1];
        world.calls().push(again);
    });
    planted(Fault::Doubled, |world| world.purchases.push(world.purchases[0].clone()));
}

#[test]
fn a_wrong_split_price_or_direction_is_found() {
    planted(Fault::Wrong, |world| world.account.sellers[0].ledger[0].micros += 1);
    planted(Fault::Wrong, |world| world.account.buyers[0].ledger[0].micros -= 1);
    planted(Fault::Wrong, |world| world.account.buyers[0].ledger[0].direction = "credit".into());
    planted(Fault::Wrong, |world| world.both(|rows| rows[0].fee_micros += 1));
    planted(Fault::Wrong, |world| world.both(|rows| rows[1].charged_micros = PRICE));
    planted(Fault::Wrong, |world| world.purchases[0].seller_micros += 1);
    planted(Fault::Wrong, |world| world.calls()[1].charged_micros = 0);
}

#[test]
fn what_belongs_to_nobody_is_found() {
    planted(Fault::Wrong, |world| world.account.buyers[0].ledger[0].payment = "pay_2".into());
    planted(Fault::Wrong, |world| {
        world.account.sellers[0].ledger.push(ledger_row("adjustment", "credit", 1));
    });
    planted(Fault::Wrong, |world| {
        world.both(|rows| rows.push(RequestRow { id: "gw_req_2".into(), ..request_row(1, "completed") }));
    });
    planted(Fault::Wrong, |world| {
        let calls = world.calls().clone();
        world.books[0].insert("gw_req_2".into(), calls);
    });
}

#[test]
fn money_without_a_call_and_a_call_without_money_are_found() {
    planted(Fault::Doubled, |world| world.purchases[0].end = End::Refused);
    planted(Fault::Doubled, |world| world.purchases[0].end = End::Paid);
    planted(Fault::Doubled, |world| world.purchases[0].end = End::Forgotten);
    planted(Fault::Wrong, |world| world.calls()[1].status = 500);
    planted(Fault::Wrong, |world| world.calls()[0].status = 200);
}

#[test]
fn an_unknown_end_is_judged_by_the_gateways_own_account() {
    let mut world = World::right();
    world.purchases[0].end = End::Unknown;
    assert_eq!(world.faults(), []);
    world.account.sellers[0].ledger.clear();
    assert!(world.faults().contains(&Fault::Lost));
}

#[test]
fn an_interrupted_attempt_is_right_after_a_kill_and_wrong_without_one() {
    let mut world = World::right();
    world.both(|rows| rows[1] = request_row(1, "interrupted"));
    world.calls()[0].status = 200;
    assert_eq!(world.faults(), [Fault::Wrong]);
    world.had_kills = true;
    assert_eq!(world.faults(), []);
}

#[test]
fn an_answer_after_the_time_out_may_be_released() {
    let mut world = World::right();
    world.calls()[0].status = 200;
    world.both(|rows| rows[1].error_code = "SELLER_TIMEOUT".into());
    assert_eq!(world.faults(), []);
}
