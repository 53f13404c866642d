//! Whoever runs the market; and how histories end: nothing fails any more, what can finish has finished, and what waits has a
//! reason.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use storage::{CatalogStore, HistoryStore, faulty::at_once, model::*};

use super::{
    buyers::{Told, call},
    laws::{Law, Places, is_success},
    operators,
    truth::{US, shown},
    world::{Life, Wish, World},
};

/// Longer than money takes to come, and than a quote stands.
const LATE: u64 = 3_600_000;
/// More than the looks at a rail that are due after money came, with one that was put off.
const LOOKS: usize = 3;

/// Changes prices, pauses an endpoint for a while, and in some histories closes a listing.
pub async fn operate(life: Arc<Life>) {
    let (truth, dice) = (life.truth(), &life.truth().dice);
    for listing in &life.world.listings {
        resume(&life, *listing).await;
    }
    for _ in 0..2 {
        life.pause(5_000).await;
        let drawn = dice.below(10);
        let id = life.world.listings[usize::from(drawn == 0)];
        let Ok(Some(offer)) = life.store.listing_get(id).await else { continue };
        let mut listing = offer.listing;
        match (drawn, offer.endpoint) {
            (0, _) => listing.status = ListingStatus::Suspended,
            (1..4, Some(mut endpoint)) => {
                endpoint.status = EndpointStatus::Paused;
                if life.store.endpoint_update(endpoint).await.is_ok() {
                    truth.met("an endpoint was paused");
                    life.pause(2_000).await;
                }
                resume(&life, id).await;
                continue;
            }
            _ => listing.price = Micros(listing.price.0 + 777),
        }
        if life.store.listing_update(listing, None).await.is_ok() && drawn > 0 {
            truth.met("a price changed");
        }
    }
}

/// What the control plane does from time to time.
pub async fn adds_up(life: Arc<Life>) {
    for _ in 0..12 {
        life.pause(1_500).await;
        let _ = life.store.roll_up().await;
    }
}

async fn resume(life: &Life, id: ListingId) {
    loop {
        if let Ok(Some(offer)) = life.store.listing_get(id).await {
            let Some(mut endpoint) = offer.endpoint.filter(|endpoint| endpoint.status == EndpointStatus::Paused) else {
                return;
            };
            endpoint.status = EndpointStatus::Active;
            let _ = life.store.endpoint_update(endpoint).await;
        }
        life.pause(100).await;
    }
}

/// What was acknowledged in an earlier life is there in this one.
pub fn remembers(life: &Life) {
    let truth = life.truth();
    truth.payments().into_iter().for_each(|id| life.watched.look(id));
    life.world.sellers.iter().for_each(|seller| life.watched.look_at_payouts(*seller));
    for id in truth.all_promised() {
        if life.kept(id).is_none() {
            truth.breaks(Law::Durable, format!("{} was offered and is gone", truth.name(id)));
        }
    }
    for (id, answer) in truth.all_answered() {
        life.is_kept(id, &answer);
    }
}

