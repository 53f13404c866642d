//! What is due though nobody asks for it.

/// Which of several looks at the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// From 0.
    pub number: u8,
    /// After it nobody looks again, and what was kept for it may go.
    pub is_last: bool,
}

/// A kind of work, and by which moments it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Quotes that nothing was paid for, by their expiry: their rail is read again.
    Unpaid(Look),
    /// Payments whose money came or whose call was completed, by the moment when that was counted: their rail may have
    /// taken it back.
    Paid(Look),
    /// Settled money that no call has used, by its settlement: it is the buyer's again.
    Window,
    /// Payments that were put off, by the moment until which.
    PutOff,
}
