//! The listing actor: one per listing per node, on an arbiter chosen by the listing's id. It owns what changes and
//! publishes it as a gate; a call asks it on the cold path only. A handler never awaits the store: store steps run in
//! spawned futures. It may die at any time: money and payments in flight are elsewhere, and who waits for an answer asks
//! the next one.

mod circuit;
mod entitlement;
mod flights;
mod gate;
mod handle;
mod mailbox;
mod offer;
mod purchase;
mod signed;
mod slots;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use storage::{
    QuoteIdentity, QuoteOpened,
    model::{ApiKeyId, Payment, PaymentId, PaymentState, Quote, SpendCap},
};
use tokio::{sync::oneshot, time::Instant};

pub use circuit::{Circuit, CircuitKnobs, CircuitView};
pub use entitlement::{Entitlement, FreeRight, Resend};
pub(crate) use flights::Flights;
pub use gate::{EndpointTerms, Gate, Permit, Terms};
pub use handle::{Ask, ListingHandle, PaymentFound, not_kept};
use mailbox::Letter;
pub(crate) use mailbox::{Mailbox, ask};
pub(crate) use purchase::release_overdue;
pub use purchase::{ClaimFound, KeptAnswer, PaymentClaim, ReadyPayment};
pub use signed::{SignedFound, SignedPayment};

use crate::{
    payments::{Checked, Offered},
    refusal::Refusal,
    world::World,
};

type QuoteReply = oneshot::Sender<Result<QuoteOpened, Refusal>>;
type RailReply = oneshot::Sender<Result<Checked, Refusal>>;

/// Between two looks at a rail, however long it says to wait.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A quote that ends sooner is not offered again.
const CONFIRM_MARGIN: Duration = Duration::from_secs(5);

/// What the cold path asks.
pub(crate) enum Question {
    /// Make this quote, within a capped key's day; however many ask for the same identity, one is made.
    Quote(Box<Quote>, Option<SpendCap>, QuoteReply),
    /// Ask the rail until it is final or the time is over; one poll a payment, however many wait.
    Settlement(Arc<Payment>, Duration, RailReply),
    /// Read the settings anew and publish them.
    Refresh(oneshot::Sender<()>),
    /// End: the gate was let go.
    Stop,
    /// Die as a fault would have it.
    #[cfg(test)]
    Panic(#[expect(dead_code, reason = "whoever asks sees it dropped")] oneshot::Sender<()>),
}

/// Which question for a quote it is. A capped key's is its own: what it takes of the key's day nobody else's answer
/// tells.
type Asked = (QuoteIdentity, Option<ApiKeyId>);

/// The actor.
pub(crate) struct ListingActor {
    gate: Arc<Gate>,
    world: Arc<World>,
    /// Which actor of its gate it is: another one may have taken its place.
    number: u32,
    is_counted: bool,
    quotes: HashMap<Asked, Vec<QuoteReply>>,
    polls: HashMap<PaymentId, Vec<RailWaiter>>,
}

/// Somebody who waits for a settlement, for so long.
struct RailWaiter {
    until: Instant,
    reply: RailReply,
}

impl ListingActor {
    pub(crate) fn new(gate: Arc<Gate>, world: Arc<World>, number: u32) -> Self {
        Self { gate, world, number, is_counted: false, quotes: HashMap::new(), polls: HashMap::new() }
    }

    fn quote(&mut self, quote: Quote, cap: Option<SpendCap>, reply: QuoteReply, ctx: &mut Context<Self>) {
        let identity = (QuoteIdentity::from(&quote), cap.map(|cap| cap.key));
        let waiting = self.quotes.entry(identity.clone()).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let made = make_quote(self.world.clone(), quote, cap).into_actor(self).map(move |made, actor, _| {
            if let Ok(QuoteOpened::Opened(payment) | QuoteOpened::Exists(payment)) = &made
                && payment.progress.state == PaymentState::Quoted
                && payment.is_open(actor.world.clock.now())
            {
                let rails = &actor.world.rails;
                let offer = rails.offer(payment, &actor.gate.terms().listing, None);
                actor.gate.remember_quote(payment, &offer, rails.site());
            }
            for reply in actor.quotes.remove(&identity).unwrap_or_default() {
                let _ = reply.send(made.clone());
            }
        });
        ctx.spawn(made);
    }

    fn settlement(&mut self, payment: Arc<Payment>, patience: Duration, reply: RailReply, ctx: &mut Context<Self>) {
        let waiting = self.polls.entry(payment.quote.id).or_default();
        waiting.push(RailWaiter { until: Instant::now() + patience, reply });
        if waiting.len() == 1 {
            self.poll(payment, Duration::ZERO, ctx);
        }
    }

