//! A stream of events as it passes: that it is UTF-8, that the seller does not forge our own events, and where a line of
//! ours may stand.

use crate::{json_check::Malformed, utf8::Sequence};

/// The longest beginning of a line that is looked at: our events' own.
const LOOKED_AT: usize = 15;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A check of one stream, fed in pieces.
#[derive(Debug, Default)]
pub struct EventCheck {
    /// How the line at hand begins.
    start: [u8; LOOKED_AT],
    /// How much of it has come, as far as it is looked at.
    length: usize,
    /// The line at hand is not the first.
    is_behind: bool,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    after_return: bool,
    /// A line came since the last blank one.
    in_event: bool,
    /// The character of several bytes at hand.
    sequence: Option<Sequence>,
}

impl EventCheck {
    /// Looks at the next piece.
    ///
    /// # Errors
    /// [`Malformed`] when it is not UTF-8, or names an event of ours.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.check_utf8(piece)?;
        let mut rest = piece;
        while let Some((byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.in_event = self.length > 0;
                    (self.length, self.is_behind, self.after_return) = (0, true, *byte == b'\r');
                }
                _ => {
                    self.after_return = false;
                    self.look(*byte)?;
                    if self.length == LOOKED_AT {
                        // Nothing more of this line matters.
                        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                        rest = rest.get(end..).unwrap_or_default();
                    }
                }
            }
        }
        Ok(())
    }

    /// What must stand between the stream's end and an event of ours.
    ///
    /// # Errors
    /// [`Malformed`] when the last character is cut.
    pub fn finish(&self) -> Result<&'static [u8], Malformed> {
        match (self.sequence, self.length, self.in_event, self.after_return) {
            (Some(_), ..) => Err(Malformed),
            (_, 0, false, _) => Ok(b""),
            (_, 0, true, false) => Ok(b"\n"),
            _ => Ok(b"\n\n"),
        }
    }

    /// Whether the last line has ended for certain.
    #[must_use]
    pub fn is_between_lines(&self) -> bool {
        self.length == 0 && !self.after_return && self.sequence.is_none()
    }

    fn look(&mut self, byte: u8) -> Result<(), Malformed> {
        let Some(place) = self.start.get_mut(self.length) else { return Ok(()) };
        *place = byte;
        self.length += 1;
        let line = self.start.get(..self.length).unwrap_or_default();
        if !self.is_behind && line == BOM {
            (self.length, self.is_behind) = (0, true);
        } else if line == b"event:crochet." || line == b"event: crochet." {
            return Err(Malformed);
        }
        Ok(())
    }

    fn check_utf8(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        let mut rest = piece;
        while let Some(mut sequence) = self.sequence {
            let Some((byte, behind)) = rest.split_first() else { return Ok(()) };
            let is_whole = sequence.next(*byte).ok_or(Malformed)?;
            self.sequence = (!is_whole).then_some(sequence);
            rest = behind;
        }
        let Err(error) = std::str::from_utf8(rest) else { return Ok(()) };
        let mut cut = rest.get(error.valid_up_to()..).unwrap_or_default().iter();
        if error.error_len().is_some() {
            return Err(Malformed);
        }
        let mut sequence = cut.next().and_then(|first| Sequence::begin(*first)).ok_or(Malformed)?;
        for byte in cut {
            sequence.next(*byte).ok_or(Malformed)?;
        }
        self.sequence = Some(sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(pieces: &[&[u8]]) -> Result<&'static [u8], Malformed> {
        let mut check = EventCheck::default();
        for piece in pieces {
            check.feed(piece)?;
        }
        check.finish()
    }

    #[test]
    fn what_stands_before_the_receipt_ends_the_event_at_hand() {
        for (stream, wanted) in [
            ("", ""),
            ("data: a\n\n", ""),
            ("data: a\r\n\r\n", ""),
            ("data: a\r\r", ""),
            ("data: a\n", "\n"),
            ("data: a\r\n", "\n"),
            ("data: a", "\n\n"),
            // A line feed alone would belong to the carriage return.
            ("data: a\r", "\n\n"),
            ("\n\n\n", ""),
            (": comment\n", "\n"),
        ] {
            assert_eq!(checked(&[stream.as_bytes()]), Ok(wanted.as_bytes()), "{stream:?}");
        }
    }

    #[test]
    fn b1_a_seller_cannot_forge_an_event_of_ours_however_it_is_cut() {
        for forged in [
            "event: crochet.receipt\n",
            "event:crochet.receipt",
            "data: x\n\nevent: crochet.receipt\ndata: {}\n\n",
            "data: x\r\revent:crochet.anything",
            "\u{feff}event: crochet.receipt",
        ] {
            for size in 1..forged.len() {
                let pieces: Vec<&[u8]> = forged.as_bytes().chunks(size).collect();
                assert_eq!(checked(&pieces), Err(Malformed), "{forged:?} by {size}");
            }
        }
        for good in [
            "event: message\ndata: event: crochet.receipt\n\n",
            "event:  crochet.receipt\n\n",
            "event: crochet\n\n",
            " event: crochet.receipt\n\n",
            "Event: crochet.receipt\n\n",
            "data: \u{feff}\n\n\u{feff}event: crochet.x\n\n",
        ] {
            assert_eq!(checked(&[good.as_bytes()]), Ok(&b""[..]), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_it_is_cut(
            parts in prop::collection::vec(prop::sample::select(vec![
                "event:", " ", "crochet.", "crochet.receipt", "data: ü", "\n", "\r", "\r\n", "x", ":", "\u{feff}", "€",
            ]), 0..24),
            size in 1usize..7,
        ) {
            let text = parts.concat();
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(checked(&pieces), checked(&[text.as_bytes()]));
        }

        #[test]
        fn what_is_not_utf8_is_refused_however_it_is_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..30), size in 1usize..7,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(checked(&pieces).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
