//! One purchase: a quote, the payment, the paid call; tried again as long as that makes sense, through outages too.

use std::{
    fmt::{self, Display},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::json;

use crate::{
    agent::Listing,
    api::{Answer, Lost},
    books::{End, Purchase, fee_micros},
    run::{Run, micros},
    scenario::Habits,
    seed::Seed,
};

/// Between two tries, milliseconds: what the gateway says, or twice as long each time when it says nothing, within these
/// bounds, and by seed up to as much again.
const PAUSE_MS: (u64, u64) = (20, 500);
/// Somebody who hangs up waits up to so long before, milliseconds.
const HANG_UP_MS: u64 = 30;

/// A purchase was not answered in time.
#[derive(Debug)]
pub struct GaveUp;

impl Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("patience is over")
    }
}

impl std::error::Error for GaveUp {}

/// Who makes one purchase.
pub struct Buyer<'a> {
    run: &'a Run,
    number: u64,
    due: Instant,
}

/// What a buyer does besides paying and calling once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Plain,
    /// Sends the paid call twice at once.
    Twice,
    /// Asks for the result again afterwards.
    Again,
    /// Tries to use the payment for another body first.
    OtherBody,
    /// Tries to use the payment for another listing first.
    OtherListing,
    /// Another buyer tries to use the payment, and to read it.
    Robbed,
    /// Sends the paid call and hangs up, then asks for the result.
    HangsUp,
    /// Pays and forgets.
    Forgets,
}

impl<'a> Buyer<'a> {
    /// Of purchase `number`, due at `due`.
    #[must_use]
    pub fn new(run: &'a Run, number: u64, due: Instant) -> Self {
        Self { run, number, due }
    }

    /// Makes the purchase. Never fails: what went wrong stands in what is returned.
    pub async fn buy(&self) -> Purchase {
        let mut seed = Seed::stream(self.run.seed, "purchase", self.number);
        let buyer = pick(self.run.market.buyers.len(), &mut seed);
        let listing = self.pick_listing(&mut seed);
        let mut purchase = Purchase::new(self.number, buyer, listing);
        let habit = self.habit(&mut seed);
        if let Err(error) = self.carry_out(&mut purchase, habit).await {
            purchase.gave_up = error.is::<GaveUp>();
            purchase.complaint = (!purchase.gave_up).then(|| format!("{error:#}"));
        }
        purchase
    }

    /// Quote and payment only.
    ///
    /// # Errors
    /// When they are not answered as documented, or patience is over.
    pub async fn prepay(&self, purchase: &mut Purchase) -> anyhow::Result<()> {
        let key = self.key(purchase.buyer)?;
        let body = purchase.body(self.run.seed);
        let call = Call { key, listing: &self.listing(purchase.listing)?.id, body: &body, payment: None };
        let asked = self.persist(|| self.call(call)).await?.expect_status(402)?;
        purchase.payment = asked.text("/data/payment/relay_request_id")?.to_owned();
        purchase.price_micros = asked.number("/data/payment/amount/amount_micros")?;
        purchase.end = End::Unknown;
        let quoted = self.listing(purchase.listing)?.price_micros;
        ensure!(purchase.price_micros == quoted, "quoted {}, listed {quoted}", purchase.price_micros);
        let pay = format!("/sandbox/payments/{}/pay", purchase.payment);
        let api = &self.run.market.api;
        let paid = self.persist(|| api.try_send(api.request(Method::POST, &pay, Some(key)).json(&json!({})))).await?;
        paid.expect_status(200)?;
        purchase.is_pay_acknowledged = true;
        purchase.end = End::Paid;
        Ok(())
    }

