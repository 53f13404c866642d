//! The cases: bytes, and what is told to them when they are sent directly. In the bytes `NNN` stands for the case's
//! number, so that each request is known by its path: `/c/NNN` is the case's own, `/h/NNN` one that is hidden in it and
//! must never be seen.

/// What a case is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is a request, and so is what follows.
    Taken,
    /// It is a request, and the last of its connection.
    TakenAndClosed,
    /// It is none; the connection ends.
    Refused(u16),
}

use Told::{Refused, Taken, TakenAndClosed};

pub struct Case {
    pub name: String,
    text: Vec<u8>,
    pub told: Told,
}

impl Case {
    /// The bytes of the case with this number.
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        let mut bytes = self.text.clone();
        let digits = format!("{number:03}");
        for at in 0..bytes.len().saturating_sub(2) {
            if &bytes[at..at + 3] == b"NNN" {
                bytes[at..at + 3].copy_from_slice(digits.as_bytes());
            }
        }
        bytes
    }
}

/// Where hyper, which takes more than we do nearly everywhere, hands on less or otherwise, and why that is well.
pub const HYPER_DIFFERS: &[(&str, &str)] = &[];

const HOST: &str = "Host: localhost\r\n";

fn case(name: impl Into<String>, text: impl Into<Vec<u8>>, told: Told) -> Case {
    Case { name: name.into(), text: text.into(), told }
}

/// A request with these fields.
fn with(fields: &str) -> String {
    format!("GET /c/NNN HTTP/1.1\r\n{HOST}{fields}\r\n")
}

/// A request with these fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /c/NNN HTTP/1.1\r\n{HOST}{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// A request that nobody may see.
fn hidden() -> String {
    format!("GET /h/NNN HTTP/1.1\r\n{HOST}\r\n")
}

pub fn all() -> Vec<Case> {
    let mut cases = good();
    for family in [lengths(), codings(), chunks(), line_ends(), request_lines(), hosts(), connections(), fields()] {
        cases.extend(family);
    }
    cases
}

fn good() -> Vec<Case> {
    let inside = hidden();
    vec![
        case("a plain GET", with(""), Taken),
        case("a blank line before", format!("\r\n{}", with("")), Taken),
        case("two blank lines before", format!("\r\n\r\n{}", with("")), Taken),
        case("a length", post("Content-Length: 2\r\n", "{}"), Taken),
        case("no body at all", post("", ""), Taken),
        case("a length of 0", post("Content-Length: 0\r\n", ""), Taken),
        case("a length without a space", post("Content-Length:2\r\n", "{}"), Taken),
        case("a length with blanks around", post("Content-Length: \t 2 \t \r\n", "{}"), Taken),
        case("a length in capitals", post("CONTENT-LENGTH: 2\r\n", "{}"), Taken),
        case("a request in a body", post(&format!("Content-Length: {}\r\n", inside.len()), &inside), Taken),
        case("line ends in a body", post("Content-Length: 8\r\n", "\r\n\r\n\n\n\r\r"), Taken),
        case("chunks", chunked("1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), Taken),
        case("no chunk but the last", chunked("0\r\n\r\n"), Taken),
        case("a request in a chunk", chunked(&format!("{:x}\r\n{inside}\r\n0\r\n\r\n", inside.len())), Taken),
        case("a last chunk in a chunk", chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), Taken),
        case("a coding in capitals", post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), Taken),
        case("a coding after a tab", post("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n"), Taken),
        case("a coding with blanks behind", post("Transfer-Encoding: chunked \t\r\n", "0\r\n\r\n"), Taken),
        case("GET with a body", with("Content-Length: 2\r\n") + "{}", Taken),
        case("GET with chunks", with("Transfer-Encoding: chunked\r\n") + "2\r\n{}\r\n0\r\n\r\n", Taken),
        case("HEAD", with("").replace("GET", "HEAD"), Taken),
        case("DELETE with a body", post("Content-Length: 2\r\n", "{}").replace("POST", "DELETE"), Taken),
        case("PATCH", post("Content-Length: 2\r\n", "{}").replace("POST", "PATCH"), Taken),
        case("OPTIONS", with("").replace("GET", "OPTIONS"), Taken),
        case("absolute form", with("").replace("GET /", "GET http://localhost/"), Taken),
        case("absolute form in capitals", with("").replace("GET /", "GET HTTP://LOCALHOST/"), Taken),
        case("a query", with("").replace("NNN", "NNN?a=/h/NNN"), Taken),
        case("a body and the word awaited", post("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"), Taken),
        case("keep-alive", with("Connection: keep-alive\r\n"), Taken),
        case("a value that is empty", with("X-Empty:\r\n"), Taken),
        case("a value of blanks", with("X-Blank:  \t \r\n"), Taken),
        case("a value above ASCII", with("X-Name: grüße\r\n"), Taken),
        case("a name twice", with("X-Two: a\r\nX-Two: b\r\n"), Taken),
        case("a long value", with(&format!("X-Long: {}\r\n", "a".repeat(4000))), Taken),
        case("twenty fields", with(&(0..20).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>()), Taken),
    ]
}

