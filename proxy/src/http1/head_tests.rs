use std::net::SocketAddr;

use config::Mode;
use proptest::prelude::*;

use super::*;

fn rules() -> HeadRules {
    HeadRules {
        max_bytes: 16 << 10,
        max_fields: 100,
        hosts: Hosts::new(Mode::Production, "https://gateway.example", SocketAddr::from(([127, 0, 0, 1], 8080))),
    }
}

fn parse(text: impl AsRef<[u8]>) -> Result<Option<Head>, Refusal> {
    Head::parse(&mut BytesMut::from(text.as_ref()), &rules())
}

#[track_caller]
fn good(text: impl AsRef<[u8]>) -> Head {
    parse(text).expect("good").expect("whole")
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>) -> Code {
    match parse(text.as_ref()) {
        Err(refusal) => refusal.code(),
        other => panic!("{:?} of {:?}", other, String::from_utf8_lossy(text.as_ref())),
    }
}

/// A request with these fields behind a good `Host`.
fn with(fields: &str) -> String {
    format!("POST /api/v1/gateway/x HTTP/1.1\r\nHost: gateway.example\r\n{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: gateway.example\r\n\r\n")
}

#[test]
fn a_head_is_taken_off_the_front_and_read_by_name() {
    let mut buffer =
        BytesMut::from(with("content-TYPE:  application/json \r\nContent-Length: 2\r\nX-Other: a\r\n").as_str());
    buffer.extend_from_slice(b"{}next");
    let head = Head::parse(&mut buffer, &rules()).expect("good").expect("whole");
    assert_eq!(&buffer[..], b"{}next");
    assert_eq!((head.method(), head.path(), head.query()), ("POST", "/api/v1/gateway/x", None));
    assert_eq!(head.header(Header::ContentType), Some("application/json"));
    assert_eq!(head.header(Header::Authorization), None);
    assert_eq!((head.framing(), head.keep_alive(), head.version), (Framing::Length(2), true, Version::Http11));
    let fields: Vec<_> = head.fields().collect();
    assert_eq!(fields.first(), Some(&("Host", &b"gateway.example"[..])));
    assert_eq!(fields.get(3), Some(&("X-Other", &b"a"[..])));
    assert!(head.request_id().starts_with("req_"));
}

#[test]
fn every_header_is_found_by_its_name_in_any_case() {
    for header in Header::ALL {
        let name = header.name();
        assert_eq!(Header::named(name.as_bytes()), Some(*header), "{name}");
        assert_eq!(Header::named(name.to_ascii_uppercase().as_bytes()), Some(*header), "{name}");
        assert_eq!(Header::named(format!("{}!", &name[..name.len() - 1]).as_bytes()), None, "{name}");
    }
}

#[test]
fn a_head_that_has_not_come_whole_is_waited_for() {
    let whole = with("Accept: */*\r\n");
    for end in 1..whole.len() {
        assert!(parse(&whole[..end]).expect("no fault yet").is_none(), "{end}");
    }
    assert_eq!(good(format!("\r\n{whole}")).fields().count(), 2);
}

#[test]
fn targets_have_a_path_and_perhaps_a_query() {
    let target = |target: &str| good(line(&format!("GET {target} HTTP/1.1")));
    assert_eq!(target("/a?b?c=%20").query(), Some("b?c=%20"));
    assert_eq!((target("/?").path(), target("/?").query()), ("/", Some("")));
    let absolute = target("http://gateway.example/a/b?c");
    assert_eq!((absolute.path(), absolute.query()), ("/a/b", Some("c")));
    assert_eq!(
        (target("https://GATEWAY.example").path(), target("http://gateway.example?c").query()),
        ("/", Some("c"))
    );
}

#[test]
fn b5_the_host_is_there_once_and_well_formed_and_ours() {
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    for value in ["gateway.example", "Gateway.Example:443", "127.0.0.1:8080"] {
        good(host(value));
    }
    for value in [
        "",
        " ",
        "a,b",
        "gateway.example/",
        "gateway.example/x",
        "user@gateway.example",
        "gateway.example:",
        "a b",
        "a:1:2",
        "gateway.example:x",
        "gateway.example:123456",
        "[::1",
        "[::1]x",
        "[g]",
        "a\tb",
        "http://gateway.example",
        "?",
        "a_b",
    ] {
        assert_eq!(refused(host(value)), Code::InvalidRequest, "{value}");
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Code::InvalidRequest);
    assert_eq!(refused("GET / HTTP/1.0\r\n\r\n"), Code::InvalidRequest);
    assert_eq!(refused(with("host: gateway.example\r\n")), Code::InvalidRequest);
    for value in
        ["evil.example", "127.0.0.1:8081", "[::1]:8080", "gateway.example.evil.example", "gateway.example:8443"]
    {
        assert_eq!(refused(host(value)), Code::MisdirectedRequest, "{value}");
    }
    assert_eq!(refused(line("GET http://other.example/ HTTP/1.1")), Code::InvalidRequest);
    assert_eq!(refused(line("GET http://gateway.example@evil.example/ HTTP/1.1")), Code::InvalidRequest);
}