    /// The paid call with this key, until there is an answer.
    ///
    /// # Errors
    /// When patience is over.
    pub async fn redeem(&self, purchase: &Purchase, key: &str) -> anyhow::Result<Answer> {
        let body = purchase.body(self.run.seed);
        let listing = self.listing(purchase.listing)?;
        let call = Call { key, listing: &listing.id, body: &body, payment: Some(&purchase.payment) };
        let server = &self.run.market.shops.get(purchase.listing).context("a seller")?.server;
        let request = purchase.request_id();
        let attempt = || async {
            let (sent, before) = (Instant::now(), server.calls(&request));
            let answer = self.call(call).await;
            match &answer {
                Ok(answer) if answer.status == 200 => {
                    self.run.note(|seen| seen.paid_call_micros.push(micros(sent.elapsed())));
                }
                Err(Lost::Unanswered | Lost::Cut) if server.calls(&request) > before => {
                    self.run.note(|seen| seen.called_unanswered += 1);
                }
                _ => {}
            }
            answer
        };
        self.persist(attempt).await
    }

    async fn carry_out(&self, purchase: &mut Purchase, habit: Habit) -> anyhow::Result<()> {
        self.prepay(purchase).await?;
        if habit == Habit::Forgets {
            purchase.end = End::Forgotten;
            return Ok(());
        }
        self.misuse(purchase, habit).await?;
        let key = self.key(purchase.buyer)?;
        purchase.end = End::Unknown;
        if habit == Habit::HangsUp {
            let wait = Seed::stream(self.run.seed, "hang up", self.number).below(HANG_UP_MS);
            let _ = tokio::time::timeout(Duration::from_millis(wait), self.redeem(purchase, key)).await;
        }
        let first = if habit == Habit::Twice {
            let (one, two) = tokio::join!(self.redeem(purchase, key), self.redeem(purchase, key));
            let (one, two) = (one?, two?);
            same_answer(&one, &two).context("two at once")?;
            one
        } else {
            self.redeem(purchase, key).await?
        };
        let first = first.expect_status(200)?;
        purchase.end = End::Completed;
        purchase.answer = Some(first.digest);
        check_receipt(purchase, &first)?;
        if habit == Habit::Again {
            let again = self.redeem(purchase, key).await?.expect_status(200)?;
            ensure!(again.replayed, "the second answer is not marked as replayed");
            same_answer(&first, &again).context("asked again")?;
        }
        Ok(())
    }

