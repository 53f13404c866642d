//! `crochet call` and `crochet pay`. A purchase that dies in the middle is found again: its payment is noted before it is
//! made, and the note goes only when the answer has been written out, or can never come.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json, value::RawValue};
use storage::model::Micros;

use super::{
    Client, Ended,
    arguments::{Call, Pay},
    delivery::{Delivery, deliver},
    escaped,
    fault::Refused,
    given,
    home::{Purchase, PurchaseName},
    http::{Answer, Opened, Request},
    note, path, say,
    table::{cell, facts, moment, money},
};

/// Refusals after which a payment buys nothing any more: there is no use in keeping it for the next try.
const CLOSING: [&str; 7] = [
    "PAYMENT_CLOSED",
    "PAYMENT_EXPIRED",
    "PAYMENT_FAILED",
    "PAYMENT_NOT_FOUND",
    "PAYMENT_REQUEST_MISMATCH",
    "PAYMENT_UNDERPAID",
    "RESULT_NOT_KEPT",
];
/// Refusals that pass by themselves, soon.
const UNDER_WAY: [&str; 2] = ["PAYMENT_IN_PROGRESS", "PAYMENT_PROVIDER_UNAVAILABLE"];
/// Between two looks at a payment, when the gateway does not say how long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that a gateway may ask for, seconds.
const PAUSE_MAX: u64 = 86_400;

/// A call that is being made.
struct Purchasing<'a> {
    client: &'a Client,
    order: &'a Call,
    key: String,
    body: String,
    name: PurchaseName,
}

/// `crochet call`.
pub(super) async fn call(client: &Client, order: &Call) -> Result<Ended> {
    let body = given(&order.body)?;
    let _: &RawValue = serde_json::from_str(&body).context("the body is not one JSON value; it was not sent")?;
    let (key, site) = (client.key()?, client.server.site());
    let profile = client.profile().await?;
    let name = PurchaseName::new(site, &profile, &order.listing, &body, order.idempotency_key.as_deref());
    let purchasing = Purchasing { client, order, key, body, name };
    purchasing.run().await
}

impl Purchasing<'_> {
    async fn run(&self) -> Result<Ended> {
        if let Some(payment) = &self.order.payment {
            return self.redeem(payment).await;
        }
        let begun = self.client.home.purchase(&self.name)?;
        match begun {
            Some(purchase) if self.order.pay => {
                self.check_price(purchase.amount_micros)?;
                note(&format!("Going on with {}, which was begun before.", purchase.payment));
                return self.pay_and_redeem(&purchase.payment).await;
            }
            Some(purchase) => {
                note(&format!("{} was begun for this very call: --pay goes on with it.", purchase.payment));
            }
            None => {}
        }
        match self.fetch(None).await? {
            Came::Good(opened) => self.take(opened, None).await,
            Came::Other(offer) if is_offer(&offer) && self.order.pay => self.buy(&offer).await,
            Came::Other(offer) if is_offer(&offer) => self.show_offer(&offer),
            Came::Other(answer) => Err(Refused(answer).into()),
        }
    }

    async fn send(&self, payment: Option<&str>) -> Result<Opened> {
        let order = self.order;
        let more = [
            ("X-Crochet-Relay-Request-Id", payment.map(str::to_string)),
            ("X-Crochet-Origin-Currency", order.currency.clone()),
            ("X-Crochet-Max-Price-Micros", order.max_price.map(|price| price.0.to_string())),
            ("Idempotency-Key", order.idempotency_key.clone()),
            ("Accept", order.stream.then(|| "text/event-stream, application/json;q=0.9".to_string())),
        ];
        let request = Request {
            method: "POST",
            path: path("gateway", &order.listing, ""),
            key: Some(&self.key),
            more: more.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            body: Some(self.body.clone()),
        };
        self.client.server.open(&request).await
    }

    fn show_offer(&self, offer: &Answer) -> Result<Ended> {
        if self.client.json {
            say(&format!("{}\n", String::from_utf8_lossy(&offer.body)))?;
        } else {
            let shown = |place: &str| cell(&offer.json, &format!("/data/payment{place}"));
            say(&facts(&[
                ("payment required", money(&offer.json, "/data/payment/amount/amount_micros")),
                ("in", shown("/origin_currency")),
                ("by", shown("/requirements/provider")),
                ("payment", shown("/relay_request_id")),
                ("pay at", shown("/requirements/pay/url")),
                ("good until", moment(&offer.json, "/data/payment/expires_at")),
            ]))?;
        }
        note(
            "Nothing was paid and the seller was not called (402 PAYMENT_REQUIRED). --pay pays and fetches the answer.",
        );
        Ok(Ended::Undecided)
    }

    fn check_price(&self, micros: i64) -> Result<()> {
        let max = self.order.max_price.unwrap_or(Micros(i64::MAX));
        ensure!(
            Micros(micros) <= max,
            "it costs {} USD, which is above --max-price; nothing was paid",
            Micros(micros).units()
        );
        Ok(())
    }

    /// Agrees to an offer.
    async fn buy(&self, offer: &Answer) -> Result<Ended> {
        let payment = offer.text("/data/payment/relay_request_id")?.to_string();
        let amount = offer.json.pointer("/data/payment/amount/amount_micros").and_then(Value::as_i64);
        let amount_micros = amount.context("the offer does not say what it costs")?;
        self.check_price(amount_micros)?;
        let provider = offer.text("/data/payment/requirements/provider")?;
        ensure!(
            provider == "sandbox",
            "this gateway wants to be paid by {provider}, and this client pays on the sandbox only: pay as \
             data.payment.requirements says (--json shows it), then run this again with --payment {payment}"
        );
        let purchase = Purchase {
            url: self.client.server.site().to_string(),
            listing: self.order.listing.clone(),
            payment: payment.clone(),
            amount_micros,
        };
        self.client.home.keep_purchase(&self.name, &purchase).context("nothing was paid")?;
        self.pay_and_redeem(&payment).await
    }

    /// Pays, which the sandbox does once however often it is asked, and fetches what was bought.
    async fn pay_and_redeem(&self, payment: &str) -> Result<Ended> {
        match pay_on_sandbox(self.client, payment, &json!({})).await {
            Ok(_) => self.redeem(payment).await,
            Err(fault) => Err(self.forget_if_closed(fault, payment)),
        }
    }

    /// Fetches what was bought.
    async fn redeem(&self, payment: &str) -> Result<Ended> {
        let kept = || format!("{payment} is kept: run the same command again, and nothing is paid twice");
        match self.fetch(Some(payment)).await.with_context(kept)? {
            Came::Good(opened) => self.take(opened, Some(payment)).await,
            Came::Other(answer) => Err(self.forget_if_closed(Refused(answer).into(), payment)),
        }
    }

    /// Sends it, and again while the money has not settled.
    async fn fetch(&self, payment: Option<&str>) -> Result<Came> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.order.wait);
        loop {
            let opened = self.send(payment).await?;
            if opened.answer.status == 200 {
                return Ok(Came::Good(opened));
            }
            let answer = opened.whole().await?;
            let Some(pause) = pause(&answer) else { return Ok(Came::Other(answer)) };
            if tokio::time::Instant::now() + pause > deadline {
                ensure!(answer.status == 202, Refused(answer));
                bail!("the payment has not settled yet (--wait says how long to wait for it)");
            }
            note(&format!("The payment is not through yet; looking again in {} s.", pause.as_secs()));
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes out what came, and only then forgets the payment.
    async fn take(&self, opened: Opened, payment: Option<&str>) -> Result<Ended> {
        let to = Delivery { json: self.client.json, output: self.order.output.as_deref(), payment };
        deliver(opened, &to).await?;
        payment.map_or(Ok(()), |payment| self.forget(payment))?;
        Ok(Ended::Done)
    }

    /// Forgets a payment that was begun here; another's note stays.
    fn forget(&self, payment: &str) -> Result<()> {
        let noted = self.client.home.purchase(&self.name)?;
        match noted.filter(|purchase| purchase.payment == payment) {
            Some(_) => self.client.home.forget_purchase(&self.name),
            None => Ok(()),
        }
    }

    fn forget_if_closed(&self, fault: anyhow::Error, payment: &str) -> anyhow::Error {
        let is_closed = fault.downcast_ref::<Refused>().is_some_and(|refused| CLOSING.contains(&refused.code()));
        match if is_closed { self.forget(payment) } else { Ok(()) } {
            Ok(()) => fault,
            Err(error) => error,
        }
    }
}

