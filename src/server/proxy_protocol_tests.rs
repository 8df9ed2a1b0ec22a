//! Headers of load balancers, and of those who would like to be one.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use ipnet::IpNet;
use tokio::io::{AsyncRead, ReadBuf};

use super::proxy_protocol::{Announced, ProxyProtocolError, read_client_address};

const PEER: &str = "10.0.0.7:4711";
const BEHIND: &[u8] = b"GET / HTTP/1.1\r\n";

/// A stream that gives `piece` bytes at a time and ends with its bytes.
struct Wire<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let len = self.piece.min(buf.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(len);
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

type Outcome = Result<Announced, ProxyProtocolError>;

/// What is read of `bytes`, and how many of them are left.
fn read_from(peer: &str, bytes: &[u8], piece: usize) -> (Outcome, usize) {
    let listed: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    let mut wire = Wire { bytes, piece };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(read_client_address(&mut wire, peer.parse().unwrap(), &listed));
    (outcome, wire.bytes.len())
}

/// The outcome for a header with something behind it, of which not a byte may be taken.
fn read(header: &[u8]) -> Outcome {
    let bytes = [header, BEHIND].concat();
    let (outcome, left) = read_from(PEER, &bytes, 1);
    if outcome.is_ok() {
        assert_eq!(left, BEHIND.len(), "exactly the header is read");
        assert_eq!(read_from(PEER, &bytes, 4096).1, BEHIND.len());
    }
    outcome
}

fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &len, payload].concat()
}

const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 0x01, 0xbb];

fn announced(client: &str, destination: &str) -> Announced {
    Announced { client: client.parse().unwrap(), destination: Some(destination.parse().unwrap()) }
}

fn peer_itself() -> Announced {
    Announced { client: PEER.parse().unwrap(), destination: None }
}

#[test]
fn a_listed_peer_speaks_for_its_client() {
    let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[2], &[0x1f, 0x90, 0x01, 0xbb]].concat();
    let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 10], &[255, 255, 198, 51, 100, 2], &IPV4[8..]].concat();
    let with_extras = [IPV4, &[0x02, 0, 3, b'a', b'.', b'b', 0xea, 0, 0]].concat();
    for (header, client, destination) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n".to_vec(), "192.0.2.1:8080", "198.51.100.2:443"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(), "1.1.1.1:1", "2.2.2.2:2"),
        (b"PROXY TCP6 :: ::1 1 2\r\n".to_vec(), "[::]:1", "[::1]:2"),
        (b"PROXY TCP6 2001:db8::1 ::2 8080 443\r\n".to_vec(), "[2001:db8::1]:8080", "[::2]:443"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), "192.0.2.1:1", "[::1]:2"),
        (binary(1, 0x11, IPV4), "192.0.2.1:8080", "198.51.100.2:443"),
        (binary(1, 0x11, &with_extras), "192.0.2.1:8080", "198.51.100.2:443"),
        (binary(1, 0x21, &ipv6), "[2001:db8::1]:8080", "[::2]:443"),
        (binary(1, 0x21, &mapped), "192.0.2.1:8080", "198.51.100.2:443"),
    ] {
        let outcome = read(&header).unwrap_or_else(|error| panic!("{error}: {header:?}"));
        assert_eq!(outcome, announced(client, destination));
    }
}

#[test]
fn a_listed_peer_that_speaks_for_nobody_is_its_own_client() {
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:ffff::1 ffff:ffff::2 65535 65535\r\n".to_vec(),
        binary(0, 0x00, b""),
        binary(0, 0x11, IPV4),
        binary(1, 0x00, b""),
        binary(1, 0x31, &[b'x'; 216]),
    ] {
        assert_eq!(read(&header).unwrap(), peer_itself(), "{header:?}");
    }
}

#[test]
fn b6_of_a_peer_that_is_not_listed_not_a_byte_is_read() {
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n";
    for peer in ["192.0.2.9:1", "[2001:db8::1]:1", "[::ffff:192.0.2.9]:1"] {
        let (outcome, left) = read_from(peer, header, 4096);
        assert_eq!(outcome.unwrap(), Announced { client: peer.parse().unwrap(), destination: None });
        assert_eq!(left, header.len());
    }
    let (outcome, left) = read_from("[::ffff:10.0.0.7]:1", header, 4096);
    assert_eq!(
        outcome.unwrap().client,
        "192.0.2.1:8080".parse::<SocketAddr>().unwrap(),
        "a listed one in IPv6 clothes"
    );
    assert_eq!(left, 0);
}

#[test]
fn a_listed_peer_without_a_header_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
        b"proxy tcp4 1.1",
    ] {
        assert!(matches!(read(bytes), Err(ProxyProtocolError::Missing)), "{bytes:?}");
    }
}

#[test]
fn malformed_headers_are_refused() {
    for header in [
        &b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +8080 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 08080 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 80 443\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.2 80 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 80 443 \r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 80 443 9\r\n",
        b"PROXY TCP4 192.0.2.1\t198.51.100.2 80 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 80 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 80 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 80 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 80 443\r\n",
        b"PROXY UNKNOWNS aaaaaaaa\r\n",
        &binary(2, 0x11, IPV4),
        &binary(1, 0x11, &IPV4[..11]),
        &binary(1, 0x41, IPV4),
        &binary(1, 0x13, IPV4),
        &[b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c", IPV4].concat(),
    ] {
        assert!(matches!(read(header), Err(ProxyProtocolError::Malformed)), "{:?}", String::from_utf8_lossy(header));
    }
    assert!(matches!(read(&binary(1, 0x12, IPV4)), Err(ProxyProtocolError::NotTcp)));
}

#[test]
fn a_header_is_bounded() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(longest.len(), 107);
    assert_eq!(read(longest.as_bytes()).unwrap(), peer_itself());
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(108 - 16));
    assert!(matches!(read(too_long.as_bytes()), Err(ProxyProtocolError::TooLong)));
    // One type-length-value that fills the rest.
    let with = |len: usize| {
        let value = [&[0x04][..], &u16::try_from(len - 15).unwrap().to_be_bytes(), &vec![0; len - 15]].concat();
        binary(1, 0x11, &[IPV4, &value].concat())
    };
    assert_eq!(with(4080).len(), 4096);
    assert!(read(&with(4080)).is_ok());
    assert!(matches!(read(&with(4081)), Err(ProxyProtocolError::TooLong)));
}

#[test]
fn a_header_that_ends_too_early_is_an_error_of_the_wire() {
    for header in [&b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n"[..], &binary(1, 0x11, IPV4), b"PROXY UNKNOWN\r\n"]
    {
        for len in 0..header.len() {
            let (outcome, _) = read_from(PEER, &header[..len], 3);
            assert!(matches!(outcome, Err(ProxyProtocolError::Io(_))), "{len} bytes of {header:?}");
        }
    }
}