fn lengths() -> Vec<Case> {
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "{}");
    let mut cases: Vec<Case> = [
        "+2",
        "-2",
        "0x2",
        "2 2",
        "2,2",
        "2, 2",
        "2,",
        ",2",
        "02",
        "002",
        "2.0",
        "2e0",
        "",
        "2a",
        "a",
        "２",
        "\"2\"",
        "2;",
        "2 ;x",
        "18446744073709551616",
        "99999999999999999999999",
        "0,2",
        "0, 2",
        "-0",
        "+0",
        "00",
    ]
    .iter()
    .map(|value| case(format!("a length of {value:?}"), length(value), Refused(400)))
    .collect();
    let twice =
        |first: &str, second: &str| post(&format!("Content-Length: {first}\r\nContent-Length: {second}\r\n"), "{}");
    cases.extend([
        case("two equal lengths", twice("2", "2"), Refused(400)),
        case("two lengths", twice("2", "0"), Refused(400)),
        case("two lengths, the other way", twice("0", "2"), Refused(400)),
        case("a length and a bad one", twice("2", "x"), Refused(400)),
        case("a length with a blank before its colon", post("Content-Length : 2\r\n", "{}"), Refused(400)),
        case("a length with a tab before its colon", post("Content-Length\t: 2\r\n", "{}"), Refused(400)),
        case("a length behind a fold", post("Content-Length:\r\n 2\r\n", "{}"), Refused(400)),
        case("a length with a blank before its name", post(" Content-Length: 2\r\n", "{}"), Refused(400)),
        case("a length with an underscore", post("Content_Length: 2\r\n", "{}"), Refused(400)),
        case("a length that hides a request", twice("0", &hidden().len().to_string()) + &hidden(), Refused(400)),
        case("a length above every limit", post("Content-Length: 99999999999\r\n", "{}"), Refused(413)),
        case("a length that does not come", post("Content-Length: 500\r\n", "{}"), Refused(400)),
    ]);
    cases
}

