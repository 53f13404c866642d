//! Whether bytes are one well-formed JSON value: seen as they pass, without a copy and without a tree.
//!
//! What passes can be spliced into a document of ours: one value, at most [`DEPTH_MAX`] deep, valid UTF-8, no lone
//! surrogate. Numbers have JSON's grammar and no bounds.

use crate::utf8::Sequence;

/// How deep arrays and objects may stand in each other.
pub const DEPTH_MAX: u8 = 128;

/// The bytes are not what they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed")]
pub struct Malformed;

/// Whether `bytes` are one well-formed value.
#[must_use]
pub fn is_json(bytes: &[u8]) -> bool {
    let mut check = JsonCheck::default();
    check.feed(bytes).and_then(|()| check.finish()).is_ok()
}

/// A check of one value, fed in pieces.
#[derive(Clone, Debug, Default)]
pub struct JsonCheck {
    state: State,
    /// How many arrays and objects are open.
    depth: u8,
    /// The innermost is the lowest bit; a set bit is an object.
    objects: u128,
    /// The string at hand is a key.
    in_key: bool,
    /// What is missing of `true`, `false` or `null`.
    literal: &'static [u8],
    /// The digits of a `\uXXXX` so far, and how many are missing.
    unit: (u16, u8),
    /// The character of several bytes at hand.
    sequence: Option<Sequence>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value must follow.
    #[default]
    Value,
    /// After `[`: a value or `]`.
    FirstElement,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value: a comma, an end, or, outermost, nothing.
    After,
    String,
    Escape,
    Hex,
    /// A high surrogate came: `\u` must follow.
    LowEscape,
    LowU,
    LowHex,
    Character,
    Literal,
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl JsonCheck {
    /// Looks at the next piece.
    ///
    /// # Errors
    /// [`Malformed`] as soon as no continuation could make it well-formed; the check is of no more use then.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        let (mut state, mut rest) = (self.state, piece);
        loop {
            // Runs are skipped whole; they are most of any document.
            rest = match state {
                State::String if rest.first().is_some_and(u8::is_ascii) => skip(rest, plain_prefix(rest)),
                State::Integer | State::Fraction | State::ExponentDigits => skip(rest, digits(rest)),
                _ => rest,
            };
            let Some((byte, tail)) = rest.split_first() else { break };
            rest = tail;
            state = match state {
                // A character that stands whole in this piece is seen at once.
                State::String if *byte >= 0x80 => match Sequence::whole(*byte, tail) {
                    Some(length) => {
                        rest = skip(tail, length);
                        state
                    }
                    None => self.in_string(*byte)?,
                },
                State::String => self.in_string(*byte)?,
                State::Value => match byte {
                    b' ' | b'\n' | b'\r' | b'\t' => {
                        rest = skip(rest, spaces(rest));
                        state
                    }
                    _ => self.value(*byte)?,
                },
                State::After | State::Key | State::Colon | State::FirstKey | State::FirstElement => match byte {
                    b' ' | b'\n' | b'\r' | b'\t' => {
                        rest = skip(rest, spaces(rest));
                        state
                    }
                    _ => self.between(state, *byte)?,
                },
                State::Zero | State::Integer | State::Fraction | State::ExponentDigits => self.number(state, *byte)?,
                _ => self.seldom(state, *byte)?,
            };
        }
        self.state = state;
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// [`Malformed`] when the value has not ended.
    pub fn finish(&self) -> Result<(), Malformed> {
        let ended =
            matches!(self.state, State::After | State::Zero | State::Integer | State::Fraction | State::ExponentDigits);
        if ended && self.depth == 0 { Ok(()) } else { Err(Malformed) }
    }

    #[inline]
    fn in_string(&mut self, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'"' if self.in_key => Ok(State::Colon),
            b'"' => Ok(State::After),
            b'\\' => Ok(State::Escape),
            0..=0x1f => Err(Malformed),
            0x20..=0x7f => Ok(State::String),
            _ => {
                self.sequence = Some(Sequence::begin(byte).ok_or(Malformed)?);
                Ok(State::Character)
            }
        }
    }

