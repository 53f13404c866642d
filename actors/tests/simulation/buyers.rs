//! Buyers who retry, race, hang up, die, replay and mix things up; and what they are told, held against what is kept.

use std::{sync::Arc, time::Duration};

use actors::{
    listing::{Ask, ClaimFound, ListingHandle, PaymentFound, not_kept},
    refusal::Refusal,
};
use serde_json::Value;
use storage::model::*;

use super::{
    laws::Law,
    sellers::{forward, forward_again},
    truth::{US, shown},
    world::{Buyer, FREE, Life, Purchase, Wish},
};

/// Pieces of a large answer.
pub const PIECES: u32 = 2;

/// What a buyer was told.
pub enum Told {
    Answer(PaymentId, Vec<u8>),
    Offer(PaymentId, Micros),
    Later,
}

/// Buys until it has its answer or has reason to stop.
pub async fn buy(life: Arc<Life>, purchase: Arc<Purchase>) {
    let dice = &life.truth().dice;
    for _ in 0..14 {
        if *purchase.is_over.lock() {
            return;
        }
        life.pause(800).await;
        if dice.chance(80) {
            mix_up(&life, &purchase).await;
        }
        let mut payment = *purchase.payment.lock();
        if purchase.wish.key.is_some() && dice.chance(400) {
            // The key alone names the purchase.
            payment = None;
        }
        let (asked, wish) = (payment, &purchase.wish);
        let told = match dice.below(100) {
            // Whoever works on it dies in mid-call.
            0..8 => {
                let call = call(&life, wish, payment);
                tokio::time::timeout(Duration::from_millis(1 + dice.below(400)), call).await.unwrap_or(Ok(Told::Later))
            }
            // It hangs up: the work goes on without it.
            8..14 => {
                let (life, wish) = (life.clone(), wish.clone());
                tokio::spawn(async move { call(&life, &wish, payment).await.is_ok() });
                Ok(Told::Later)
            }
            14..40 => {
                let (one, other) = tokio::join!(call(&life, wish, payment), call(&life, wish, payment));
                heard(&life, &purchase, asked, other);
                one
            }
            _ => call(&life, wish, payment).await,
        };
        heard(&life, &purchase, asked, told);
    }
}

fn heard(life: &Life, purchase: &Purchase, asked: Option<PaymentId>, told: Result<Told, Refusal>) {
    let truth = life.truth();
    match told {
        Ok(Told::Answer(id, answer)) => {
            truth.note(format!("{} is answered", truth.name(id)));
            life.is_kept(id, &answer);
            *purchase.is_over.lock() |= !truth.dice.chance(500);
            *purchase.payment.lock() = Some(id);
        }
        Ok(Told::Offer(id, price)) => {
            if life.kept(id).is_none() {
                truth.breaks(Law::Durable, format!("{} was offered and is not kept", truth.name(id)));
            }
            truth.promise(id, price);
            *purchase.payment.lock() = Some(id);
            if truth.dice.chance(850) {
                pay(life, id, price);
            }
        }
        Ok(Told::Later) => {}
        Err(refusal) => refused(life, purchase, asked, &refusal),
    }
}

fn refused(life: &Life, purchase: &Purchase, asked: Option<PaymentId>, refusal: &Refusal) {
    let truth = life.truth();
    let code = format!("{:?}", refusal.code());
    let name = asked.map_or_else(|| format!("key {:?}", purchase.wish.key), |id| truth.name(id));
    truth.note(format!("{name} is refused, {code}"));
    if let Some(id) = asked {
        is_true(life, id, refusal);
    }
    // A payment that is closed buys nothing any more.
    *purchase.is_over.lock() |= code == "PaymentClosed" || code == "ResultNotKept";
}