fn codings() -> Vec<Case> {
    let coding = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    let mut cases: Vec<Case> = [
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "identity",
        "identity, chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "chunked;",
        ",chunked",
        "chunked,",
        "",
        "\"chunked\"",
        "'chunked'",
        "chun ked",
        "chunked chunked",
        "chunkеd",
        "x",
        "\u{a0}chunked",
    ]
    .iter()
    .map(|value| case(format!("a coding of {value:?}"), coding(value), Refused(400)))
    .collect();
    let both = |first: &str, second: &str| post(&format!("{first}\r\n{second}\r\n"), &format!("0\r\n\r\n{}", hidden()));
    let (length, chunks) = (format!("Content-Length: {}", 5 + hidden().len()), "Transfer-Encoding: chunked");
    let old = |text: String| text.replace("HTTP/1.1", "HTTP/1.0");
    cases.extend([
        case("a length and a coding", both(&length, chunks), Refused(400)),
        case("a coding and a length", both(chunks, &length), Refused(400)),
        case("a length of 5 and a coding", both("Content-Length: 5", chunks), Refused(400)),
        case("a length of 0 and a coding", both("Content-Length: 0", chunks), Refused(400)),
        case("a length and a coding that is none", both(&length, "Transfer-Encoding: x"), Refused(400)),
        case("a length and identity", both(&length, "Transfer-Encoding: identity"), Refused(400)),
        case("a coding twice", both(chunks, chunks), Refused(400)),
        case("a coding and identity", both(chunks, "Transfer-Encoding: identity"), Refused(400)),
        case("identity and a coding", both("Transfer-Encoding: identity", chunks), Refused(400)),
        case("a coding and a blank before its colon", both(&length, "Transfer-Encoding : chunked"), Refused(400)),
        case("a coding and a tab before its colon", both(&length, "Transfer-Encoding\t: chunked"), Refused(400)),
        case("a coding and a blank before its name", both(&length, " Transfer-Encoding: chunked"), Refused(400)),
        case("a coding behind a fold", both(&length, "Transfer-Encoding:\r\n chunked"), Refused(400)),
        case("a coding in a fold", both(&length, "X: y\r\n Transfer-Encoding: chunked"), Refused(400)),
        case("a coding behind a line feed", both(&length, "X: y\nTransfer-Encoding: chunked"), Refused(400)),
        case("a coding behind a return", both(&length, "X: y\rTransfer-Encoding: chunked"), Refused(400)),
        case("a coding with an underscore", both(&length, "Transfer_Encoding: chunked"), Refused(400)),
        case("a coding with a NUL", both(&length, "Transfer-Encoding: chunked\0"), Refused(400)),
        case("a coding with a NUL in its name", both(&length, "Transfer-Encoding\0: chunked"), Refused(400)),
        case("a coding after a vertical tab", both(&length, "Transfer-Encoding:\u{b}chunked"), Refused(400)),
        case("a coding after a form feed", both(&length, "Transfer-Encoding: \u{c}chunked"), Refused(400)),
        case("a coding in HTTP/1.0", old(chunked("0\r\n\r\n")), Refused(400)),
        case("a length and a coding in HTTP/1.0", old(both(&length, chunks)), Refused(400)),
        case("TE is not a coding", post("TE: chunked\r\nContent-Length: 2\r\n", "{}"), Taken),
        case("a longer name is another", post("X-Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "{}"), Taken),
    ]);
    cases
}

fn chunks() -> Vec<Case> {
    let bad = [
        ("0x2", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("+2", "+2\r\n{}\r\n0\r\n\r\n"),
        ("-2", "-2\r\n{}\r\n0\r\n\r\n"),
        ("a blank before", " 2\r\n{}\r\n0\r\n\r\n"),
        ("a blank behind", "2 \r\n{}\r\n0\r\n\r\n"),
        ("a tab behind", "2\t\r\n{}\r\n0\r\n\r\n"),
        ("a blank inside", "2 0\r\n{}\r\n0\r\n\r\n"),
        ("no digit", "\r\n{}\r\n0\r\n\r\n"),
        ("only an extension", ";a\r\n{}\r\n0\r\n\r\n"),
        ("a letter past f", "g\r\n{}\r\n0\r\n\r\n"),
        ("a digit of another script", "２\r\n{}\r\n0\r\n\r\n"),
        ("2_", "2_\r\n{}\r\n0\r\n\r\n"),
        ("2,", "2,\r\n{}\r\n0\r\n\r\n"),
        ("seventeen digits", "00000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("an overflow to 2", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("an overflow of 32 bits and more", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a line feed alone", "2\n{}\r\n0\r\n\r\n"),
        ("a return alone", "2\r{}\r\n0\r\n\r\n"),
        ("two returns", "2\r\r\n{}\r\n0\r\n\r\n"),
        ("a line feed alone behind the data", "2\r\n{}\n0\r\n\r\n"),
        ("nothing behind the data", "2\r\n{}0\r\n\r\n"),
        ("more data than told", "2\r\n{}}\r\n0\r\n\r\n"),
        ("two bytes of anything behind the data", "2\r\n{}xx0\r\n\r\n"),
        ("line feeds alone at the end", "2\r\n{}\r\n0\n\n"),
        ("a line feed alone at the very end", "2\r\n{}\r\n0\r\n\n"),
        ("a line feed in an extension", "2;a\n{}\r\n0\r\n\r\n"),
        ("a line feed in an extension that hides a size", "2;a\n3b\r\n{}\r\n0\r\n\r\n"),
        ("a return in an extension", "2;a\rb\r\n{}\r\n0\r\n\r\n"),
        ("a NUL in an extension", "2;\0\r\n{}\r\n0\r\n\r\n"),
        ("a NUL behind a size", "2\0\r\n{}\r\n0\r\n\r\n"),
        ("a trailer that is folded", "0\r\nA: b\r\n c\r\n\r\n"),
        ("a trailer without a name", "0\r\n: b\r\n\r\n"),
        ("a trailer with a line feed", "0\r\nA: b\nC: d\r\n\r\n"),
        ("a trailer with a return", "0\r\nA: b\rC: d\r\n\r\n"),
        ("a trailer with a NUL", "0\r\nA: \0\r\n\r\n"),
    ];
    let mut cases: Vec<Case> =
        bad.iter().map(|(name, body)| case(format!("a chunk: {name}"), chunked(body), Refused(400))).collect();
    let good = [
        ("zeros before", "0002\r\n{}\r\n000\r\n\r\n"),
        ("sixteen digits", "0000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("capitals", "A\r\n0123456789\r\n0\r\n\r\n"),
        ("small letters", "a\r\n0123456789\r\n0\r\n\r\n"),
        ("an extension", "2;a=b\r\n{}\r\n0;c\r\n\r\n"),
        ("an extension that is quoted", "2;a=\"b;c\"\r\n{}\r\n0\r\n\r\n"),
        ("blanks before an extension", "2 \t;a\r\n{}\r\n0\r\n\r\n"),
        ("trailers", "2\r\n{}\r\n0\r\nX-Sum: 1\r\nX-Two: \r\n\r\n"),
        ("a trailer that names a length", "2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n"),
        ("a trailer that names a coding", "2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ];
    cases.extend(good.iter().map(|(name, body)| case(format!("a chunk: {name}"), chunked(body), Taken)));
    cases.extend([
        case("a chunk of nearly 2^64 bytes", chunked("ffffffffffffffff\r\n{}\r\n0\r\n\r\n"), Refused(400)),
        case("chunks without a last one", chunked("2\r\n{}\r\n"), Refused(400)),
        case("a chunk that does not come", chunked("fff\r\n{}"), Refused(400)),
        case("a request behind the last chunk's size", chunked(&format!("0\r\n{}", hidden())), Refused(400)),
        case("a trailer without a colon", chunked("0\r\nX-Sum\r\n\r\n"), Refused(400)),
        case("a trailer with a blank in its name", chunked("0\r\nX Sum: 1\r\n\r\n"), Refused(400)),
        case("a trailer with a blank before its colon", chunked("0\r\nX-Sum : 1\r\n\r\n"), Refused(400)),
    ]);
    cases
}

fn line_ends() -> Vec<Case> {
    let plain = with("X: y\r\n");
    let with_end = |end: &str| format!("{}X: y{end}", with("").trim_end_matches("\r\n").to_string() + "\r\n");
    vec![
        case("line feeds alone", plain.replace("\r\n", "\n"), Refused(400)),
        case("returns alone", plain.replace("\r\n", "\r"), Refused(400)),
        case("a line feed alone behind the request line", plain.replacen("\r\n", "\n", 1), Refused(400)),
        case("a head that ends with LF LF", with_end("\n\n"), Refused(400)),
        case("a head that ends with CR LF LF", with_end("\r\n\n"), Refused(400)),
        case("a head that ends with LF CR LF", with_end("\n\r\n"), Refused(400)),
        case("a head that ends with CR CR LF", with_end("\r\r\n\r\n"), Refused(400)),
        case("a return in a value", with("X: a\rb\r\n"), Refused(400)),
        case("a return before a line's end", with("X: a\r\r\n"), Refused(400)),
        case("a fold", with("X: a\r\n b\r\n"), Refused(400)),
        case("a fold by a tab", with("X: a\r\n\tb\r\n"), Refused(400)),
        case("a fold in the first field", format!("GET /c/NNN HTTP/1.1\r\n {HOST}\r\n"), Refused(400)),
        case("an empty fold", with("X: a\r\n \r\n"), Refused(400)),
        case("a blank line of blanks", with(" \r\n"), Refused(400)),
        case("a line feed before", format!("\n{}", with("")), Refused(400)),
        case("a blank before", format!(" {}", with("")), Refused(400)),
        case("a NUL before", format!("\0{}", with("")), Refused(400)),
    ]
}

fn request_lines() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\n{HOST}\r\n");
    let mut cases: Vec<Case> = [
        "GET  /c/NNN HTTP/1.1",
        "GET /c/NNN  HTTP/1.1",
        "GET /c/NNN HTTP/1.1 ",
        "GET\t/c/NNN HTTP/1.1",
        "GET /c/NNN\tHTTP/1.1",
        "GET /c/NNN x HTTP/1.1",
        "GET /c/NNN HTTP/1.1 HTTP/1.1",
        "GET /c/NNN",
        "GET /c/NNN HTTP/1.2",
        "GET /c/NNN HTTP/2.0",
        "GET /c/NNN HTTP/0.9",
        "GET /c/NNN HTTP/11",
        "GET /c/NNN HTTP/1.10",
        "GET /c/NNN HTTP/01.1",
        "GET /c/NNN http/1.1",
        "GET /c/NNN HTTP /1.1",
        "GET /c/NNN HTTPS/1.1",
        "GET /c/NNN ICY/1.1",
        "GET c/NNN HTTP/1.1",
        "GET /c/NNN#x HTTP/1.1",
        "GET /c/\u{fc}NNN HTTP/1.1",
        "GET * HTTP/1.1",
        "GET  HTTP/1.1",
        "GET HTTP/1.1",
        " / HTTP/1.1",
        "G(T /c/NNN HTTP/1.1",
        "GET: /c/NNN HTTP/1.1",
        "GET http://other/c/NNN HTTP/1.1",
        "GET http:///c/NNN HTTP/1.1",
        "GET http://u@localhost/c/NNN HTTP/1.1",
        "GET ftp://localhost/c/NNN HTTP/1.1",
        "GET //localhost@/c/NNN HTTP/1.1 x",
    ]
    .iter()
    .map(|text| case(format!("the line {text:?}"), line(text), Refused(400)))
    .collect();
    cases.extend([
        case("TRACE", line("TRACE /c/NNN HTTP/1.1"), Refused(405)),
        case("CONNECT", line("CONNECT /c/NNN HTTP/1.1"), Refused(405)),
        case("a method in small letters", line("get /c/NNN HTTP/1.1"), Taken),
        case("a method of its own", line("BREW /c/NNN HTTP/1.1"), Taken),
        case("HTTP/1.0", line("GET /c/NNN HTTP/1.0"), TakenAndClosed),
        case(
            "HTTP/1.0 with a length",
            line("POST /c/NNN HTTP/1.0").replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n{}"),
            TakenAndClosed,
        ),
        case(
            "HTTP/1.0 that would be kept",
            line("GET /c/NNN HTTP/1.0").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
            TakenAndClosed,
        ),
        case(
            "the target is a byte too long",
            line(&format!("GET /c/NNN?{} HTTP/1.1", "a".repeat(17_000))),
            Refused(431),
        ),
    ]);
    cases
}

fn hosts() -> Vec<Case> {
    let host = |fields: &str| format!("GET /c/NNN HTTP/1.1\r\n{fields}\r\n");
    vec![
        case("no Host", host(""), Refused(400)),
        case("two Hosts", host("Host: localhost\r\nHost: localhost\r\n"), Refused(400)),
        case("two Hosts that differ", host("Host: localhost\r\nHost: other\r\n"), Refused(400)),
        case("an empty Host", host("Host:\r\n"), Refused(400)),
        case("a Host with a comma", host("Host: localhost, other\r\n"), Refused(400)),
        case("a Host with a path", host("Host: localhost/x\r\n"), Refused(400)),
        case("a Host with a user", host("Host: u@localhost\r\n"), Refused(400)),
        case("a Host with a blank", host("Host: local host\r\n"), Refused(400)),
        case("a Host with a bad port", host("Host: localhost:x\r\n"), Refused(400)),
        case("a Host above ASCII", host("Host: lócalhost\r\n"), Refused(400)),
        case("a Host that is not served", host("Host: other.example\r\n"), Refused(421)),
        case("a Host with a port", host("Host: localhost:80\r\n"), Taken),
        case("HTTP/1.0 without a Host", "GET /c/NNN HTTP/1.0\r\n\r\n", Refused(400)),
    ]
}

fn connections() -> Vec<Case> {
    let body = |fields: &str| post(&format!("{fields}\r\nContent-Length: 2\r\n"), "{}");
    vec![
        case("close", with("Connection: close\r\n"), TakenAndClosed),
        case("close among others", with("Connection: x, Close\r\n"), TakenAndClosed),
        case("close on the second line", with("Connection: x\r\nConnection: close\r\n"), TakenAndClosed),
        case("a length that is nominated", body("Connection: Content-Length"), Taken),
        case(
            "a coding that is nominated",
            chunked("2\r\n{}\r\n0\r\n\r\n").replacen(HOST, &format!("{HOST}Connection: Transfer-Encoding\r\n"), 1),
            Taken,
        ),
        case("a Host that is nominated", with("Connection: Host\r\n"), Taken),
        case("Upgrade", with("Connection: Upgrade\r\nUpgrade: websocket\r\n"), Refused(400)),
        case(
            "Upgrade to HTTP/2",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            Refused(400),
        ),
        case("an expectation that is none", body("Expect: 200-ok"), Refused(417)),
        case("an expectation without a body", with("Expect: 100-continue\r\n"), Taken),
        case(
            "an expectation and chunks",
            post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            Taken,
        ),
        case(
            "an expectation in HTTP/1.0",
            body("Expect: 100-continue").replace("HTTP/1.1", "HTTP/1.0"),
            TakenAndClosed,
        ),
        case("an expectation of nothing", body("Expect:"), Refused(417)),
        case("half a request", "GET /c/NNN HTTP/1.1\r\nHost: localhost\r\nX: y", Refused(400)),
        case("half a request line", "GET /c/NNN", Refused(400)),
    ]
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for byte in [0x00u8, 0x01, 0x08, 0x0b, 0x0c, 0x0e, 0x1f, 0x7f] {
        let mut value = with("X: a#b\r\n").into_bytes();
        let mut name = with("X#Y: a\r\n").into_bytes();
        let mut target = with("").replace("NNN ", "NNN# ").into_bytes();
        for text in [&mut value, &mut name, &mut target] {
            text.iter_mut().filter(|b| **b == b'#').for_each(|b| *b = byte);
        }
        cases.extend([
            case(format!("0x{byte:02x} in a value"), value, Refused(400)),
            case(format!("0x{byte:02x} in a name"), name, Refused(400)),
            case(format!("0x{byte:02x} in the target"), target, Refused(400)),
        ]);
    }
    for sign in "()<>@,;\\\"/[]?={}ü ".chars() {
        cases.push(case(format!("{sign:?} in a name"), with(&format!("X{sign}Y: a\r\n")), Refused(400)));
    }
    cases.extend([
        case("a tab in a value", with("X: a\tb\r\n"), Taken),
        case("a name without a colon", with("X-Name\r\n"), Refused(400)),
        case("a colon without a name", with(": a\r\n"), Refused(400)),
        case("more fields than fit", with(&"X: y\r\n".repeat(200)), Refused(431)),
        case("a field larger than fits", with(&format!("X: {}\r\n", "a".repeat(20_000))), Refused(431)),
        case("a header of ours by another spelling", with("X_Crochet_Relay_Request_Id: pay_1\r\n"), Refused(400)),
    ]);
    cases
}