    #[inline]
    fn value(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match byte {
            b'"' => {
                self.in_key = false;
                State::String
            }
            b'1'..=b'9' => State::Integer,
            b'{' => self.enter(1, State::FirstKey)?,
            b'[' => self.enter(0, State::FirstElement)?,
            b'0' => State::Zero,
            b'-' => State::Minus,
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            _ => return Err(Malformed),
        })
    }

    #[inline]
    fn between(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (State::After, b',') if self.depth == 0 => return Err(Malformed),
            (State::After, b',') if self.objects & 1 == 1 => State::Key,
            (State::After, b',') => State::Value,
            (State::After | State::FirstElement, b']') => self.leave(0)?,
            (State::After | State::FirstKey, b'}') => self.leave(1)?,
            (State::Key | State::FirstKey, b'"') => {
                self.in_key = true;
                State::String
            }
            (State::Colon, b':') => State::Value,
            (State::FirstElement, _) => self.value(byte)?,
            _ => return Err(Malformed),
        })
    }

    fn enter(&mut self, kind: u128, state: State) -> Result<State, Malformed> {
        if self.depth == DEPTH_MAX {
            return Err(Malformed);
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | kind;
        Ok(state)
    }

    fn leave(&mut self, kind: u128) -> Result<State, Malformed> {
        if self.depth == 0 || self.objects & 1 != kind {
            return Err(Malformed);
        }
        self.depth -= 1;
        self.objects >>= 1;
        Ok(State::After)
    }

    fn literal(&mut self, missing: &'static [u8]) -> State {
        self.literal = missing;
        State::Literal
    }

    /// Behind a digit. Only the byte behind a number shows that it has ended.
    #[inline]
    fn number(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        match (state, byte) {
            (State::Zero | State::Integer, b'.') => Ok(State::Point),
            (State::Zero | State::Integer | State::Fraction, b'e' | b'E') => Ok(State::Exponent),
            (_, b' ' | b'\n' | b'\r' | b'\t') => Ok(State::After),
            _ => self.between(State::After, byte),
        }
    }

    fn seldom(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (State::Literal, _) => match self.literal.split_first() {
                Some((wanted, [])) if *wanted == byte => State::After,
                Some((wanted, missing)) if *wanted == byte => self.literal(missing),
                _ => return Err(Malformed),
            },
            (State::Character, _) => match self.sequence.as_mut().and_then(|sequence| sequence.next(byte)) {
                Some(true) => State::String,
                Some(false) => State::Character,
                None => return Err(Malformed),
            },
            (State::Minus, b'0') => State::Zero,
            (State::Minus, b'1'..=b'9') => State::Integer,
            (State::Point, b'0'..=b'9') => State::Fraction,
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign, b'0'..=b'9') => State::ExponentDigits,
            (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => State::String,
            (State::Escape, b'u') => self.unit(State::Hex),
            (State::LowEscape, b'\\') => State::LowU,
            (State::LowU, b'u') => self.unit(State::LowHex),
            (State::Hex | State::LowHex, _) => self.hex(state, byte)?,
            _ => return Err(Malformed),
        })
    }

    fn unit(&mut self, state: State) -> State {
        self.unit = (0, 4);
        state
    }

    fn hex(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).ok_or(Malformed)?;
        let (unit, missing) = ((self.unit.0 << 4) | digit, self.unit.1 - 1);
        self.unit = (unit, missing);
        match (state, unit) {
            _ if missing > 0 => Ok(state),
            (State::Hex, 0xd800..=0xdbff) => Ok(State::LowEscape),
            (State::Hex, 0xdc00..=0xdfff) => Err(Malformed),
            (State::LowHex, 0..=0xdbff | 0xe000..) => Err(Malformed),
            _ => Ok(State::String),
        }
    }
}

#[inline]
fn skip(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(count..).unwrap_or_default()
}

/// How many bytes at the front stand for themselves in a JSON string: printable ASCII but `"` and `\`.
#[must_use]
pub fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at once: each term sets the high bit of a byte that is below a bound, and perhaps of ones behind it;
    // the first is right, and the first is what is asked.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let mut length = 0;
    let mut rest = bytes;
    while let Some((block, tail)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*block);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (below(word, 0x20) | quote | backslash | word) & HIGHS;
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
        rest = tail;
    }
    let special = |b: &u8| *b < 0x20 || *b > 0x7f || *b == b'"' || *b == b'\\';
    length + rest.iter().position(special).unwrap_or(rest.len())
}

#[inline]
fn spaces(bytes: &[u8]) -> usize {
    // Mostly none or one; indented documents have a run.
    bytes.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(bytes.len())
}

#[inline]
fn digits(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len())
}

#[cfg(test)]
#[path = "json_check_tests.rs"]
mod tests;