/// Everybody asks until it ends; then each payment has ended or tells why not.
pub async fn finish(life: &Life) {
    let truth = life.truth();
    truth.note("nothing fails any more".into());
    truth.time.fetch_add(LATE, Ordering::Relaxed);
    everybody_asks(life).await;
    for _ in 0..LOOKS {
        while at_once(life.watched.base.roll_up()).expect("rolled up").more {}
        truth.time.fetch_add(LATE, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    everything_goes_out(life).await;
    for id in truth.payments() {
        let Some(payment) = life.kept(id) else { continue };
        match waits(life, &payment) {
            Ok(reason) => truth.met(reason),
            Err(why) => truth.breaks(Law::Finishes, format!("{} waits for nothing: {why}", truth.name(id))),
        }
    }
    for seller in &life.world.sellers {
        let (_, earned) = truth.unpaid_earnings(*seller);
        if earned > 0 || life.watched.kept_payouts(*seller).iter().any(Payout::is_open) {
            truth.breaks(Law::Finishes, format!("{earned} were earned and not paid out, or a payout never ended"));
        }
    }
    remembers(life);
    is_shown(life);
}

/// An operator refunds what is owed and pays out what was earned, until nothing is left.
async fn everything_goes_out(life: &Life) {
    for _ in 0..12 {
        let mut is_done = true;
        for id in life.truth().payments() {
            is_done &= operators::refund(life, id).await;
        }
        for seller in &life.world.sellers {
            is_done &= operators::pay_out(life, *seller).await;
        }
        if is_done {
            return;
        }
    }
}

async fn everybody_asks(life: &Life) {
    let truth = life.truth();
    for id in truth.payments() {
        for _ in 0..30 {
            let Some(payment) = life.kept(id) else { break };
            if ends(life, &payment).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            match call(life, &life.world.wish_of(&payment), Some(id)).await {
                Ok(Told::Answer(id, answer)) => life.is_kept(id, &answer),
                Ok(_) => {}
                Err(refusal) => truth.note(format!("{} is refused, {:?}", truth.name(id), refusal.code())),
            }
        }
    }
}

/// Why a payment and its money stand where they do, for good.
fn waits(life: &Life, payment: &Payment) -> Result<&'static str, String> {
    let (truth, id) = (life.truth(), payment.quote.id);
    let places = Places::of(payment, &truth.left(id));
    if places.owed > 0 {
        return Err(format!("{} are owed and not refunded", places.owed));
    }
    if places.came > 0 && places.gone == 0 && truth.goes_back(id).is_some() {
        return Err("the rail took its money back, and nobody knows".into());
    }
    ends(life, payment)
}

/// Why a call stands where it does, for good.
fn ends(life: &Life, payment: &Payment) -> Result<&'static str, String> {
    let (truth, quote) = (life.truth(), &payment.quote);
    let paid = truth.paid(quote.id);
    match payment.progress.state {
        PaymentState::Completed | PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded => Ok("ended"),
        PaymentState::Failed if truth.goes_back(quote.id).is_some() => Ok("ended: the rail took it back"),
        PaymentState::Failed if paid.as_ref().is_some_and(|paid| paid.recipient != US) => Ok("ended: not paid to us"),
        PaymentState::Failed => Ok("ended: the rail said no"),
        PaymentState::Quoted if quote.rail == Rail::Free => Err("nothing is missing".into()),
        PaymentState::Quoted => match paid {
            None => Ok("waits: nobody has paid"),
            Some(paid) if is_success(&paid) && truth.is_money_of_another(quote.id, &paid.reference) => {
                Ok("waits: its money is another payment's")
            }
            Some(paid) => Err(format!("quoted, and {} came", paid.amount.0)),
        },
        state => Err(shown(Some(state))),
    }
}

/// What parties are shown of it is what was written.
fn is_shown(life: &Life) {
    let (truth, base) = (life.truth(), &life.watched.base);
    truth.time.fetch_add(LATE, Ordering::Relaxed);
    while at_once(base.roll_up()).expect("rolled up").more {}
    let mut parties: BTreeMap<ProfileId, (Sums, usize)> = BTreeMap::new();
    for payment in truth.payments().into_iter().filter_map(|id| life.kept(id)) {
        let (quote, attempts) = (&payment.quote, payment.progress.attempts.len());
        let places = Places::of(&payment, &truth.left(quote.id));
        let (bought, rows) = parties.entry(quote.buyer).or_default();
        bought.paid.0 += places.came;
        bought.spent.0 += places.came - places.held - places.owed - places.refunded - places.gone;
        bought.in_suspense.0 += places.held;
        bought.owed.0 += places.owed;
        bought.refunded.0 += places.refunded;
        bought.taken_back.0 += places.gone;
        *rows += attempts;
        let (sold, rows) = parties.entry(quote.seller).or_default();
        sold.earned.0 += places.seller;
        // What was asked for as a fee; the marketplace's losses are its own.
        sold.fees.0 += if places.done > 0 { quote.split().fee.0 } else { 0 };
        *rows += attempts;
    }
    for (party, (mut wanted, rows)) in parties {
        wanted.paid_out.0 = truth.paid_out(party);
        let (sums, shown) = life.watched.shown(party);
        if (sums, shown) != (wanted, rows) {
            truth.breaks(Law::Shown, format!("a party is shown {shown} of {rows} rows, {sums:?} for {wanted:?}"));
        }
    }
}

impl World {
    /// Who asked for what, by the quote.
    fn wish_of(&self, payment: &Payment) -> Wish {
        let quote = &payment.quote;
        let buyer = self.buyers.iter().position(|buyer| buyer.id == quote.buyer).expect("a buyer of ours");
        let listing = self.listings.iter().position(|id| *id == quote.listing).expect("a listing of ours");
        Wish { buyer, listing, body: quote.body_sha256[0], key: quote.idempotency_key.clone() }
    }
}
