//! What a door does with a listing: find the payment, offer a quote, admit a call. The rows are those of the table of
//! checks in `ARCHITECTURE.md`.

use std::{sync::Arc, time::Duration};

use storage::{
    QuoteIdentity, QuoteOpened, ResultsRoom, SettleOutcome, StepOutcome,
    model::{
        Day, Evidence, FeeRate, ListingStatus, Micros, OriginCurrency, Payment, PaymentId, PaymentState, Quote, Rail,
        ResultPlace, Settled, SpendCap, UnixMillis,
    },
};

use super::{
    Question, ask,
    flights::Flight,
    gate::{Gate, Permit, Terms},
    purchase::{ClaimFound, ReadyPayment, Resend},
};
use crate::{
    keys::Caller,
    payments::{Checked, Verified, verify},
    refusal::{Code, Refusal, SellerCalled},
    world::World,
};

/// What one request asks of a listing.
pub struct Ask<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// SHA-256 of the raw body.
    pub body_sha256: [u8; 32],
    /// Size of the raw body.
    pub body_bytes: u64,
    /// `X-Crochet-Relay-Request-Id`.
    pub payment_id: Option<&'a str>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// `X-Crochet-Origin-Currency`.
    pub origin_currency: Option<&'a str>,
    /// `X-Crochet-Max-Price-Micros`.
    pub max_price: Option<Micros>,
    /// `Prefer: wait=n`.
    pub wait: Duration,
}

/// What rows 7 and 10 found.
pub enum PaymentFound {
    /// No payment yet.
    None,
    /// The call was completed before: its stored answer, and nothing else.
    Replay(Arc<Payment>),
    /// It was, and its answer was too large to be kept: the seller may be asked for it once more.
    Unkept(Arc<Payment>),
    /// The rail has not settled it: ask again after so long.
    Pending(Arc<Payment>, Duration),
    /// The money is there, and nobody else on this node is using it.
    Settled(ReadyPayment),
}

/// One listing, as a call uses it.
#[derive(Clone)]
pub struct ListingHandle {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
    terms: Arc<Terms>,
}

impl ListingHandle {
    pub(crate) fn new(world: Arc<World>, gate: Arc<Gate>) -> Self {
        gate.touch(world.clock.now());
        let terms = gate.terms();
        Self { world, gate, terms }
    }

    /// The settings that this request sees, from its first look to its last.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The largest request body that the seller takes.
    #[must_use]
    pub fn request_max_bytes(&self) -> u64 {
        self.terms.endpoint.as_ref().map_or(u64::MAX, |endpoint| endpoint.endpoint.limits.max_request_bytes)
    }

