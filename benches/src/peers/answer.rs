//! Just enough HTTP/1.1 to know when an answer is whole. One request is outstanding on a connection at a time.

use memchr::memmem;

/// A whole answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The head, up to and with its empty line.
    pub head: &'a [u8],
    /// The body as it came: chunked framing is not taken off.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The answer in `input`, or `None` while it is not whole. `Err` when it is no answer at all.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn read(input: &'a [u8]) -> Result<Option<Self>, &'static str> {
        let Some(end) = memmem::find(input, b"\r\n\r\n") else { return Ok(None) };
        let (head, body) = input.split_at(end + 4);
        let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse().ok()).ok_or("no status")?;
        let whole = match field(head, b"content-length") {
            Some(length) => {
                let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
                body.len() >= length.ok_or("a Content-Length that is no number")?
            }
            // Nothing follows a last chunk here, and no answer that is measured ends in these bytes before its end.
            None => body.ends_with(b"0\r\n\r\n"),
        };
        Ok(whole.then_some(Self { status, head, body }))
    }

    /// The value of a head field, its name in lower case.
    #[must_use]
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        field(self.head, name)
    }
}

fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_by_length_or_by_the_last_chunk() {
        let answer = Answer::read(b"HTTP/1.1 402 X\r\nA: b\r\nContent-LENGTH: 2\r\n\r\n{}").unwrap().unwrap();
        assert_eq!((answer.status, answer.body, answer.field(b"a")), (402, &b"{}"[..], Some(&b"b"[..])));
        assert!(Answer::read(b"HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\n{}").unwrap().is_none());
        let chunked = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert!(Answer::read(chunked).unwrap().is_some());
        assert!(Answer::read(&chunked[..chunked.len() - 5]).unwrap().is_none());
        assert!(Answer::read(b"HTTP/1.1 nix\r\n\r\n").is_err());
    }
}
