//! One upstream's connection, with the upstream's end of it in hand.

use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client_tests::{run, settle};
use super::*;
use crate::framing::{Asked, Fault};

const GET: Asked = Asked { is_head: false, wants_upgrade: false };
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn connection() -> (UpstreamWire, UnixStream) {
    connection_with(Rc::default())
}

fn connection_with(buffers: Rc<Buffers>) -> (UpstreamWire, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (UpstreamWire::new(Stream::Plain(Socket::Unix(near)), buffers), far)
}

/// Asks, and reads the whole answer: its status and its data.
async fn exchange(wire: &mut UpstreamWire, asked: Asked) -> Result<(u16, Vec<u8>), AnswerFault> {
    wire.begin(asked);
    let read = std::future::poll_fn(|cx| wire.poll_answer(cx)).await?.read;
    let status = read.status;
    wire.enter_body(read);
    let mut body = Vec::new();
    while std::future::poll_fn(|cx| wire.poll_body(cx)).await?.is_some() {
        body.extend_from_slice(wire.data());
        let len = wire.data().len();
        wire.consume(len);
    }
    assert!(wire.is_body_over());
    Ok((status, body))
}

#[test]
fn a_connection_serves_one_exchange_after_the_other() {
    let chunked =
        b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nT: 1\r\n\r\n";
    run(async {
        let (mut wire, mut far) = connection();
        for (answer, expected) in [(OK, 200), (chunked, 201), (OK, 200)] {
            assert!(wire.is_fresh());
            let answering = async {
                for piece in answer.chunks(9) {
                    far.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (got, ()) = tokio::join!(exchange(&mut wire, GET), answering);
            assert_eq!(got.unwrap(), (expected, b"hi".to_vec()));
            assert!(wire.is_reusable());
        }
        let head = Asked { is_head: true, ..GET };
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        assert_eq!(exchange(&mut wire, head).await.unwrap(), (200, Vec::new()));
        assert!(wire.is_reusable());
        let mut out = Outbox::new(b"GET".to_vec());
        std::future::poll_fn(|cx| wire.poll_write(cx, &mut out)).await.unwrap();
        let mut request = [0; 3];
        far.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"GET");
    });
}

#[test]
fn e9_an_answer_with_more_behind_it_arrives_and_its_connection_is_never_used_again() {
    run(async {
        for (asked, answer, body) in [
            (GET, [OK, OK].concat(), &b"hi"[..]),
            (GET, b"HTTP/1.1 204 No Content\r\n\r\nx".to_vec(), b""),
            (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1".to_vec(), b""),
            (Asked { is_head: true, ..GET }, OK.to_vec(), b""),
        ] {
            let (mut wire, mut far) = connection();
            far.write_all(&answer).await.unwrap();
            assert_eq!(exchange(&mut wire, asked).await.unwrap().1, body);
            assert!(!wire.is_reusable(), "{}", String::from_utf8_lossy(&answer));
        }
    });
}

#[test]
fn what_comes_while_nobody_asked_makes_a_connection_stale() {
    run(async {
        let (mut wire, mut far) = connection();
        far.write_all(OK).await.unwrap();
        exchange(&mut wire, GET).await.unwrap();
        settle().await;
        assert!(wire.is_reusable() && wire.is_fresh());
        far.write_all(b"H").await.unwrap();
        settle().await;
        assert!(!wire.is_fresh(), "an answer to nothing");

        let (mut wire, far) = connection();
        settle().await;
        assert!(wire.is_fresh());
        drop(far);
        settle().await;
        assert!(!wire.is_fresh(), "the end");
    });
}

#[test]
fn an_upstream_that_says_so_is_not_asked_again() {
    run(async {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"[..],
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        ] {
            let (mut wire, mut far) = connection();
            far.write_all(answer).await.unwrap();
            exchange(&mut wire, GET).await.unwrap();
            assert!(!wire.is_reusable() && !wire.is_fresh());
        }
        let (mut wire, mut far) = connection();
        far.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi").await.unwrap();
        exchange(&mut wire, GET).await.unwrap();
        assert!(wire.is_reusable());
    });
}

#[test]
fn only_a_body_that_ends_with_the_connection_may_end_with_it() {
    run(async {
        let (mut wire, mut far) = connection();
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nall there is").await.unwrap();
        drop(far);
        assert_eq!(exchange(&mut wire, GET).await.unwrap().1, b"all there is");
        assert!(!wire.is_reusable());
        for (answer, had_begun) in [
            (&b""[..], false),
            (b"HTTP/1.1 200", true),
            (b"HTTP/1.1 102 Processing\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", true),
        ] {
            let (mut wire, mut far) = connection();
            far.write_all(answer).await.unwrap();
            drop(far);
            let Err(AnswerFault::Ended { has_begun }) = exchange(&mut wire, GET).await else { panic!() };
            assert_eq!(has_begun, had_begun);
            assert!(!wire.is_reusable());
        }
    });
}

#[test]
fn e9_an_answer_that_breaks_the_rules_is_a_fault() {
    run(async {
        for (answer, expected) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
                Fault::LengthAndEncoding,
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!", Fault::ChunkEnd),
            (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", Fault::UnexpectedUpgrade),
        ] {
            let (mut wire, mut far) = connection();
            far.write_all(answer).await.unwrap();
            let Err(AnswerFault::Fault(fault)) = exchange(&mut wire, GET).await else { panic!() };
            assert_eq!(fault, expected);
            assert!(!wire.is_reusable());
        }
        let (mut wire, mut far) = connection();
        far.write_all(OK).await.unwrap();
        settle().await;
        let unasked = wire.poll_answer(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(unasked, std::task::Poll::Ready(Err(AnswerFault::Fault(Fault::Unrequested)))));
    });
}

#[test]
fn behind_an_accepted_upgrade_the_stream_is_a_tunnel() {
    run(async {
        let (mut wire, mut far) = connection();
        let switching = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01early";
        far.write_all(switching).await.unwrap();
        wire.begin(Asked { wants_upgrade: true, ..GET });
        let read = std::future::poll_fn(|cx| wire.poll_answer(cx)).await.unwrap().read;
        assert_eq!(read.status, 101);
        wire.enter_body(read);
        let (mut stream, mut tunnel) = wire.into_stream();
        far.write_all(b" late\0").await.unwrap();
        drop(far);
        stream.read_to_end(&mut tunnel).await.unwrap();
        assert_eq!(tunnel, b"\x01early late\0");
    });
}

#[test]
fn a_status_line_in_a_packet_of_its_own_gets_the_fields_that_follow_it_and_no_others() {
    run(async {
        let buffers = Rc::<Buffers>::default();
        let (mut wire, mut far) = connection_with(Rc::clone(&buffers));
        wire.begin(GET);
        far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        settle().await;
        assert!(wire.poll_answer(&mut Context::from_waker(Waker::noop())).is_pending());
        let (mut other, mut other_far) = connection_with(Rc::clone(&buffers));
        other_far
            .write_all(b"HTTP/1.1 200 OK\r\nX-Long-Name-Of-Another: v\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        exchange(&mut other, GET).await.unwrap();
        far.write_all(b"Content-Length: 0\r\nX-Own: 1\r\n\r\n").await.unwrap();
        std::future::poll_fn(|cx| wire.poll_answer(cx)).await.unwrap();
        let names = wire.with_head(|_, fields| fields.iter().map(|field| field.name.to_vec()).collect::<Vec<_>>());
        assert_eq!(names, [b"Content-Length".to_vec(), b"X-Own".to_vec()]);
    });
}
