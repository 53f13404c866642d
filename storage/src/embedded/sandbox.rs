//! The sandbox's books.

use async_trait::async_trait;

use super::{Embedded, Operation, keys};
use crate::{
    error::StoreResult,
    model::{PaymentId, SandboxPayment},
    store::SandboxStore,
};

const WHAT: &str = "sandbox payment";

#[async_trait]
impl SandboxStore for Embedded {
    async fn sandbox_pay(&self, payment: SandboxPayment) -> StoreResult<SandboxPayment> {
        let decide = move |draft: &mut super::Draft<'_>| {
            let key = keys::sandbox(payment.payment);
            if let Some(standing) = draft.read(WHAT, &key)? {
                return Ok(standing);
            }
            draft.write(key, &payment)?;
            Ok(payment)
        };
        self.shared.run(Operation::SandboxPay, decide).await
    }

    async fn sandbox_get(&self, id: PaymentId) -> StoreResult<Option<SandboxPayment>> {
        let _timing = self.shared.measures.time(Operation::SandboxGet);
        self.shared.read(WHAT, &keys::sandbox(id))
    }
}
