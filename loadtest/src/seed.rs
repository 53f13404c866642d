//! Everything that chance decides is decided by a seed, so that a failing run can be run again.

/// A stream of numbers that a seed fixes (SplitMix64).
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The stream named `label` and `number` under `seed`; streams of different names are unrelated.
    #[must_use]
    pub fn stream(seed: u64, label: &str, number: u64) -> Self {
        let mut state = Self(seed);
        for word in label.bytes().map(u64::from).chain([number]) {
            state.0 = state.draw().wrapping_add(word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        state
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_and_other_names_other_numbers() {
        let first = |seed, label, number| Seed::stream(seed, label, number).draw();
        assert_eq!(first(1, "buyer", 0), first(1, "buyer", 0));
        assert_ne!(first(1, "buyer", 0), first(1, "buyer", 1));
        assert_ne!(first(1, "buyer", 0), first(1, "seller", 0));
        assert_ne!(first(1, "buyer", 0), first(2, "buyer", 0));
    }
}
