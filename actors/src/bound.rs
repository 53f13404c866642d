//! Keeps maps within their bound.

use std::hash::Hash;

use dashmap::DashMap;

/// Drops about a tenth of `map`'s entries, whichever come first: what is still wanted is read again.
pub(crate) fn make_room<K: Eq + Hash + Clone, V>(map: &DashMap<K, V>, max: usize) {
    let excess = (map.len().saturating_sub(max) + max / 10).max(1);
    let victims: Vec<K> = map.iter().take(excess).map(|entry| entry.key().clone()).collect();
    for victim in victims {
        map.remove(&victim);
    }
}
