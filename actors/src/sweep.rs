//! What is due though nobody asks for it: rails are read again when a quote expired and after money came, and settled
//! money that no call used becomes the buyer's again. On a thread of the actors, one payment after the other.
//!
//! *Never:* lets money that a rail's own record shows go unrecorded, or takes a rail that does not answer for a no.

use std::{sync::Arc, time::Duration};

use storage::{
    SettleOutcome, StepOutcome, StoreError, TakeBackOutcome,
    model::{Evidence, Look, Micros, Payment, PaymentId, PaymentState, Rail, Settled, TakenBack, UnixMillis, Work},
};

use crate::{
    meters::PaymentMet,
    payments::{Checked, Gone, PaymentProvider, ProviderError, RailRecord, Verified, verify},
    refusal::Refusal,
    world::World,
};

/// Payments that are looked up at a time.
const PAGE: usize = 64;
/// Pages of one kind in a round: then the other kinds have their turn, however slow a rail is.
const PAGES_MAX: usize = 4;

/// Looks for what is due until the process ends.
pub(crate) async fn run(world: Arc<World>) {
    let mut more = false;
    loop {
        if !more {
            tokio::time::sleep(world.config.payments.rereads.every).await;
        }
        more = round(&world).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is due could not be done; it is tried again");
            false
        });
    }
}

/// Does some of what is due by now. `true`: more waits.
///
/// # Errors
/// Why the store could not; the next round goes on there.
pub(crate) async fn round(world: &World) -> Result<bool, StoreError> {
    let mut more = false;
    let knobs = &world.config.payments;
    for (kind, looks) in
        [(Work::Unpaid as fn(Look) -> Work, &knobs.rereads.unpaid_after), (Work::Paid, &knobs.rereads.paid_after)]
    {
        for (number, after) in looks.iter().enumerate() {
            let is_last = number + 1 == looks.len();
            let look = Look { number: u8::try_from(number).unwrap_or(u8::MAX), is_last };
            more |= sweep(world, kind(look), *after).await?;
        }
    }
    more |= sweep(world, Work::PutOff, Duration::ZERO).await?;
    more |= sweep(world, Work::Window, knobs.window).await?;
    Ok(more)
}

/// Whether a rail that does not answer now has to be asked again: at an earlier look the next one comes anyway.
fn is_insistent(work: Work) -> bool {
    match work {
        Work::Unpaid(look) | Work::Paid(look) => look.is_last,
        Work::PutOff => true,
        Work::Window => false,
    }
}

