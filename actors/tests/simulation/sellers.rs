//! Sellers who fail in every way that the billable table knows, what becomes of their answers, and a second node on the
//! same store that calls them as we do.

use std::{sync::Arc, time::Duration};

use actors::{
    listing::{Entitlement, KeptAnswer, PaymentClaim, Permit, Resend},
    outcome::{Failure, Verdict, verdict},
    refusal::{Refusal, SellerCalled},
    seller::SellerFault,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::{ClaimRequest, PaymentStore, StepOutcome, faulty::at_once, model::*};

use super::{
    buyers::{PIECES, Told},
    laws::Law,
    mutants::Watched,
    truth::OTHER,
    world::Life,
};

/// The kept form of an answer.
pub fn result_of(answer: &[u8], kept_until: UnixMillis) -> KeptResult {
    KeptResult {
        place: ResultPlace::Inline,
        encoding: ResultEncoding::Json,
        seller_status_code: 200,
        content_type: "application/json".into(),
        bytes: answer.len() as u64,
        sha256: Sha256::digest(answer).into(),
        kept_until,
    }
}

/// A seller at work; it ends when the request that called it dies.
struct AtWork<'a>(&'a Life, PaymentId, u32, Option<Vec<u8>>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.truth().seller_ends(self.1, self.2, self.3.take());
    }
}

const FAULTS: [SellerFault; 5] = [
    SellerFault::Unreachable,
    SellerFault::BrokenOff,
    SellerFault::TimedOut { answered: false },
    SellerFault::TimedOut { answered: true },
    SellerFault::Broken,
];
const STATUSES: [u16; 15] = [199, 204, 301, 400, 401, 403, 404, 405, 408, 415, 422, 425, 429, 500, 503];

/// The seller's answer, or how it failed; all rows of the billable table.
async fn seller(life: &Life, id: PaymentId, claim: Claim) -> Result<Vec<u8>, Failure> {
    let (truth, attempt) = (life.truth(), claim.attempt);
    truth.seller_begins(id, claim, life.kept(id).as_deref());
    let mut work = AtWork(life, id, attempt, None);
    life.pause(300).await;
    let status = if life.is_last || !truth.dice.chance(life.world.seller_trouble) {
        200
    } else {
        let drawn = usize::try_from(truth.dice.below(20)).unwrap_or_default();
        match FAULTS.get(drawn) {
            Some(fault) => return Err((*fault).into()),
            None => STATUSES[drawn - FAULTS.len()],
        }
    };
    match verdict(status) {
        Verdict::Handled => {
            let answer = format!("{{\"to\":\"{}\",\"attempt\":{attempt}}}", truth.name(id)).into_bytes();
            work.3 = Some(answer.clone());
            Ok(answer)
        }
        Verdict::Failed(code) => Err(Failure::of_status(code, status, None)),
    }
}

/// Row 13 and what follows: the seller is called, and the outcome is written before anybody hears of it.
pub async fn forward(life: &Life, mut permit: Permit, claim: PaymentClaim) -> Result<Told, Refusal> {
    let (id, attempt, now) = (claim.payment().quote.id, claim.attempt(), life.world.clock.now());
    match seller(life, id, Claim { owner: life.owner, attempt }).await {
        Ok(answer) => {
            permit.record(now, false);
            let Some(kept) = keep(life, &claim, &answer).await else {
                claim.release(CallFacts::default()).await?;
                return Ok(Told::Later);
            };
            if let Err(refusal) = claim.complete(CallFacts::default(), kept).await {
                life.truth().met("an outcome had to wait for the store");
                return Err(refusal);
            }
            life.is_kept(id, &answer);
            Ok(Told::Answer(id, answer))
        }
        Err(failure) => {
            permit.record(now, true);
            claim.release(CallFacts::default()).await?;
            Err(failure.refusal())
        }
    }
}