    /// What a payment must not be good for.
    async fn misuse(&self, purchase: &Purchase, habit: Habit) -> anyhow::Result<()> {
        let (run, body) = (self.run, purchase.body(self.run.seed));
        let listing = &self.listing(purchase.listing)?.id;
        let own = Call { key: self.key(purchase.buyer)?, listing, body: &body, payment: Some(&purchase.payment) };
        let (call, status, what) = match habit {
            Habit::OtherBody => (Call { body: r#"{"task":"another"}"#, ..own }, 409, "a payment for another body"),
            Habit::OtherListing if run.market.shops.len() > 1 => {
                let other = (purchase.listing + 1) % run.market.shops.len();
                (Call { listing: &self.listing(other)?.id, ..own }, 409, "a payment for another listing")
            }
            Habit::Robbed if run.market.buyers.len() > 1 => {
                let thief = self.key((purchase.buyer + 1) % run.market.buyers.len())?;
                let path = format!("/payments/{}", purchase.payment);
                let api = &run.market.api;
                let read = self.persist(|| api.try_send(api.request(Method::GET, &path, Some(thief)))).await?;
                read.expect_status(404).context("another's payment read")?;
                (Call { key: thief, ..own }, 404, "another's payment used")
            }
            _ => return Ok(()),
        };
        self.persist(|| self.call(call)).await?.expect_status(status).context(what)?;
        Ok(())
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, Lost> {
        let api = &self.run.market.api;
        let request = api.request(Method::POST, &format!("/gateway/{}", call.listing), Some(call.key));
        let request = request.header("Content-Type", "application/json").body(call.body.to_owned());
        let request = match call.payment {
            Some(id) => request.header("X-Crochet-Relay-Request-Id", id),
            None => request.header("X-Crochet-Origin-Currency", "SOL"),
        };
        let sent = Instant::now();
        let answer = api.try_send(request).await;
        self.run.note_answer(sent, &answer, call.payment.is_some());
        answer
    }

    /// Asks until there is an answer that does not say "later".
    async fn persist<F: Future<Output = Result<Answer, Lost>>>(&self, ask: impl Fn() -> F) -> anyhow::Result<Answer> {
        let mut pauses = Seed::stream(self.run.seed, "pause", self.number);
        // Thousands who wait for a gateway to come back must not take its processor meanwhile.
        let mut backoff = PAUSE_MS.0;
        loop {
            let told = match ask().await {
                Ok(answer) if !is_later(&answer) => return Ok(answer),
                Ok(answer) => answer.retry_after.unwrap_or(0).saturating_mul(1000),
                Err(_) => {
                    backoff = backoff.saturating_mul(2);
                    backoff
                }
            };
            if self.due.elapsed() >= self.run.patience() {
                return Err(GaveUp.into());
            }
            let pause = told.clamp(PAUSE_MS.0, PAUSE_MS.1);
            tokio::time::sleep(Duration::from_millis(pause + pauses.below(pause))).await;
        }
    }

    fn habit(&self, seed: &mut Seed) -> Habit {
        if self.run.scenario.habits == Habits::Plain {
            return Habit::Plain;
        }
        match seed.below(100) {
            0..6 => Habit::Twice,
            6..12 => Habit::Again,
            12..15 => Habit::OtherBody,
            15..17 => Habit::Forgets,
            17..19 => Habit::OtherListing,
            19..21 => Habit::Robbed,
            21..24 => Habit::HangsUp,
            _ => Habit::Plain,
        }
    }

    fn pick_listing(&self, seed: &mut Seed) -> usize {
        let count = self.run.market.shops.len();
        let hot = u64::from(self.run.scenario.hot_percent);
        if hot == 0 || count < 2 {
            return pick(count, seed);
        }
        if seed.below(100) < hot { 0 } else { 1 + pick(count - 1, seed) }
    }

    fn listing(&self, number: usize) -> anyhow::Result<&'a Listing> {
        Ok(&self.run.market.shops.get(number).context("a listing")?.listing)
    }

    fn key(&self, buyer: usize) -> anyhow::Result<&'a str> {
        Ok(&self.run.market.buyers.get(buyer).context("a buyer")?.key)
    }
}

/// A gateway call.
#[derive(Clone, Copy)]
struct Call<'a> {
    key: &'a str,
    listing: &'a str,
    body: &'a str,
    payment: Option<&'a str>,
}

fn pick(count: usize, seed: &mut Seed) -> usize {
    usize::try_from(seed.below(count as u64)).unwrap_or(0)
}

/// Whether the same request makes sense again.
fn is_later(answer: &Answer) -> bool {
    let again = ["retry_same_payment", "wait_and_retry", "retry_same_request"];
    answer.status == 202 || (answer.status >= 400 && again.contains(&answer.next_action()))
}

fn check_receipt(purchase: &mut Purchase, answer: &Answer) -> anyhow::Result<()> {
    let charged = answer.number("/data/charged_amount/amount_micros")?;
    let fee = answer.number("/data/fees/fee_amount_micros")?;
    let seller = answer.number("/data/fees/seller_receives_micros")?;
    ensure!(charged == purchase.price_micros, "charged {charged}, quoted {}", purchase.price_micros);
    ensure!(fee + seller == charged, "the parts {fee} and {seller} are not {charged}");
    ensure!(fee == fee_micros(charged), "a fee of {fee} on {charged}");
    let request = answer.text("/data/request_id")?;
    ensure!(request == purchase.request_id(), "another request's id");
    let told = answer.body.pointer("/data/seller_response/request").and_then(|id| id.as_str());
    ensure!(told == Some(request), "the seller's answer to another request: {told:?}");
    purchase.seller_micros = seller;
    Ok(())
}

/// Two answers about one payment must be equal to the byte.
fn same_answer(one: &Answer, two: &Answer) -> anyhow::Result<()> {
    ensure!(one.digest == two.digest, "{} is not {}", one.body, two.body);
    Ok(())
}
