//! The listing actor: one per listing per node, on an arbiter chosen by the listing's id. It owns what changes and
//! publishes it as a gate; a call asks it on the cold path only. A handler never awaits the store: store steps run in
//! spawned futures.

mod circuit;
mod entitlement;
mod flights;
mod gate;
mod handle;
mod offer;
mod purchase;
mod slots;

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use storage::{
    QuoteIdentity, QuoteOpened,
    model::{ApiKeyId, Payment, PaymentId, Quote, SpendCap},
};
use tokio::sync::oneshot;

pub use circuit::{Circuit, CircuitKnobs, CircuitView};
pub use entitlement::{Entitlement, FreeRight, Resend};
pub use gate::{EndpointTerms, Gate, Permit, Terms};
pub use handle::{Ask, ListingHandle, PaymentFound, not_kept};
pub(crate) use purchase::release_overdue;
pub use purchase::{ClaimFound, KeptAnswer, PaymentClaim, ReadyPayment};

use crate::{
    payments::Checked,
    refusal::{Code, Refusal},
    world::World,
};

/// What the cold path asks.
pub(crate) enum Question {
    /// Make this quote, within a capped key's day; however many ask for the same identity, one is made.
    Quote(Box<Quote>, Option<SpendCap>, oneshot::Sender<Result<QuoteOpened, Refusal>>),
    /// Ask the rail until it is final or the time is over; one poll a payment, however many wait.
    Settlement(Arc<Payment>, Duration, oneshot::Sender<Result<Checked, Refusal>>),
    /// Read the settings anew and publish them.
    Refresh(oneshot::Sender<()>),
}

impl Message for Question {
    type Result = ();
}

/// Which question for a quote it is. A capped key's is its own: what it takes of the key's day nobody else's answer
/// tells.
type Asked = (QuoteIdentity, Option<ApiKeyId>);

/// The actor.
pub(crate) struct ListingActor {
    gate: Arc<Gate>,
    world: Arc<World>,
    quotes: HashMap<Asked, Vec<oneshot::Sender<Result<QuoteOpened, Refusal>>>>,
    polls: HashMap<PaymentId, Vec<oneshot::Sender<Result<Checked, Refusal>>>>,
}

impl ListingActor {
    pub(crate) fn new(gate: Arc<Gate>, world: Arc<World>) -> Self {
        Self { gate, world, quotes: HashMap::new(), polls: HashMap::new() }
    }

    fn quote(
        &mut self,
        quote: Quote,
        cap: Option<SpendCap>,
        reply: oneshot::Sender<Result<QuoteOpened, Refusal>>,
        ctx: &mut Context<Self>,
    ) {
        let identity = (QuoteIdentity::from(&quote), cap.map(|cap| cap.key));
        let waiting = self.quotes.entry(identity.clone()).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let made = make_quote(self.world.clone(), quote, cap).into_actor(self).map(move |made, actor, _| {
            if let Ok(QuoteOpened::Opened(payment) | QuoteOpened::Exists(payment)) = &made
                && payment.is_open(actor.world.clock.now())
            {
                let offer = actor.world.rails.offer(payment).body(actor.world.rails.site());
                actor.gate.remember_quote(payment, offer);
            }
            for reply in actor.quotes.remove(&identity).unwrap_or_default() {
                let _ = reply.send(made.clone());
            }
        });
        ctx.spawn(made);
    }

    fn settlement(
        &mut self,
        payment: Arc<Payment>,
        patience: Duration,
        reply: oneshot::Sender<Result<Checked, Refusal>>,
        ctx: &mut Context<Self>,
    ) {
        let id = payment.quote.id;
        let waiting = self.polls.entry(id).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let polled = poll_rail(self.world.clone(), payment, patience).into_actor(self).map(move |found, actor, _| {
            for reply in actor.polls.remove(&id).unwrap_or_default() {
                let _ = reply.send(found.clone());
            }
        });
        ctx.spawn(polled);
    }

