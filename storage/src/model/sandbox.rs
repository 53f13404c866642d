//! The sandbox provider's own record of a payment. It is the provider's, not ours: the gateway reads it through the
//! rail and compares it with the quote, as it would any provider's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ids::PaymentId, money::Micros, time::UnixMillis};

/// What the sandbox knows of one payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPayment {
    /// The payment it was made for.
    pub payment: PaymentId,
    /// The sandbox's own reference, as a chain's transaction would be.
    pub reference: String,
    /// What was paid.
    pub amount: Micros,
    /// To whom.
    pub recipient: String,
    /// What the payer asked to happen.
    pub outcome: SandboxOutcome,
    /// When the payer paid.
    pub paid_at: UnixMillis,
    /// From when on the outcome shows; pending before.
    pub settles_at: UnixMillis,
}

/// How a sandbox payment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxOutcome {
    /// The money arrives.
    #[default]
    Success,
    /// It does not.
    Failure,
    /// It went back to the payer before it arrived.
    Refund,
    /// It arrives, and the chain takes it back later.
    Reorg,
}

impl SandboxPayment {
    /// The status word, in the words of a cross-chain provider. What a chain takes back goes so long after it arrived.
    #[must_use]
    pub fn status(&self, now: UnixMillis, reorg_after: Duration) -> &'static str {
        if now < self.settles_at {
            return "pending";
        }
        match self.outcome {
            SandboxOutcome::Reorg if now >= self.settles_at.plus(reorg_after) => "refund",
            SandboxOutcome::Success | SandboxOutcome::Reorg => "success",
            SandboxOutcome::Failure => "failure",
            SandboxOutcome::Refund => "refund",
        }
    }
}
