//! When to begin and when to end. Pingora asks for the signal to shut down; it is given when nothing is left to shut
//! down but threads.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{places::Places, telemetry::operations::Readiness};

/// What the process does between its first and its last connection.
pub(super) struct Signals<F> {
    /// Called once, when all workers accept.
    pub(super) ready: Mutex<Option<F>>,
    /// Tells workers and connections that the drain begins.
    pub(super) stop: watch::Sender<bool>,
    pub(super) started: watch::Receiver<usize>,
    pub(super) workers: usize,
    pub(super) places: Arc<Places>,
    /// How long the drain may take.
    pub(super) patience: Duration,
}

impl<F: FnOnce() -> Readiness + Send> Signals<F> {
    async fn live(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut started = self.started.clone();
        let _ = started.wait_for(|started| *started >= self.workers).await;
        let ready = self.ready.lock().take();
        let readiness = ready.map(|ready| ready());
        next(&mut terminate, &mut interrupt).await;
        tracing::info!(connections = self.places.taken(), "draining");
        if let Some(readiness) = readiness {
            readiness.set(false);
        }
        let _ = self.stop.send(true);
        tokio::select! {
            () = self.places.wait_until_empty() => tracing::info!("drained"),
            () = tokio::time::sleep(self.patience) => tracing::warn!(connections = self.places.taken(), "cut off"),
            () = next(&mut terminate, &mut interrupt) => tracing::warn!("a second signal: cut off"),
        }
        Ok(())
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[async_trait]
impl<F: FnOnce() -> Readiness + Send> ShutdownSignalWatch for Signals<F> {
    async fn recv(&self) -> ShutdownSignal {
        if let Err(error) = self.live().await {
            tracing::error!(%error, "signals cannot be received");
        }
        ShutdownSignal::GracefulTerminate
    }
}
