//! How many calls may run towards one seller, and who may wait for one to end.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The slots of one endpoint. Taking and giving back are synchronous; only the waiting room waits. Who waits is served
/// in the order of arrival, and nobody who comes later overtakes.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicU32,
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Waiter>>,
    room: usize,
    patience: Duration,
}

/// One in the waiting room: under which limit it came, and how it is told that a slot is its own.
#[derive(Debug)]
struct Waiter {
    limit: u32,
    tell: oneshot::Sender<()>,
}

impl Slots {
    pub(crate) fn new(room: usize, patience: Duration) -> Self {
        let (taken, waiting) = (AtomicU32::new(0), AtomicUsize::new(0));
        Self { taken, waiting, queue: Mutex::default(), room, patience }
    }

    /// A look: is there a slot, or a place to wait for one?
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        self.taken() < limit || self.waiting() < self.room
    }

    /// Calls that run now.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(SeqCst)
    }

    /// Calls that wait for a slot now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    fn try_take(&self, limit: u32) -> bool {
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < limit).then(|| taken + 1)).is_ok()
    }

    /// Takes a slot, waiting for one if there is a place to wait. `false`: there was none in time.
    pub(crate) async fn take(&self, limit: u32) -> bool {
        if self.waiting() == 0 && self.try_take(limit) {
            return true;
        }
        let Some(mut place) = self.place(limit) else { return false };
        // A slot that came free between the look and the place is handed on to whoever stands first.
        self.hand_on();
        place.has_slot = matches!(tokio::time::timeout(self.patience, &mut place.told).await, Ok(Ok(())));
        place.leave()
    }

    fn place(&self, limit: u32) -> Option<Place<'_>> {
        let more = |waiting: usize| (waiting < self.room).then(|| waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, more).ok()?;
        let (tell, told) = oneshot::channel();
        self.queue.lock().push_back(Waiter { limit, tell });
        Some(Place { slots: self, told, has_slot: false, has_left: false })
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, SeqCst);
        // In this order: who came to wait before the slot was free is seen here; who comes after sees the slot.
        if self.waiting() > 0 {
            self.hand_on();
        }
    }

    /// Hands free slots to those who stand first, as long as their limits allow.
    fn hand_on(&self) {
        let mut queue = self.queue.lock();
        while let Some(first) = queue.front() {
            if first.tell.is_closed() {
                queue.pop_front();
            } else if self.try_take(first.limit) {
                let told = queue.pop_front().is_some_and(|first| first.tell.send(()).is_ok());
                if !told {
                    // It left at this very moment.
                    self.taken.fetch_sub(1, SeqCst);
                }
            } else {
                return;
            }
        }
    }
}

/// A place in the waiting room; left when the wait ends, however it ends.
struct Place<'a> {
    slots: &'a Slots,
    told: oneshot::Receiver<()>,
    has_slot: bool,
    has_left: bool,
}

