//! Law: what is accepted is read by hyper exactly as it is written.
//!
//! The accepted bytes are read by a parser that is as dumb as possible, and by hyper, the parser that most servers of this
//! language stand on; both must see the same requests, and hyper must never be the one that refuses.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::RequestLimits;
use super::reading::{Verdict, read_requests};
use super::split_tests::damaged_requests;

/// A request as its bytes say, without a second thought.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    closes: bool,
}

fn split_once<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(bytes, mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn plain_fields(mut lines: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    while let Some((line, rest)) = split_once(lines, b"\r\n") {
        let (name, value) = split_once(line, b":").unwrap();
        fields.push((text(name).to_ascii_lowercase(), value.trim_ascii().to_vec()));
        lines = rest;
    }
    fields.sort();
    fields
}

/// The whole requests at the beginning of `bytes`.
fn read_plainly(mut bytes: &[u8]) -> Vec<Plain> {
    let mut requests = Vec::new();
    loop {
        bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let Some((head, rest)) = split_once(bytes, b"\r\n\r\n") else { return requests };
        let head = [head, b"\r\n"].concat();
        let (line, fields) = split_once(&head, b"\r\n").unwrap();
        let fields = plain_fields(fields);
        let line = text(line);
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, version] = words[..] else { panic!("{words:?}") };
        let value = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| text(value));
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let mut rest = rest;
        if value("transfer-encoding").is_some() {
            loop {
                let Some((size, data)) = split_once(rest, b"\r\n") else { return requests };
                let size = usize::from_str_radix(text(size).split(';').next().unwrap(), 16).unwrap();
                if size == 0 {
                    rest = &rest[split_once(rest, b"\r\n").unwrap().0.len()..];
                    let Some((section, behind)) = split_once(rest, b"\r\n\r\n") else { return requests };
                    let section = section.strip_prefix(b"\r\n").unwrap_or(section);
                    if !section.is_empty() {
                        trailers = plain_fields(&[section, b"\r\n"].concat());
                    }
                    rest = behind;
                    break;
                }
                if data.len() < size + 2 {
                    return requests;
                }
                body.extend_from_slice(&data[..size]);
                rest = &data[size + 2..];
            }
        } else if let Some(length) = value("content-length") {
            let length: usize = length.parse().unwrap();
            if rest.len() < length {
                return requests;
            }
            body = rest[..length].to_vec();
            rest = &rest[length..];
        }
        let connection = value("connection").unwrap_or_default();
        let says = |option: &str| connection.split(',').any(|said| said.trim().eq_ignore_ascii_case(option));
        let closes = if version == "HTTP/1.1" { says("close") } else { !says("keep-alive") };
        requests.push(Plain { method: method.into(), target: target.into(), fields, body, trailers, closes });
        bytes = rest;
    }
}

fn flat(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    fields.sort();
    fields
}

fn assert_same(seen: &Seen, plain: &Plain) {
    assert_eq!(seen.method.as_str(), plain.method);
    if plain.target.starts_with('/') {
        assert_eq!(seen.uri.to_string(), plain.target);
    } else {
        // http::Uri adds the slash of an empty path and nothing else (RFC 9110 §4.2.3).
        let (uri, mut target) = (seen.uri.to_string().to_ascii_lowercase(), plain.target.to_ascii_lowercase());
        if seen.uri.scheme().is_some() && seen.uri.path() == "/" && !target[8..].contains('/') {
            target.insert(target.find('?').unwrap_or(target.len()), '/');
        }
        assert_eq!(uri, target);
    }
    assert_eq!(flat(&seen.headers), plain.fields);
    let (body, trailers) = seen.body.as_ref().unwrap();
    assert_eq!(body, &Bytes::copy_from_slice(&plain.body));
    assert_eq!(trailers.as_ref().map(flat).unwrap_or_default(), plain.trailers);
}

/// What hyper's service saw of a request.
#[derive(Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<(Bytes, Option<HeaderMap>), String>,
}

