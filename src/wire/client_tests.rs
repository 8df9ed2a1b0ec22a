//! One client's connection, with the client's end of it in hand.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::domain::time::monotonic_now;
use crate::framing::{Fault, RequestHeads, RequestLimits, RequestRead};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";

struct Server {
    wire: Rc<ClientWire>,
    heads: RequestHeads,
    clock: CoarseClock,
}

/// The server's side of a connection of which `prefix` was read already, and the client's.
fn connection(prefix: &[u8]) -> (Server, UnixStream) {
    connection_with(prefix, Rc::default())
}

fn connection_with(prefix: &[u8], buffers: Rc<Buffers>) -> (Server, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    let clock = CoarseClock::new();
    let progress = Rc::new(Progress::new(clock.clone()));
    let wire = ClientWire::new(Stream::Plain(Socket::Unix(server)), prefix, progress, buffers);
    (Server { wire, heads: RequestHeads::new(RequestLimits::default()), clock }, client)
}

pub(super) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it never ends") })
}

/// Lets the event queue be looked at.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

impl Server {
    async fn arrival(&mut self) -> Arrival {
        std::future::poll_fn(|cx| self.wire.poll_request(cx, &mut self.heads)).await
    }

    async fn request(&mut self) -> RequestRead {
        match self.arrival().await {
            Arrival::Request(read) => read,
            other => panic!("{other:?}"),
        }
    }

    /// The next request's target; its body is what follows.
    async fn enter(&mut self) -> String {
        let read = self.request().await;
        let target = self.wire.with_head(|head, _| String::from_utf8_lossy(&head[read.target.clone()]).into_owned());
        self.wire.enter_body(read.len, read.body, read.expects_continue);
        target
    }

    async fn waits_for_request(&mut self) -> bool {
        settle().await;
        let cx = &mut Context::from_waker(Waker::noop());
        self.wire.poll_request(cx, &mut self.heads).is_pending()
    }

    async fn body(&self) -> Result<Vec<u8>, BodyFault> {
        let mut body = Vec::new();
        while std::future::poll_fn(|cx| self.wire.poll_body(cx)).await?.is_some() {
            self.wire.take_body(|data, taken| {
                body.extend_from_slice(data);
                *taken = data.len();
            });
        }
        Ok(body)
    }