impl Place<'_> {
    /// Leaves the room; `true`: with a slot.
    fn leave(mut self) -> bool {
        self.go()
    }

    fn go(&mut self) -> bool {
        self.has_left = true;
        self.told.close();
        // What was told before the close counts, even when the wait was over.
        self.has_slot |= self.told.try_recv().is_ok();
        if !self.has_slot {
            self.slots.queue.lock().retain(|waiter| !waiter.tell.is_closed());
        }
        self.slots.waiting.fetch_sub(1, SeqCst);
        self.has_slot
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.has_left && self.go() {
            self.slots.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    type Taking = Pin<Box<dyn Future<Output = bool>>>;

    fn taking(slots: &Arc<Slots>, limit: u32) -> Taking {
        let slots = Arc::clone(slots);
        Box::pin(async move { slots.take(limit).await })
    }

    fn poll(taking: &mut Taking) -> Poll<bool> {
        taking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let slots = Slots::new(4, Duration::from_millis(1));
        assert!(slots.take(1).await);
        assert!(!slots.take(1).await);
        assert_eq!((slots.taken(), slots.waiting()), (1, 0));
        assert!(slots.queue.lock().is_empty(), "who gave up stands in nobody's way");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_free_slot_finds_the_one_who_waits() {
        // Hundreds of calls through two slots, all with room to wait: none is turned away, never more than two run.
        let slots = Arc::new(Slots::new(1_000, Duration::from_secs(60)));
        let running = Arc::new(AtomicU32::new(0));
        let calls: Vec<_> = (0..500)
            .map(|_| {
                let (slots, running) = (Arc::clone(&slots), Arc::clone(&running));
                tokio::spawn(async move {
                    assert!(slots.take(2).await);
                    assert!(running.fetch_add(1, SeqCst) < 2);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, SeqCst);
                    slots.give_back();
                })
            })
            .collect();
        for call in calls {
            call.await.expect("a call");
        }
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }

    /// What may happen to the slots.
    #[derive(Clone, Debug)]
    enum Event {
        Comes,
        /// One who runs ends: which.
        Ends(usize),
        /// One who waits gives up: which.
        GivesUp(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Comes),
            2 => any::<usize>().prop_map(Event::Ends),
            1 => any::<usize>().prop_map(Event::GivesUp),
        ]
    }

    /// The same, naively: who runs and who waits, by number.
    #[derive(Debug, Default)]
    struct Model {
        running: Vec<usize>,
        waiting: VecDeque<usize>,
    }

    impl Model {
        fn fill(&mut self, limit: usize) {
            while self.running.len() < limit {
                let Some(first) = self.waiting.pop_front() else { return };
                self.running.push(first);
            }
        }
    }

    proptest! {
        #[test]
        fn slots_do_as_a_naive_queue_does(
            limit in 1u32..5,
            room in 0usize..6,
            events in prop::collection::vec(event(), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let _entered = runtime.as_ref().expect("a runtime").enter();
            let slots = Arc::new(Slots::new(room, Duration::from_secs(3_600)));
            let mut model = Model::default();
            let mut places: Vec<(usize, Taking)> = Vec::new();
            for (number, event) in events.into_iter().enumerate() {
                match event {
                    Event::Comes => {
                        let mut taking = taking(&slots, limit);
                        let (runs, has_place) = (model.running.len() < limit as usize, model.waiting.len() < room);
                        prop_assert_eq!(slots.has_room(limit), runs || has_place);
                        match poll(&mut taking) {
                            Poll::Ready(has_slot) => {
                                prop_assert_eq!(has_slot, runs);
                                prop_assert!(runs || !has_place);
                                if runs {
                                    model.running.push(number);
                                }
                            }
                            Poll::Pending => {
                                prop_assert!(!runs && has_place);
                                model.waiting.push_back(number);
                                places.push((number, taking));
                            }
                        }
                    }
                    Event::Ends(which) => {
                        if !model.running.is_empty() {
                            model.running.swap_remove(which % model.running.len());
                            slots.give_back();
                            model.fill(limit as usize);
                        }
                    }
                    Event::GivesUp(which) => {
                        if !model.waiting.is_empty() {
                            let gone = model.waiting.remove(which % model.waiting.len());
                            places.retain(|(number, _)| Some(*number) != gone);
                        }
                    }
                }
                // Exactly those whom the model lets run have their slot, in the order of arrival.
                let mut still = Vec::new();
                for (number, mut taking) in places {
                    match poll(&mut taking) {
                        Poll::Ready(has_slot) => prop_assert!(has_slot && model.running.contains(&number)),
                        Poll::Pending => {
                            prop_assert!(model.waiting.contains(&number));
                            still.push((number, taking));
                        }
                    }
                }
                places = still;
                prop_assert_eq!(slots.taken() as usize, model.running.len());
                prop_assert_eq!(slots.waiting(), model.waiting.len());
            }
        }
    }
}
