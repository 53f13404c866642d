//! UTF-8 that arrives in pieces: a character's bytes may stand on both sides of a cut.

/// A character of several bytes whose first has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    missing: u8,
    lowest: u8,
    highest: u8,
}

impl Sequence {
    /// Begins at a byte that is not ASCII; `None` when no character begins so.
    pub(crate) fn begin(byte: u8) -> Option<Self> {
        let (missing, lowest, highest) = match byte {
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xe1..=0xec | 0xee | 0xef => (2, 0x80, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return None,
        };
        Some(Self { missing, lowest, highest })
    }

    /// How many bytes of `tail` belong to the character that begins with `first`. `None` when it is none, or when it is
    /// cut.
    #[inline]
    pub(crate) fn whole(first: u8, tail: &[u8]) -> Option<usize> {
        let is_next = |byte: &u8| byte & 0xc0 == 0x80;
        let Self { missing, lowest, highest } = Self::begin(first)?;
        let good = match (missing, tail) {
            (1, [second, ..]) => is_next(second),
            (2, [second, third, ..]) => (lowest..=highest).contains(second) && is_next(third),
            (3, [second, third, fourth, ..]) => {
                (lowest..=highest).contains(second) && is_next(third) && is_next(fourth)
            }
            _ => false,
        };
        good.then_some(usize::from(missing))
    }

    /// Takes the next byte: whether the character is whole now, or `None` when it is none.
    pub(crate) fn next(&mut self, byte: u8) -> Option<bool> {
        if !(self.lowest..=self.highest).contains(&byte) {
            return None;
        }
        self.missing -= 1;
        (self.lowest, self.highest) = (0x80, 0xbf);
        Some(self.missing == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_character(bytes: &[u8]) -> bool {
        let stepwise = is_character_by_steps(bytes);
        let (first, tail) = bytes.split_first().expect("some");
        assert_eq!(Sequence::whole(*first, tail) == Some(tail.len()), stepwise, "{bytes:x?}");
        stepwise
    }

    fn is_character_by_steps(bytes: &[u8]) -> bool {
        let Some((first, rest)) = bytes.split_first() else { return false };
        let Some(mut sequence) = Sequence::begin(*first) else { return false };
        let mut whole = false;
        for byte in rest {
            if whole {
                return false;
            }
            match sequence.next(*byte) {
                Some(ended) => whole = ended,
                None => return false,
            }
        }
        whole
    }

    #[test]
    fn it_agrees_with_the_standard_library_on_every_two_and_on_the_edges_of_three_and_four() {
        for first in 0x80..=0xffu8 {
            for second in 0..=0xffu8 {
                let two = [first, second];
                assert_eq!(is_character(&two), std::str::from_utf8(&two).is_ok(), "{two:x?}");
                for third in [0x7f, 0x80, 0xbf, 0xc0] {
                    let three = [first, second, third];
                    let good = std::str::from_utf8(&three).is_ok_and(|text| text.chars().count() == 1);
                    assert_eq!(is_character(&three), good, "{three:x?}");
                    for fourth in [0x7f, 0x80, 0xbf, 0xc0] {
                        let four = [first, second, third, fourth];
                        let good = std::str::from_utf8(&four).is_ok_and(|text| text.chars().count() == 1);
                        assert_eq!(is_character(&four), good, "{four:x?}");
                    }
                }
            }
        }
    }
}
