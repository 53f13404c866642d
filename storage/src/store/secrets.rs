//! What is kept sealed, and its way from one master key to the next.

use async_trait::async_trait;

use crate::error::StoreResult;

/// How far a resealing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// Rows that were looked at.
    pub rows: u64,
    /// Those of them that were sealed anew.
    pub resealed: u64,
    /// Ask with this next. `None`: nothing is left that an earlier key sealed, and that key may go.
    pub next: Option<Vec<u8>>,
}

/// The rows that hold sealed values.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// How many there are.
    async fn secret_count(&self) -> StoreResult<u64>;

    /// Seals with the current master key what is sealed with another one, in the rows after `after`, some at a time:
    /// `storage.reseal_rows` in one step. May be broken off and begun again at any time, beside all other work. Rules
    /// out telling that it is done while any row needs an earlier key.
    async fn secret_reseal(&self, after: Option<Vec<u8>>) -> StoreResult<Resealed>;
}
