//! The auditor: compares the gateway's ledgers and histories with what buyers and sellers saw. Every difference is a
//! finding; none means that the books are right.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    books::{End, Purchase, SellerBook, fee_micros},
    market::Market,
    rows::{Account, Histories, LedgerRow, RequestRow},
    seller::Handled,
};

/// Rows may appear this much later than the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What was acknowledged is not there.
    Lost,
    /// What happened once is there twice.
    Doubled,
    /// Anything else that does not add up.
    Wrong,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub fault: Fault,
    /// What differs, for a person.
    pub text: String,
}

/// What the audit found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Every difference.
    pub wrong: Vec<Finding>,
    /// Ledger rows compared.
    pub ledger_rows: usize,
    /// Gateway-request rows compared.
    pub request_rows: usize,
    /// Attempts that an outage interrupted.
    pub interrupted: usize,
    /// Calls that sellers took.
    pub seller_calls: usize,
    /// What buyers spent, micro-units.
    pub spent_micros: i64,
    /// What sellers earned, micro-units.
    pub earned_micros: i64,
    /// What the marketplace took, micro-units.
    pub fees_micros: i64,
}

/// Audits until the books are right or `PATIENCE` is over.
///
/// # Errors
/// When a history cannot be read.
pub async fn audit(market: &Market, purchases: &[Purchase], had_kills: bool) -> anyhow::Result<Findings> {
    let due = Instant::now() + PATIENCE;
    loop {
        let books: Vec<SellerBook> = market.shops.iter().map(|shop| shop.server.book()).collect();
        let findings = compare(purchases, &books, &Account::read(market).await?, had_kills);
        if findings.wrong.is_empty() || Instant::now() >= due {
            return Ok(findings);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Compares what buyers and sellers saw with the gateway's account. Without kills nothing may have been interrupted.
#[must_use]
pub fn compare(purchases: &[Purchase], books: &[SellerBook], account: &Account, had_kills: bool) -> Findings {
    let mut findings = Findings::default();
    let mut buyers: Vec<Index> = account.buyers.iter().map(|one| Index::of(one, &mut findings)).collect();
    let mut sellers: Vec<Index> = account.sellers.iter().map(|one| Index::of(one, &mut findings)).collect();
    let mut ids = HashSet::new();
    for purchase in purchases.iter().filter(|purchase| !purchase.payment.is_empty()) {
        if !ids.insert(&purchase.payment) {
            findings.add(Fault::Doubled, format!("{}: two purchases got it", purchase.payment));
            continue;
        }
        let calls = books.get(purchase.listing).and_then(|book| book.get(&purchase.request_id()));
        let trace = Trace {
            purchase,
            calls: calls.map_or(&[], Vec::as_slice),
            bought: buyers.get_mut(purchase.buyer).map(|index| index.take(purchase)).unwrap_or_default(),
            sold: sellers.get_mut(purchase.listing).map(|index| index.take(purchase)).unwrap_or_default(),
        };
        trace.check(&mut findings, had_kills);
    }
    check_calls(&mut findings, purchases, books);
    for (whose, index) in buyers.iter().map(|index| ("buyer", index)).chain(sellers.iter().map(|one| ("seller", one))) {
        index.check_empty(&mut findings, whose);
    }
    if findings.spent_micros != findings.earned_micros + findings.fees_micros {
        let (spent, earned, fees) = (findings.spent_micros, findings.earned_micros, findings.fees_micros);
        findings.add(Fault::Wrong, format!("in sum: spent {spent}, earned {earned}, fees {fees}"));
    }
    findings
}

/// A seller's call that belongs to nobody's purchase.
fn check_calls(findings: &mut Findings, purchases: &[Purchase], books: &[SellerBook]) {
    let known: HashSet<String> = purchases.iter().map(Purchase::request_id).collect();
    for book in books {
        findings.seller_calls += book.values().map(Vec::len).sum::<usize>();
        for id in book.keys().filter(|id| !known.contains(*id)) {
            findings.add(Fault::Wrong, format!("{id}: a seller was called, and it is nobody's purchase"));
        }
    }
}

impl Findings {
    fn add(&mut self, fault: Fault, text: String) {
        self.wrong.push(Finding { fault, text });
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, fault: Fault) -> usize {
        self.wrong.iter().filter(|finding| finding.fault == fault).count()
    }
}

/// One party's rows, by payment and by gateway request.
#[derive(Default)]
struct Index<'a> {
    ledger: HashMap<&'a str, Vec<&'a LedgerRow>>,
    requests: HashMap<&'a str, Vec<&'a RequestRow>>,
}

/// One party's rows about one purchase.
#[derive(Default)]
struct Side<'a> {
    ledger: Vec<&'a LedgerRow>,
    requests: Vec<&'a RequestRow>,
}

impl<'a> Index<'a> {
    fn of(histories: &'a Histories, findings: &mut Findings) -> Self {
        let mut index = Self::default();
        findings.ledger_rows += histories.ledger.len();
        findings.request_rows += histories.requests.len();
        let mut ids = HashSet::new();
        for row in &histories.ledger {
            if !ids.insert((&row.id, &row.kind, &row.direction)) {
                findings.add(Fault::Doubled, format!("{}: the posting {} is listed twice", row.payment, row.id));
            }
            index.ledger.entry(&row.payment).or_default().push(row);
        }
        for row in &histories.requests {
            index.requests.entry(&row.id).or_default().push(row);
        }
        for rows in index.requests.values_mut() {
            rows.sort();
        }
        index
    }

    fn take(&mut self, purchase: &Purchase) -> Side<'a> {
        Side {
            ledger: self.ledger.remove(purchase.payment.as_str()).unwrap_or_default(),
            requests: self.requests.remove(purchase.request_id().as_str()).unwrap_or_default(),
        }
    }

    fn check_empty(&self, findings: &mut Findings, whose: &str) {
        for id in self.ledger.keys() {
            findings.add(Fault::Wrong, format!("{id}: in a {whose}'s ledger, and nobody's purchase"));
        }
        for id in self.requests.keys() {
            findings.add(Fault::Wrong, format!("{id}: in a {whose}'s requests, and nobody's purchase"));
        }
    }
}

