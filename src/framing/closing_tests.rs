//! Refusals, farewells and tunnels, seen from the client's end of the wire.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use super::hyper_server::{Served, Service, run, serve};
use super::pieces::{Pieces, Then, guard, poll_once};
use super::{Fault, RequestLimits};
use crate::domain::time::monotonic_now;

const BAD: &[u8] = b"GET /bad HTTP/1.1\r\nHost : a\r\n\r\n";
const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// The status of every answer in `received`.
fn statuses(received: &[u8]) -> Vec<u16> {
    let text = std::str::from_utf8(received).unwrap();
    text.match_indices("HTTP/1.1 ").map(|(at, mark)| text[at + mark.len()..][..3].parse().unwrap()).collect()
}

/// Sends the pieces with a pause of some turns between them, and reads to the end.
async fn send(mut client: DuplexStream, pieces: Vec<Vec<u8>>) -> Vec<u8> {
    for piece in pieces {
        client.write_all(&piece).await.unwrap();
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    received
}

fn exchange(pieces: Vec<Vec<u8>>, service: Service) -> (Served<DuplexStream>, Vec<u8>) {
    run(async {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::join!(serve(guard(server, RequestLimits::default()), service, 10), send(client, pieces))
    })
}

#[test]
fn a_refusal_goes_out_behind_the_answers_before_it() {
    for pieces in [
        vec![[&get("/1")[..], &get("/2"), BAD].concat()],
        vec![get("/1"), [&get("/2")[..], BAD].concat()],
        vec![[get("/1"), get("/2")].concat(), BAD.to_vec()],
        vec![get("/1"), get("/2"), BAD[..5].to_vec(), BAD[5..].to_vec(), get("/3")],
    ] {
        let (served, received) = exchange(pieces, Service::Reads);
        assert!(served.result.is_ok());
        assert_eq!(statuses(&received), [200, 200, 400], "{}", String::from_utf8_lossy(&received));
        assert_eq!(served.seen.len(), 2);
    }
}

#[test]
fn a_first_request_at_fault_is_refused_without_hyper_saying_anything() {
    let (served, received) = exchange(vec![BAD.to_vec()], Service::Reads);
    assert!(served.result.is_ok());
    assert_eq!(received, b"HTTP/1.1 400 bad_request\r\nConnection: close\r\n\r\n");
    assert_eq!(served.guard.progress().fault(), Some(Fault::FieldName));
}

#[test]
fn no_refusal_is_written_behind_an_answer_that_closes() {
    let (_, received) = exchange(vec![[&get("/1")[..], BAD].concat()], Service::Refuses);
    assert_eq!(statuses(&received), [403]);
    let old = b"GET / HTTP/1.0\r\n\r\n";
    let (_, received) = exchange(vec![[old, BAD].concat()], Service::Reads);
    assert_eq!(String::from_utf8_lossy(&received).matches("HTTP/1.").count(), 1);
}

#[test]
fn a_client_that_leaves_during_an_exchange_is_noticed() {
    let result = run(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(&get("/1")).await.unwrap();
        drop(client);
        serve(guard(server, RequestLimits::default()), Service::Reads, 1_000_000).await.result
    });
    assert!(result.unwrap_err().is_incomplete_message());
}

/// A client over TCP that has sent `bytes` before it reads: a reset would lose the answer.
fn answer_over_tcp(bytes: Vec<u8>, service: Service) -> Vec<u8> {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            // Dropping what is returned closes the socket.
            drop(serve(guard(stream, RequestLimits::default()), service, 0).await);
        };
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            received
        };
        tokio::join!(server, client).1
    })
}

#[test]
fn e5_a_client_that_is_still_sending_sees_the_answer_and_not_a_reset() {
    let body = vec![b'x'; 200 * 1024];
    let post = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 204800\r\n\r\n", &body[..]].concat();
    assert_eq!(statuses(&answer_over_tcp(post, Service::Refuses)), [403]);
    assert_eq!(statuses(&answer_over_tcp([BAD, &body].concat(), Service::Reads)), [400]);
}

#[test]
fn closing_throws_away_256_kib_and_no_more() {
    run(async {
        let mut pieces = vec![BAD.to_vec()];
        pieces.extend(vec![vec![b'x'; 4096]; 100]);
        let mut guard = guard(Pieces::new(pieces, Then::Waits), RequestLimits::default());
        while poll_once(&mut guard, 1024).map(Result::unwrap) != std::task::Poll::Ready(Vec::new()) {}
        guard.shutdown().await.unwrap();
        // 64 pieces of 4 KiB are 256 KiB.
        assert_eq!(guard.inner().pieces.len(), 100 - 64);
    });
}

#[test]
fn closing_waits_two_seconds_for_a_client_with_an_unread_body() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n".to_vec();
    let mut guard = guard(Pieces::new([post], Then::Waits), RequestLimits::default());
    assert!(poll_once(&mut guard, 1024).is_ready());
    let begin = monotonic_now();
    run(guard.shutdown()).unwrap();
    let waited = monotonic_now() - begin;
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
}

#[test]
fn closing_an_idle_connection_does_not_wait() {
    let mut guard = guard(Pieces::new([get("/1")], Then::Waits), RequestLimits::default());
    assert!(poll_once(&mut guard, 1024).is_ready());
    let begin = monotonic_now();
    run(guard.shutdown()).unwrap();
    assert!(monotonic_now() - begin < Duration::from_secs(1));
    assert!(guard.inner().written.is_empty());
}

#[test]
fn e7_bytes_behind_a_declined_upgrade_are_the_next_request() {
    let end = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for pieces in [vec![[HANDSHAKE, end].concat()], vec![HANDSHAKE.to_vec(), end.to_vec()]] {
        let (served, received) = exchange(pieces, Service::Reads);
        assert_eq!(statuses(&received), [200, 200]);
        assert_eq!(served.seen[1].uri, "/end");
    }
}

#[test]
fn e7_a_fault_behind_a_declined_upgrade_is_still_refused() {
    let (_, received) = exchange(vec![[HANDSHAKE, BAD].concat()], Service::Reads);
    assert_eq!(statuses(&received), [200, 400]);
}

#[test]
fn e7_bytes_behind_an_accepted_upgrade_reach_the_tunnel_and_nobody_else() {
    // They look like a request, so that a guard or a hyper that reads on would show.
    let frames = [&get("/smuggled")[..], b"\0\x81"].concat();
    for pieces in [vec![[HANDSHAKE, &frames].concat()], vec![HANDSHAKE.to_vec(), frames.clone()]] {
        run(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
            }
            let mut served = serve(guard(server, RequestLimits::default()), Service::Upgrades, 5).await;
            assert!(served.result.is_ok());
            assert_eq!(served.seen.len(), 1);
            let mut tunnel = served.read_ahead.to_vec();
            let mut rest = vec![0; frames.len() - tunnel.len()];
            served.guard.read_exact(&mut rest).await.unwrap();
            tunnel.append(&mut rest);
            assert_eq!(tunnel, frames);
            client.write_all(b"more").await.unwrap();
            let mut more = [0; 4];
            served.guard.read_exact(&mut more).await.unwrap();
            assert_eq!(&more, b"more");
        });
    }
}