async fn sweep(world: &World, work: Work, after: Duration) -> Result<bool, StoreError> {
    let mut behind = None;
    for _ in 0..PAGES_MAX {
        let now = world.clock.now();
        let until = UnixMillis(now.0.saturating_sub(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        let page = world.store.work_due(work, behind, until, PAGE).await?;
        let Some(mark) = page.mark else { return Ok(false) };
        let mut put_off = Vec::new();
        for id in page.due {
            let done = if work == Work::Window { owe(world, id).await } else { read_again(world, id).await };
            match done {
                Ok(()) => {}
                Err(Fault::Store(error)) => return Err(error),
                Err(Fault::Rail) if is_insistent(work) => {
                    put_off.push((id, world.clock.now().plus(world.config.payments.rereads.again_after)));
                }
                Err(Fault::Rail) => {}
            }
            rest(world.config.payments.rereads.pause).await;
        }
        world.store.work_done(work, mark.clone(), put_off).await?;
        behind = Some(mark);
        if !page.more {
            return Ok(false);
        }
    }
    // The window's payments leave by themselves; what is left of them is looked at again in the next round.
    Ok(work != Work::Window)
}

/// Lets others go first.
async fn rest(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

enum Fault {
    /// The rail did not say.
    Rail,
    /// Everything waits for the store.
    Store(StoreError),
}

impl From<Refusal> for Fault {
    fn from(_: Refusal) -> Self {
        Self::Rail
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            // One damaged record must not keep all others from being looked at.
            StoreError::Corrupt(reason) => {
                tracing::error!(reason, "a payment cannot be looked at");
                Self::Rail
            }
            error => Self::Store(error),
        }
    }
}

/// The window is over: the money is the buyer's again.
async fn owe(world: &World, id: PaymentId) -> Result<(), Fault> {
    if let StepOutcome::Step(true, payment) = world.store.payment_owe(id).await? {
        tracing::info!(payment = %id, "its window is over: the money is the buyer's again");
        world.meters.payment(payment.quote.rail, PaymentMet::Owed);
    }
    Ok(())
}

/// Reads the rails of a payment before it is due.
///
/// # Errors
/// `PaymentProviderUnavailable`, `StoreUnavailable`: some of it may be recorded, and the rest is found at the next look.
pub(crate) async fn look_again(world: &World, id: PaymentId) -> Result<(), Refusal> {
    read_again(world, id).await.map_err(|fault| match fault {
        Fault::Rail => ProviderError::Unavailable.into(),
        Fault::Store(error) => error.into(),
    })
}

/// Reads the rails of a payment: money that came is recorded, money that went back is posted.
async fn read_again(world: &World, id: PaymentId) -> Result<(), Fault> {
    let Some(payment) = world.store.payment_get(id).await? else { return Ok(()) };
    if payment.quote.rail == Rail::Free {
        return Ok(());
    }
    let own = came(world, &payment, world.rails.of(payment.quote.rail)?).await;
    let mut is_told = own.is_ok();
    let mut says_no = matches!(own, Ok(Came::Nothing { is_over: true }));
    let mut noes: Vec<Rail> = says_no.then_some(payment.quote.rail).into_iter().collect();
    if let Err(Fault::Store(error)) = own {
        return Err(Fault::Store(error));
    }
    for provider in world.rails.others(&payment.quote) {
        match came(world, &payment, provider).await {
            Ok(Came::Money) => says_no = false,
            Ok(Came::Nothing { is_over }) => noes.extend(is_over.then_some(provider.rail())),
            Err(Fault::Rail) => is_told = false,
            Err(fault) => return Err(fault),
        }
    }
    let awaited = matches!(payment.progress.state, PaymentState::Quoted | PaymentState::Pending);
    if says_no && awaited && !may_have_moved(world, id, &noes).await? {
        world.store.payment_fail(id).await?;
        world.meters.payment(payment.quote.rail, PaymentMet::Failed);
    }
    went(world, &payment).await?;
    if is_told { Ok(()) } else { Err(Fault::Rail) }
}

/// Whether something was signed for a payment, and its rail does not say that it never moved: until then nobody else's
/// no ends the payment.
async fn may_have_moved(world: &World, id: PaymentId, noes: &[Rail]) -> Result<bool, Fault> {
    let signed = world.store.payment_intent(id).await?;
    Ok(signed.is_some_and(|intent| !noes.contains(&intent.rail)))
}

enum Came {
    Money,
    Nothing { is_over: bool },
}

/// What came in on one rail, recorded.
async fn came(world: &World, payment: &Payment, provider: &Arc<dyn PaymentProvider>) -> Result<Came, Fault> {
    let found = world.check_one(provider, &payment.quote).await;
    rest(provider.reread_pause()).await;
    match found? {
        Checked::Settled(record) => record_money(world, payment, provider, record).await,
        Checked::Pending(_) => Ok(Came::Nothing { is_over: false }),
        Checked::Failed => Ok(Came::Nothing { is_over: true }),
    }
}

async fn record_money(
    world: &World,
    payment: &Payment,
    provider: &Arc<dyn PaymentProvider>,
    record: RailRecord,
) -> Result<Came, Fault> {
    let (id, payee) = (payment.quote.id, provider.payee_of(&payment.quote));
    let Verified::Ours(evidence) = verify(&payment.quote, &payee, record, world.clock.now()) else {
        return Ok(Came::Nothing { is_over: true });
    };
    if let Some(gate) = world.gates.get(&payment.quote.listing) {
        gate.forget_quote(payment);
    }
    match world.store.payment_settle(id, evidence, None).await? {
        SettleOutcome::Recorded { settled: Settled::Known, .. } | SettleOutcome::NotFound => {}
        SettleOutcome::Recorded { settled, .. } => {
            tracing::info!(payment = %id, ?settled, "money was found that nobody had told of");
            world.meters.payment(provider.rail(), PaymentMet::Found);
        }
        SettleOutcome::ProofUsed(other) => tracing::error!(payment = %id, %other, "one proof for two payments"),
    }
    Ok(Came::Money)
}

/// Whether what came in has gone back since; each piece of money goes back once.
async fn went(world: &World, payment: &Payment) -> Result<(), Fault> {
    let shown =
        payment.progress.evidence.iter().filter(|shown| shown.amount > Micros::ZERO && shown.rail != Rail::Free);
    for evidence in shown {
        let proof_key = format!("reversal:{}", evidence.proof_key);
        if payment.progress.evidence.iter().any(|known| known.proof_key == proof_key) {
            continue;
        }
        let provider = world.rails.of(evidence.rail)?;
        let gone = provider.gone(&payment.quote, evidence).await;
        rest(provider.reread_pause()).await;
        let Gone::Back(amount) = gone.map_err(|_| Fault::Rail)? else { continue };
        let reversal = Evidence { proof_key, amount, recorded_at: world.clock.now(), ..evidence.clone() };
        take_back(world, payment.quote.id, reversal).await?;
    }
    Ok(())
}

async fn take_back(world: &World, id: PaymentId, reversal: Evidence) -> Result<(), Fault> {
    let (rail, amount) = (reversal.rail, reversal.amount);
    match world.store.payment_take_back(id, reversal).await? {
        TakeBackOutcome::Recorded(TakenBack::Posted | TakenBack::Waits, _) => {
            tracing::warn!(payment = %id, rail = rail.name(), micros = amount.0, "the rail took money back");
            world.meters.payment(rail, PaymentMet::TakenBack);
        }
        TakeBackOutcome::Recorded(TakenBack::TooMuch, _) => {
            tracing::error!(payment = %id, micros = amount.0, "the rail took back more than it had brought");
        }
        TakeBackOutcome::Recorded(TakenBack::Known, _) | TakeBackOutcome::NotFound => {}
        TakeBackOutcome::ProofUsed(other) => tracing::error!(payment = %id, %other, "one reversal for two payments"),
    }
    Ok(())
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
