//! The auditor: compares the gateway's ledgers and histories with what buyers and sellers saw. Every difference is a
//! line; none means that the books are right.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    books::{End, Purchase, SellerBook, request_id},
    workload::Market,
};

/// Rows may appear this much later than the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the audit found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Every difference.
    pub wrong: Vec<String>,
    /// Ledger rows compared.
    pub ledger_rows: usize,
    /// Gateway-request rows compared.
    pub request_rows: usize,
    /// What buyers spent, micro-units.
    pub spent_micros: i64,
    /// What sellers earned, micro-units.
    pub earned_micros: i64,
}

/// Audits until the books are right or `PATIENCE` is over.
///
/// # Errors
/// When a history cannot be read.
pub async fn audit(market: &Market, purchases: &[Purchase]) -> anyhow::Result<Findings> {
    let due = Instant::now() + PATIENCE;
    loop {
        let findings = audit_once(market, purchases).await?;
        if findings.wrong.is_empty() || Instant::now() >= due {
            return Ok(findings);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn audit_once(market: &Market, purchases: &[Purchase]) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let books: Vec<SellerBook> = market.sellers.iter().map(|(_, _, server)| server.book()).collect();
    for purchase in purchases {
        if let Some(complaint) = &purchase.complaint {
            findings.wrong.push(format!("{}: {complaint}", purchase.payment));
        }
        check_seller_calls(&mut findings, purchase, books.get(purchase.listing).context("a seller's book")?);
    }
    for (_, _, server) in &market.sellers {
        findings.wrong.extend(server.complaints());
    }
    for (number, buyer) in market.buyers.iter().enumerate() {
        let own = || purchases.iter().filter(|purchase| purchase.buyer == number);
        let ledger = market.api.history("/ledger", &buyer.key).await?;
        findings.ledger_rows += ledger.len();
        findings.spent_micros += check_buyer_ledger(&mut findings.wrong, own(), &ledger);
        let requests = market.api.history("/gateway-requests?role=buyer", &buyer.key).await?;
        findings.request_rows += requests.len();
        check_requests(&mut findings.wrong, own(), &requests, &books);
    }
    for (number, (seller, _, _)) in market.sellers.iter().enumerate() {
        let own = || purchases.iter().filter(|purchase| purchase.listing == number);
        let ledger = market.api.history("/ledger", &seller.key).await?;
        findings.ledger_rows += ledger.len();
        findings.earned_micros += check_seller_ledger(&mut findings.wrong, own(), &ledger);
        let requests = market.api.history("/gateway-requests?role=seller", &seller.key).await?;
        findings.request_rows += requests.len();
        check_requests(&mut findings.wrong, own(), &requests, &books);
    }
    Ok(findings)
}

/// A payment buys one handled answer: the seller's own book must show one, and none where nothing was bought.
fn check_seller_calls(findings: &mut Findings, purchase: &Purchase, book: &SellerBook) {
    let calls = book.get(&request_id(&purchase.payment)).map_or(&[][..], Vec::as_slice);
    let handled = calls.iter().filter(|call| is_handled(call.status)).count();
    let right = match purchase.end {
        End::Completed => handled == 1,
        End::Paid | End::Forgotten | End::Refused => handled == 0,
        End::Unknown => handled <= 1,
    };
    if !right {
        findings.wrong.push(format!("{} ended {:?} after {calls:?}", purchase.payment, purchase.end));
    }
    if calls.iter().any(|call| call.charged_micros != purchase.price_micros) {
        findings.wrong.push(format!("{}: a charge other than {}", purchase.payment, purchase.price_micros));
    }
    let attempts: HashSet<u32> = calls.iter().map(|call| call.attempt).collect();
    if attempts.len() != calls.len() {
        findings.wrong.push(format!("{}: one attempt reached the seller twice", purchase.payment));
    }
}

fn is_handled(status: u16) -> bool {
    status < 500
}

/// Every paid purchase is one debit of its price, and nothing else is. Returns their sum.
fn check_buyer_ledger<'a>(
    wrong: &mut Vec<String>,
    purchases: impl Iterator<Item = &'a Purchase>,
    ledger: &[Value],
) -> i64 {
    let mut rows = amounts(wrong, ledger, "gateway_payment", "debit");
    for purchase in purchases {
        let found = rows.remove(&purchase.payment).unwrap_or_default();
        let right = match purchase.end {
            End::Completed | End::Paid => found == [purchase.price_micros],
            End::Refused => found.is_empty(),
            End::Forgotten | End::Unknown => found.is_empty() || found == [purchase.price_micros],
        };
        if !right {
            wrong.push(format!("{} ended {:?}; its buyer's ledger: {found:?}", purchase.payment, purchase.end));
        }
    }
    wrong.extend(rows.keys().map(|payment| format!("{payment}: in a buyer's ledger, and nobody's purchase")));
    sum(ledger, "gateway_payment")
}

/// Every completed purchase is one credit of the seller's part, and nothing else is. Returns their sum.
fn check_seller_ledger<'a>(
    wrong: &mut Vec<String>,
    purchases: impl Iterator<Item = &'a Purchase>,
    ledger: &[Value],
) -> i64 {
    let mut rows = amounts(wrong, ledger, "seller_credit", "credit");
    for purchase in purchases {
        let found = rows.remove(&purchase.payment).unwrap_or_default();
        let right = match purchase.end {
            End::Completed => found == [purchase.seller_micros],
            End::Paid | End::Forgotten | End::Refused => found.is_empty(),
            End::Unknown => found.len() <= 1,
        };
        if !right {
            wrong.push(format!("{} ended {:?}; its seller's ledger: {found:?}", purchase.payment, purchase.end));
        }
    }
    wrong.extend(rows.keys().map(|payment| format!("{payment}: in a seller's ledger, and nobody's purchase")));
    sum(ledger, "seller_credit")
}