#[test]
fn in_dev_mode_every_name_of_the_loopback_is_ours() {
    let mut hosts = Hosts::new(Mode::Dev, "", SocketAddr::from(([127, 0, 0, 1], 0)));
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:9"] {
        assert!(hosts.serves(host), "{host}");
    }
    for host in ["localhost.evil.example", "128.0.0.1", "[::2]", "evil.example", "127.0.0.1.evil.example"] {
        assert!(!hosts.serves(host), "{host}");
    }
    hosts.add(SocketAddr::from(([10, 0, 0, 1], 80)));
    assert!(hosts.serves("10.0.0.1:80"));
}

#[test]
fn c1_framing_has_one_meaning() {
    assert_eq!(good(with("Transfer-Encoding: Chunked\r\n")).framing(), Framing::Chunked);
    assert_eq!(good(with("Content-Length: 0\r\n")).framing(), Framing::Length(0));
    assert_eq!(good(with("")).framing(), Framing::None);
    assert_eq!(good(with(&format!("Content-Length: {}\r\n", u64::MAX))).framing(), Framing::Length(u64::MAX));
    for fields in [
        "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
        "Content-Length: 7\r\nContent-Length: 7\r\n",
        "Content-Length: 7\r\nContent-Length: 8\r\n",
        "Content-Length: 7, 7\r\n",
        "Content-Length: 7,\r\n",
        "Content-Length: 005\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
    ] {
        assert_eq!(refused(with(fields)), Code::InvalidRequest, "{fields}");
    }
    let old = "POST / HTTP/1.0\r\nHost: gateway.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old), Code::InvalidRequest);
}

#[test]
fn c2_lines_end_in_cr_lf_and_hold_no_controls() {
    for text in [
        "GET / HTTP/1.1\nHost: gateway.example\n\n",
        "GET / HTTP/1.1\r\nHost: gateway.example\n\r\n",
        "GET / HTTP/1.1\r\nHost: gateway.example\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: gateway.example\r\n\r\n",
        "GET / HTTP/1.1\nHost: gateway.example\r\n\r\n",
    ] {
        assert_eq!(refused(text), Code::InvalidRequest, "{text:?}");
    }
    for fields in [
        "X-A: 1\r\n folded\r\n",
        "X-A: 1\r\n\tfolded\r\n",
        "X-A: a\0b\r\n",
        "X-A: a\rb\r\n",
        "X-A: a\x01b\r\n",
        "X-A: a\x7fb\r\n",
        "X-A : 1\r\n",
        ": 1\r\n",
        "X A: 1\r\n",
        "X-A\r\n",
        " X-A: 1\r\n",
        "X(A): 1\r\n",
        "X\u{e9}: 1\r\n",
    ] {
        assert_eq!(refused(with(fields)), Code::InvalidRequest, "{fields:?}");
    }
    for target in [
        "/a b",
        "/a\tb",
        "/a\0",
        "/\u{e9}",
        "/a#b",
        "*",
        "a",
        "",
        "//a#",
        "ftp://gateway.example/",
        "/a\x7f",
        "http:/x",
    ] {
        assert_eq!(refused(line(&format!("GET {target} HTTP/1.1"))), Code::InvalidRequest, "{target:?}");
    }
    for request in [
        "GET / HTTP/2.0",
        "GET / HTTP/1.2",
        "GET / http/1.1",
        "GET /",
        "GET  / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        " GET / HTTP/1.1",
    ] {
        assert_eq!(refused(line(request)), Code::InvalidRequest, "{request:?}");
    }
    for start in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_eq!(refused(start), Code::InvalidRequest, "{start:?}");
    }
}

#[test]
fn b4_names_with_an_underscore_are_refused() {
    assert_eq!(refused(with("X_Crochet_Relay_Request_Id: pay_1\r\n")), Code::InvalidRequest);
    assert_eq!(refused(with("Any_Name: 1\r\n")), Code::InvalidRequest);
}

