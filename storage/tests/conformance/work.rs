//! Work that nobody asks for.

use storage::{WorkPage, model::*};

use crate::support::{Bench, DAY, HOUR, SECOND, answer, facts, kept, until};

const FIRST: Look = Look { number: 0, is_last: false };
const LAST: Look = Look { number: 1, is_last: true };

async fn due(bench: &Bench, work: Work, until: u64, limit: usize) -> WorkPage {
    bench.store.work_due(work, None, UnixMillis(until), limit).await.expect("due")
}

async fn done(bench: &Bench, work: Work, page: &WorkPage, put_off: Vec<(PaymentId, UnixMillis)>) {
    let mark = page.mark.clone().expect("something was looked at");
    bench.store.work_done(work, mark, put_off).await.expect("done");
}

async fn quotes(bench: &Bench, count: usize) -> Vec<PaymentId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bench.open_quote(bench.quote(bench.profile(), bench.profile())).await.quote.id);
        bench.pass(1);
    }
    ids
}

async fn there(bench: &Bench, id: PaymentId) -> bool {
    bench.store.payment_get(id).await.expect("read").is_some()
}

async fn rolled_up(bench: &Bench) {
    while bench.store.roll_up().await.expect("rolled up").more {}
}

pub async fn unpaid_quotes_are_due_by_expiry_once_for_each_look(mut bench: Bench) {
    let ids = quotes(&bench, 5).await;
    let paid = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
    bench.settle(&paid, Micros(1_000_000), None).await;
    let (work, expiry) = (Work::Unpaid(FIRST), bench.now().0 + 900 * SECOND);
    assert_eq!(due(&bench, work, expiry - 100, 10).await, WorkPage::default(), "none has expired by then");
    let page = due(&bench, work, expiry, 3).await;
    assert_eq!((&page.due[..], page.more), (&ids[..3], true), "in their order, so many at a time, none that was paid");
    let rest = bench.store.work_due(work, page.mark.clone(), UnixMillis(expiry), 10).await.expect("due");
    assert_eq!((&rest.due[..], rest.more), (&ids[3..], false));
    assert_eq!(due(&bench, work, expiry, 3).await.due, ids[..3], "what was not done is due again");
    done(&bench, work, &page, Vec::new()).await;
    bench.reopen().await;
    assert_eq!(due(&bench, work, expiry, 10).await.due, ids[3..], "what was done stays so");
    done(&bench, work, &rest, Vec::new()).await;
    done(&bench, work, &page, Vec::new()).await;
    assert!(due(&bench, work, expiry, 10).await.due.is_empty(), "a late mark takes nothing back");
    assert_eq!(due(&bench, Work::Unpaid(LAST), expiry, 10).await.due, ids, "another look is another matter");
}

pub async fn paid_payments_are_due_when_they_were_counted(mut bench: Bench) {
    let mut ids = Vec::new();
    for _ in 0..300 {
        let payment = bench.open_quote(bench.quote(bench.profile(), bench.profile())).await;
        bench.settle(&payment, payment.quote.price, None).await;
        ids.push(payment.quote.id);
    }
    rolled_up(&bench).await;
    let settled = bench.now().0;
    bench.pass(HOUR);
    let claimed = bench.store.payment_claim(ids[0], bench.request()).await.expect("claimed");
    let storage::StepOutcome::Step(Claimed::Won(claim), _) = claimed else { panic!("{claimed:?}") };
    let result = kept(ResultPlace::Inline, &answer(ids[0]), bench.now());
    bench.store.payment_complete(ids[0], claim, facts(200), result, Some(answer(ids[0]))).await.expect("completed");
    rolled_up(&bench).await;
    bench.reopen().await;
    let mut found = due(&bench, Work::Paid(FIRST), settled, 1_000).await.due;
    found.sort_unstable();
    ids.sort_unstable();
    assert_eq!(found, ids);
    let page = due(&bench, Work::Paid(LAST), bench.now().0, 1_000).await;
    assert_eq!(page.due.len(), 301, "and again when its call was completed");
    done(&bench, Work::Paid(LAST), &page, Vec::new()).await;
    assert!(due(&bench, Work::Paid(LAST), bench.now().0, 10).await.due.is_empty());
    assert!(
        due(&bench, Work::Paid(FIRST), bench.now().0, 10).await.due.is_empty(),
        "after the last look nothing is kept"
    );
}

pub async fn settled_and_unclaimed_money_is_due_by_its_settlement(bench: Bench) {
    let ids = quotes(&bench, 3).await;
    bench.pass(DAY);
    let late = bench.now().0;
    for id in &ids[..2] {
        bench.settle(&*bench.get(*id).await, Micros(1_000_000), None).await;
    }
    bench.store.payment_claim(ids[1], bench.request()).await.expect("claimed");
    assert!(due(&bench, Work::Window, late - 1, 10).await.due.is_empty(), "by its settlement, not by its quote");
    assert_eq!(due(&bench, Work::Window, late, 10).await.due, ids[..1], "not what is being called, not what is unpaid");
    bench.store.payment_owe(ids[0]).await.expect("owed");
    assert!(due(&bench, Work::Window, late, 10).await.due.is_empty());
}

pub async fn what_is_put_off_is_due_then_and_keeps_an_unpaid_quote(mut bench: Bench) {
    let ids = quotes(&bench, 3).await;
    let expiry = bench.now().0 + 900 * SECOND;
    let page = due(&bench, Work::Unpaid(LAST), expiry, 10).await;
    let later = expiry + 9 * DAY;
    done(&bench, Work::Unpaid(LAST), &page, vec![(ids[0], UnixMillis(later)), (ids[1], UnixMillis(later + 1))]).await;
    bench.pass(900 * SECOND + 8 * DAY);
    bench.reopen().await;
    until("its time is over and its last look is done", async || !there(&bench, ids[2]).await).await;
    assert!(there(&bench, ids[0]).await && there(&bench, ids[1]).await, "nobody could tell yet");
    assert!(due(&bench, Work::PutOff, later - 1, 10).await.due.is_empty());
    let page = due(&bench, Work::PutOff, later, 10).await;
    assert_eq!(page.due, ids[..1]);
    done(&bench, Work::PutOff, &page, vec![(ids[0], UnixMillis(later + 5))]).await;
    let page = due(&bench, Work::PutOff, later + 5, 10).await;
    assert_eq!(page.due, [ids[1], ids[0]]);
    done(&bench, Work::PutOff, &page, Vec::new()).await;
    assert!(due(&bench, Work::PutOff, later + DAY, 10).await.due.is_empty());
    assert!(!there(&bench, ids[0]).await && !there(&bench, ids[1]).await, "told at last, and long past its time");
}

pub async fn an_unpaid_quote_is_never_deleted_before_its_last_look(bench: Bench) {
    let early = quotes(&bench, 1).await;
    bench.pass(900 * SECOND);
    let page = due(&bench, Work::Unpaid(LAST), bench.now().0, 10).await;
    done(&bench, Work::Unpaid(LAST), &page, Vec::new()).await;
    let later = quotes(&bench, 1).await;
    bench.pass(30 * DAY);
    until("its last look is done", async || !there(&bench, early[0]).await).await;
    assert!(there(&bench, later[0]).await, "its last look is not");
    let page = due(&bench, Work::Unpaid(LAST), bench.now().0, 10).await;
    assert_eq!(page.due, later);
    done(&bench, Work::Unpaid(LAST), &page, Vec::new()).await;
    until("now it is", async || !there(&bench, later[0]).await).await;
}
