//! Rows of free calls: written behind their answers, in batches, by one task. A paid call's row is part of its payment.

use std::{sync::Arc, time::Duration};

use storage::{Store, model::FreeCall};
use tokio::sync::mpsc;

/// Rows that may wait; a full queue makes calls wait, at most this long.
const QUEUE: usize = 16_384;
const PATIENCE: Duration = Duration::from_millis(250);
/// Rows in one batch, and how late they may be.
const BATCH: usize = 1_024;
const GATHER: Duration = Duration::from_millis(20);

/// Takes rows; clones share one queue.
#[derive(Clone)]
pub struct RowWriter(mpsc::Sender<FreeCall>);

impl RowWriter {
    /// The writer, and the task that must run somewhere until every writer is gone.
    pub(crate) fn new(store: Arc<dyn Store>) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), write_rows(store, receiver))
    }

    /// Hands a row over. It moves no money: when the store cannot take rows for long, it is counted and lost.
    pub(crate) async fn write(&self, row: FreeCall) {
        if let Err(mpsc::error::TrySendError::Full(row)) = self.0.try_send(row)
            && self.0.send_timeout(row, PATIENCE).await.is_err()
        {
            metrics::counter!("crochet_free_rows_lost_total").increment(1);
        }
    }
}

async fn write_rows(store: Arc<dyn Store>, mut rows: mpsc::Receiver<FreeCall>) {
    let mut batch = Vec::with_capacity(BATCH);
    while rows.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            // Rows are in no hurry: waiting a little makes one commit of many.
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(row) = rows.try_recv()
            {
                batch.push(row);
            }
        }
        let count = batch.len();
        if let Err(error) = store.free_calls_write(std::mem::take(&mut batch)).await {
            tracing::warn!(%error, count, "rows of free calls were lost");
            metrics::counter!("crochet_free_rows_lost_total").increment(count as u64);
        }
    }
}