    fn refresh(&mut self, reply: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        let (world, gate) = (self.world.clone(), self.gate.clone());
        let refreshed = async move {
            match world.store.listing_get(gate.id()).await {
                Ok(Some(offer)) => gate.publish(offer),
                Ok(None) => world.forget_gate(gate.id()),
                Err(error) => {
                    // What is not known is not sold: the next call reads it from the store.
                    tracing::warn!(listing = %gate.id(), %error, "settings could not be read");
                    world.forget_gate(gate.id());
                }
            }
            let _ = reply.send(());
        };
        ctx.spawn(refreshed.into_actor(self));
    }
}

async fn make_quote(world: Arc<World>, mut quote: Quote, cap: Option<SpendCap>) -> Result<QuoteOpened, Refusal> {
    let provider = world.rails.of(quote.rail)?;
    let offered = provider.offer(&quote).await?;
    quote.provider_ref = offered.provider_ref;
    quote.terms = offered.terms;
    let open_max = world.config.payments.open_quotes_max;
    match cap {
        None => Ok(world.store.quote_open(quote, open_max).await?),
        Some(cap) => Ok(world.store.quote_open_within(quote, open_max, cap).await?),
    }
}

async fn poll_rail(world: Arc<World>, payment: Arc<Payment>, patience: Duration) -> Result<Checked, Refusal> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let found = world.rails.of(payment.quote.rail)?.check(&payment.quote).await?;
        let Checked::Pending(after) = found else { return Ok(found) };
        let wake = tokio::time::Instant::now() + after.min(Duration::from_secs(1));
        if wake > until {
            return Ok(found);
        }
        tokio::time::sleep_until(wake).await;
    }
}

impl Actor for ListingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.world.config.actors.mailbox);
        metrics::gauge!("crochet_actor_active").increment(1.0);
        let idle_stop = self.world.config.actors.idle_stop;
        ctx.run_interval(idle_stop / 2, move |actor, ctx| {
            let idle = actor.world.clock.now().since(actor.gate.idle_since());
            if idle >= idle_stop && !actor.gate.is_busy() {
                actor.world.forget_gate(actor.gate.id());
                ctx.stop();
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!("crochet_actor_active").decrement(1.0);
    }
}

impl Handler<Question> for ListingActor {
    type Result = ();

    fn handle(&mut self, question: Question, ctx: &mut Self::Context) {
        self.world.count_message();
        match question {
            Question::Quote(quote, cap, reply) => self.quote(*quote, cap, reply, ctx),
            Question::Settlement(payment, patience, reply) => self.settlement(payment, patience, reply, ctx),
            Question::Refresh(reply) => self.refresh(reply, ctx),
        }
    }
}

/// Asks a listing's actor: starts it when there is none, replaces it once when it has died.
///
/// # Errors
/// `Overloaded` when its mailbox is full or no actor answers.
pub(crate) async fn ask<T>(
    world: &Arc<World>,
    gate: &Arc<Gate>,
    question: impl Fn(oneshot::Sender<T>) -> Question,
) -> Result<T, Refusal> {
    for _ in 0..2 {
        world.ensure_actor(gate).await?;
        let (reply, answer) = oneshot::channel();
        match try_tell(gate, question(reply)) {
            Told::Yes => {
                if let Ok(answer) = answer.await {
                    return Ok(answer);
                }
                // It died over the question: it is replaced when the mailbox turns out to be closed.
            }
            Told::Full => return Err(Refusal::from(Code::Overloaded).retry_after(Duration::from_secs(1))),
            Told::Closed => {
                *gate.mailbox.lock() = None;
                metrics::counter!("crochet_actor_restarts_total").increment(1);
            }
        }
    }
    Err(Refusal::from(Code::Overloaded).retry_after(Duration::from_secs(1)))
}

enum Told {
    Yes,
    Full,
    Closed,
}

/// Puts a question into the mailbox by the one address that the gate keeps: every clone of an address has a slot of
/// its own, which would make the mailbox's bound none at all.
fn try_tell(gate: &Gate, question: Question) -> Told {
    match gate.mailbox.lock().as_ref().map(|mailbox| mailbox.try_send(question)) {
        Some(Ok(())) => Told::Yes,
        Some(Err(actix::prelude::SendError::Full(_))) => Told::Full,
        Some(Err(actix::prelude::SendError::Closed(_))) | None => Told::Closed,
    }
}
