//! Payments that a request of this node is working on: the first takes the flight, the others wait for it to end.
//! This spares the store races it would win anyway; what decides over nodes and lives is the store's compare-and-set.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use storage::model::PaymentId;
use tokio::sync::Semaphore;

#[derive(Debug, Default)]
pub(crate) struct Flights {
    open: DashMap<PaymentId, Arc<Semaphore>>,
}

/// The end of somebody else's flight.
#[derive(Debug)]
pub(crate) struct Landing(Arc<Semaphore>);

impl Landing {
    /// Waits for it; those who wait go on in the order in which they came.
    pub(crate) async fn wait(&self) {
        // There is never a permit: it ends when the flight closes it.
        drop(self.0.acquire().await);
    }
}

/// The right to work on a payment on this node; dropping it wakes all who wait.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    payment: PaymentId,
}

impl Flights {
    /// Takes the flight, or what to wait on until it ends.
    pub(crate) fn take(self: &Arc<Self>, payment: PaymentId) -> Result<Flight, Landing> {
        match self.open.entry(payment) {
            Entry::Occupied(open) => Err(Landing(open.get().clone())),
            Entry::Vacant(free) => {
                free.insert(Arc::new(Semaphore::new(0)));
                Ok(Flight { flights: self.clone(), payment })
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some((_, open)) = self.flights.open.remove(&self.payment) {
            open.close();
        }
    }
}