    async fn waits_for_body(&self) -> bool {
        settle().await;
        self.wire.poll_body(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    async fn write(&self, bytes: &[u8]) {
        let mut out = Outbox::new(bytes.to_vec());
        std::future::poll_fn(|cx| self.wire.poll_write(cx, &mut out)).await.unwrap();
    }

    fn phase(&self) -> (Phase, u64) {
        (self.wire.progress().phase(), self.wire.progress().since_ms())
    }
}

#[test]
fn requests_and_their_bodies_are_read_one_after_the_other_however_they_arrive() {
    let chunked =
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n";
    let all = [GET, POST, b"123456789", chunked, GET].concat();
    for piece in [1, 7, all.len()] {
        run(async {
            let (mut server, mut client) = connection(b"");
            let sending = async {
                for piece in all.chunks(piece) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let reading = async {
                assert_eq!(server.enter().await, "/a");
                assert_eq!(server.body().await.unwrap(), b"");
                assert_eq!(server.enter().await, "/b");
                assert_eq!(server.wire.body_len(), Some(9));
                assert_eq!(server.body().await.unwrap(), b"123456789");
                assert_eq!(server.enter().await, "/c");
                assert_eq!(server.wire.body_len(), None);
                assert_eq!(server.body().await.unwrap(), b"abcde");
                assert_eq!(server.wire.with_trailers(<[u8]>::to_vec), b"T: 1\r\n");
                assert_eq!(server.enter().await, "/a");
            };
            tokio::join!(sending, reading);
        });
    }
}

#[test]
fn bytes_that_were_sniffed_come_first() {
    run(async {
        let (mut server, mut client) = connection(&GET[..10]);
        assert!(server.waits_for_request().await);
        client.write_all(&GET[10..]).await.unwrap();
        assert_eq!(server.enter().await, "/a");
        let (mut server, _client) = connection(b"GET / HTTP/1.1\nHost: a\n\n");
        assert!(matches!(server.arrival().await, Arrival::Refused(Fault::LineEnd)));
    });
}

#[test]
fn the_time_of_a_head_runs_from_its_first_drop() {
    run(async {
        let (mut server, mut client) = connection(b"");
        assert_eq!(server.phase(), (Phase::Idle, 0));
        for (now, drop) in [(5, &GET[..1]), (9, &GET[1..5]), (15, &GET[5..9])] {
            server.clock.set_ms(now);
            client.write_all(drop).await.unwrap();
            assert!(server.waits_for_request().await);
            assert_eq!(server.phase(), (Phase::Head, 5));
        }
        server.wire.progress().request_close(Fault::HeadTimeout);
        assert!(matches!(server.arrival().await, Arrival::Refused(Fault::HeadTimeout)));
    });
}

#[test]
fn a_body_is_late_only_while_somebody_waits_for_it() {
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(POST).await.unwrap();
        server.enter().await;
        assert_eq!(server.phase().0, Phase::Exchange, "nobody has asked for it yet");
        server.clock.set_ms(1_000);
        assert!(server.waits_for_body().await);
        assert_eq!(server.phase(), (Phase::Body, 1_000));
        server.clock.set_ms(1_020);
        client.write_all(b"1234").await.unwrap();
        settle().await;
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(server.wire.poll_body(cx), Poll::Ready(Ok(Some(4))));
        server.wire.take_body(|data, taken| *taken = data.len());
        assert!(server.waits_for_body().await);
        assert_eq!(server.phase(), (Phase::Body, 1_020), "a piece came");
        server.wire.progress().request_close(Fault::BodyTimeout);
        assert_eq!(server.body().await, Err(BodyFault::Fault(Fault::BodyTimeout)));
    });
}

#[test]
fn a_short_body_is_whole_when_it_is_asked_for_whole_and_others_are_not_waited_for() {
    run(async {
        let memory = MemorySum::default();
        let (mut server, mut client) = connection_with(b"", Rc::new(Buffers::counted_in(memory.clone())));
        let cx = &mut Context::from_waker(Waker::noop());
        client.write_all(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n").await.unwrap();
        server.enter().await;
        for piece in 0..10_u64 {
            assert!(server.wire.poll_short_body(cx).is_pending());
            assert!(!server.wire.is_body_at_hand());
            assert_eq!(server.phase(), (Phase::Body, piece * 20), "the time begins anew with every piece");
            let held = if piece <= 2 { piece * 1_000 } else { 16_384 };
            assert_eq!(memory.bytes(), held, "a short beginning waits in memory of its size");
            server.clock.set_ms((piece + 1) * 20);
            client.write_all(&[b'x'; 1_000]).await.unwrap();
            settle().await;
        }
        assert_eq!(server.wire.poll_short_body(cx), Poll::Ready(Ok(())));
        assert!(server.wire.is_body_at_hand());
        // 200 ms for 10,000 bytes.
        let floor = |bytes_per_second| Floor { bytes_per_second, window_ms: 100 };
        assert!(!server.wire.progress().giving().is_below(&floor(40_000), 0), "what came counts before it is used");
        assert_eq!(server.body().await.unwrap().len(), 10_000);

        for head in ["Content-Length: 16385", "Transfer-Encoding: chunked"] {
            let (mut server, mut client) = connection(b"");
            client.write_all(format!("POST /b HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
            server.enter().await;
            assert_eq!(server.wire.poll_short_body(cx), Poll::Ready(Ok(())), "{head}");
            assert!(!server.wire.is_body_at_hand(), "{head}");
        }
    });
}

#[test]
fn whoever_leaves_or_stalls_in_a_short_body_is_noticed() {
    run(async {
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut server, mut client) = connection(b"");
        client.write_all(&[POST, b"1234"].concat()).await.unwrap();
        server.enter().await;
        assert!(server.wire.poll_short_body(cx).is_pending());
        server.wire.progress().request_close(Fault::BodyTimeout);
        let late = Poll::Ready(Err(BodyFault::Fault(Fault::BodyTimeout)));
        assert_eq!(server.wire.poll_short_body(cx), late, "although some of it is there");

        let (mut server, mut client) = connection(b"");
        client.write_all(&[POST, b"1234"].concat()).await.unwrap();
        server.enter().await;
        assert!(server.wire.poll_short_body(cx).is_pending());
        drop(client);
        settle().await;
        assert_eq!(server.wire.poll_short_body(cx), Poll::Ready(Err(BodyFault::Gone)));
    });
}

#[test]
fn a_client_that_leaves_is_noticed_wherever_it_leaves() {
    run(async {
        let (mut server, client) = connection(b"");
        drop(client);
        assert!(matches!(server.arrival().await, Arrival::Ended), "between two requests");

        let (mut server, mut client) = connection(b"");
        client.write_all(&GET[..9]).await.unwrap();
        drop(client);
        assert!(matches!(server.arrival().await, Arrival::Ended), "within a head");

        let (mut server, mut client) = connection(b"");
        client.write_all(POST).await.unwrap();
        drop(client);
        server.enter().await;
        assert_eq!(server.body().await, Err(BodyFault::Gone), "within a body");

        let (mut server, mut client) = connection(b"");
        client.write_all(GET).await.unwrap();
        server.enter().await;
        settle().await;
        assert!(server.wire.poll_gone(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(client);
        std::future::poll_fn(|cx| server.wire.poll_gone(cx)).await;
    });
}

#[test]
fn what_comes_during_an_exchange_is_kept_and_bounded() {
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(GET).await.unwrap();
        server.enter().await;
        client.write_all(&GET.repeat(2)).await.unwrap();
        settle().await;
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(server.wire.poll_gone(cx).is_pending());
        client.write_all(GET).await.unwrap();
        settle().await;
        assert!(server.wire.poll_gone(cx).is_pending(), "one buffer is read ahead and no more");
        for _ in 0..3 {
            assert_eq!(server.enter().await, "/a");
        }
        assert!(server.waits_for_request().await);
    });
}

#[test]
fn a_client_that_waits_is_invited_when_its_body_is_read_and_never_within_an_answer() {
    let expecting = [&POST[..POST.len() - 2], b"Expect: 100-continue\r\n\r\n"].concat();
    let invitation = "HTTP/1.1 100 Continue\r\n\r\n";
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(&expecting).await.unwrap();
        server.enter().await;
        assert!(server.waits_for_body().await);
        let mut received = vec![0; invitation.len()];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, invitation.as_bytes());
        client.write_all(b"123456789").await.unwrap();
        assert_eq!(server.body().await.unwrap(), b"123456789");

        // A client that does not wait is not invited.
        let (mut server, mut client) = connection(b"");
        client.write_all(&[&expecting[..], b"123456789"].concat()).await.unwrap();
        server.enter().await;
        assert_eq!(server.body().await.unwrap(), b"123456789");
        server.write(b"answer").await;
        let mut received = [0; 6];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"answer");

        // Nor is one whose answer has begun.
        let (mut server, mut client) = connection(b"");
        client.write_all(&expecting).await.unwrap();
        server.enter().await;
        server.write(b"answer").await;
        assert!(server.waits_for_body().await);
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"answer");
        drop(server);
        assert_eq!(client.read(&mut received).await.unwrap(), 0);
    });
}

