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
    /// Rows 8 and 9: could the call be sold now, and for what. Nearly always a refusal, and the 402 is the best of them;
    /// a payment that is under way already is not asked for again.
    ///
    /// # Errors
    /// The 402, or why there is none.
    pub async fn offer(&self, ask: &Ask<'_>) -> Result<(Arc<Payment>, Duration), Refusal> {
        match self.try_offer(ask, Code::PaymentRequired, None).await? {
            Offer::Refusal(refusal) => Err(refusal),
            Offer::UnderWay(payment) => Ok((payment, self.world.config.payments.pending_retry_after)),
        }
    }

    /// A 402 with another reason than that nothing was paid yet; when no quote can be made, why not.
    pub(super) async fn fresh_quote(&self, ask: &Ask<'_>, code: Code) -> Refusal {
        self.fresh_quote_after(ask, code, None).await
    }

    /// A 402 because what was signed did not do: x402's word for why goes with it.
    pub(super) async fn fresh_quote_because(&self, ask: &Ask<'_>, reason: &str) -> Refusal {
        self.fresh_quote_after(ask, Code::PaymentFailed, Some(reason)).await
    }

    async fn fresh_quote_after(&self, ask: &Ask<'_>, code: Code, reason: Option<&str>) -> Refusal {
        match self.try_offer(ask, code, reason).await {
            Ok(Offer::Refusal(refusal)) | Err(refusal) => refusal,
            Ok(Offer::UnderWay(payment)) => in_progress(payment.progress.state),
        }
    }

    /// The quote that a buyer paid for without naming it: the one that is open at the price that was signed, or one at
    /// the price of now.
    pub(super) async fn quote_for_signed(&self, ask: &Ask<'_>) -> Result<Arc<Payment>, Refusal> {
        let identity = self.identity(ask)?;
        if let Some(payment) = self.world.store.quote_find(&identity).await? {
            check_price(ask, payment.quote.price)?;
            return Ok(payment);
        }
        self.gate.look(self.terms(), ask.caller, self.world.clock.now())?;
        let price = self.terms().listing.price;
        check_price(ask, price)?;
        let provider = self.world.rails.pick(identity.currency, price)?;
        self.check_room(&identity).await?;
        let payment = self.make_quote(self.new_quote(identity, price, provider.rail()), spend_cap(ask)).await?;
        check_price(ask, payment.quote.price)?;
        Ok(payment)
    }

    fn identity(&self, ask: &Ask<'_>) -> Result<QuoteIdentity, Refusal> {
        let currency = match ask.origin_currency {
            Some(name) => OriginCurrency::named(name).ok_or_else(unknown_currency)?,
            None => ask.caller.default_currency,
        };
        Ok(QuoteIdentity {
            buyer: ask.caller.profile.id,
            listing: self.gate.id(),
            body_sha256: ask.body_sha256,
            currency,
            idempotency_key: ask.idempotency_key.map(str::to_string),
        })
    }

    async fn try_offer(&self, ask: &Ask<'_>, code: Code, reason: Option<&str>) -> Result<Offer, Refusal> {
        let now = self.world.clock.now();
        self.gate.look(self.terms(), ask.caller, now)?;
        let price = self.terms().listing.price;
        check_price(ask, price)?;
        let identity = self.identity(ask)?;
        let provider = self.world.rails.pick(identity.currency, price)?;
        let cap = spend_cap(ask);
        // What a capped key may still agree to only the store can tell.
        if cap.is_none()
            && let Some(quote) = self.gate.open_quote(&identity, now)
            && code == Code::PaymentRequired
        {
            check_price(ask, quote.payment.quote.price)?;
            let refusal = Refusal::from(code).payment_state(quote.payment.progress.state).prepared(quote.offer);
            let headers = quote.headers.into_iter();
            return Ok(Offer::Refusal(headers.fold(refusal, |refusal, (name, value)| refusal.header(name, value))));
        }
        self.check_room(&identity).await?;
        let payment = self.make_quote(self.new_quote(identity, price, provider.rail()), cap).await?;
        // One that stands was made at the price of its time.
        check_price(ask, payment.quote.price)?;
        if payment.progress.state == PaymentState::Pending {
            return Ok(Offer::UnderWay(payment));
        }
        Ok(Offer::Refusal(self.world.rails.offer(&payment, &self.terms().listing, reason).because(code)))
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
            QuoteOpened::Exists(payment) if payment.quote.rail != Rail::Free => {
                Err(self.world.rails.offer(&payment, &self.terms().listing, None))
            }
            // Another request with the key was first.
            QuoteOpened::Exists(_) => match self.payment(ask).await? {
                PaymentFound::Replay(payment) => Ok(Some(ClaimFound::Replay(payment))),
                PaymentFound::Settled(ready) => ready.settle_and_claim(permit, ask.body_bytes).await.map(Some),
                PaymentFound::Unkept(payment) | PaymentFound::Pending(payment, _) => {
                    Err(in_progress(payment.progress.state))
                }
                PaymentFound::None | PaymentFound::Signed(_) => Err(in_progress(PaymentState::Quoted)),
            },
            QuoteOpened::KeyReused(_) => Err(Code::IdempotencyKeyReused.into()),
            QuoteOpened::TooManyOpen | QuoteOpened::OverCap { .. } => Err(self.too_many_open()),
        }
    }
}

/// What came of a wish to buy.
enum Offer {
    /// The 402.
    Refusal(Refusal),
    /// It was signed for, and it is not known yet whether the money moved.
    UnderWay(Arc<Payment>),
}

/// What a capped key may agree to today.
fn spend_cap(ask: &Ask<'_>) -> Option<SpendCap> {
    ask.caller.key.daily_spend.map(|max| SpendCap { key: ask.caller.key.id, max })
}

/// Neither the buyer nor its key agrees to more than they said.
pub(super) fn check_price(ask: &Ask<'_>, price: Micros) -> Result<(), Refusal> {
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
