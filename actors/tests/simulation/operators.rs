//! Operators who send money out: by the file that the product gives them, with faults of their own. They lose files and
//! answers, stop half-way, work two at a time, and come again.

use std::sync::Arc;

use storage::{MoneyStore, PayoutOpened, PayoutStore, StepOutcome, StoreResult, TransferTold, model::*};

use super::{
    bank::{payout_of, refund_of},
    laws::Law,
    world::Life,
};

/// One operator at work for a while.
pub async fn operate(life: Arc<Life>) {
    let dice = &life.truth().dice;
    for _ in 0..14 {
        life.pause(700).await;
        if dice.chance(300) {
            let sellers = &life.world.sellers;
            let drawn = usize::try_from(dice.below(sellers.len() as u64)).unwrap_or_default();
            pay_out(&life, sellers[drawn]).await;
        } else {
            // All that is owed, as it is found.
            for id in life.truth().payments() {
                let is_owed =
                    life.kept(id).is_some_and(|payment| payment.balance(Account::Owed(payment.quote.buyer)) > 0);
                if is_owed && dice.chance(700) {
                    refund(&life, id).await;
                }
            }
        }
    }
}

/// Which transfer.
#[derive(Clone, Copy)]
enum Of {
    Refund(PaymentId),
    Payout(ProfileId),
}

/// A row of the file of transfers.
struct Row {
    of: Of,
    purpose: String,
    number: u32,
    amount: Micros,
    is_told: bool,
    /// What the intent that is kept for it says.
    kept: Option<Micros>,
}

/// Refunds what is owed of a payment, as far as it comes. Returns whether nothing is left to do.
pub async fn refund(life: &Life, id: PaymentId) -> bool {
    let begun = match life.store.refund_begin(id).await {
        Ok(StepOutcome::Step((_, Some(refund)), _)) => refund,
        Ok(_) => return true,
        Err(_) => return false,
    };
    life.truth().met("a refund was begun");
    let (number, amount, is_told) = (begun.number, begun.amount, begun.reference().is_some());
    let kept = life.watched.kept_refunds(id).into_iter().find(|refund| refund.number == number);
    let purpose = refund_of(&life.truth().name(id), number);
    let kept = kept.map(|refund| refund.amount);
    send(life, &Row { of: Of::Refund(id), purpose, number, amount, is_told, kept }).await
}

/// Pays a seller out, as far as it comes. Returns whether nothing is left to do.
pub async fn pay_out(life: &Life, seller: ProfileId) -> bool {
    let begun = match life.store.payout_open(seller, "a wallet".into()).await {
        Ok(PayoutOpened::Opened(payout) | PayoutOpened::Open(payout)) => payout,
        Ok(PayoutOpened::NothingEarned) => return true,
        Err(_) => return false,
    };
    life.truth().met("a payout was begun");
    let (number, amount, is_told) = (begun.number, begun.amount(), begun.reference().is_some());
    let kept = life.watched.kept_payouts(seller).into_iter().find(|payout| payout.number == number);
    let kept = kept.filter(|payout| payout.stage != PayoutStage::Counting).map(|payout| payout.amount());
    let purpose = payout_of(&format!("seller {}", seller.bytes()[0]), number);
    send(life, &Row { of: Of::Payout(seller), purpose, number, amount, is_told, kept }).await
}

async fn tell(life: &Life, row: &Row, reference: String) -> StoreResult<TransferTold> {
    match row.of {
        Of::Refund(id) => step(life.store.refund_sent(id, row.number, reference).await),
        Of::Payout(seller) => life.store.payout_sent(seller, row.number, reference).await,
    }
}

async fn confirm(life: &Life, row: &Row) -> StoreResult<TransferTold> {
    match row.of {
        Of::Refund(id) => step(life.store.refund_confirm(id, row.number).await),
        Of::Payout(seller) => life.store.payout_confirm(seller, row.number).await,
    }
}

fn step(found: StoreResult<StepOutcome<TransferTold>>) -> StoreResult<TransferTold> {
    found.map(|found| match found {
        StepOutcome::Step(told, _) => told,
        StepOutcome::NotFound => TransferTold::NoTransfer,
    })
}

/// From the row of the file to the end of the transfer. Returns whether it came there.
async fn send(life: &Life, row: &Row) -> bool {
    let (truth, dice, purpose) = (life.truth(), &life.truth().dice, &row.purpose);
    let stops = |per_mille, situation| {
        let is_over = !life.is_last && dice.chance(per_mille);
        if is_over {
            truth.met(situation);
        }
        is_over
    };
    if stops(150, "an operator lost its file") {
        return false;
    }
    let is_hasty = !row.is_told && dice.chance(100);
    if is_hasty && truth.is_unsent(purpose) && matches!(confirm(life, row).await, Ok(TransferTold::Done)) {
        truth.breaks(Law::SentOnce, format!("{purpose} was confirmed before it was sent"));
    }
    let made = truth.send(purpose, row.amount, row.kept);
    life.pause(300).await;
    if stops(200, "an operator stopped between the transfer and its word") {
        return false;
    }
    match tell(life, row, made.reference.clone()).await {
        Ok(TransferTold::Done) => {}
        Ok(other) => truth.breaks(Law::SentOnce, format!("{purpose} was sent and is {other:?}")),
        Err(_) => return false,
    }
    if dice.chance(100) && matches!(tell(life, row, "a slip of the pen".into()).await, Ok(TransferTold::Done)) {
        truth.breaks(Law::SentOnce, format!("{purpose} was sent under a second reference"));
    }
    life.pause(1_500).await;
    if !truth.is_shown_by_bank(purpose) || stops(200, "an operator did not confirm") {
        return false;
    }
    match confirm(life, row).await {
        Ok(TransferTold::Done) => {
            truth.met("a transfer was confirmed");
            // Another may be begun since.
            false
        }
        Ok(other) => {
            truth.breaks(Law::SentOnce, format!("{purpose} was sent and is {other:?}"));
            false
        }
        Err(_) => false,
    }
}
