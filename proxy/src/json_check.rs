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
    nest: Nest,
}

/// What the arrays and objects around the next byte are.
#[derive(Clone, Copy, Debug, Default)]
struct Nest {
    depth: u8,
    /// The innermost is the lowest bit; a set bit is an object.
    objects: u128,
    /// The string at hand is a key.
    in_key: bool,
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
    /// In `\uXXXX`: so many digits are missing of this unit.
    Hex(u8, u16),
    /// A high surrogate came: `\u` must follow.
    LowEscape,
    LowU,
    LowHex(u8, u16),
    /// In a character of several bytes.
    Character(Sequence),
    /// In `true`, `false` or `null`: what is missing.
    Literal(&'static [u8]),
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
        let (mut state, mut nest, mut rest) = (self.state, self.nest, piece);
        while !rest.is_empty() {
            // Runs are skipped whole; they are most of any document.
            let run = match state {
                State::String => plain_prefix(rest),
                State::Value | State::Colon | State::After | State::Key => spaces(rest),
                State::Integer | State::Fraction | State::ExponentDigits => digits(rest),
                _ => 0,
            };
            let Some((byte, tail)) = rest.get(run..).and_then(<[u8]>::split_first) else { break };
            state = nest.step(state, *byte)?;
            rest = tail;
        }
        (self.state, self.nest) = (state, nest);
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// [`Malformed`] when the value has not ended.
    pub fn finish(&self) -> Result<(), Malformed> {
        let ended =
            matches!(self.state, State::After | State::Zero | State::Integer | State::Fraction | State::ExponentDigits);
        if ended && self.nest.depth == 0 { Ok(()) } else { Err(Malformed) }
    }
}

impl Nest {
    #[inline]
    fn step(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        match state {
            State::String => self.in_string(byte),
            State::Value | State::FirstElement | State::FirstKey | State::Key | State::Colon | State::After => {
                self.between(state, byte)
            }
            State::Escape | State::Hex(..) | State::LowEscape | State::LowU | State::LowHex(..) => escape(state, byte),
            State::Character(mut sequence) => match sequence.next(byte) {
                Some(true) => Ok(State::String),
                Some(false) => Ok(State::Character(sequence)),
                None => Err(Malformed),
            },
            State::Literal([wanted, missing @ ..]) if byte == *wanted => {
                Ok(if missing.is_empty() { State::After } else { State::Literal(missing) })
            }
            State::Literal(_) => Err(Malformed),
            _ => self.number(state, byte),
        }
    }

    #[inline]
    fn between(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (_, b' ' | b'\n' | b'\r' | b'\t') => state,
            (State::FirstElement, b']') | (State::FirstKey, b'}') => self.leave(byte)?,
            (State::FirstKey | State::Key, b'"') => {
                self.in_key = true;
                State::String
            }
            (State::Colon, b':') => State::Value,
            (State::After, b',') if self.depth > 0 => {
                if self.objects & 1 == 1 {
                    State::Key
                } else {
                    State::Value
                }
            }
            (State::After, b']' | b'}') => self.leave(byte)?,
            (State::Value | State::FirstElement, _) => self.value(byte)?,
            _ => return Err(Malformed),
        })
    }

    #[inline]
    fn value(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match byte {
            b'"' => {
                self.in_key = false;
                State::String
            }
            b'{' => self.enter(1, State::FirstKey)?,
            b'[' => self.enter(0, State::FirstElement)?,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Integer,
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
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

    fn leave(&mut self, byte: u8) -> Result<State, Malformed> {
        let kind = u128::from(byte == b'}');
        if self.depth == 0 || self.objects & 1 != kind {
            return Err(Malformed);
        }
        self.depth -= 1;
        self.objects >>= 1;
        Ok(State::After)
    }

    #[inline]
    fn in_string(&mut self, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'"' if self.in_key => Ok(State::Colon),
            b'"' => Ok(State::After),
            b'\\' => Ok(State::Escape),
            0..=0x1f => Err(Malformed),
            0x20..=0x7f => Ok(State::String),
            _ => Sequence::begin(byte).map(State::Character).ok_or(Malformed),
        }
    }

    fn number(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (State::Minus, b'0') => State::Zero,
            (State::Minus, b'1'..=b'9') | (State::Integer, b'0'..=b'9') => State::Integer,
            (State::Zero | State::Integer, b'.') => State::Point,
            (State::Point | State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::Zero | State::Integer | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => State::ExponentDigits,
            // Only the byte behind a number shows that it has ended.
            (State::Zero | State::Integer | State::Fraction | State::ExponentDigits, _) => {
                self.between(State::After, byte)?
            }
            _ => return Err(Malformed),
        })
    }
}

fn escape(state: State, byte: u8) -> Result<State, Malformed> {
    let digit = || char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).ok_or(Malformed);
    Ok(match (state, byte) {
        (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => State::String,
        (State::Escape, b'u') => State::Hex(4, 0),
        (State::Hex(missing, unit), _) => match (missing - 1, (unit << 4) | digit()?) {
            (0, 0xd800..=0xdbff) => State::LowEscape,
            (0, 0xdc00..=0xdfff) => return Err(Malformed),
            (0, _) => State::String,
            (missing, unit) => State::Hex(missing, unit),
        },
        (State::LowEscape, b'\\') => State::LowU,
        (State::LowU, b'u') => State::LowHex(4, 0),
        (State::LowHex(missing, unit), _) => match (missing - 1, (unit << 4) | digit()?) {
            (0, 0xdc00..=0xdfff) => State::String,
            (0, _) => return Err(Malformed),
            (missing, unit) => State::LowHex(missing, unit),
        },
        _ => return Err(Malformed),
    })
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
