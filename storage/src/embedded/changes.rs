//! The change feed: the last changes of this process, in memory. One process owns the store, so a cache that was
//! built after the start missed nothing; one that fell behind the feed is told so.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::store::{Change, Changes};

/// The last changes, numbered from 1.
pub(crate) struct ChangeFeed {
    kept: Mutex<Kept>,
    max: usize,
}

#[derive(Default)]
struct Kept {
    items: VecDeque<Change>,
    /// The number of the last change.
    last: u64,
}

impl ChangeFeed {
    /// Keeps the last `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { kept: Mutex::default(), max }
    }

    /// Adds changes that are durable.
    pub(crate) fn push(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut kept = self.kept.lock();
        for change in changes {
            kept.last += 1;
            kept.items.push_back(change);
            if kept.items.len() > self.max {
                kept.items.pop_front();
            }
        }
    }

    /// Some changes may be missing: whoever asks next is told to forget everything.
    pub(crate) fn lose(&self) {
        let mut kept = self.kept.lock();
        kept.items.clear();
        kept.last += 1;
    }

    /// What came after `cursor`.
    pub(crate) fn since(&self, cursor: u64) -> Changes {
        let kept = self.kept.lock();
        let held = u64::try_from(kept.items.len()).unwrap_or(u64::MAX);
        // A cursor past the end is of another life of the process.
        let gap = cursor < kept.last - held || cursor > kept.last;
        let known = if gap { 0 } else { held - (kept.last - cursor) };
        let items = kept.items.iter().skip(usize::try_from(known).unwrap_or(usize::MAX)).copied().collect();
        Changes { items, next: kept.last, gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_every_change_once_or_is_told_of_a_gap() {
        let feed = ChangeFeed::new(3);
        let change = |n| Change::ApiKey([n; 32]);
        assert_eq!(feed.since(0), Changes { items: vec![], next: 0, gap: false });
        feed.push(vec![change(1), change(2)]);
        assert_eq!(feed.since(0), Changes { items: vec![change(1), change(2)], next: 2, gap: false });
        assert_eq!(feed.since(1), Changes { items: vec![change(2)], next: 2, gap: false });
        assert_eq!(feed.since(2), Changes { items: vec![], next: 2, gap: false });
        feed.push(vec![change(3), change(4)]);
        assert!(feed.since(0).gap && !feed.since(1).gap);
        assert!(feed.since(5).gap, "a cursor of another life");
        feed.lose();
        assert!(feed.since(4).gap && !feed.since(5).gap);
    }
}