    /// Whether a call costs nothing.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.terms.listing.price == Micros::ZERO
    }

    /// Rows 7 and 10: whose payment, for what, in which state; and, when it is unpaid, what the rail's own record says.
    ///
    /// # Errors
    /// `PaymentNotFound`, `PaymentRequestMismatch`, `IdempotencyKeyReused`, `PaymentInProgress`, `PaymentClosed`,
    /// `PaymentFailed`, `PaymentUnderpaid`, `PaymentProviderUnavailable`, `StoreUnavailable`.
    pub async fn payment(&self, ask: &Ask<'_>) -> Result<PaymentFound, Refusal> {
        let id = match ask.payment_id {
            Some(text) => text.parse().map_err(|_| Code::PaymentNotFound)?,
            None => match self.find(ask).await? {
                None => return Ok(PaymentFound::None),
                Some(payment) => payment.quote.id,
            },
        };
        let deadline = tokio::time::Instant::now() + self.world.config.payments.in_progress_wait;
        loop {
            // The flight first, the look second: what is read before it is taken may be old by then.
            let flight = self.gate.flights.take(id);
            let payment = self.find(ask).await?.ok_or(Code::PaymentNotFound)?;
            if let Some(found) = ended(&payment, self.world.clock.now())? {
                return Ok(found);
            }
            match flight {
                Ok(flight) => return self.check_rail(ask, payment, flight).await,
                Err(mut over) => {
                    let waited = tokio::time::timeout_at(deadline, async { while over.changed().await.is_ok() {} });
                    if waited.await.is_err() {
                        return self.still_busy(id).await;
                    }
                }
            }
        }
    }

    async fn still_busy(&self, id: PaymentId) -> Result<PaymentFound, Refusal> {
        let after = self.world.config.payments.pending_retry_after;
        let payment = self.world.store.payment_get(id).await?.ok_or(Code::PaymentNotFound)?;
        match payment.progress.state {
            PaymentState::Quoted | PaymentState::Pending => Ok(PaymentFound::Pending(payment, after)),
            state => Err(in_progress(state)),
        }
    }

    async fn find(&self, ask: &Ask<'_>) -> Result<Option<Arc<Payment>>, Refusal> {
        let buyer = ask.caller.profile.id;
        if let Some(text) = ask.payment_id {
            let id: PaymentId = text.parse().map_err(|_| Code::PaymentNotFound)?;
            let payment = self.world.store.payment_get(id).await?;
            // Unknown and somebody else's are one and the same answer.
            let payment = payment.filter(|payment| payment.quote.buyer == buyer).ok_or(Code::PaymentNotFound)?;
            if payment.quote.listing != self.gate.id() || payment.quote.body_sha256 != ask.body_sha256 {
                return Err(Code::PaymentRequestMismatch.into());
            }
            return Ok(Some(payment));
        }
        let Some(key) = ask.idempotency_key else { return Ok(None) };
        let Some(payment) = self.world.store.payment_by_key(buyer, key).await? else { return Ok(None) };
        if payment.quote.listing != self.gate.id() || payment.quote.body_sha256 != ask.body_sha256 {
            return Err(Code::IdempotencyKeyReused.into());
        }
        // Begun, and not settled because the process died there.
        if payment.quote.rail == Rail::Free {
            return Ok(Some(payment));
        }
        // Unpaid: the same offer again, unless the rail knows of money that nobody has told us of.
        let unpaid = matches!(payment.progress.state, PaymentState::Quoted | PaymentState::Pending);
        if unpaid && !matches!(self.rail_says(&payment, Duration::ZERO).await?, Checked::Settled(_)) {
            return Ok(None);
        }
        Ok(Some(payment))
    }

    async fn rail_says(&self, payment: &Arc<Payment>, wait: Duration) -> Result<Checked, Refusal> {
        let provider = self.world.rails.of(payment.quote.rail)?;
        match provider.check(&payment.quote).await? {
            Checked::Pending(_) if !wait.is_zero() => {
                let question = |reply| Question::Settlement(payment.clone(), wait, reply);
                super::ask(&self.world, &self.gate, question).await?
            }
            found => Ok(found),
        }
    }

    async fn check_rail(&self, ask: &Ask<'_>, payment: Arc<Payment>, flight: Flight) -> Result<PaymentFound, Refusal> {
        let ready = |payment, evidence| {
            PaymentFound::Settled(ReadyPayment::new(self.world.clone(), self.gate.clone(), payment, evidence, flight))
        };
        if matches!(payment.progress.state, PaymentState::Settled | PaymentState::Claimed(_)) {
            return Ok(ready(payment, None));
        }
        let now = self.world.clock.now();
        if payment.quote.rail == Rail::Free {
            let evidence = paid_by_nothing(payment.quote.id, now);
            return Ok(ready(payment, Some(evidence)));
        }
        match self.rail_says(&payment, ask.wait).await? {
            Checked::Settled(record) => {
                let payee = self.world.rails.of(payment.quote.rail)?.payee();
                match verify(&payment.quote, payee, record, now) {
                    Verified::Ours(evidence) if evidence.amount >= payment.quote.price => {
                        Ok(ready(payment, Some(evidence)))
                    }
                    Verified::Ours(evidence) => self.underpaid(ask, &payment, evidence).await,
                    Verified::NotOurs => self.failed(ask, &payment).await,
                }
            }
            Checked::Failed => self.failed(ask, &payment).await,
            Checked::Pending(_) if payment.is_expired(now) => {
                self.gate.forget_quote(&payment);
                Err(self.fresh_quote(ask, Code::PaymentExpired).await.payment_expired())
            }
            Checked::Pending(after) => Ok(PaymentFound::Pending(payment, after)),
        }
    }

    async fn failed(&self, ask: &Ask<'_>, payment: &Payment) -> Result<PaymentFound, Refusal> {
        self.world.store.payment_fail(payment.quote.id).await?;
        self.gate.forget_quote(payment);
        Err(self.fresh_quote(ask, Code::PaymentFailed).await.payment_state(PaymentState::Failed))
    }

    async fn underpaid(
        &self,
        ask: &Ask<'_>,
        payment: &Payment,
        evidence: storage::model::Evidence,
    ) -> Result<PaymentFound, Refusal> {
        self.gate.forget_quote(payment);
        match self.world.store.payment_settle(payment.quote.id, evidence, None).await? {
            SettleOutcome::Recorded { settled: Settled::Underpaid { missing }, payment, .. } => {
                let refusal = self.fresh_quote(ask, Code::PaymentUnderpaid).await;
                Err(refusal.payment_state(payment.progress.state).detail("missing_micros", missing.0))
            }
            _ => Err(in_progress(payment.progress.state)),
        }
    }

    /// Rows 8 and 9: could the call be sold now, and for what. Always a refusal: the 402 is the best of them.
    pub async fn offer(&self, ask: &Ask<'_>) -> Refusal {
        match self.try_offer(ask, Code::PaymentRequired).await {
            Ok(refusal) | Err(refusal) => refusal,
        }
    }

    /// A 402 with another reason than that nothing was paid yet; when no quote can be made, why not.
    async fn fresh_quote(&self, ask: &Ask<'_>, code: Code) -> Refusal {
        match self.try_offer(ask, code).await {
            Ok(refusal) | Err(refusal) => refusal,
        }
    }

    async fn try_offer(&self, ask: &Ask<'_>, code: Code) -> Result<Refusal, Refusal> {
        let now = self.world.clock.now();
        self.gate.look(&self.terms, ask.caller, now)?;
        let price = self.terms.listing.price;
        check_price(ask, price)?;
        let currency = match ask.origin_currency {
            Some(name) => OriginCurrency::named(name).ok_or_else(unknown_currency)?,
            None => ask.caller.default_currency,
        };
        let provider = self.world.rails.default()?;
        self.world.rails.check_minimum(provider, currency, price)?;
        let identity = QuoteIdentity {
            buyer: ask.caller.profile.id,
            listing: self.gate.id(),
            body_sha256: ask.body_sha256,
            currency,
            idempotency_key: ask.idempotency_key.map(str::to_string),
        };
        let cap = ask.caller.key.daily_spend.map(|max| SpendCap { key: ask.caller.key.id, max });
        // What a capped key may still agree to only the store can tell.
        if cap.is_none()
            && let Some(quote) = self.gate.open_quote(&identity, now)
            && code == Code::PaymentRequired
        {
            check_price(ask, quote.payment.quote.price)?;
            let refusal = Refusal::from(code).payment_state(quote.payment.progress.state);
            return Ok(refusal.prepared(quote.offer));
        }
        self.check_room(&identity).await?;
        let payment = self.make_quote(self.new_quote(identity, price, provider.rail()), cap).await?;
        // One that stands was made at the price of its time.
        check_price(ask, payment.quote.price)?;
        Ok(self.world.rails.offer(&payment).because(code))
    }

    /// What is sold must find room for its result; a quote that stands was sold already.
    async fn check_room(&self, identity: &QuoteIdentity) -> Result<(), Refusal> {
        if self.world.store.results_room() != ResultsRoom::Exceeded {
            return Ok(());
        }
        match self.world.store.quote_find(identity).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::from(Code::Overloaded)
                .message("The gateway has no room for more results and sells no calls until it has.")
                .retry_after(Duration::from_secs(60))),
        }
    }

    fn new_quote(&self, identity: QuoteIdentity, price: Micros, rail: Rail) -> Quote {
        let now = self.world.clock.now();
        let knobs = &self.world.config.payments;
        Quote {
            id: PaymentId::mint(now),
            buyer: identity.buyer,
            seller: self.terms.listing.seller,
            listing: identity.listing,
            body_sha256: identity.body_sha256,
            price,
            fee_rate: FeeRate(knobs.fee_rate_ppm),
            currency: identity.currency,
            rail,
            provider_ref: String::new(),
            terms: Vec::new(),
            idempotency_key: identity.idempotency_key,
            created_at: now,
            expires_at: now.plus(knobs.quote_ttl),
        }
    }

    async fn make_quote(&self, quote: Quote, cap: Option<SpendCap>) -> Result<Arc<Payment>, Refusal> {
        let question = |reply| Question::Quote(Box::new(quote.clone()), cap, reply);
        match ask(&self.world, &self.gate, question).await?? {
            QuoteOpened::Opened(payment) => {
                metrics::counter!("crochet_payments_total", "provider" => quote.rail.name(), "result" => "quoted")
                    .increment(1);
                Ok(payment)
            }
            QuoteOpened::Exists(payment) => Ok(payment),
            QuoteOpened::KeyReused(_) => Err(Code::IdempotencyKeyReused.into()),
            QuoteOpened::TooManyOpen => Err(self.too_many_open()),
            QuoteOpened::OverCap { spent } => Err(over_cap(&quote, cap, spent)),
        }
    }

    fn too_many_open(&self) -> Refusal {
        let limit = self.world.config.payments.open_quotes_max;
        let after = Duration::from_secs(60);
        Refusal::from(Code::TooManyOpenQuotes).detail("open_quotes_max", limit).retry_after(after)
    }

    /// Row 12 for a call to a free listing with an `Idempotency-Key`: a purchase for nothing, durable like any other,
    /// so that the key finds its result again. `None` without a key: such a call claims nothing.
    ///
    /// # Errors
    /// `IdempotencyKeyReused`, `PaymentInProgress`, `TooManyOpenQuotes`, `Overloaded`, `StoreUnavailable`; a 402 when
    /// the key names a quote of the time when the listing had a price.
    pub async fn claim_free(&self, ask: &Ask<'_>, permit: &Permit) -> Result<Option<ClaimFound>, Refusal> {
        let Some(key) = ask.idempotency_key else { return Ok(None) };
        let identity = QuoteIdentity {
            buyer: ask.caller.profile.id,
            listing: self.gate.id(),
            body_sha256: ask.body_sha256,
            currency: ask.caller.default_currency,
            idempotency_key: Some(key.to_string()),
        };
        self.check_room(&identity).await?;
        let quote = self.new_quote(identity, Micros::ZERO, Rail::Free);
        // Nobody else knows the id yet.
        let flight = self.gate.flights.take(quote.id).map_err(|_| in_progress(PaymentState::Quoted))?;
        match self.world.store.quote_open(quote, self.world.config.payments.open_quotes_max).await? {
            QuoteOpened::Opened(payment) => {
                let evidence = paid_by_nothing(payment.quote.id, self.world.clock.now());
                let (world, gate) = (self.world.clone(), self.gate.clone());
                let ready = ReadyPayment::new(world, gate, payment, Some(evidence), flight);
                ready.settle_and_claim(permit, ask.body_bytes).await.map(Some)
            }
            QuoteOpened::Exists(payment) if payment.quote.rail != Rail::Free => Err(self.world.rails.offer(&payment)),
            // Another request with the key was first.
            QuoteOpened::Exists(_) => match self.payment(ask).await? {
                PaymentFound::Replay(payment) => Ok(Some(ClaimFound::Replay(payment))),
                PaymentFound::Settled(ready) => ready.settle_and_claim(permit, ask.body_bytes).await.map(Some),
                PaymentFound::Unkept(payment) | PaymentFound::Pending(payment, _) => {
                    Err(in_progress(payment.progress.state))
                }
                PaymentFound::None => Err(in_progress(PaymentState::Quoted)),
            },
            QuoteOpened::KeyReused(_) => Err(Code::IdempotencyKeyReused.into()),
            QuoteOpened::TooManyOpen | QuoteOpened::OverCap { .. } => Err(self.too_many_open()),
        }
    }

    /// Row 11 for the one repetition of a call whose answer was not kept. What can not be admitted now is not taken.
    ///
    /// # Errors
    /// As the gate says; `ResultNotKept` when the listing is no longer active.
    pub async fn admit_again(&self, payment: &Payment) -> Result<Permit, Refusal> {
        if self.terms.listing.status != ListingStatus::Active {
            return Err(not_kept(payment));
        }
        let admitted = self.gate.admit(self.terms.clone(), payment.quote.buyer, self.world.clock.now()).await;
        admitted.map_err(|refusal| refusal.payment_state(payment.progress.state).next_action("retry_same_payment"))
    }

    /// Row 12 for it: durable before the seller is asked, so that nothing gives a second one.
    ///
    /// # Errors
    /// `ResultNotKept` when it was taken before; `StoreUnavailable`, and then it may have been.
    pub async fn resend(&self, _permit: &Permit, payment: &Payment) -> Result<Resend, Refusal> {
        match self.world.store.result_resend(payment.quote.id).await? {
            StepOutcome::Step(true, payment) => Ok(Resend::new(self.world.clone(), payment)),
            StepOutcome::Step(false, payment) => Err(not_kept(&payment)),
            StepOutcome::NotFound => Err(Code::PaymentNotFound.into()),
        }
    }

    /// Row 11 for a paid call: the seller's rate, the circuit, a slot. Money that was verified is recorded even when
    /// the call cannot run now; when the listing is gone for good it becomes the buyer's again.
    ///
    /// # Errors
    /// As the gate says, with the payment's state; `PaymentClosed` when the listing is no longer active.
    pub async fn admit_paid(&self, ready: &ReadyPayment) -> Result<Permit, Refusal> {
        if self.terms.listing.status != ListingStatus::Active {
            ready.record().await?;
            ready.owe().await?;
            return Err(Refusal::from(Code::PaymentClosed).payment_state(PaymentState::Owed));
        }
        let now = self.world.clock.now();
        match self.gate.admit(self.terms.clone(), ready.payment().quote.buyer, now).await {
            Ok(permit) => Ok(permit),
            Err(refusal) => {
                ready.record().await?;
                Err(refusal.payment_state(PaymentState::Settled).next_action("retry_same_payment"))
            }
        }
    }

    /// Rows 8 and 11 for a call to a free listing.
    ///
    /// # Errors
    /// As [`Gate::look`] and the gate's limits say.
    pub async fn admit_free(&self, caller: &Caller) -> Result<Permit, Refusal> {
        let now = self.world.clock.now();
        self.gate.look(&self.terms, caller, now)?;
        self.gate.admit(self.terms.clone(), caller.profile.id, now).await
    }
}

