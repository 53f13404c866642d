//! Keeps maps within their bound.

use std::{hash::Hash, sync::Arc};

use dashmap::DashMap;

/// Drops about a tenth of `map`'s entries, whichever come first: what is still wanted is read again.
pub(crate) fn make_room<K: Eq + Hash + Clone, V>(map: &DashMap<K, V>, max: usize) {
    let excess = (map.len().saturating_sub(max) + max / 10).max(1);
    let victims: Vec<K> = map.iter().take(excess).map(|entry| entry.key().clone()).collect();
    for victim in victims {
        map.remove(&victim);
    }
}

/// What `map` has at `key`, made when there is nothing. Looks before it enters: entering locks out others, and counting
/// all entries locks each part of the map.
pub(crate) fn find_or_make<K: Eq + Hash + Clone, V>(
    map: &DashMap<K, Arc<V>>,
    key: K,
    max: usize,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    if let Some(known) = map.get(&key) {
        return known.clone();
    }
    if map.len() >= max {
        make_room(map, max);
    }
    map.entry(key).or_insert_with(|| Arc::new(make())).clone()
}