/// What hyper's service saw of `bytes`, and what the client was sent.
fn run_hyper(bytes: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let client = async move {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        };
        let seen = RefCell::new(Vec::new());
        let service = service_fn(|request: Request<Incoming>| async {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => {
                    let trailers = body.trailers().cloned();
                    Ok((body.to_bytes(), trailers))
                }
                Err(error) => Err(error.to_string()),
            };
            seen.borrow_mut().push(Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body });
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"seen"))))
        });
        let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let both = async { tokio::join!(connection, client) };
        let (_, received) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it never ends");
        (seen.take(), received)
    })
}

/// Compares hyper with the plain reading; true when there was anything to compare.
fn compare(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let outcome = read_requests([bytes.to_vec()], 64 * 1024, RequestLimits::default());
        (outcome.passed, outcome.data, outcome.verdict)
    };
    let (passed, data, verdict) = read(bytes);
    let plain = read_plainly(&passed);
    let closing = plain.iter().position(|request| request.closes);
    let mut sent = passed.clone();
    match verdict {
        // Half a request, or one whose connection may become something else.
        Verdict::Broken(_) | Verdict::AwaitsUpgrade => return false,
        Verdict::Refused(_) => {}
        Verdict::Passes if closing.is_some() => {}
        Verdict::Passes => {
            let end = b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n";
            let with_end = [bytes, end].concat();
            // Half a message would swallow it.
            let (passed, _, verdict) = read(&with_end);
            if verdict != Verdict::Passes || !passed.ends_with(end) || read_plainly(&passed).len() != plain.len() + 1 {
                return false;
            }
            sent = with_end;
        }
    }
    let (seen, received) = run_hyper(&sent);
    let expected = closing.map_or(plain.len(), |closing| closing + 1);
    let seen: Vec<Seen> = seen.into_iter().filter(|seen| seen.uri != "/end").collect();
    assert_eq!(seen.len(), expected, "{seen:?}\n{plain:?}");
    seen.iter().zip(&plain).for_each(|(seen, plain)| assert_same(seen, plain));
    assert_eq!(data, plain.iter().flat_map(|request| request.body.clone()).collect::<Vec<_>>());
    let received = String::from_utf8(received).unwrap();
    assert!(!received.contains(" 400 Bad Request"), "hyper refused what was accepted: {received}");
    true
}

#[test]
fn hyper_reads_what_is_accepted_as_it_is_written() {
    for bytes in [
        &b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX: 1\r\nx:  2 \r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n03;q\r\nabc\r\n0\r\nT: 1\r\nU:\r\n\r\n",
        b"GET http://a:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT [::1]:1 HTTP/1.1\r\nHost: [::1]:1\r\n\r\n",
        b"M!#$%&'*+-.^_`|~0 /{}\"\\^|[] HTTP/1.1\r\nHost: a_b~c\r\n!#$%&'*+-.^_`|~0: \xff\t\x80\r\n\r\n",
        b"\r\nGET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n\r\nGET /older HTTP/1.0\r\n\r\n",
    ] {
        assert!(compare(bytes), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn every_byte_that_may_stand_in_a_target_or_a_value_is_read_by_hyper_alike() {
    for byte in 0..=255_u8 {
        for target in [&b"/a"[..], b"/a?b"] {
            let bytes = [b"GET ", target, &[byte, b'/'], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            assert!(compare(&bytes), "{byte:#x}");
        }
        let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX: a", &[byte][..], b"b\r\n\r\n"].concat();
        assert!(compare(&bytes), "{byte:#x}");
        let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX", &[byte][..], b": b\r\n\r\n"].concat();
        assert!(compare(&bytes), "{byte:#x}");
        let bytes = [b"GE", &[byte][..], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert!(compare(&bytes), "{byte:#x}");
    }
}

#[test]
fn the_largest_head_that_passes_fits_hyper() {
    let fields = "N: v\r\n".repeat(98);
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n{fields}", "t".repeat(8191));
    let padding = 32 * 1024 - head.len() - "P: \r\n\r\n".len();
    let bytes = format!("{head}P: {}\r\n\r\n", "p".repeat(padding));
    assert_eq!(bytes.len(), 32 * 1024);
    assert!(compare(bytes.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hyper_agrees_on_whatever_is_accepted(bytes in damaged_requests()) {
        compare(&bytes);
    }
}
