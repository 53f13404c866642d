//! The traffic: purchases by seed, each due at a fixed time whatever the gateway does (open loop), so that a stall
//! shows in the latencies of all that came due meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use reqwest::Method;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    agent::{Agent, Listing, Offer},
    api::{Answer, Api},
    books::{End, Purchase, request_id},
    seed::Seed,
    seller::Seller,
    wallet::Wallet,
};

/// Purchases in flight at most; what is due meanwhile waits, and its wait counts.
const IN_FLIGHT_MAX: usize = 4096;
/// Tries of one paid call at most; the gateway itself gives up after ten attempts.
const TRIES_MAX: usize = 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How many buyers.
    pub buyers: usize,
    /// How many sellers, each with one listing.
    pub sellers: usize,
    /// Purchases a second.
    pub rate: u32,
    /// For how long.
    pub seconds: u32,
}

/// Everybody who takes part.
pub struct Market {
    /// The gateway.
    pub api: Api,
    /// Who buys.
    pub buyers: Vec<Agent>,
    /// Who sells: the agent, its listing, its server.
    pub sellers: Vec<(Agent, Listing, Seller)>,
}

/// What was seen of a run.
#[derive(Default)]
pub struct Seen {
    /// Every purchase.
    pub purchases: Vec<Purchase>,
    /// From when a purchase was due until its answer, microseconds.
    pub purchase_micros: Vec<u64>,
    /// From the paid request until its answer, microseconds; completed ones only.
    pub paid_call_micros: Vec<u64>,
    /// How many answers of each status and code.
    pub codes: BTreeMap<String, u64>,
}

/// Registers buyers and sellers, and lists what is sold: prices from 0.01 to 1.
///
/// # Errors
/// When the gateway does not answer as documented.
pub async fn open_market(api: &Api, plan: Plan) -> anyhow::Result<Market> {
    let mut buyers = Vec::new();
    for number in 0..plan.buyers {
        let wallet = Wallet::from_seed(Seed::stream(plan.seed, "buyer", number as u64))?;
        buyers.push(Agent::register(api, &wallet, &format!("Buyer {number}")).await?);
    }
    let mut sellers = Vec::new();
    for number in 0..plan.sellers {
        let mut seed = Seed::stream(plan.seed, "seller", number as u64);
        let agent = Agent::register(api, &Wallet::from_seed(seed.clone())?, &format!("Seller {number}")).await?;
        let server = Seller::start(seed.draw()).await?;
        let price_micros = 10_000 + i64::try_from(seed.below(990_001))?;
        let name = format!("Load test {} of seller {number}", plan.seed);
        let offer = Offer { name, price_micros, endpoint: server.url(), limits: json!({ "max_concurrency": 4096 }) };
        let listing = agent.create_listing(api, &offer).await?;
        server.expect_listing(&listing.id, &listing.signing_secret)?;
        sellers.push((agent, listing, server));
    }
    Ok(Market { api: api.clone(), buyers, sellers })
}

/// Runs the plan's purchases and returns what buyers saw.
///
/// # Errors
/// When a task of ours fails; what the gateway answers is never an error here.
pub async fn run(market: Arc<Market>, plan: Plan) -> anyhow::Result<Seen> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..u64::from(plan.rate) * u64::from(plan.seconds) {
        let due = start + Duration::from_micros(number * 1_000_000 / u64::from(plan.rate.max(1)));
        tokio::time::sleep_until(due.into()).await;
        let place = places.clone().acquire_owned().await?;
        let (market, seen) = (market.clone(), seen.clone());
        tasks.spawn(async move {
            let buyer = Buyer { market: &market, seed: plan.seed, number, seen: &seen };
            let purchase = buyer.buy().await;
            buyer.note(|seen| {
                seen.purchases.push(purchase);
                seen.purchase_micros.push(micros(due.elapsed()));
            });
            drop(place);
        });
        while let Some(ended) = tasks.try_join_next() {
            ended?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(seen)
}

/// One purchase.
struct Buyer<'a> {
    market: &'a Market,
    seed: u64,
    number: u64,
    seen: &'a Mutex<Seen>,
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
    /// Pays and forgets.
    Forgets,
}

