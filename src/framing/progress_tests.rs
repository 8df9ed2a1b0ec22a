//! What a sweeper sees of a connection and what it can do about it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::hyper_server::run;
use super::pieces::{poll_once, refusal};
use super::{CoarseClock, Fault, Patience, Phase, RequestGuard, RequestLimits, Swept};

const PATIENCE: Patience = Patience { head_ms: 10, idle_ms: 75, stall_ms: 30 };
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A guard, the client's end of its stream, and its clock.
fn connection() -> (RequestGuard<DuplexStream>, DuplexStream, CoarseClock) {
    let (client, server) = tokio::io::duplex(1024);
    let clock = CoarseClock::new();
    (RequestGuard::new(server, RequestLimits::default(), clock.clone(), refusal()), client, clock)
}

fn send(client: &mut DuplexStream, bytes: &[u8]) {
    run(client.write_all(bytes)).unwrap();
}

/// What hyper would get.
fn read(guard: &mut RequestGuard<DuplexStream>) -> Poll<Vec<u8>> {
    poll_once(guard, 4096).map(Result::unwrap)
}

#[test]
fn the_time_of_a_head_runs_from_its_first_drop_and_ends_in_a_408() {
    let (mut guard, mut client, clock) = connection();
    let progress = guard.progress();
    assert_eq!((progress.phase(), progress.since_ms()), (Phase::Idle, 0));
    for (now, drop) in [(5, &GET[..1]), (9, &GET[1..5]), (15, &GET[5..9])] {
        clock.set_ms(now);
        send(&mut client, drop);
        assert!(read(&mut guard).is_pending());
        assert_eq!((progress.phase(), progress.since_ms()), (Phase::Head, 5));
    }
    assert_eq!(progress.sweep(15, &PATIENCE), Swept::InTime);
    assert_eq!(progress.sweep(16, &PATIENCE), Swept::Refused(Fault::HeadTimeout));
    assert_eq!(progress.sweep(17, &PATIENCE), Swept::InTime, "it was told already");
    assert_eq!(read(&mut guard), Poll::Ready(b"\r\n".to_vec()));
    assert_eq!(read(&mut guard), Poll::Ready(Vec::new()));
    drop(client);
    run(guard.shutdown()).unwrap();
    assert_eq!(progress.fault(), Some(Fault::HeadTimeout));
}

#[test]
fn an_exchange_is_never_cut_and_idleness_counts_from_the_end_of_the_answer() {
    let (mut guard, mut client, clock) = connection();
    let progress = guard.progress();
    clock.set_ms(5);
    send(&mut client, GET);
    assert_eq!(read(&mut guard), Poll::Ready(GET.to_vec()));
    assert_eq!((progress.phase(), progress.since_ms()), (Phase::Exchange, 5));
    assert!(read(&mut guard).is_pending());
    assert_eq!(progress.sweep(1_000_000, &PATIENCE), Swept::InTime);
    clock.set_ms(100);
    progress.answer_ended();
    assert_eq!((progress.phase(), progress.since_ms()), (Phase::Idle, 100));
    assert_eq!(progress.sweep(175, &PATIENCE), Swept::InTime);
    assert_eq!(progress.sweep(176, &PATIENCE), Swept::IdleClosed);
    assert_eq!(read(&mut guard), Poll::Ready(Vec::new()));
    assert_eq!(progress.fault(), None);
}

#[test]
fn an_idle_connection_closes_without_a_word() {
    let (mut guard, mut client, _) = connection();
    guard.progress().close_idle();
    assert_eq!(read(&mut guard), Poll::Ready(Vec::new()));
    let received = run(async {
        let mut received = Vec::new();
        let (closed, read) =
            tokio::join!(guard.shutdown(), tokio::io::AsyncReadExt::read_to_end(&mut client, &mut received));
        closed.unwrap();
        read.unwrap();
        received
    });
    assert!(received.is_empty());
}

#[test]
fn pipelined_requests_are_busy_until_the_last_is_answered() {
    let (mut guard, mut client, _) = connection();
    let progress = guard.progress();
    send(&mut client, &GET.repeat(2));
    assert!(read(&mut guard).is_ready());
    assert_eq!(progress.requests(), 2);
    progress.answer_ended();
    assert_eq!(progress.phase(), Phase::Exchange);
    progress.close_idle();
    assert!(read(&mut guard).is_pending(), "a busy connection is not closed for idleness");
    progress.answer_ended();
    assert_eq!(progress.phase(), Phase::Idle);
}

