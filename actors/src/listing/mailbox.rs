//! The way to a listing's actor: at most one lives, it is started when something is asked, and replaced when it has
//! died.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::{Addr, Context, dev::channel::channel, prelude::SendError};
use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Gate, ListingActor, Question};
use crate::{
    refusal::{Code, Refusal},
    world::World,
};

/// When a full mailbox may have room again.
const FULL_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Where a gate's questions go. The one address is kept here: every clone of an address has a slot of its own, which
/// would make the mailbox's bound none at all.
#[derive(Default)]
pub(crate) struct Mailbox {
    tenant: Mutex<Tenant>,
    depth: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Tenant {
    address: Option<Addr<ListingActor>>,
    /// Which actor of this gate it is.
    number: u32,
}

/// A question on its way.
pub(crate) struct Letter {
    pub(crate) question: Question,
    _waits: Waits,
}

impl actix::Message for Letter {
    type Result = ();
}

/// Counted while it waits, whatever becomes of it.
struct Waits {
    depth: Arc<AtomicUsize>,
    all: Gauge,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
        self.all.decrement(1.0);
    }
}

/// What became of a question.
enum Told {
    /// It is in the mailbox of this actor.
    To(u32),
    /// There is no room.
    Full,
    /// Nobody took it.
    Nobody,
}

impl Mailbox {
    /// Questions that wait.
    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Whether an actor lives.
    pub(crate) fn has_actor(&self) -> bool {
        self.tenant.lock().address.as_ref().is_some_and(Addr::connected)
    }

    /// Whether this is the actor that lives here.
    pub(crate) fn is_home_of(&self, number: u32) -> bool {
        let tenant = self.tenant.lock();
        tenant.number == number && tenant.address.is_some()
    }

    /// Lets the actor go; it ends by itself when it is not told so.
    pub(crate) fn retire(&self) {
        let address = self.tenant.lock().address.take();
        if let Some(address) = address {
            let _ = address.try_send(Letter { question: Question::Stop, _waits: self.waits(Gauge::noop()) });
        }
    }

    fn waits(&self, all: Gauge) -> Waits {
        self.depth.fetch_add(1, Ordering::Relaxed);
        all.increment(1.0);
        Waits { depth: self.depth.clone(), all }
    }

    /// Starts the actor when none lives.
    pub(crate) fn open(world: &Arc<World>, gate: &Arc<Gate>) {
        gate.mailbox.tenant.lock().fill(world, gate);
    }

    fn tell(world: &Arc<World>, gate: &Arc<Gate>, question: Question) -> Told {
        let letter = Letter { question, _waits: gate.mailbox.waits(world.meters.mailbox_depth.clone()) };
        let mut tenant = gate.mailbox.tenant.lock();
        tenant.fill(world, gate);
        let sent = tenant.address.as_ref().map(|address| address.try_send(letter));
        match sent {
            Some(Ok(())) => Told::To(tenant.number),
            Some(Err(SendError::Full(_))) => Told::Full,
            Some(Err(SendError::Closed(_))) | None => Told::Nobody,
        }
    }

    /// An actor did not answer: it is dead, even where its mailbox does not show it yet.
    fn bury(&self, number: u32) {
        let mut tenant = self.tenant.lock();
        if tenant.number == number {
            tenant.address = None;
        }
    }
}

impl Tenant {
    fn fill(&mut self, world: &Arc<World>, gate: &Arc<Gate>) {
        if self.address.as_ref().is_some_and(Addr::connected) {
            return;
        }
        if self.number > 0 {
            world.meters.restarts.increment(1);
        }
        self.number = self.number.wrapping_add(1).max(1);
        self.address = Some(start(world, gate, self.number));
    }
}

/// Starts an actor on its arbiter. The mailbox has its bound from the first question on.
fn start(world: &Arc<World>, gate: &Arc<Gate>, number: u32) -> Addr<ListingActor> {
    let (letters, received) = channel(world.config.actors.mailbox);
    let actor = ListingActor::new(gate.clone(), world.clone(), number);
    if let Some(arbiter) = world.arbiter(gate.id()) {
        // An arbiter that is gone drops the receiver, and the first question finds nobody.
        arbiter.spawn_fn(move || {
            let context = Context::with_receiver(received);
            actix_rt::spawn(context.into_future(actor));
        });
    }
    Addr::new(letters)
}

/// Asks a listing's actor: starts it when there is none; when it dies over the question, replaces it and asks once
/// more.
///
/// # Errors
/// `Overloaded` when its mailbox is full or no actor answers.
pub(crate) async fn ask<T>(
    world: &Arc<World>,
    gate: &Arc<Gate>,
    question: impl Fn(oneshot::Sender<T>) -> Question,
) -> Result<T, Refusal> {
    for _ in 0..2 {
        let (reply, answer) = oneshot::channel();
        match Mailbox::tell(world, gate, question(reply)) {
            Told::To(number) => match answer.await {
                Ok(answer) => return Ok(answer),
                Err(_) => gate.mailbox.bury(number),
            },
            Told::Full => {
                world.meters.mailbox_full.increment(1);
                break;
            }
            Told::Nobody => {}
        }
    }
    Err(Refusal::from(Code::Overloaded).retry_about(FULL_PAUSE))
}