#[test]
fn a_broken_body_yields_what_came_before_the_fault() {
    run(async {
        let (mut server, mut client) = connection(b"");
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(&[&head[..], b"5\r\nhello\r\n-1\r\n"].concat()).await.unwrap();
        server.enter().await;
        assert_eq!(std::future::poll_fn(|cx| server.wire.poll_body(cx)).await, Ok(Some(5)));
        server.wire.take_body(|data, taken| *taken = data.len());
        assert_eq!(server.body().await, Err(BodyFault::Fault(Fault::ChunkSize)));
        assert!(!server.wire.is_body_over());
    });
}

#[test]
fn a_dropped_connection_fails_every_read_and_write() {
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(POST).await.unwrap();
        server.enter().await;
        server.wire.progress().drop_connection();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(server.wire.poll_write_some(cx, b"x"), Poll::Ready(Err(_))));
        assert_eq!(server.wire.poll_body(cx), Poll::Ready(Err(BodyFault::Gone)));
        assert!(server.wire.poll_gone(cx).is_ready());
        let begun = monotonic_now();
        server.wire.close(None).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "whoever takes nothing is not waited for");
    });
}

#[test]
fn a_write_that_the_client_does_not_take_is_noted_until_it_does() {
    run(async {
        let (server, mut client) = connection(b"");
        server.clock.set_ms(7);
        let mut out = Outbox::new(vec![b'x'; 4 * 1024 * 1024]);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(server.wire.poll_write(cx, &mut out).is_pending());
        assert_eq!(server.wire.progress().write_blocked_since(), Some(7));
        let mut received = vec![0; 4 * 1024 * 1024];
        let writing = std::future::poll_fn(|cx| server.wire.poll_write(cx, &mut out));
        let (written, read) = tokio::join!(writing, client.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert_eq!(server.wire.progress().write_blocked_since(), None);
    });
}

#[test]
fn closing_lets_a_client_that_is_still_sending_see_the_refusal() {
    run(async {
        let (mut server, mut client) = connection(b"");
        let sending = async {
            client.write_all(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").await.unwrap();
            client.write_all(&vec![b'x'; 200 * 1024]).await.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        };
        let refusing = async {
            assert!(matches!(server.arrival().await, Arrival::Refused(Fault::FieldName)));
            server.wire.close(Some("refused".into())).await;
        };
        assert_eq!(tokio::join!(sending, refusing).0, b"refused");
    });
}

#[test]
fn closing_waits_two_seconds_for_an_unread_body_and_not_at_all_for_an_idle_client() {
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(POST).await.unwrap();
        server.enter().await;
        let begun = monotonic_now();
        server.wire.close(None).await;
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());

        let (server, _client) = connection(b"");
        let begun = monotonic_now();
        server.wire.close(None).await;
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn what_follows_an_upgrade_is_the_next_request_or_the_beginning_of_a_tunnel() {
    let handshake = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(&[&handshake[..], GET].concat()).await.unwrap();
        assert!(server.request().await.may_become_tunnel);
        assert_eq!(server.enter().await, "/ws");
        assert_eq!(server.enter().await, "/a", "declined");

        let (mut server, mut client) = connection(b"");
        client.write_all(&[&handshake[..], b"\x81\x05"].concat()).await.unwrap();
        server.enter().await;
        let (mut stream, read) = server.wire.into_stream().unwrap();
        assert_eq!(read, b"\x81\x05");
        client.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        stream.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    });
}

