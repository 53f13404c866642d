//! Paid but unused payments: minted ahead, each good for one paid call.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use anyhow::{Context, bail};
use memchr::memmem;

use super::{
    answer::Answer,
    generator::{Work, post},
};

/// `pay_` and 32 hex digits.
type PaymentId = [u8; 36];

/// Payments that wait for their call, oldest first; shared by who makes and who uses them.
pub type Stock = Rc<RefCell<VecDeque<PaymentId>>>;

/// Makes payments: asks for a quote under a new idempotency key, pays it, and puts it into the stock.
pub struct Mint {
    stock: Stock,
    quote: Template,
    pay: Template,
    made: u64,
    left: u64,
    unpaid: Vec<Option<PaymentId>>,
}

impl Mint {
    /// Quotes by `POST path` with these head fields and this body, pays as the buyer does.
    #[must_use]
    pub fn new(stock: Stock, path: &str, host: &str, fields: &str, body: &str) -> Self {
        let keyed = format!("{fields}Idempotency-Key: {HOLE}\r\n");
        let pay = format!("/api/v1/sandbox/payments/{HOLE}/pay");
        Self {
            stock,
            quote: Template::new(&post(path, host, &keyed, body)),
            pay: Template::new(&post(&pay, host, fields, "{}")),
            made: 0,
            left: 0,
            unpaid: Vec::new(),
        }
    }

    /// So many are to be made from now on.
    pub fn order(&mut self, count: usize) {
        self.left = count as u64;
    }

    fn unpaid(&mut self, connection: usize) -> &mut Option<PaymentId> {
        if self.unpaid.len() <= connection {
            self.unpaid.resize(connection + 1, None);
        }
        // The line above made it.
        #[expect(clippy::indexing_slicing, reason = "resized to hold it")]
        &mut self.unpaid[connection]
    }
}

impl Work for Mint {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        if let Some(id) = *self.unpaid(connection) {
            self.pay.fill(&id, request);
        } else if self.left > 0 {
            self.left -= 1;
            self.made += 1;
            self.quote.fill(format!("measured-{:016}", self.made).as_bytes(), request);
        } else {
            return false;
        }
        true
    }

    fn take(&mut self, connection: usize, answer: &Answer<'_>, _: u64) -> anyhow::Result<()> {
        let unpaid = self.unpaid(connection);
        match (unpaid.take(), answer.status) {
            (None, 402) => *unpaid = Some(payment_id(answer.body).context("a 402 without a payment id")?),
            (Some(id), 200) => self.stock.borrow_mut().push_back(id),
            (paying, status) => {
                let step = if paying.is_some() { "paying" } else { "quoting" };
                bail!("{step} was answered with {status} {}", String::from_utf8_lossy(answer.body));
            }
        }
        Ok(())
    }
}

/// Makes paid calls, each with a payment of the stock; nothing to ask when that is empty.
pub struct Redeem {
    stock: Stock,
    call: Template,
    /// The times of all answers since the last `clear`, nanoseconds.
    pub nanos: Vec<u64>,
    /// Answers that were no 200.
    pub bad: u64,
    /// The first of them.
    pub first_bad: Option<String>,
}

impl Redeem {
    /// Calls by `POST path` with these head fields and the body that was quoted.
    #[must_use]
    pub fn new(stock: Stock, path: &str, host: &str, fields: &str, body: &str) -> Self {
        let fields = format!("{fields}X-Crochet-Relay-Request-Id: {HOLE}\r\n");
        let call = Template::new(&post(path, host, &fields, body));
        Self { stock, call, nanos: Vec::new(), bad: 0, first_bad: None }
    }
}

impl Work for Redeem {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        let next = self.stock.borrow_mut().pop_front();
        next.is_some_and(|id| {
            self.call.fill(&id, request);
            true
        })
    }

    fn take(&mut self, _: usize, answer: &Answer<'_>, nanos: u64) -> anyhow::Result<()> {
        self.nanos.push(nanos);
        if answer.status != 200 {
            self.bad += 1;
            let shown = || format!("{} {}", answer.status, String::from_utf8_lossy(answer.body));
            self.first_bad.get_or_insert_with(shown);
        }
        Ok(())
    }
}

/// What stands for the varying part while a template is made.
const HOLE: &str = "\u{1}";

/// A request with one hole.
struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Template {
    fn new(request: &[u8]) -> Self {
        let at = memmem::find(request, HOLE.as_bytes()).unwrap_or(request.len());
        let (before, rest) = request.split_at(at);
        Self { before: before.to_vec(), after: rest.get(HOLE.len()..).unwrap_or_default().to_vec() }
    }

    fn fill(&self, part: &[u8], request: &mut Vec<u8>) {
        request.extend_from_slice(&self.before);
        request.extend_from_slice(part);
        request.extend_from_slice(&self.after);
    }
}

fn payment_id(body: &[u8]) -> Option<PaymentId> {
    let at = memmem::find(body, br#""relay_request_id":"pay_"#)? + r#""relay_request_id":""#.len();
    body.get(at..at + 36)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_is_quoted_paid_and_used_once() {
        let stock = Stock::default();
        let mut mint = Mint::new(stock.clone(), "/quote", "h", "", "{}");
        let mut redeem = Redeem::new(stock, "/quote", "h", "", "{}");
        let (mut request, id) = (Vec::new(), format!("pay_{}", "0".repeat(32)));
        let answer = |status, body| Answer { status, head: b"", body };
        assert!(!mint.ask(0, &mut request) && !redeem.ask(0, &mut request));
        mint.order(1);
        assert!(mint.ask(0, &mut request) && !mint.ask(1, &mut request));
        let quoted = format!(r#"{{"data":{{"payment":{{"relay_request_id":"{id}"}}}}}}"#);
        mint.take(0, &answer(402, quoted.as_bytes()), 1).unwrap();
        request.clear();
        assert!(mint.ask(0, &mut request));
        assert!(String::from_utf8_lossy(&request).contains(&format!("/payments/{id}/pay ")));
        mint.take(0, &answer(200, b"{}"), 1).unwrap();
        request.clear();
        assert!(redeem.ask(0, &mut request) && !redeem.ask(1, &mut Vec::new()));
        assert!(String::from_utf8_lossy(&request).contains(&format!("X-Crochet-Relay-Request-Id: {id}\r\n")));
        redeem.take(0, &answer(409, b"no"), 1).unwrap();
        assert_eq!((redeem.bad, redeem.first_bad.as_deref()), (1, Some("409 no")));
    }
}
