//! History and ledger: pages of rows, newest first.

use storage::{StepOutcome, model::*};

use crate::support::{Bench, SECOND, answer, facts, kept};

async fn complete(bench: &Bench, id: PaymentId, claim: Claim) {
    let result = kept(ResultPlace::Inline, &answer(id), bench.now());
    let done = bench.store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await;
    assert!(matches!(done, Ok(StepOutcome::Step(Ended::Done, _))), "{done:?}");
}

/// All rows of a party, in pages of `limit`.
async fn requests(bench: &Bench, party: ProfileId, filter: &HistoryFilter, limit: usize) -> Vec<GatewayRequest> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = bench.store.gateway_request_list(party, filter, after.as_ref(), limit).await.expect("page");
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

async fn ledger(bench: &Bench, party: ProfileId, limit: usize) -> Vec<LedgerRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page =
            bench.store.ledger_list(party, &HistoryFilter::default(), after.as_ref(), limit).await.expect("page");
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

pub async fn both_parties_see_the_call_while_it_runs_and_after(mut bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let (payment, claim) = bench.claimed(bench.quote(buyer, seller)).await;
    let id = payment.quote.id;
    for party in [buyer, seller] {
        let rows = requests(&bench, party, &HistoryFilter::default(), 10).await;
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].id, rows[0].attempt, rows[0].status), (id.into(), 1, AttemptStatus::InProgress));
        assert_eq!((rows[0].request_bytes, rows[0].charged), (17, None));
    }
    bench.pass(SECOND);
    bench.store.payment_release(id, claim, AttemptStatus::Released, facts(502)).await.expect("released");
    bench.pass(SECOND);
    let Ok(StepOutcome::Step(Claimed::Won(claim), _)) = bench.store.payment_claim(id, bench.request()).await else {
        panic!("not claimed")
    };
    bench.pass(SECOND);
    complete(&bench, id, claim).await;
    for _ in 0..2 {
        for party in [buyer, seller] {
            let rows = requests(&bench, party, &HistoryFilter::default(), 1).await;
            let seen: Vec<_> = rows.iter().map(|row| (row.attempt, row.status, row.charged.is_some())).collect();
            assert_eq!(seen, [(2, AttemptStatus::Completed, true), (1, AttemptStatus::Released, false)]);
            assert_eq!(rows[0].ended_at, Some(bench.now()));
        }
        bench.reopen().await;
    }
    let attempts = bench.store.gateway_request_get(buyer, id.into()).await.expect("rows");
    assert_eq!(attempts.iter().map(|row| row.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(requests(&bench, bench.profile(), &HistoryFilter::default(), 10).await, []);
    assert_eq!(bench.store.gateway_request_get(buyer, PaymentId::mint(bench.now()).into()).await.expect("rows"), []);
}

pub async fn pages_stay_where_they_were_while_rows_are_added(bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let mut before = Vec::new();
    for n in 0..30 {
        let (payment, claim) = bench.claimed(bench.quote(buyer, seller)).await;
        complete(&bench, payment.quote.id, claim).await;
        before.push(GatewayRequestId::from(payment.quote.id));
        // Many in one millisecond: their order must hold all the same.
        bench.pass(n % 3 / 2);
    }
    before.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = bench.store.gateway_request_list(buyer, &HistoryFilter::default(), after.as_ref(), 7).await;
        let page = page.expect("page");
        seen.extend(page.rows.iter().map(|row| row.id));
        bench.claimed(bench.quote(buyer, seller)).await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, before, "each once, in order, none of the new ones");
    let all = requests(&bench, buyer, &HistoryFilter::default(), 4).await;
    assert_eq!(all.len(), 30 + 5);
    assert!(all.is_sorted_by(|a, b| a.started_at >= b.started_at));
    let garbage = Cursor(vec![9; 3]);
    let page =
        bench.store.gateway_request_list(buyer, &HistoryFilter::default(), Some(&garbage), 7).await.expect("page");
    assert_eq!((page.rows.len(), page.next), (0, None));
}

pub async fn filters_choose(bench: Bench) {
    let (a, b) = (bench.profile(), bench.profile());
    let (bought, claim) = bench.claimed(bench.quote(a, b)).await;
    complete(&bench, bought.quote.id, claim).await;
    bench.pass(10 * SECOND);
    let middle = bench.now();
    let (sold, _) = bench.claimed(bench.quote(b, a)).await;
    let ids = async |filter: HistoryFilter| {
        requests(&bench, a, &filter, 10).await.into_iter().map(|row| row.payment.expect("paid")).collect::<Vec<_>>()
    };
    let (bought, sold) = (&bought.quote, &sold.quote);
    let all = HistoryFilter::default();
    assert_eq!(ids(all.clone()).await, [sold.id, bought.id]);
    assert_eq!(ids(HistoryFilter { role: Role::Buyer, ..all.clone() }).await, [bought.id]);
    assert_eq!(ids(HistoryFilter { role: Role::Seller, ..all.clone() }).await, [sold.id]);
    assert_eq!(ids(HistoryFilter { listing: Some(sold.listing), ..all.clone() }).await, [sold.id]);
    assert_eq!(ids(HistoryFilter { status: Some(AttemptStatus::Completed), ..all.clone() }).await, [bought.id]);
    assert_eq!(ids(HistoryFilter { status: Some(AttemptStatus::InProgress), ..all.clone() }).await, [sold.id]);
    assert_eq!(ids(HistoryFilter { from: Some(middle), ..all.clone() }).await, [sold.id]);
    assert_eq!(ids(HistoryFilter { to: Some(middle), ..all.clone() }).await, [bought.id]);
    assert_eq!(ids(HistoryFilter { from: Some(middle), to: Some(middle), ..all }).await, []);
}

