//! What is thought of whom: reviews with evidence, scores, and the task that keeps both up to date.

pub(crate) mod keeping;
pub(crate) mod reviews;
pub(crate) mod scores;