/// What a refusal says of the money was so, and can only have gone forward since.
fn is_true(life: &Life, id: PaymentId, refusal: &Refusal) {
    let body: Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
    let said = body["error"]["details"]["payment_state"].as_str();
    let Some(kept) = life.kept(id) else { return };
    let (state, has_evidence) = (kept.progress.state, !kept.progress.evidence.is_empty());
    let is_so = match said {
        Some("owed" | "refunding" | "refunded") => {
            matches!(state, PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded)
        }
        Some("completed") => state == PaymentState::Completed,
        Some("settled" | "claimed") => has_evidence,
        Some("failed") => state == PaymentState::Failed || has_evidence,
        _ => true,
    };
    if !is_so {
        let (name, said) = (life.truth().name(id), said.unwrap_or_default());
        life.truth().breaks(Law::Truthful, format!("{name} is {} and its buyer was told {said}", shown(Some(state))));
    }
}

/// Somebody else's payment, another listing, another body, a key for something else: never an answer.
async fn mix_up(life: &Life, purchase: &Purchase) {
    let truth = life.truth();
    let Some(id) = *purchase.payment.lock() else { return };
    let mut wish = Wish { key: None, ..purchase.wish.clone() };
    let mut payment = Some(id);
    match truth.dice.below(4) {
        0 => wish.body += 10,
        1 => wish.buyer = (wish.buyer + 1) % life.world.buyers.len(),
        2 => wish.listing = (wish.listing + 1) % life.world.listings.len(),
        _ => (wish.body, wish.key, payment) = (wish.body + 10, purchase.wish.key.clone(), None),
    }
    if payment.is_none() && wish.key.is_none() {
        return;
    }
    let (buyer, body) = (life.world.buyers[wish.buyer].id, [wish.body; 32]);
    *truth.disguise.lock() = payment.map(|id| (id, buyer, body));
    let told = call(life, &wish, payment).await;
    *truth.disguise.lock() = None;
    truth.met("a question was mixed up");
    if matches!(told, Ok(Told::Answer(answered, _)) if answered == id) {
        truth.breaks(Law::Binding, format!("{} was answered to another question", truth.name(id)));
    }
}

fn pay(life: &Life, id: PaymentId, price: Micros) {
    let truth = life.truth();
    let (dice, now) = (&truth.dice, life.world.clock.now());
    if truth.paid(id).is_some() {
        return;
    }
    let amount = match dice.below(10) {
        0 => Micros(price.0 + 1 + i64::try_from(dice.below(5_000)).unwrap_or_default()),
        1 => Micros(price.0 - 1 - i64::try_from(dice.below(5_000)).unwrap_or_default()),
        _ => price,
    };
    let outcome = match dice.below(20) {
        0 => SandboxOutcome::Failure,
        1 => SandboxOutcome::Refund,
        _ => SandboxOutcome::Success,
    };
    let reference = truth.any_reference().filter(|_| dice.chance(60));
    let reference = reference.unwrap_or_else(|| format!("money-{}", truth.name(id)));
    let recipient = if dice.chance(80) { "somebody else" } else { US }.to_string();
    // Most money comes soon; some when its quote has expired.
    let delay = if dice.chance(60) { 1_200_000 } else { 2_000 };
    let settles_at = now.plus(Duration::from_millis(dice.below(delay)));
    // Some money goes back, soon or later; never what was used for another payment as well.
    let is_own = reference == format!("money-{}", truth.name(id));
    let goes_back = (is_own && outcome == SandboxOutcome::Success && recipient == US && dice.chance(250)).then(|| {
        let stays = if dice.chance(250) { 1_800_000 } else { 6_000 };
        settles_at.plus(Duration::from_millis(dice.below(stays)))
    });
    truth.pay(
        SandboxPayment { payment: id, reference, amount, recipient, outcome, paid_at: now, settles_at },
        goes_back,
    );
}

/// A call; who names a payment whose money has come is not asked for more.
pub async fn call(life: &Life, wish: &Wish, payment: Option<PaymentId>) -> Result<Told, Refusal> {
    let truth = life.truth();
    let paid = payment.filter(|id| truth.is_there(*id));
    let troubles = truth.troubles();
    let told = at_the_door(life, wish, payment).await;
    if let (Some(id), Ok(Told::Offer(other, _)), true) = (paid, &told, troubles == truth.troubles()) {
        let (name, other) = (truth.name(id), truth.name(*other));
        truth.breaks(Law::AskedOnce, format!("{name} is paid, and its buyer is asked to pay {other}"));
    }
    told
}

