//! Chunked bodies, strictly and piece by piece; for requests, sellers' answers and the control API's alike.

use bytes::{Buf, Bytes, BytesMut};

/// The body is not framed as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks are malformed")]
pub struct BadChunk;

/// What [`Chunked::decode`] found at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the body.
    Piece(Bytes),
    /// The buffer holds nothing more; read on.
    NeedMore,
    /// The body has ended; what is left in the buffer is not its.
    End,
}

/// Extensions and trailers carry nothing for us and cost memory or time: all of them of one body, at most.
const EXTRAS_MAX: u16 = 8192;
/// A size is at most `u64::MAX`.
const SIZE_DIGITS_MAX: u8 = 16;

/// A decoder for one body.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    state: State,
    left: u64,
    extras: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a size, of which so many digits came.
    #[default]
    Begin,
    Size(u8),
    /// Spaces that only an extension may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    /// Takes what it can off the front of `buffer`.
    ///
    /// # Errors
    /// [`BadChunk`]; the decoder and the connection are of no more use then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BadChunk> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::Data if !buffer.is_empty() => {
                    let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Decoded::Piece(buffer.split_to(length).freeze()));
                }
                _ => {}
            }
            let Some(byte) = buffer.first().copied() else { return Ok(Decoded::NeedMore) };
            buffer.advance(1);
            self.state = self.step(byte)?;
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        Ok(match (self.state, byte) {
            (State::Begin, b) if b.is_ascii_hexdigit() => self.digit(b, 1)?,
            (State::Size(count), b) if b.is_ascii_hexdigit() => self.digit(b, count + 1)?,
            (State::Size(_) | State::Space, b';') => State::Extension,
            (State::Size(_) | State::Space, b' ' | b'\t') => self.extra(State::Space)?,
            (State::Size(_) | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b) if is_text(b) => self.extra(State::Extension)?,
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Begin,
            (State::Trailer, b'\r') => State::EndLf,
            // A line that is no field could be the next request to somebody who takes the last size for the end.
            (State::Trailer | State::TrailerName, b) if is_token(b) => self.extra(State::TrailerName)?,
            (State::TrailerName, b':') => self.extra(State::TrailerValue)?,
            (State::TrailerValue, b) if is_text(b) => self.extra(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(BadChunk),
        })
    }

    fn digit(&mut self, byte: u8, count: u8) -> Result<State, BadChunk> {
        let value = char::from(byte).to_digit(16).ok_or(BadChunk)?;
        self.left = (self.left << 4) | u64::from(value);
        if count > SIZE_DIGITS_MAX { Err(BadChunk) } else { Ok(State::Size(count)) }
    }

    fn extra(&mut self, state: State) -> Result<State, BadChunk> {
        self.extras += 1;
        if self.extras > EXTRAS_MAX { Err(BadChunk) } else { Ok(state) }
    }
}

/// What a field's name is made of.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a line may hold: no controls.
fn is_text(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and what is left behind it.
    type Ended = (Vec<u8>, Vec<u8>);

    /// `None` while the body has not ended.
    fn decode(pieces: &[&[u8]]) -> Result<Option<Ended>, BadChunk> {
        let (mut decoder, mut buffer, mut body) = (Chunked::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Piece(piece) => body.extend_from_slice(&piece),
                    Decoded::NeedMore => break,
                    Decoded::End => break,
                }
            }
        }
        Ok(matches!(decoder.decode(&mut buffer)?, Decoded::End).then(|| (body, buffer.to_vec())))
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let text = b"5\r\nhello\r\n006;x=\"y\"\r\n world\r\n0\r\n\r\nGET /";
        assert_eq!(decode(&[text]), Ok(Some((b"hello world".to_vec(), b"GET /".to_vec()))));
        assert_eq!(decode(&[b"5\r\nhel"]), Ok(None));
        assert_eq!(decode(&[b"1 \t;a\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"]), Ok(Some((b"x".to_vec(), vec![]))));
        assert_eq!(decode(&[b"FFFFFFFFFFFFFFFF\r\nx"]), Ok(None));
    }

    #[test]
    fn c3_what_could_be_read_otherwise_is_refused() {
        for text in [
            &b"0x7\r\n"[..],
            b"7\n",
            b"-1\r\n",
            b" 7\r\n",
            b"7 \r\n",
            b"\r\n",
            b";a\r\n",
            b"g\r\n",
            b"00000000000000007\r\n",
            b"10000000000000000\r\n",
            b"1\r\nxx\r\n",
            b"1\r\nx\n",
            b"1\r\nx\r\r",
            b"1;a\nb\r\n",
            b"1;a\rb\r\n",
            b"1;\0\r\n",
            b"0\r\n X: 1\r\n",
            b"0\r\nX\r\n",
            b"0\r\nX : 1\r\n",
            b"0\r\n: 1\r\n",
            b"0\r\nGET / HTTP/1.1\r\n",
            b"0\r\nX: \x01\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(decode(&[text]), Err(BadChunk), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = format!("1;{}\r\nx\r\n", "a".repeat(9000));
        assert_eq!(decode(&[long.as_bytes()]), Err(BadChunk));
        let many = format!("0\r\n{}", "X: 1\r\n".repeat(3000));
        assert_eq!(decode(&[many.as_bytes()]), Err(BadChunk));
        let thrifty = "1;abcdefgh\r\nx\r\n".repeat(2000);
        assert_eq!(decode(&[thrifty.as_bytes()]), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn how_it_arrives_does_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut pieces = Vec::new();
            let mut rest = &text[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(decode(&pieces), Ok(Some((chunks.concat(), vec![]))));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
