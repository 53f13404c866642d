//! A request's head as it comes over HTTP/2. It is written out as the head of an HTTP/1.1 request and read by the same
//! strict reader: what is refused there is refused here, and nothing can be told to us in two ways.
//!
//! The library has seen to what is HTTP/2's own: pseudo fields, fields about a connection, `TE` other than `trailers`,
//! names in upper case end the stream with a protocol error.

use actors::refusal::{Code, Refusal};
use bytes::BytesMut;
use http::{HeaderMap, Method, header, request::Parts};

use crate::http1::head::{Head, HeadRules, Version};

/// Room for a usual head.
const ROOM: usize = 512;

/// The head of the request in `parts`.
///
/// # Errors
/// What is wrong with it. The connection is none the worse for it.
pub(super) fn read(parts: &Parts, rules: &HeadRules) -> Result<Head, Refusal> {
    let mut text = BytesMut::with_capacity(ROOM);
    let mut push = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
    if parts.method == Method::CONNECT {
        return Err(Code::MethodNotAllowed.into());
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    push(&[parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if let Some(authority) = authority {
        push(&[b"host: ", authority.as_bytes(), b"\r\n"]);
        check_hosts(&parts.headers, authority)?;
    }
    for (name, value) in &parts.headers {
        if !(name == header::COOKIE || (name == header::HOST && authority.is_some())) {
            push(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    // Crumbs of a cookie are one field wherever there is no HTTP/2.
    for (index, crumb) in parts.headers.get_all(header::COOKIE).iter().enumerate() {
        push(&[if index == 0 { b"cookie: " } else { b"; " }, crumb.as_bytes()]);
    }
    push(&[if parts.headers.contains_key(header::COOKIE) { b"\r\n\r\n" } else { b"\r\n" }]);
    // It was written whole; half of one is a head that could not be read.
    let half = || Refusal::from(Code::InvalidRequest).message("The head is malformed.");
    let mut head = Head::parse(&mut text, rules)?.ok_or_else(half)?;
    head.version = Version::Http2;
    Ok(head)
}

/// A `Host` beside `:authority` may be there once, and must name the same.
fn check_hosts(headers: &HeaderMap, authority: &str) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let same = hosts.next().is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if same && hosts.next().is_none() {
        return Ok(());
    }
    Err(Refusal::from(Code::InvalidRequest).message("The target names another host than Host does."))
}

#[cfg(test)]
mod tests {
    use config::Config;
    use http::Request;

    use super::*;
    use crate::http1::head::Header;

    fn reading(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<Head, u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let rules = HeadRules::new(&Config::from_parts(None, []).expect("defaults"));
        read(&parts, &rules).map_err(|refusal| refusal.status())
    }

    #[test]
    fn a_head_says_the_same_over_either_protocol() {
        let fields = [("content-type", "application/json"), ("cookie", "a=1"), ("x-odd", "1"), ("cookie", "b=2")];
        let head = reading("POST", "https://localhost:1/a/b?q=1", &fields).expect("good");
        assert_eq!((head.method(), head.path(), head.query()), ("POST", "/a/b", Some("q=1")));
        assert_eq!(head.header(Header::Host), Some("localhost:1"));
        assert_eq!(head.header(Header::Cookie), Some("a=1; b=2"));
        assert_eq!(head.version, Version::Http2);
        let names: Vec<&str> = head.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["host", "content-type", "x-odd", "cookie"]);
    }

    #[test]
    fn what_http_1_refuses_is_refused() {
        let status = |uri: &str, fields: &[(&str, &str)]| reading("POST", uri, fields).map(|_| ()).expect_err("bad");
        assert_eq!(status("https://other.example/", &[]), 421);
        assert_eq!(status("https://user@localhost/", &[]), 400);
        assert_eq!(status("https://localhost/", &[("host", "other")]), 400);
        assert_eq!(status("https://localhost/", &[("host", "localhost"), ("host", "localhost")]), 400);
        assert_eq!(status("/", &[]), 400, "no host at all");
        assert_eq!(status("https://localhost/", &[("x_crochet_a", "1")]), 400);
        assert_eq!(status("https://localhost/", &[("x-crochet-a", "1"), ("x-crochet-a", "1")]), 400);
        assert_eq!(status("https://localhost/", &[("authorization", "a"), ("authorization", "b")]), 400);
        assert_eq!(status("https://localhost/", &[("content-length", "+1")]), 400);
        assert_eq!(status("https://localhost/", &[("transfer-encoding", "chunked"), ("content-length", "1")]), 400);
        assert_eq!(status("https://localhost/", &[("upgrade", "h2c")]), 400);
        assert_eq!(status("https://localhost/", &[("expect", "200-ok")]), 417);
        assert_eq!(status("https://localhost/", &[("x-long", &"a".repeat(17_000))]), 431);
        assert_eq!(status("https://localhost/", &[("x-many", "a"); 101]), 431);
        assert_eq!(reading("TRACE", "https://localhost/", &[]).map(|_| ()).expect_err("bad"), 405);
        assert_eq!(reading("CONNECT", "localhost:1", &[]).map(|_| ()).expect_err("bad"), 405);
        assert!(reading("GET", "/", &[("host", "localhost")]).is_ok(), "Host alone will do");
        assert!(reading("GET", "https://LOCALHOST/", &[("host", "localhost")]).is_ok(), "the same host twice");
    }
}