    /// Looks at a rail after a pause, and again for as long as anybody waits.
    fn poll(&self, payment: Arc<Payment>, pause: Duration, ctx: &mut Context<Self>) {
        let looked = look_at_rail(self.world.clone(), payment.clone(), pause).into_actor(self);
        ctx.spawn(looked.map(move |found, actor, ctx| actor.polled(payment, &found, ctx)));
    }

    fn polled(&mut self, payment: Arc<Payment>, found: &Result<Checked, Refusal>, ctx: &mut Context<Self>) {
        let id = payment.quote.id;
        let pause = match found {
            Ok(Checked::Pending(after)) => Some((*after).min(POLL_PAUSE_MAX)),
            _ => None,
        };
        let next = pause.map(|pause| Instant::now() + pause);
        let mut patient = Vec::new();
        for waiter in self.polls.remove(&id).unwrap_or_default() {
            if next.is_some_and(|next| next <= waiter.until) && !waiter.reply.is_closed() {
                patient.push(waiter);
            } else {
                let _ = waiter.reply.send(found.clone());
            }
        }
        if let Some(pause) = pause.filter(|_| !patient.is_empty()) {
            self.polls.insert(id, patient);
            self.poll(payment, pause, ctx);
        }
    }

    fn refresh(&mut self, reply: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        let (world, gate) = (self.world.clone(), self.gate.clone());
        let refreshed = async move {
            match world.store.listing_get(gate.id()).await {
                Ok(Some(offer)) => gate.publish(offer),
                Ok(None) => world.forget_gate(&gate),
                Err(error) => {
                    // What is not known is not sold: the next call reads it from the store.
                    tracing::warn!(listing = %gate.id(), %error, "settings could not be read");
                    gate.mark_stale();
                }
            }
            let _ = reply.send(());
        };
        ctx.spawn(refreshed.into_actor(self));
    }

    /// From time to time: ends an actor whose place is taken or whose listing is idle, and tidies the gate.
    fn look_around(&self, ctx: &mut Context<Self>) {
        if !self.gate.mailbox.is_home_of(self.number) {
            return ctx.stop();
        }
        let now = self.world.clock.now();
        self.gate.tidy(now);
        let idle = now.since(self.gate.idle_since());
        if idle >= self.world.config.actors.idle_stop && self.world.let_go(&self.gate) {
            ctx.stop();
        }
    }
}

async fn make_quote(world: Arc<World>, mut quote: Quote, cap: Option<SpendCap>) -> Result<QuoteOpened, Refusal> {
    let provider = world.rails.of(quote.rail)?;
    let standing = if provider.is_dear() { standing_offer(&world, &quote).await? } else { None };
    let offered = match standing {
        Some(offered) => offered,
        None => provider.offer(&quote).await?,
    };
    quote.provider_ref = offered.provider_ref;
    quote.terms = offered.terms;
    let open_max = world.config.payments.open_quotes_max;
    match cap {
        None => Ok(world.store.quote_open(quote, open_max).await?),
        Some(cap) => Ok(world.store.quote_open_within(quote, open_max, cap).await?),
    }
}

/// What an open quote for the same purchase was given, when it stands long enough to be found again by the store.
async fn standing_offer(world: &World, quote: &Quote) -> Result<Option<Offered>, Refusal> {
    let found = world.store.quote_find(&QuoteIdentity::from(quote)).await?;
    let soon = world.clock.now().plus(CONFIRM_MARGIN);
    let standing = found.filter(|payment| payment.quote.rail == quote.rail && payment.is_open(soon));
    Ok(standing.map(|payment| Offered {
        provider_ref: payment.quote.provider_ref.clone(),
        terms: payment.quote.terms.clone(),
    }))
}

async fn look_at_rail(world: Arc<World>, payment: Arc<Payment>, pause: Duration) -> Result<Checked, Refusal> {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    world.check_rail(&payment.quote).await
}

impl Actor for ListingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.is_counted = true;
        self.world.meters.active.increment(1.0);
        ctx.run_interval(self.world.config.actors.idle_stop / 2, |actor, ctx| actor.look_around(ctx));
    }
}

impl Drop for ListingActor {
    fn drop(&mut self) {
        // Whichever way it ends: stopped, or dead of a panic.
        if self.is_counted {
            self.world.meters.active.decrement(1.0);
        }
    }
}

impl Handler<Letter> for ListingActor {
    type Result = ();

    fn handle(&mut self, letter: Letter, ctx: &mut Self::Context) {
        self.world.meters.messages.increment(1);
        match letter.question {
            Question::Quote(quote, cap, reply) => self.quote(*quote, cap, reply, ctx),
            Question::Settlement(payment, patience, reply) => self.settlement(payment, patience, reply, ctx),
            Question::Refresh(reply) => self.refresh(reply, ctx),
            Question::Stop => ctx.stop(),
            #[cfg(test)]
            Question::Panic(_) => panic!("asked for"),
        }
    }
}