/// From the door to the answer, as the data plane takes it.
async fn at_the_door(life: &Life, wish: &Wish, payment: Option<PaymentId>) -> Result<Told, Refusal> {
    let world = &life.world;
    let Buyer { key, .. } = &world.buyers[wish.buyer];
    let caller = life.actors.keys().caller(key.as_bytes()).await?;
    let listing = life.actors.directory().listing(&world.listings[wish.listing].to_string()).await?;
    let payment = payment.map(|id| id.to_string());
    let ask = Ask {
        caller: &caller,
        body_sha256: [wish.body; 32],
        body_bytes: 2,
        payment_id: payment.as_deref(),
        signature: None,
        idempotency_key: wish.key.as_deref(),
        origin_currency: None,
        max_price: None,
        wait: Duration::from_millis(life.truth().dice.below(2) * 500),
    };
    let found = match listing.payment(&ask).await {
        Ok(found) => found,
        Err(refusal) => return offered(refusal),
    };
    match found {
        PaymentFound::Replay(payment) => replay(life, &payment).await,
        PaymentFound::Pending(..) => Ok(Told::Later),
        PaymentFound::Unkept(payment) => {
            let permit = listing.admit_again(&payment).await?;
            let right = listing.resend(&permit, &payment).await?;
            forward_again(life, permit, right).await
        }
        PaymentFound::None if wish.listing == FREE => call_free(life, &listing, &ask).await,
        PaymentFound::Signed(_) => Ok(Told::Later),
        PaymentFound::None => match listing.offer(&ask).await {
            Ok(_) => Ok(Told::Later),
            Err(refusal) => offered(refusal),
        },
        PaymentFound::Settled(ready) => {
            let permit = listing.admit_paid(&ready).await?;
            match ready.settle_and_claim(&permit, 2).await? {
                ClaimFound::Replay(payment) => replay(life, &payment).await,
                ClaimFound::Claim(claim) => forward(life, permit, claim).await,
            }
        }
    }
}

async fn call_free(life: &Life, listing: &ListingHandle, ask: &Ask<'_>) -> Result<Told, Refusal> {
    let permit = listing.admit_free(ask.caller).await?;
    match listing.claim_free(ask, &permit).await? {
        Some(ClaimFound::Claim(claim)) => forward(life, permit, claim).await,
        Some(ClaimFound::Replay(payment)) => replay(life, &payment).await,
        // Without a key nothing is claimed, and no promise is made.
        None => Ok(Told::Later),
    }
}

/// A 402 carries a quote, whatever its reason.
fn offered(refusal: Refusal) -> Result<Told, Refusal> {
    let body: Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
    let payment = &body["data"]["payment"];
    let id = payment["relay_request_id"].as_str().and_then(|text| text.parse().ok());
    match (id, payment["amount"]["amount_micros"].as_i64()) {
        (Some(id), Some(price)) => Ok(Told::Offer(id, Micros(price))),
        _ => Err(refusal),
    }
}

/// Row 7 for a completed call. An answer that was not kept and was had again is no more.
async fn replay(life: &Life, payment: &Payment) -> Result<Told, Refusal> {
    let (truth, id) = (life.truth(), payment.quote.id);
    if payment.progress.result.as_ref().is_some_and(|result| result.place == ResultPlace::Resent) {
        return Err(not_kept(payment));
    }
    let mut answer = Vec::new();
    for n in 0..PIECES {
        let Some(piece) = life.payments().result_read(payment, n).await? else { break };
        answer.extend_from_slice(&piece);
    }
    if answer.is_empty() {
        // Kept for three days: the clock of a history does not go so far.
        truth.breaks(Law::Durable, format!("{} lost its answer", truth.name(id)));
        return Ok(Told::Later);
    }
    truth.met("replayed");
    Ok(Told::Answer(id, answer))
}