impl Buyer<'_> {
    async fn buy(&self) -> Purchase {
        let mut seed = Seed::stream(self.seed, "purchase", self.number);
        let pick = |count: usize, seed: &mut Seed| usize::try_from(seed.below(count as u64)).unwrap_or(0);
        let buyer = pick(self.market.buyers.len(), &mut seed);
        let listing = pick(self.market.sellers.len(), &mut seed);
        let habit = match seed.below(100) {
            0..6 => Habit::Twice,
            6..12 => Habit::Again,
            12..15 => Habit::OtherBody,
            15..17 => Habit::Forgets,
            _ => Habit::Plain,
        };
        let body = format!(r#"{{"task":"load","number":{},"salt":"{:016x}"}}"#, self.number, seed.draw());
        let mut purchase = Purchase {
            buyer,
            listing,
            payment: String::new(),
            price_micros: 0,
            seller_micros: 0,
            end: End::Refused,
            complaint: None,
        };
        if let Err(error) = self.carry_out(&mut purchase, habit, &body).await {
            purchase.complaint = Some(format!("{error:#}"));
        }
        purchase
    }

    async fn carry_out(&self, purchase: &mut Purchase, habit: Habit, body: &str) -> anyhow::Result<()> {
        let asked = self.call(purchase, body, None).await?.expect_status(402)?;
        purchase.payment = asked.text("/data/payment/relay_request_id")?.to_owned();
        purchase.price_micros = asked.number("/data/payment/amount/amount_micros")?;
        purchase.end = End::Unknown;
        let key = self.key(purchase)?;
        let pay = format!("/sandbox/payments/{}/pay", purchase.payment);
        self.market.api.post(&pay, Some(key), &json!({})).await?.expect_status(200)?;
        purchase.end = End::Paid;
        let id = purchase.payment.clone();
        match habit {
            Habit::Forgets => {
                purchase.end = End::Forgotten;
                return Ok(());
            }
            Habit::OtherBody => {
                let other = self.call(purchase, r#"{"task":"another"}"#, Some(&id)).await?;
                other.expect_status(409).context("a payment for another body")?;
            }
            Habit::Plain | Habit::Twice | Habit::Again => {}
        }
        purchase.end = End::Unknown;
        let first = if habit == Habit::Twice {
            let (one, two) = tokio::join!(self.redeem(purchase, body, &id), self.redeem(purchase, body, &id));
            let (one, two) = (one?, two?);
            same_answer(&one, &two).context("two at once")?;
            one
        } else {
            self.redeem(purchase, body, &id).await?
        };
        purchase.end = if first.status == 200 { End::Completed } else { End::Paid };
        let first = first.expect_status(200)?;
        self.check_receipt(purchase, &first)?;
        if habit == Habit::Again {
            let again = self.call(purchase, body, Some(&id)).await?.expect_status(200)?;
            anyhow::ensure!(again.replayed, "the second answer is not marked as replayed");
            same_answer(&first, &again).context("asked again")?;
        }
        Ok(())
    }

    /// The paid call, tried again as long as the gateway says that the payment is still good.
    async fn redeem(&self, purchase: &Purchase, body: &str, id: &str) -> anyhow::Result<Answer> {
        for _ in 0..TRIES_MAX {
            let sent = Instant::now();
            let answer = self.call(purchase, body, Some(id)).await?;
            if answer.status == 200 {
                self.note(|seen| seen.paid_call_micros.push(micros(sent.elapsed())));
                return Ok(answer);
            }
            let again = answer.status == 202 || matches!(answer.next_action(), "retry_same_payment" | "wait_and_retry");
            if !again {
                return Ok(answer);
            }
            let wait = Duration::from_secs(answer.retry_after.unwrap_or(0)).min(Duration::from_millis(500));
            tokio::time::sleep(wait.max(Duration::from_millis(20))).await;
        }
        anyhow::bail!("no answer in {TRIES_MAX} tries")
    }

    fn check_receipt(&self, purchase: &mut Purchase, answer: &Answer) -> anyhow::Result<()> {
        let charged = answer.number("/data/charged_amount/amount_micros")?;
        let fee = answer.number("/data/fees/fee_amount_micros")?;
        let seller = answer.number("/data/fees/seller_receives_micros")?;
        anyhow::ensure!(charged == purchase.price_micros, "charged {charged}, quoted {}", purchase.price_micros);
        anyhow::ensure!(fee + seller == charged, "the parts {fee} and {seller} are not {charged}");
        anyhow::ensure!(fee == half_up(charged * 49_000), "a fee of {fee} on {charged}");
        anyhow::ensure!(answer.text("/data/request_id")? == request_id(&purchase.payment), "another request's id");
        purchase.seller_micros = seller;
        Ok(())
    }

    async fn call(&self, purchase: &Purchase, body: &str, payment: Option<&str>) -> anyhow::Result<Answer> {
        let (_, listing, _) = self.market.sellers.get(purchase.listing).context("a listing")?;
        let path = format!("/gateway/{}", listing.id);
        let mut request = self.market.api.request(Method::POST, &path, Some(self.key(purchase)?));
        request = request.header("Content-Type", "application/json").body(body.to_owned());
        request = match payment {
            Some(id) => request.header("X-Crochet-Relay-Request-Id", id),
            None => request.header("X-Crochet-Origin-Currency", "SOL"),
        };
        let sent = self.market.api.send(request).await;
        self.note(|seen| {
            let code = match &sent {
                Ok(answer) => format!("{} {}", answer.status, answer.code()),
                Err(_) => "no answer".to_owned(),
            };
            *seen.codes.entry(code.trim_end().to_owned()).or_default() += 1;
        });
        sent
    }

    fn key(&self, purchase: &Purchase) -> anyhow::Result<&str> {
        Ok(&self.market.buyers.get(purchase.buyer).context("a buyer")?.key)
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Two answers about one payment must be equal in all that the seller and the books say.
fn same_answer(one: &Answer, two: &Answer) -> anyhow::Result<()> {
    anyhow::ensure!(one.body.pointer("/data") == two.body.pointer("/data"), "{} is not {}", one.body, two.body);
    Ok(())
}

/// Millionths of a product, half-up.
fn half_up(product: i64) -> i64 {
    (product + 500_000).div_euclid(1_000_000)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