/// What came of a call.
enum Came {
    /// What was asked for: its body is still to be read.
    Good(Opened),
    /// Anything else.
    Other(Answer),
}

fn is_offer(answer: &Answer) -> bool {
    answer.json.pointer("/error/code").and_then(Value::as_str) == Some("PAYMENT_REQUIRED")
}

/// How long to wait before the same is sent again; `None` when that would not help.
fn pause(answer: &Answer) -> Option<Duration> {
    let code = answer.json.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
    let is_under_way = answer.status == 202 || UNDER_WAY.contains(&code);
    let seconds = answer.field("retry-after").parse();
    is_under_way.then(|| seconds.map_or(PAUSE, |seconds: u64| Duration::from_secs(seconds.clamp(1, PAUSE_MAX))))
}

async fn pay_on_sandbox(client: &Client, payment: &str, how: &Value) -> Result<Answer> {
    client.ask("POST", &format!("/api/v1/sandbox/payments/{}/pay", escaped(payment)), Some(how)).await
}

/// `crochet pay`.
pub(super) async fn pay(client: &Client, order: &Pay) -> Result<Ended> {
    if order.show {
        return client.show(&client.get(&path("payments", &order.payment, "")).await?, standing);
    }
    let mut how = json!({});
    super::identity::set(&mut how, "amount_micros", order.amount.map(|amount| amount.0));
    super::identity::set(&mut how, "delay_ms", order.delay_ms);
    super::identity::set(&mut how, "outcome", order.outcome.clone());
    client.show(&pay_on_sandbox(client, &order.payment, &how).await?, |data| {
        facts(&[
            ("payment", cell(data, "/relay_request_id")),
            ("status", cell(data, "/status")),
            ("amount", money(data, "/amount/amount_micros")),
            ("reference", cell(data, "/reference")),
            ("settles", moment(data, "/settles_at")),
        ])
    })
}

fn standing(data: &Value) -> String {
    let mut shown = vec![
        ("payment", cell(data, "/relay_request_id")),
        ("state", cell(data, "/state")),
        ("amount", money(data, "/amount/amount_micros")),
        ("paid", money(data, "/paid_micros")),
        ("listing", cell(data, "/listing_id")),
        ("good until", moment(data, "/expires_at")),
        ("next", cell(data, "/next/next_action")),
        ("", cell(data, "/next/summary")),
    ];
    shown.retain(|(_, value)| value != "-");
    facts(&shown)
}
