//! The id that every answer carries, so that a client's report finds our log line.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

/// An id of ours: `req_` and 32 hex digits. Not a secret; unique over threads, processes and starts.
#[derive(Clone, Copy, Debug)]
pub struct RequestId([u8; 36]);

thread_local! {
    /// A random half a thread, and a count.
    static NEXT: Cell<(u64, u64)> = Cell::new((RandomState::new().build_hasher().finish(), 0));
}

impl RequestId {
    /// No id.
    pub const NONE: Self = Self([0; 36]);

    /// A new id.
    #[must_use]
    pub fn mint() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let (thread, count) = NEXT.get();
        NEXT.set((thread, count.wrapping_add(1)));
        let mut text = *b"req_00000000000000000000000000000000";
        let digits = text.iter_mut().skip(4);
        let halves = [thread.to_be_bytes(), count.to_be_bytes()];
        for (place, nibble) in digits.zip(halves.iter().flatten().flat_map(|byte| [byte >> 4, byte & 15])) {
            *place = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
        Self(text)
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether a client's id may go back into a header and into the log: 1 to 128 characters of a closed set.
    #[must_use]
    pub fn is_well_formed(id: &str) -> bool {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let (first, second) = (RequestId::mint(), RequestId::mint());
        assert_ne!(first.text(), second.text());
        assert!(RequestId::is_well_formed(first.text()) && first.text().starts_with("req_"));
        let other = std::thread::spawn(|| RequestId::mint().text().to_string()).join().expect("ran");
        assert_ne!(&other[..20], &first.text()[..20]);
    }

    #[test]
    fn a_clients_id_is_kept_only_when_it_is_harmless() {
        assert!(RequestId::is_well_formed("0195f-a.b:c"));
        for id in ["", "a b", "a\"b", "é", "a;b", &"x".repeat(129)] {
            assert!(!RequestId::is_well_formed(id), "{id}");
        }
    }
}