/// What is kept of an answer: small ones with the outcome, larger ones in pieces before it, the largest not at all.
/// `None`: a piece was not written, and what the buyer has got of it breaks off.
async fn keep(life: &Life, claim: &PaymentClaim, answer: &[u8]) -> Option<KeptAnswer> {
    let mut result = result_of(answer, life.world.clock.now().plus(life.world.config.payments.result_ttl));
    let mut held = None;
    match life.truth().dice.below(10) {
        0..7 => held = Some(Bytes::copy_from_slice(answer)),
        7 | 8 => {
            result.place = ResultPlace::Chunks;
            let pieces = answer.chunks(answer.len().div_ceil(usize::try_from(PIECES).ok()?));
            for (n, piece) in (0..).zip(pieces) {
                claim.append(n, Bytes::copy_from_slice(piece)).await.ok()?;
            }
            claim.seal().await.ok()?;
        }
        _ => result.place = ResultPlace::NotKept,
    }
    Some(KeptAnswer { result, held })
}

/// The one repetition of a call whose answer was not kept: what the seller says now, nobody keeps.
pub async fn forward_again(life: &Life, permit: Permit, right: Resend) -> Result<Told, Refusal> {
    let right = Entitlement::Again(right);
    let id = right.payment().expect("of a payment").quote.id;
    if !life.is_last && life.truth().dice.chance(200) {
        // Not a byte has reached the seller.
        right.release(CallFacts::default(), SellerCalled::No).await?;
        return Err(Failure::from(SellerFault::Unreachable).refusal());
    }
    life.truth().seller_is_asked_again(id, life.kept(id).as_deref());
    life.pause(300).await;
    drop(permit);
    Ok(Told::Later)
}

/// Another node on the same store: it claims what it finds, and calls as we do.
pub async fn other_node(life: Arc<Life>) {
    let truth = life.truth();
    for _ in 0..30 {
        life.pause(600).await;
        let all = truth.payments();
        let drawn = usize::try_from(truth.dice.below(all.len() as u64)).unwrap_or_default();
        let Some(id) = all.get(drawn).copied() else { continue };
        let Some(claim) = other_claims(&life, id, ClaimRequest { owner: OTHER, request_bytes: 2 }).await else {
            continue;
        };
        truth.met("the other node called");
        let answer = seller(&life, id, claim).await;
        other_ends(&life, id, claim, answer.ok()).await;
    }
}

async fn other_claims(life: &Life, id: PaymentId, request: ClaimRequest) -> Option<Claim> {
    match life.payments().payment_claim(id, request).await {
        Ok(StepOutcome::Step(Claimed::Won(claim), _)) => Some(claim),
        Ok(_) => None,
        Err(_) => loop {
            life.pause(100).await;
            let Ok(found) = life.payments().payment_get(id).await else { continue };
            break match found.map(|payment| payment.progress.state) {
                Some(PaymentState::Claimed(claim)) if claim.owner == OTHER => Some(claim),
                _ => None,
            };
        },
    }
}

async fn other_ends(life: &Life, id: PaymentId, claim: Claim, answer: Option<Vec<u8>>) {
    loop {
        let facts = CallFacts::default();
        let done = match &answer {
            Some(answer) => {
                let result = result_of(answer, life.world.clock.now().plus(Duration::from_secs(259_200)));
                let held = Some(Bytes::from(answer.clone()));
                life.payments().payment_complete(id, claim, facts, result, held).await
            }
            None => life.payments().payment_release(id, claim, AttemptStatus::Released, facts).await,
        };
        if done.is_ok() {
            return;
        }
        life.pause(100).await;
    }
}

/// The other node began anew: what it held is free again.
pub fn other_node_recovers(watched: &Watched) {
    for id in watched.truth.payments() {
        let state = watched.kept(id).map(|payment| payment.progress.state);
        if let Some(PaymentState::Claimed(claim)) = state
            && claim.owner == OTHER
        {
            let facts = CallFacts::interrupted();
            at_once(watched.payment_release(id, claim, AttemptStatus::Interrupted, facts)).expect("released");
        }
    }
}

impl Life {
    /// What a buyer was told is durable, is its own, and stays.
    pub fn is_kept(&self, id: PaymentId, answer: &[u8]) {
        let truth = self.truth();
        let kept = self.kept(id).filter(|payment| payment.progress.state == PaymentState::Completed);
        match kept.and_then(|payment| truth.handled(&payment)) {
            None => truth.breaks(Law::Durable, format!("{} was answered and its outcome is not kept", truth.name(id))),
            Some(handled) if handled != answer => {
                truth.breaks(Law::OwnAnswer, format!("{} was answered what its seller did not say", truth.name(id)));
            }
            Some(_) => truth.answer(id, answer),
        }
    }
}
