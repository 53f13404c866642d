//! The sandbox provider's own records: durable as a real provider's would be. Only the sandbox reads or writes them.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{PaymentId, SandboxPayment},
};

/// The sandbox's books.
#[async_trait]
pub trait SandboxStore: Send + Sync {
    /// Records a payment once; returns the record that stands. Paying twice keeps the first.
    async fn sandbox_pay(&self, payment: SandboxPayment) -> StoreResult<SandboxPayment>;

    /// The record of a payment.
    async fn sandbox_get(&self, id: PaymentId) -> StoreResult<Option<SandboxPayment>>;
}
