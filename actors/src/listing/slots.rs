//! How many calls may run towards one seller, and who may wait for one to end.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// The slots of one endpoint. Taking and giving back are synchronous; only the waiting room waits.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicU32,
    waiting: AtomicUsize,
    freed: Notify,
    room: usize,
    patience: Duration,
}

impl Slots {
    pub(crate) fn new(room: usize, patience: Duration) -> Self {
        Self { taken: AtomicU32::new(0), waiting: AtomicUsize::new(0), freed: Notify::new(), room, patience }
    }

    /// A look: is there a slot, or a place to wait for one?
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        self.taken.load(Ordering::Relaxed) < limit || self.waiting.load(Ordering::Relaxed) < self.room
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    fn try_take(&self, limit: u32) -> bool {
        let more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// Takes a slot, waiting for one if there is a place to wait. `false`: there was none in time.
    pub(crate) async fn take(&self, limit: u32) -> bool {
        if self.try_take(limit) {
            return true;
        }
        let place = |waiting: usize| (waiting < self.room).then(|| waiting + 1);
        if self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, place).is_err() {
            return false;
        }
        let _place = Place(&self.waiting);
        let waited = async {
            loop {
                let freed = self.freed.notified();
                if self.try_take(limit) {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(self.patience, waited).await.is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.freed.notify_one();
        }
    }
}

/// A place in the waiting room; left when the wait ends, however it ends.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_freed_slot_goes_to_one_who_waits_and_the_room_has_a_bound() {
        let slots = Arc::new(Slots::new(1, Duration::from_secs(5)));
        assert!(slots.take(1).await);
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(1).await }
        });
        while slots.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!slots.has_room(1));
        assert!(!slots.take(1).await, "the waiting room is full");
        slots.give_back();
        assert!(waiter.await.expect("joined"));
        assert_eq!((slots.taken(), slots.waiting.load(Ordering::Relaxed)), (1, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let slots = Slots::new(4, Duration::from_millis(1));
        assert!(slots.take(1).await);
        assert!(!slots.take(1).await);
        assert_eq!(slots.waiting.load(Ordering::Relaxed), 0);
    }
}