pub async fn the_ledger_shows_each_party_its_rows(bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let payment = bench.open_quote(bench.quote(buyer, seller)).await;
    bench.settle(&payment, Micros(1_250_000), Some(bench.request())).await;
    bench.pass(SECOND);
    complete(&bench, payment.quote.id, Claim { owner: bench.store.owner(), attempt: 1 }).await;
    bench.pass(SECOND);
    let owed = bench.open_quote(bench.quote(buyer, seller)).await;
    bench.settle(&owed, Micros(1_000_000), None).await;
    bench.pass(SECOND);
    bench.store.payment_owe(owed.quote.id).await.expect("owed");
    let rows = |rows: Vec<LedgerRow>| {
        rows.into_iter()
            .map(|row| (row.payment.expect("a payment's"), row.entry_type, row.direction, row.amount.0))
            .collect::<Vec<_>>()
    };
    let (first, second) = (payment.quote.id, owed.quote.id);
    for limit in [1, 2, 10] {
        assert_eq!(
            rows(ledger(&bench, buyer, limit).await),
            [
                (second, EntryType::Adjustment, Direction::Credit, 1_000_000),
                (second, EntryType::GatewayPayment, Direction::Debit, 1_000_000),
                (first, EntryType::GatewayPayment, Direction::Debit, 1_250_000),
                (first, EntryType::Adjustment, Direction::Credit, 250_000),
            ],
            "pages of {limit}"
        );
        assert_eq!(
            rows(ledger(&bench, seller, limit).await),
            [(first, EntryType::SellerCredit, Direction::Credit, 951_000)]
        );
    }
    let filter = HistoryFilter { listing: Some(owed.quote.listing), ..HistoryFilter::default() };
    let page = bench.store.ledger_list(buyer, &filter, None, 10).await.expect("page");
    assert!(page.rows.iter().all(|row| row.payment == Some(second)) && page.rows.len() == 2);
}

pub async fn a_part_of_the_ledger_comes_in_full_pages(bench: Bench) {
    // One party buys and sells in turn.
    let (one, other) = (bench.profile(), bench.profile());
    for n in 0..6 {
        let (buyer, seller) = if n % 2 == 0 { (one, other) } else { (other, one) };
        let (payment, claim) = bench.claimed(bench.quote(buyer, seller)).await;
        complete(&bench, payment.quote.id, claim).await;
        bench.pass(SECOND);
    }
    for (role, entry_type) in [(Role::Buyer, EntryType::GatewayPayment), (Role::Seller, EntryType::SellerCredit)] {
        let filter = HistoryFilter { role, ..HistoryFilter::default() };
        let page = bench.store.ledger_list(one, &filter, None, 2).await.expect("page");
        let rest = bench.store.ledger_list(one, &filter, page.next.as_ref(), 2).await.expect("page");
        assert_eq!((page.rows.len(), rest.rows.len(), rest.next), (2, 1, None), "{role:?}");
        assert!(page.rows.iter().chain(&rest.rows).all(|row| row.entry_type == entry_type));
    }
}

pub async fn free_calls_are_rows_without_money(mut bench: Bench) {
    let (buyer, seller) = (bench.profile(), bench.profile());
    let call = |n: u64| FreeCall {
        id: PaymentId::mint(bench.now()).into(),
        buyer,
        seller,
        listing: ListingId::mint(bench.now()),
        status: AttemptStatus::Completed,
        request_bytes: n,
        facts: facts(200),
        started_at: UnixMillis(bench.now().0 + n),
        ended_at: bench.now(),
    };
    let calls: Vec<_> = (0..3).map(call).collect();
    bench.store.free_calls_write(calls.clone()).await.expect("written");
    bench.store.free_calls_write(calls.clone()).await.expect("again, after an unknown outcome");
    bench.pass(SECOND);
    let (paid, _) = bench.claimed(bench.quote(buyer, seller)).await;
    bench.reopen().await;
    for party in [buyer, seller] {
        let rows = requests(&bench, party, &HistoryFilter::default(), 2).await;
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids, [paid.quote.id.into(), calls[2].id, calls[1].id, calls[0].id]);
        assert!(rows[1..].iter().all(|row| row.payment.is_none() && row.charged.is_none()));
    }
    assert_eq!(bench.store.gateway_request_get(seller, calls[0].id).await.expect("rows").len(), 1);
    assert_eq!(ledger(&bench, seller, 10).await, []);
}
