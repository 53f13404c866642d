//! Payments that a request of this node is working on: the first takes the flight, the others wait for it to end.
//! This spares the store races it would win anyway; what decides over nodes and lives is the store's compare-and-set.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use storage::model::PaymentId;
use tokio::sync::watch;

#[derive(Debug, Default)]
pub(crate) struct Flights {
    open: DashMap<PaymentId, Arc<watch::Sender<()>>>,
}

/// The right to work on a payment on this node; dropping it wakes all who wait.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    payment: PaymentId,
}

impl Flights {
    /// Takes the flight, or what to wait on until it ends.
    pub(crate) fn take(self: &Arc<Self>, payment: PaymentId) -> Result<Flight, watch::Receiver<()>> {
        match self.open.entry(payment) {
            Entry::Occupied(open) => Err(open.get().subscribe()),
            Entry::Vacant(free) => {
                free.insert(Arc::new(watch::Sender::new(())));
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
        // Dropping the sender ends every receiver's wait.
        self.flights.open.remove(&self.payment);
    }
}