/// One row per attempt that reached the seller; one of them completed where the purchase is.
fn check_requests<'a>(
    wrong: &mut Vec<String>,
    purchases: impl Iterator<Item = &'a Purchase>,
    rows: &[Value],
    books: &[SellerBook],
) {
    let mut statuses: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in rows {
        let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        statuses.entry(field("id")).or_default().push(field("status"));
    }
    for purchase in purchases.filter(|purchase| purchase.end != End::Unknown) {
        let id = request_id(&purchase.payment);
        let found = statuses.remove(id.as_str()).unwrap_or_default();
        let completed = found.iter().filter(|status| **status == "completed").count();
        let calls = books.get(purchase.listing).and_then(|book| book.get(&id)).map_or(0, Vec::len);
        if completed != usize::from(purchase.end == End::Completed) || found.len() < calls {
            wrong.push(format!("{id} ended {:?} after {calls} calls; its rows: {found:?}", purchase.end));
        }
    }
}

/// The amounts of one kind of row by payment; rows of that kind on the other side are wrong.
fn amounts(wrong: &mut Vec<String>, ledger: &[Value], kind: &str, direction: &str) -> HashMap<String, Vec<i64>> {
    let mut found: HashMap<String, Vec<i64>> = HashMap::new();
    for row in of_kind(ledger, kind) {
        let payment = row.get("relay_request_id").and_then(Value::as_str).unwrap_or_default();
        if row.get("direction").and_then(Value::as_str) != Some(direction) {
            wrong.push(format!("{payment}: a {kind} that is no {direction}"));
        }
        found.entry(payment.to_owned()).or_default().push(amount(row));
    }
    found
}

fn sum(ledger: &[Value], kind: &str) -> i64 {
    of_kind(ledger, kind).map(amount).sum()
}

fn of_kind<'a>(ledger: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    ledger.iter().filter(move |row| row.get("entry_type").and_then(Value::as_str) == Some(kind))
}

fn amount(row: &Value) -> i64 {
    row.pointer("/amount/amount_micros").and_then(Value::as_i64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::seller::Handled;

    fn purchase(end: End) -> Purchase {
        Purchase {
            buyer: 0,
            listing: 0,
            payment: "pay_1".into(),
            price_micros: 1_000_000,
            seller_micros: 951_000,
            end,
            complaint: None,
        }
    }

    fn row(kind: &str, direction: &str, micros: i64) -> Value {
        let amount = json!({ "amount_micros": micros });
        json!({ "relay_request_id": "pay_1", "entry_type": kind, "direction": direction, "amount": amount })
    }

    fn wrong_in_ledgers(end: End, buyer: &[&Value], seller: &[&Value]) -> usize {
        let mut wrong = Vec::new();
        let purchases = [purchase(end)];
        let rows = |side: &[&Value]| side.iter().map(|row| (*row).clone()).collect::<Vec<_>>();
        check_buyer_ledger(&mut wrong, purchases.iter(), &rows(buyer));
        check_seller_ledger(&mut wrong, purchases.iter(), &rows(seller));
        wrong.len()
    }

    #[test]
    fn a_ledger_that_lacks_doubles_or_invents_is_found() {
        let (paid, earned) = (row("gateway_payment", "debit", 1_000_000), row("seller_credit", "credit", 951_000));
        let (aside, more) = (row("seller_credit", "debit", 951_000), row("seller_credit", "credit", 951_001));
        assert_eq!(wrong_in_ledgers(End::Completed, &[&paid], &[&earned]), 0);
        assert_eq!(wrong_in_ledgers(End::Completed, &[&paid], &[]), 1);
        assert_eq!(wrong_in_ledgers(End::Completed, &[&paid, &paid], &[&earned]), 1);
        assert_eq!(wrong_in_ledgers(End::Completed, &[&paid], &[&aside]), 1);
        assert_eq!(wrong_in_ledgers(End::Completed, &[&paid], &[&more]), 1);
        assert_eq!(wrong_in_ledgers(End::Paid, &[&paid], &[]), 0);
        assert_eq!(wrong_in_ledgers(End::Paid, &[&paid], &[&earned]), 1);
        assert_eq!(wrong_in_ledgers(End::Refused, &[&paid], &[]), 1);
    }

    #[test]
    fn a_seller_called_twice_or_for_nothing_is_found() {
        let wrong = |end, calls: &[(u32, u16)]| {
            let call = |(attempt, status): &(u32, u16)| Handled {
                attempt: *attempt,
                status: *status,
                charged_micros: 1_000_000,
            };
            let book = SellerBook::from([("gw_req_1".to_owned(), calls.iter().map(call).collect())]);
            let mut findings = Findings::default();
            check_seller_calls(&mut findings, &purchase(end), &book);
            findings.wrong.len()
        };
        assert_eq!(wrong(End::Completed, &[(1, 500), (2, 200)]), 0);
        assert_eq!(wrong(End::Completed, &[(1, 422)]), 0);
        assert_eq!(wrong(End::Completed, &[(1, 200), (2, 200)]), 1);
        assert_eq!(wrong(End::Completed, &[(1, 500), (1, 200)]), 1);
        assert_eq!(wrong(End::Completed, &[]), 1);
        assert_eq!(wrong(End::Refused, &[(1, 200)]), 1);
    }
}