#[test]
fn what_the_gateway_reads_is_there_once() {
    for name in [
        "Authorization",
        "Idempotency-Key",
        "Content-Type",
        "Prefer",
        "traceparent",
        "X-Request-Id",
        "X-Crochet-Relay-Request-Id",
        "X-Crochet-Origin-Currency",
        "X-Crochet-Max-Price-Micros",
        "X-Crochet-Unheard-Of",
    ] {
        good(with(&format!("{name}: a\r\n")));
        let twice = with(&format!("{name}: a\r\n{}: a\r\n", name.to_ascii_uppercase()));
        assert_eq!(refused(&twice), Code::InvalidRequest, "{name}");
        let apart = with(&format!("{name}: a\r\nX-B: c\r\n{name}: d\r\n"));
        assert_eq!(refused(&apart), Code::InvalidRequest, "{name}");
    }
    let head = good(with("Accept: a\r\nAccept: b\r\nX-Other: 1\r\nX-Other: 2\r\nCookie: a\r\nCookie: b\r\n"));
    assert_eq!((head.header(Header::Accept), head.fields().count()), (Some("a"), 7));
    assert_eq!(refused(with("Authorization: Bearer \u{e9}\r\n")), Code::InvalidRequest);
    assert_eq!(good(with("Authorization:\r\n")).header(Header::Authorization), Some(""));
}

#[test]
fn b7_b8_expectations_upgrades_and_odd_methods() {
    assert!(good(with("Expect: 100-Continue\r\n")).expects_continue());
    assert_eq!(refused(with("Expect: 200-ok\r\n")), Code::ExpectationFailed);
    assert_eq!(refused(with("Connection: Upgrade\r\nUpgrade: websocket\r\n")), Code::InvalidRequest);
    assert_eq!(refused(line("TRACE / HTTP/1.1")), Code::MethodNotAllowed);
    assert_eq!(refused(line("CONNECT gateway.example:443 HTTP/1.1")), Code::MethodNotAllowed);
}

#[test]
fn connections_are_kept_unless_somebody_says_otherwise() {
    assert!(!good(with("Connection: keep-alive, Close\r\n")).keep_alive());
    assert!(!good(with("Connection: x\r\nConnection: close\r\n")).keep_alive());
    assert!(good(with("Connection: closed\r\n")).keep_alive());
    assert!(!good("GET / HTTP/1.0\r\nHost: gateway.example\r\nConnection: keep-alive\r\n\r\n").keep_alive());
}

#[test]
fn d1_heads_are_bounded_in_size_and_fields() {
    let long = |bytes: usize| with(&format!("X-Long: {}\r\n", "a".repeat(bytes)));
    good(long(15 << 10));
    assert_eq!(refused(long(16 << 10)), Code::HeadersTooLarge);
    assert_eq!(refused(&long(60_000)[..17_000]), Code::HeadersTooLarge);
    assert_eq!(refused(line(&format!("GET /{} HTTP/1.1", "a".repeat(20_000)))), Code::HeadersTooLarge);
    good(with(&"X: 1\r\n".repeat(99)));
    assert_eq!(refused(with(&"X: 1\r\n".repeat(100))), Code::HeadersTooLarge);
    assert_eq!(refused(with(&"X: 1\r\n".repeat(300))), Code::HeadersTooLarge);
}

#[test]
fn a_clients_request_id_is_kept_when_it_is_well_formed() {
    assert_eq!(good(with("X-Request-Id: abc-123\r\n")).request_id(), "abc-123");
    for odd in ["a b", "\"a\"", "", &"a".repeat(200)] {
        assert!(good(with(&format!("X-Request-Id: {odd}\r\n"))).request_id().starts_with("req_"), "{odd}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_what_passes_is_consistent(
        fields in prop::collection::vec(prop::sample::select(vec![
            "Host: gateway.example", "Content-Length: 1", "Transfer-Encoding: chunked", "A:", " b", "\0", "X-Crochet-A: 1",
            "Connection: close", "é: é", "Expect: 100-continue", ":", "\r", "\n", "A: \u{e9}",
        ]), 0..8),
        junk in prop::collection::vec(any::<u8>(), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n")).into_bytes();
        let at = cut.index(text.len());
        text.splice(at..at, junk);
        if let Ok(Some(head)) = parse(&text) {
            prop_assert!(head.path().starts_with('/'));
            prop_assert!(head.fields().count() <= 100);
            prop_assert_eq!(head.header(Header::Host).map(str::len), Some("gateway.example".len()));
        }
    }
}
