//! Requests: their heads, their chunks, and where on a connection each of them ends.

use std::{
    net::SocketAddr,
    sync::{Mutex, OnceLock, PoisonError},
};

use actors::refusal::Code;
use bytes::BytesMut;
use config::{Config, Mode};
use proxy::{
    body::{Budget, RequestBody},
    http1::{
        self, Handler, Rules,
        chunked::{BadChunk, Chunked, Decoded},
        head::{Framing, Head, HeadRules, Hosts},
    },
    places::Places,
    reply::{Reply, ResponseSink},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
};

use super::each_split;

fn rules() -> HeadRules {
    HeadRules {
        max_bytes: 4096,
        max_fields: 32,
        hosts: Hosts::new(Mode::Dev, "", SocketAddr::from(([127, 0, 0, 1], 1))),
    }
}

/// What a head turned out to be, in words that can be compared.
type Read = Result<Option<(String, String, Option<String>, Framing, bool, Vec<(String, Vec<u8>)>, usize)>, Code>;

fn read_head(bytes: &[u8]) -> Read {
    let mut buffer = BytesMut::from(bytes);
    let head = Head::parse(&mut buffer, &rules()).map_err(|refusal| refusal.code())?;
    Ok(head.map(|head| {
        let fields = head.fields().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
        let query = head.query().map(str::to_string);
        let taken = bytes.len() - buffer.len();
        (head.method().to_string(), head.path().to_string(), query, head.framing(), head.keep_alive(), fields, taken)
    }))
}

/// A head is read in one way only: however it arrives, and as somebody reads it who only knows lines and colons.
pub fn head(data: &[u8]) {
    let whole = read_head(data);
    if let Ok(Some((method, path, query, framing, _, fields, taken))) = &whole {
        let text = &data[..*taken];
        assert!(text.ends_with(b"\r\n\r\n"), "a head ends with a blank line");
        let lone = |at: usize| text[at] == b'\n' && (at == 0 || text[at - 1] != b'\r');
        assert!(!(0..text.len()).any(lone), "a line feed alone ends no line");
        assert!(!text.contains(&0), "no NUL passes");
        let mut lines =
            text[..text.len() - 4].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let request_line = lines.by_ref().find(|line| !line.is_empty()).expect("a request line");
        let line = String::from_utf8(request_line.to_vec()).expect("ASCII");
        let parts: Vec<&str> = line.split(' ').collect();
        assert_eq!((parts.len(), parts[0]), (3, method.as_str()), "three parts, one space between");
        assert!(path.starts_with('/') && !path.contains(['?', '#', ' ']), "{path:?}");
        let target = query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        // Of a URL without a path the path is `/`, which its text lacks.
        assert!(parts[1].ends_with(&target) || path == "/", "{target:?} is not the end of {:?}", parts[1]);
        let seen: Vec<(String, Vec<u8>)> = lines
            .map(|line| {
                let colon = line.iter().position(|b| *b == b':').expect("a colon in each field");
                let name = String::from_utf8(line[..colon].to_vec()).expect("a token");
                (name, line[colon + 1..].trim_ascii().to_vec())
            })
            .collect();
        assert_eq!(&seen, fields, "another reader sees the same fields");
        assert!(seen.iter().all(|(name, _)| !name.is_empty() && !name.contains(['_', ' ', '\t'])));
        let named = |wanted: &str| -> Vec<&[u8]> {
            let is = |(name, _): &&(String, Vec<u8>)| name.eq_ignore_ascii_case(wanted);
            seen.iter().filter(is).map(|(_, value)| value.as_slice()).collect()
        };
        assert_eq!(named("host").len(), 1, "one Host");
        let (lengths, codings) = (named("content-length"), named("transfer-encoding").len());
        match framing {
            Framing::None => assert!(lengths.is_empty() && codings == 0),
            Framing::Length(length) => {
                assert_eq!((lengths.len(), codings), (1, 0));
                assert_eq!(lengths[0], length.to_string().as_bytes());
            }
            Framing::Chunked => assert!(lengths.is_empty() && codings == 1 && parts[2] == "HTTP/1.1"),
        }
    }
    // With less of it, it is unfinished or already refused, and never something else.
    let step = data.len() / 64 + 1;
    for length in (0..data.len()).step_by(step) {
        match (read_head(&data[..length]), &whole) {
            (Ok(None), _) => {}
            (Ok(Some(front)), Ok(Some(whole))) => assert_eq!(&front, whole, "what came behind changed a head"),
            (Ok(Some(_)), other) => panic!("a head was whole and then {other:?}"),
            (Err(_), Err(_)) => {}
            (Err(code), other) => panic!("a beginning was refused as {code:?}, the whole is {other:?}"),
        }
    }
}

/// A body, and how many bytes it took; `None` while it has not ended.
type Body = Result<Option<(Vec<u8>, usize)>, BadChunk>;

fn decode(pieces: &[&[u8]]) -> Body {
    let (mut decoder, mut buffer, mut body, mut given) = (Chunked::default(), BytesMut::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        given += piece.len();
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Piece(piece) => body.extend_from_slice(&piece),
                Decoded::NeedMore => break,
                Decoded::End => return Ok(Some((body, given - buffer.len()))),
            }
        }
    }
    Ok(None)
}