/// What a payment in a final state means for the request; `None` when it can still buy its call.
fn ended(payment: &Arc<Payment>, now: UnixMillis) -> Result<Option<PaymentFound>, Refusal> {
    match payment.progress.state {
        PaymentState::Completed if is_unkept(payment, now) => Ok(Some(PaymentFound::Unkept(payment.clone()))),
        PaymentState::Completed => Ok(Some(PaymentFound::Replay(payment.clone()))),
        state @ (PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded) => {
            Err(Refusal::from(Code::PaymentClosed).payment_state(state))
        }
        _ => Ok(None),
    }
}

/// Its answer was not kept, and its seller was not asked for it again.
pub(crate) fn is_unkept(payment: &Payment, now: UnixMillis) -> bool {
    let result = payment.progress.result.as_ref();
    result.is_some_and(|result| result.place == ResultPlace::NotKept && now < result.kept_until)
}

/// The call is done and paid for, and its answer cannot be had again; its size and digest can.
#[must_use]
pub fn not_kept(payment: &Payment) -> Refusal {
    let refusal =
        Refusal::from(Code::ResultNotKept).seller_called(SellerCalled::Yes).payment_state(payment.progress.state);
    match &payment.progress.result {
        Some(result) => refusal.detail("bytes", result.bytes).detail("sha256", hex::encode(result.sha256)),
        None => refusal,
    }
}