/// All that is known about one purchase.
struct Trace<'a> {
    purchase: &'a Purchase,
    calls: &'a [Handled],
    bought: Side<'a>,
    sold: Side<'a>,
}

impl Trace<'_> {
    fn check(&self, findings: &mut Findings, had_kills: bool) {
        let id = &self.purchase.payment;
        let end = self.end();
        let completed = self.bought.requests.iter().filter(|row| row.status == "completed").count();
        self.compare_count(findings, "completed attempts", completed, usize::from(end == End::Completed));
        if self.bought.requests != self.sold.requests {
            findings.add(Fault::Wrong, format!("{id}: buyer and seller are shown different requests"));
        }
        self.check_attempts(findings, had_kills);
        self.check_postings(findings, end);
    }

    /// How it ended. Where its buyer does not know, the gateway's own account must at least agree with itself.
    fn end(&self) -> End {
        match self.purchase.end {
            End::Unknown if self.bought.requests.iter().any(|row| row.status == "completed") => End::Completed,
            End::Unknown if !self.bought.ledger.is_empty() => End::Paid,
            End::Unknown => End::Forgotten,
            known => known,
        }
    }

    /// Each call has its attempt's row, and each row's end is what the seller did.
    fn check_attempts(&self, findings: &mut Findings, had_kills: bool) {
        let id = &self.purchase.payment;
        let attempts: HashSet<u32> = self.calls.iter().map(|call| call.attempt).collect();
        if attempts.len() != self.calls.len() {
            findings.add(Fault::Doubled, format!("{id}: one attempt reached the seller twice: {:?}", self.calls));
        }
        for call in self.calls {
            if call.charged_micros != self.purchase.price_micros {
                findings.add(Fault::Wrong, format!("{id}: the seller was told a charge of {}", call.charged_micros));
            }
            match self.bought.requests.iter().find(|row| row.attempt == call.attempt) {
                None => findings.add(Fault::Lost, format!("{id}: no row of attempt {}", call.attempt)),
                Some(row) if !is_possible(row, call) => {
                    findings.add(Fault::Wrong, format!("{id}: {row:?} after {call:?}"));
                }
                Some(_) => {}
            }
        }
        for row in &self.bought.requests {
            self.check_row(findings, row, had_kills);
        }
    }

    fn check_row(&self, findings: &mut Findings, row: &RequestRow, had_kills: bool) {
        let (id, price) = (&self.purchase.payment, self.purchase.price_micros);
        findings.interrupted += usize::from(row.status == "interrupted");
        let is_completed = row.status == "completed";
        let is_known = is_completed || row.status == "released" || (row.status == "interrupted" && had_kills);
        if !is_known {
            findings.add(Fault::Wrong, format!("{id}: attempt {} is {}", row.attempt, row.status));
        }
        let charged = if is_completed { price } else { 0 };
        let fee = fee_micros(charged);
        if (row.charged_micros, row.fee_micros, row.seller_micros) != (charged, fee, charged - fee) {
            findings.add(Fault::Wrong, format!("{id}: its parts are not those of {charged}: {row:?}"));
        }
        if is_completed && !self.calls.iter().any(|call| call.attempt == row.attempt) {
            findings.add(Fault::Wrong, format!("{id}: attempt {} completed without its seller", row.attempt));
        }
    }

    /// Paid is one debit of the price, completed is one credit of the seller's part, and there is nothing else.
    fn check_postings(&self, findings: &mut Findings, end: End) {
        let (id, price) = (&self.purchase.payment, self.purchase.price_micros);
        let spent = self.posted(findings, &self.bought.ledger, ("gateway_payment", "debit"));
        let earned = self.posted(findings, &self.sold.ledger, ("seller_credit", "credit"));
        let is_paid = match end {
            End::Completed | End::Paid => true,
            End::Refused => false,
            // The gateway may have asked the provider, or not yet.
            End::Forgotten | End::Unknown => !spent.is_empty(),
        };
        let is_completed = end == End::Completed;
        self.compare_count(findings, "debits", spent.len(), usize::from(is_paid));
        self.compare_count(findings, "credits", earned.len(), usize::from(is_completed));
        let part = price - fee_micros(price);
        if spent.iter().any(|micros| *micros != price) || earned.iter().any(|micros| *micros != part) {
            findings.add(Fault::Wrong, format!("{id} at {price}: spent {spent:?}, earned {earned:?}"));
        }
        if self.purchase.seller_micros != 0 && self.purchase.seller_micros != part {
            findings.add(Fault::Wrong, format!("{id}: a receipt over {}", self.purchase.seller_micros));
        }
        if is_completed {
            findings.spent_micros += spent.iter().sum::<i64>();
            findings.earned_micros += earned.iter().sum::<i64>();
            findings.fees_micros += fee_micros(price);
        }
    }

    /// The amounts of one kind; rows of any other kind are wrong.
    fn posted(&self, findings: &mut Findings, rows: &[&LedgerRow], (kind, direction): (&str, &str)) -> Vec<i64> {
        let (right, wrong): (Vec<&LedgerRow>, Vec<&LedgerRow>) =
            rows.iter().partition(|row| row.kind == kind && row.direction == direction);
        for row in wrong {
            findings.add(Fault::Wrong, format!("{}: a posting that nothing explains: {row:?}", self.purchase.payment));
        }
        right.iter().map(|row| row.micros).collect()
    }

    fn compare_count(&self, findings: &mut Findings, what: &str, found: usize, right: usize) {
        let fault = if found < right { Fault::Lost } else { Fault::Doubled };
        if found != right {
            let (id, end) = (&self.purchase.payment, self.purchase.end);
            findings.add(fault, format!("{id} ended {end:?} with {found} {what}, not {right}; calls {:?}", self.calls));
        }
    }
}

/// Whether an attempt may have ended so when its seller meant to answer so. A handled answer completes, unless the
/// gateway died meanwhile or did not wait so long.
fn is_possible(row: &RequestRow, call: &Handled) -> bool {
    match row.status.as_str() {
        "completed" => call.status < 500,
        "released" => call.status >= 500 || row.error_code == "SELLER_TIMEOUT",
        _ => true,
    }
}

#[cfg(test)]
#[path = "auditor_tests.rs"]
mod tests;