/// The grammar of RFC 9112, read from the whole at once and the slow way.
fn decode_whole(text: &[u8]) -> Body {
    let is_line = |line: &[u8]| line.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
    let mut at = 0;
    let mut extras = 0usize;
    let mut body = Vec::new();
    loop {
        let Some(line) = line_at(text, at) else { return Ok(None) };
        at += line.len() + 2;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, rest) = line.split_at(digits);
        let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let is_extension = rest.get(blanks) == Some(&b';');
        if !(1..=16).contains(&digits) || !(rest.is_empty() || is_extension) || !is_line(rest) {
            return Err(BadChunk);
        }
        extras += rest.len().saturating_sub(1);
        let size = u64::from_str_radix(std::str::from_utf8(size).expect("ASCII"), 16).expect("16 digits");
        if size == 0 {
            break;
        }
        let Some(piece) = usize::try_from(size).ok().and_then(|size| text.get(at..at.checked_add(size)?)) else {
            return Ok(None);
        };
        body.extend_from_slice(piece);
        at += piece.len();
        match text.get(at..) {
            Some([b'\r', b'\n', ..]) => at += 2,
            Some([] | [b'\r']) => return Ok(None),
            _ => return Err(BadChunk),
        }
    }
    loop {
        let Some(line) = line_at(text, at) else { return Ok(None) };
        at += line.len() + 2;
        match line {
            [] => return if extras > 8192 { Err(BadChunk) } else { Ok(Some((body, at))) },
            line => {
                let name = line.iter().position(|b| *b == b':').map(|colon| &line[..colon]);
                if !name.is_some_and(is_token) || !is_line(line) {
                    return Err(BadChunk);
                }
                extras += line.len();
            }
        }
    }
}

fn is_token(name: &[u8]) -> bool {
    let is_sign = |b: &u8| b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || is_sign(b))
}

/// The line that begins there, without its end, once that has come.
fn line_at(text: &[u8], at: usize) -> Option<&[u8]> {
    let rest = text.get(at..)?;
    rest.windows(2).position(|two| two == b"\r\n").map(|end| &rest[..end])
}

/// A chunked body ends where the grammar says, whatever the pieces that it comes in.
pub fn chunks(data: &[u8]) {
    let whole = decode(&[data]);
    each_split(data, |pieces| assert_eq!(decode(pieces), whole, "how it arrives matters"));
    match (&whole, decode_whole(data)) {
        (Ok(Some(ours)), Ok(Some(theirs))) => assert_eq!(ours, &theirs, "two readings of one body"),
        (Ok(Some(_)), theirs) => panic!("taken, but by the grammar it is {theirs:?}"),
        (_, Ok(Some((body, _)))) if body.len() < 4096 && data.len() < 8192 => {
            panic!("by the grammar it is a body, and it was not taken: {whole:?}");
        }
        _ => {}
    }
}

/// What a connection's requests were: method, path, and the body or why it was refused.
type Seen = Vec<(String, String, Result<Vec<u8>, Code>)>;

/// Keeps what it is asked, and reads every body but those of `/unread`.
#[derive(Default)]
struct Keeper(Mutex<Seen>);

impl Handler for Keeper {
    async fn handle<B: RequestBody, S: ResponseSink>(&self, head: &Head, body: &mut B, out: &mut S, _: SocketAddr) {
        let read = match head.path() {
            "/unread" => Ok(Vec::new()),
            _ => body.read(u64::MAX).await.map(|held| held.bytes.to_vec()).map_err(|refusal| refusal.code()),
        };
        let seen = (head.method().to_string(), head.path().to_string(), read);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let _ = out.whole(Reply::json(200, "{}")).await;
    }
}

async fn serve(pieces: &[&[u8]]) -> (Seen, usize) {
    static RULES: OnceLock<Rules> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let config = Config::from_parts(None, []).expect("defaults");
        Rules { head: self::rules(), ..Rules::new(&config, Budget::new(64 << 20), String::new()) }
    });
    let place = Places::new(1, 1).take([127, 0, 0, 1].into()).expect("free");
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let keeper = Keeper::default();
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let talking = async {
        for piece in pieces {
            if client.write_all(piece).await.is_err() {
                break;
            }
            // The other side takes each piece by itself.
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        answers
    };
    let (_, answers) = tokio::join!(http1::serve(server, &keeper, rules, &place, peer, stopped), talking);
    let answered = answers.windows(9).filter(|window| *window == b"HTTP/1.1 ").count();
    let interim = answers.windows(12).filter(|window| *window == b"HTTP/1.1 100").count();
    (keeper.0.into_inner().unwrap_or_else(PoisonError::into_inner), answered - interim)
}

/// The requests of a connection are the same however they arrive, and each is answered once.
pub fn requests(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let data = &data[..data.len().min(1024)];
    let (seen, answered) = runtime.block_on(serve(&[data]));
    // Answered are those that were handed on, and at most one that could not be read. Whether that one was seen to be
    // bad before the client was gone may depend on how it came: in drips a head is looked at where a line ends.
    let is_answered = |answered: usize| answered == seen.len() || answered == seen.len() + 1;
    assert!(is_answered(answered), "{answered} answers to {seen:?}");
    // Whether a body is awaited depends, rightly, on whether it has come already.
    if data.to_ascii_lowercase().windows(6).any(|window| window == b"expect") {
        return;
    }
    let half = data.len() / 2;
    let middle = usize::from(data.first().copied().unwrap_or_default()) * data.len() / 256;
    for pieces in [data.chunks(1).collect(), vec![&data[..half], &data[half..]], vec![&data[..middle], &data[middle..]]]
    {
        let (split, answered) = runtime.block_on(serve(&pieces));
        assert_eq!(split, seen, "how it arrives matters");
        assert!(is_answered(answered), "{answered} answers to {seen:?}");
    }
}