/// What settles a price of nothing.
fn paid_by_nothing(id: PaymentId, now: UnixMillis) -> Evidence {
    let proof_key = format!("free:{id}");
    Evidence { proof_key, rail: Rail::Free, reference: String::new(), amount: Micros::ZERO, recorded_at: now }
}

/// Somebody is using the payment; whether its seller was called yet cannot be told.
pub(crate) fn in_progress(state: PaymentState) -> Refusal {
    Refusal::from(Code::PaymentInProgress)
        .payment_state(state)
        .seller_called(SellerCalled::Unknown)
        .retry_after(Duration::from_secs(1))
}

/// Neither the buyer nor its key agrees to more than they said.
fn check_price(ask: &Ask<'_>, price: Micros) -> Result<(), Refusal> {
    if let Some(max) = ask.max_price
        && price > max
    {
        let refusal = Refusal::from(Code::PriceAboveMaximum).detail("price_micros", price.0);
        return Err(refusal.detail("max_price_micros", max.0));
    }
    match ask.caller.key.max_price {
        Some(max) if price > max => Err(Refusal::from(Code::SpendLimitExceeded)
            .detail("limit", "max_price_micros")
            .detail("price_micros", price.0)
            .detail("max_price_micros", max.0)),
        _ => Ok(()),
    }
}

/// The key has agreed to too much on this day.
fn over_cap(quote: &Quote, cap: Option<SpendCap>, spent: Micros) -> Refusal {
    let tomorrow = UnixMillis(u64::from(Day::of(quote.created_at).0 + 1) * 86_400_000);
    Refusal::from(Code::SpendLimitExceeded)
        .message("The API key has agreed to as much as it may today.")
        .detail("limit", "daily_spend_micros")
        .detail("price_micros", quote.price.0)
        .detail("daily_spend_micros", cap.map_or(0, |cap| cap.max.0))
        .detail("spent_micros", spent.0)
        .detail("resets_at", tomorrow.to_string())
}

fn unknown_currency() -> Refusal {
    let names = OriginCurrency::ALL.map(OriginCurrency::name).join(", ");
    Refusal::from(Code::ValidationFailed).field("X-Crochet-Origin-Currency", &format!("must be one of {names}"))
}
