//! How a call ended, and who pays for it: the billable table as one match.

use std::time::Duration;

use crate::{
    refusal::{Code, Refusal, SellerCalled},
    seller::SellerFault,
};

/// What a seller's status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call was handled: billable, whatever the status says.
    Handled,
    /// It was not: the payment stays usable.
    Failed(Code),
}

/// The billable table, by the seller's status.
#[must_use]
pub fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Handled,
        300..=399 => Verdict::Failed(Code::SellerRedirected),
        // The seller's load: it may be asked again.
        408 | 425 | 429 => Verdict::Failed(Code::SellerBusy),
        // The seller's own stack or set-up, not an answer to the buyer's question.
        401 | 403 | 405 | 407 | 415 | 421 => Verdict::Failed(Code::SellerError),
        400..=499 => Verdict::Handled,
        500..=599 => Verdict::Failed(Code::SellerError),
        _ => Verdict::Failed(Code::SellerInvalidResponse),
    }
}

/// Why a call failed, once it was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that the buyer sees.
    pub code: Code,
    /// Whether the seller was called.
    pub called: SellerCalled,
    /// What the seller answered, if it did.
    pub seller_status_code: Option<u16>,
    /// When the seller wants to be asked again, if it said.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A seller's status that is not billable.
    #[must_use]
    pub fn of_status(code: Code, status: u16, retry_after: Option<Duration>) -> Self {
        Self { code, called: SellerCalled::Yes, seller_status_code: Some(status), retry_after }
    }

    /// An answer that broke, or broke a rule, after its status had come.
    #[must_use]
    pub fn of_body(code: Code, status: u16) -> Self {
        Self { code, called: SellerCalled::Yes, seller_status_code: Some(status), retry_after: None }
    }

    /// The refusal that the buyer sees.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let mut refusal = Refusal::from(self.code).seller_called(self.called);
        if let Some(status) = self.seller_status_code {
            refusal = refusal.detail("seller_status_code", status);
        }
        if let Some(after) = self.retry_after {
            refusal = refusal.retry_after(after);
        }
        refusal
    }
}

impl From<SellerFault> for Failure {
    fn from(fault: SellerFault) -> Self {
        let (code, called) = match fault {
            SellerFault::Unreachable => (Code::SellerUnreachable, SellerCalled::No),
            SellerFault::BrokenOff => (Code::SellerError, SellerCalled::Unknown),
            SellerFault::TimedOut { .. } => (Code::SellerTimeout, SellerCalled::Yes),
            SellerFault::Broken => (Code::SellerInvalidResponse, SellerCalled::Yes),
        };
        Self { code, called, seller_status_code: None, retry_after: None }
    }
}

/// How the bytes of a handled answer stand in the envelope, before they were seen.
#[must_use]
pub fn is_empty_answer(status: u16, length: Option<u64>) -> bool {
    matches!(status, 204 | 205 | 304) || length == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_billable_table() {
        use Verdict::{Failed, Handled};
        for (status, wanted) in [
            (200, Handled),
            (204, Handled),
            (301, Failed(Code::SellerRedirected)),
            (400, Handled),
            (401, Failed(Code::SellerError)),
            (402, Handled),
            (403, Failed(Code::SellerError)),
            (404, Handled),
            (405, Failed(Code::SellerError)),
            (407, Failed(Code::SellerError)),
            (408, Failed(Code::SellerBusy)),
            (409, Handled),
            (415, Failed(Code::SellerError)),
            (421, Failed(Code::SellerError)),
            (422, Handled),
            (425, Failed(Code::SellerBusy)),
            (429, Failed(Code::SellerBusy)),
            (500, Failed(Code::SellerError)),
            (503, Failed(Code::SellerError)),
            (199, Failed(Code::SellerInvalidResponse)),
        ] {
            assert_eq!(verdict(status), wanted, "{status}");
        }
    }
}