#[test]
fn no_field_of_one_head_is_ever_taken_for_another_heads() {
    run(async {
        let buffers = Rc::<Buffers>::default();
        let (mut slow, mut slow_client) = connection_with(b"", Rc::clone(&buffers));
        // Only a start line: nothing is noted, and nothing is lent for noting yet.
        slow_client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(slow.waits_for_request().await);
        // Another connection of the worker is served and gives back what it noted its fields in.
        let (mut other, mut other_client) = connection_with(b"", Rc::clone(&buffers));
        let fields = b"GET / HTTP/1.0\r\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq: c\r\nX-Other: d\r\n\r\n";
        other_client.write_all(fields).await.unwrap();
        other.enter().await;
        drop((other, other_client));
        slow_client.write_all(b"Qa: b\r\nX-Portcullis-Owner: evil\r\nHost: a\r\n\r\n").await.unwrap();
        slow.request().await;
        let names = slow.wire.with_head(|_, fields| {
            fields.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect::<Vec<_>>()
        });
        assert_eq!(names, ["Qa", "X-Portcullis-Owner", "Host"]);
    });
}

#[test]
fn a_body_that_fails_is_waited_for_no_longer() {
    run(async {
        let (mut server, mut client) = connection(b"");
        client.write_all(POST).await.unwrap();
        server.enter().await;
        assert!(server.waits_for_body().await);
        server.wire.progress().request_close(Fault::BodyTimeout);
        assert_eq!(server.body().await, Err(BodyFault::Fault(Fault::BodyTimeout)));
        assert_eq!(server.phase().0, Phase::Exchange);
    });
}
