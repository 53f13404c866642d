//! What can go wrong in a store. Losing a race is not among it: that is an outcome.

/// A fault of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened, and nothing can right now.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// It may have happened. Read again before deciding; never assume either way.
    #[error("the store did not confirm: {0}")]
    Unknown(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// What a store answers.
pub type StoreResult<T> = Result<T, StoreError>;
