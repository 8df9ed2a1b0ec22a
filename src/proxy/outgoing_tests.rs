//! A request that is tried on one target and then on another.

use std::time::Duration;

use super::*;

/// As it is prepared for a client that sent a `Content-Length` of zero.
fn outgoing(fields: &str, has_host: bool) -> Outgoing {
    let line = "GET /a?b HTTP/1.1\r\n";
    let head = format!("{line}{fields}").into_bytes();
    let second = Duration::from_secs(1);
    Outgoing {
        method: Method::GET,
        target: 4..8,
        fields: line.len()..head.len(),
        head,
        has_host,
        upload: None,
        says_empty: true,
        progress: None,
        wants_tunnel: None,
        timeouts: UpstreamTimeouts { connect: second, first_byte: second, idle: second },
        recheck: None,
    }
}

fn taken_for(outgoing: &mut Outgoing, authority: &'static str) -> String {
    let (head, is_chunked) = outgoing.take_h1_head(&HeaderValue::from_static(authority));
    let text = String::from_utf8(head.clone()).unwrap();
    outgoing.put_back(Sending::new(head, None, is_chunked));
    text
}

#[test]
fn without_the_clients_host_each_target_gets_its_own() {
    let mut outgoing = outgoing("via: 1.0 portcullis\r\n", false);
    for authority in ["a.test:8080", "b", "a.test:8080"] {
        assert_eq!(
            taken_for(&mut outgoing, authority),
            format!("GET /a?b HTTP/1.1\r\nhost: {authority}\r\nvia: 1.0 portcullis\r\ncontent-length: 0\r\n\r\n"),
        );
        assert_eq!(outgoing.target(), "/a?b");
        assert_eq!(outgoing.lines().as_bytes(), b"via: 1.0 portcullis\r\n");
    }
}

#[test]
fn the_clients_host_goes_to_every_target() {
    let mut outgoing = outgoing("host: shop.test\r\n", true);
    for authority in ["a.test:8080", "b"] {
        assert_eq!(
            taken_for(&mut outgoing, authority),
            "GET /a?b HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 0\r\n\r\n",
        );
        assert_eq!(outgoing.lines().as_bytes(), b"host: shop.test\r\n");
    }
}