#[test]
fn a_body_is_late_only_while_somebody_waits_for_it() {
    let (mut guard, mut client, clock) = connection();
    let progress = guard.progress();
    send(&mut client, POST);
    assert!(read(&mut guard).is_ready());
    assert_eq!(progress.phase(), Phase::Body);
    assert_eq!(progress.sweep(1_000, &PATIENCE), Swept::InTime, "nobody has asked for it yet");
    clock.set_ms(1_000);
    assert!(read(&mut guard).is_pending());
    clock.set_ms(1_020);
    send(&mut client, b"1234");
    assert!(read(&mut guard).is_ready());
    assert!(read(&mut guard).is_pending());
    assert_eq!(progress.sweep(1_050, &PATIENCE), Swept::InTime, "a piece came at 1,020");
    assert_eq!(progress.sweep(1_051, &PATIENCE), Swept::Refused(Fault::BodyTimeout));
    let Poll::Ready(Err(error)) = poll_once(&mut guard, 16) else { panic!("the reader of the body is told") };
    assert_eq!(Fault::find_in(&error), Some(Fault::BodyTimeout));
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let (mut guard, client, clock) = connection();
    let progress = guard.progress();
    let mut write = |bytes: &[u8]| Pin::new(&mut guard).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
    assert!(write(&[0; 1024]).is_ready());
    clock.set_ms(7);
    assert!(write(b"x").is_pending());
    clock.set_ms(20);
    assert!(write(b"x").is_pending());
    assert_eq!(progress.write_blocked_since(), Some(7));
    assert_eq!(progress.sweep(37, &PATIENCE), Swept::InTime);
    assert_eq!(progress.sweep(38, &PATIENCE), Swept::Dropped);
    assert!(matches!(write(b"x"), Poll::Ready(Err(_))));
    assert!(matches!(poll_once(&mut guard, 16), Poll::Ready(Err(_))));
    run(guard.shutdown()).unwrap();
    assert_eq!(progress.bytes_out(), 1024);
    drop(client);
}

#[test]
fn a_client_that_takes_something_again_is_forgiven() {
    let (mut guard, mut client, _) = connection();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut guard).poll_write(&mut context, &[0; 2048]).is_ready());
    assert!(Pin::new(&mut guard).poll_write(&mut context, b"x").is_pending());
    let mut space = [0; 2048];
    assert!(Pin::new(&mut client).poll_read(&mut context, &mut ReadBuf::new(&mut space)).is_ready());
    assert!(Pin::new(&mut guard).poll_write(&mut context, b"x").is_ready());
    assert_eq!(guard.progress().write_blocked_since(), None);
}

#[test]
fn bytes_that_were_sniffed_come_first() {
    let (mut guard, mut client, _) = connection();
    guard = guard.with_prefix(&GET[..10]);
    assert!(read(&mut guard).is_pending());
    send(&mut client, &GET[10..]);
    assert_eq!(read(&mut guard), Poll::Ready(GET.to_vec()));
    assert_eq!(guard.progress().bytes_in(), GET.len() as u64);
    let (guard, _client, _) = connection();
    let mut guard = guard.with_prefix(b"GET / HTTP/1.1\nHost: a\n\n");
    assert_eq!(read(&mut guard), Poll::Ready(b"\r\n".to_vec()));
    assert_eq!(guard.progress().fault(), Some(Fault::LineEnd));
}

#[test]
fn answers_before_an_upgrade_request_do_not_decide_about_it() {
    let (mut guard, mut client, _) = connection();
    let progress = guard.progress();
    send(&mut client, &[GET, HANDSHAKE, GET].concat());
    assert_eq!(read(&mut guard), Poll::Ready([GET, HANDSHAKE].concat()));
    assert!(!progress.awaits_upgrade(), "the request before it is being answered");
    assert!(!progress.step_aside());
    progress.resume();
    progress.answer_ended();
    assert!(progress.awaits_upgrade());
    assert!(read(&mut guard).is_pending());
    progress.answer_ended();
    assert!(!progress.awaits_upgrade());
    assert_eq!(read(&mut guard), Poll::Ready(GET.to_vec()));
    assert!(!progress.step_aside(), "an ordinary request never becomes a tunnel");
}

#[test]
fn what_is_held_back_from_an_undecided_upgrade_is_bounded_and_a_client_that_leaves_is_noticed() {
    let (mut guard, mut client, _) = connection();
    send(&mut client, HANDSHAKE);
    assert!(read(&mut guard).is_ready());
    send(&mut client, b"one");
    assert!(read(&mut guard).is_pending());
    send(&mut client, b"two");
    assert!(read(&mut guard).is_pending());
    assert_eq!(guard.progress().bytes_in(), HANDSHAKE.len() as u64 + 3, "one piece is read and no more");
    assert!(guard.progress().step_aside());
    assert_eq!(read(&mut guard), Poll::Ready(b"one".to_vec()));
    assert_eq!(read(&mut guard), Poll::Ready(b"two".to_vec()));
    assert_eq!(guard.progress().phase(), Phase::Tunnel);

    let (mut guard, mut client, _) = connection();
    send(&mut client, HANDSHAKE);
    assert!(read(&mut guard).is_ready());
    drop(client);
    assert_eq!(read(&mut guard), Poll::Ready(Vec::new()));
}

#[test]
fn every_wish_wakes_the_task_that_waits() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let poll = |guard: &mut RequestGuard<DuplexStream>, count: &Arc<Count>| {
        let waker = Waker::from(Arc::clone(count));
        let mut space = [0; 1024];
        Pin::new(guard).poll_read(&mut Context::from_waker(&waker), &mut ReadBuf::new(&mut space)).is_pending()
    };
    type Wish = fn(&super::Progress);
    let wishes: [(&[u8], Wish); 5] = [
        (b"GET", |progress| progress.request_close(Fault::HeadTimeout)),
        (b"", super::Progress::close_idle),
        (b"", super::Progress::drop_connection),
        (HANDSHAKE, |progress| assert!(progress.step_aside())),
        (HANDSHAKE, super::Progress::resume),
    ];
    for (bytes, wish) in wishes {
        let (mut guard, mut client, _) = connection();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        send(&mut client, bytes);
        while !poll(&mut guard, &count) {}
        let before = count.0.load(Ordering::Relaxed);
        wish(&guard.progress());
        assert_eq!(count.0.load(Ordering::Relaxed), before + 1);
    }
}
