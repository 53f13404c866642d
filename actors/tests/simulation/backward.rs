//! Reversals, refunds, payouts and work under watch, and the bugs that are planted in them.

use std::sync::Arc;

use async_trait::async_trait;
use storage::{faulty::at_once, model::*, *};

use super::mutants::{Mutant, Watched};

impl Watched {
    /// A payment's refunds as they are kept, past all faults.
    pub fn kept_refunds(&self, id: PaymentId) -> Vec<Refund> {
        let mut refunds = at_once(self.base.refund_list(id)).expect("what is below is whole");
        if self.is(Mutant::RefundsTwice) {
            refunds.extend(self.planted.lock().iter().filter(|refund| refund.payment == id).cloned());
        }
        refunds
    }

    /// A seller's payouts as they are kept, past all faults.
    pub fn kept_payouts(&self, seller: ProfileId) -> Vec<Payout> {
        let mut payouts = at_once(self.base.payout_list(seller)).expect("what is below is whole");
        if self.is(Mutant::PayoutCountsTwice) {
            for (_, part) in payouts.iter_mut().flat_map(|payout| payout.parts.iter_mut()) {
                part.0 *= 2;
            }
        }
        payouts
    }

    pub fn look_at_payouts(&self, seller: ProfileId) {
        let name = format!("seller {}", seller.bytes()[0]);
        self.truth.look_at_payouts(seller, &name, self.kept_payouts(seller));
    }

    /// A reversal that waits for the end of a call, as a store with the planted bugs would keep it then.
    pub fn as_taken_back(&self, payment: &mut Payment) -> bool {
        let (id, seller) = (payment.quote.id, payment.quote.seller);
        let postings = &mut payment.progress.postings;
        let Some(place) = postings.iter().position(|posting| posting.kind() == PostingKind::TakenBack) else {
            return false;
        };
        match self.truth.mutant {
            Some(Mutant::ReversalForgotten) if self.waited.lock().contains(&id) => _ = postings.remove(place),
            Some(Mutant::ReversalTwice) => postings.push(postings[place].clone()),
            Some(Mutant::PaidSellerGives) if self.truth.left(id).paid_out_by.is_some() => {
                let (taken, earned) = (&postings[place], payment.quote.split().seller);
                let credits = taken.entries().iter().filter(|entry| entry.direction == Direction::Credit);
                let credits: Vec<_> = credits.map(|entry| (entry.account, entry.amount)).collect();
                let whole: i64 = credits.iter().map(|(_, amount)| amount.0).sum();
                let debits = [(Account::Seller(seller), earned), (Account::Marketplace, Micros(whole - earned.0))];
                let given = Posting::new(taken.id(), taken.kind(), taken.at(), &debits, &credits);
                postings[place] = given.expect("it balances");
            }
            _ => return false,
        }
        true
    }
}

#[async_trait]
impl MoneyStore for Watched {
    async fn payment_take_back(&self, id: PaymentId, reversal: Evidence) -> StoreResult<TakeBackOutcome> {
        self.truth.tick();
        let found = self.base.payment_take_back(id, reversal).await?;
        if matches!(found, TakeBackOutcome::Recorded(TakenBack::Waits, _)) {
            self.waited.lock().insert(id);
        }
        self.look(id);
        Ok(found)
    }

    async fn refund_begin(&self, id: PaymentId) -> StoreResult<StepOutcome<(RefundBegun, Option<Refund>)>> {
        self.truth.tick();
        let now = self.truth.now();
        if self.is(Mutant::SendsBeforeIntent)
            && let Some(payment) = self.kept(id)
            && let Some(refund) = Payment::clone(&payment).refund_begin(1, now)
        {
            return Ok(StepOutcome::Step((RefundBegun::Begun, Some(refund)), payment));
        }
        let found = self.base.refund_begin(id).await?;
        if let (true, StepOutcome::Step((RefundBegun::Open, Some(open)), payment)) =
            (self.is(Mutant::RefundsTwice), &found)
        {
            let number = u32::try_from(self.kept_refunds(id).len()).unwrap_or(u32::MAX) + 1;
            let second = Refund { number, intended_at: now, stage: RefundStage::Intended, ..open.clone() };
            self.planted.lock().push(second.clone());
            self.look(id);
            return Ok(StepOutcome::Step((RefundBegun::Begun, Some(second)), Arc::clone(payment)));
        }
        self.look(id);
        Ok(found)
    }

    async fn refund_sent(
        &self,
        id: PaymentId,
        number: u32,
        reference: String,
    ) -> StoreResult<StepOutcome<TransferTold>> {
        let found = self.base.refund_sent(id, number, reference).await?;
        self.look(id);
        Ok(found)
    }

    async fn refund_confirm(&self, id: PaymentId, number: u32) -> StoreResult<StepOutcome<TransferTold>> {
        self.truth.tick();
        if self.is(Mutant::LostConfirm)
            && let Some(payment) = self.kept(id)
        {
            return Ok(StepOutcome::Step(TransferTold::Done, payment));
        }
        let found = self.base.refund_confirm(id, number).await?;
        self.look(id);
        Ok(found)
    }

    async fn refund_list(&self, id: PaymentId) -> StoreResult<Vec<Refund>> {
        self.base.refund_list(id).await
    }

    async fn books_page(&self, after: Option<Vec<u8>>) -> StoreResult<BooksPage> {
        self.base.books_page(after).await
    }
}

#[async_trait]
impl PayoutStore for Watched {
    async fn payout_open(&self, seller: ProfileId, to: String) -> StoreResult<PayoutOpened> {
        self.truth.tick();
        let mut found = self.base.payout_open(seller, to).await?;
        self.look_at_payouts(seller);
        if let (true, PayoutOpened::Open(payout)) = (self.is(Mutant::IntentChanges), &mut found)
            && let Some((_, part)) = payout.parts.first_mut()
        {
            part.0 += 1;
        }
        Ok(found)
    }

    async fn payout_sent(&self, seller: ProfileId, number: u32, reference: String) -> StoreResult<TransferTold> {
        let found = self.base.payout_sent(seller, number, reference).await?;
        self.look_at_payouts(seller);
        Ok(found)
    }

    async fn payout_confirm(&self, seller: ProfileId, number: u32) -> StoreResult<TransferTold> {
        self.truth.tick();
        let found = self.base.payout_confirm(seller, number).await?;
        self.look_at_payouts(seller);
        Ok(found)
    }

    async fn payout_list(&self, seller: ProfileId) -> StoreResult<Vec<Payout>> {
        self.base.payout_list(seller).await
    }

    async fn payable_list(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<PayablePage> {
        self.base.payable_list(after, limit).await
    }
}

#[async_trait]
impl WorkStore for Watched {
    async fn work_due(
        &self,
        work: Work,
        after: Option<Vec<u8>>,
        until: UnixMillis,
        limit: usize,
    ) -> StoreResult<WorkPage> {
        let mut page = self.base.work_due(work, after, until, limit).await?;
        // Their ids are random where they are of one moment.
        page.due.sort_by_key(|id| self.truth.place(*id));
        Ok(page)
    }

    async fn work_done(&self, work: Work, mark: Vec<u8>, put_off: Vec<(PaymentId, UnixMillis)>) -> StoreResult<()> {
        self.base.work_done(work, mark, put_off).await
    }
}
