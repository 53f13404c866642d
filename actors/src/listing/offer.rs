//! Rows 8 and 9: what a call is sold for, if it can be sold now; and what is sold for nothing.

use std::{sync::Arc, time::Duration};

use storage::{
    QuoteIdentity, QuoteOpened, ResultsRoom,
    model::{
        Day, FeeRate, Micros, OriginCurrency, Payment, PaymentId, PaymentState, Quote, Rail, SpendCap, UnixMillis,
    },
};

use super::{
    Question, ask,
    gate::Permit,
    handle::{Ask, ListingHandle, PaymentFound, in_progress, paid_by_nothing},
    purchase::{ClaimFound, ReadyPayment},
};
use crate::{
    meters::PaymentMet,
    refusal::{Code, Refusal},
};

impl ListingHandle {
    /// Rows 8 and 9: could the call be sold now, and for what. Always a refusal: the 402 is the best of them.
    pub async fn offer(&self, ask: &Ask<'_>) -> Refusal {
        match self.try_offer(ask, Code::PaymentRequired).await {
            Ok(refusal) | Err(refusal) => refusal,
        }
    }

    /// A 402 with another reason than that nothing was paid yet; when no quote can be made, why not.
    pub(super) async fn fresh_quote(&self, ask: &Ask<'_>, code: Code) -> Refusal {
        match self.try_offer(ask, code).await {
            Ok(refusal) | Err(refusal) => refusal,
        }
    }

    async fn try_offer(&self, ask: &Ask<'_>, code: Code) -> Result<Refusal, Refusal> {
        let now = self.world.clock.now();
        self.gate.look(self.terms(), ask.caller, now)?;
        let price = self.terms().listing.price;
        check_price(ask, price)?;
        let currency = match ask.origin_currency {
            Some(name) => OriginCurrency::named(name).ok_or_else(unknown_currency)?,
            None => ask.caller.default_currency,
        };
        let provider = self.world.rails.pick(currency, price)?;
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
            seller: self.terms().listing.seller,
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
                self.world.meters.payment(quote.rail, PaymentMet::Quoted);
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
                self.world.meters.payment(Rail::Free, PaymentMet::Quoted);
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
