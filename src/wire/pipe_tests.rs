//! Bytes that go from socket to socket through a pipe.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

fn pipes() -> Rc<Pipes> {
    Rc::new(Pipes::counted_in(MemorySum::default()))
}

/// Bytes that are nowhere the same for long.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u8).collect()
}

#[tokio::test]
async fn everything_arrives_as_it_was_and_no_more_is_taken_than_was_said() {
    let ((mut upstream, from), (to, mut client)) = (pair().await, pair().await);
    let (sent, behind) = (noise(3 * 1024 * 1024 + 7), b"behind it");
    let expected = sent.clone();
    let writes = tokio::spawn(async move {
        upstream.write_all(&sent).await.unwrap();
        upstream.write_all(behind).await.unwrap();
        upstream
    });
    let reads = tokio::spawn(async move {
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).await.unwrap();
        assert!(received == expected);
        client
    });
    let mut pipe = pipes().lend().unwrap();
    let mut left = 3 * 1024 * 1024 + 7;
    while left > 0 {
        let len = poll_fn(|cx| pipe.poll_fill(cx, &from, left)).await.unwrap().unwrap();
        assert!(len > 0 && len as u64 <= left && pipe.len() == len);
        left -= len as u64;
        while pipe.len() > 0 {
            poll_fn(|cx| pipe.poll_drain(cx, &to)).await.unwrap().unwrap();
        }
    }
    let (upstream, _client) = (writes.await.unwrap(), reads.await.unwrap());
    let mut rest = vec![0; behind.len()];
    let mut from = from;
    from.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, behind);
    drop(upstream);
    let end = poll_fn(|cx| pipe.poll_fill(cx, &from, 10)).await.unwrap();
    assert_eq!((end, pipe.len()), (Some(0), 0));
}

#[tokio::test]
async fn an_empty_pipe_is_used_again_and_another_is_not() {
    let ((mut upstream, from), pipes) = (pair().await, pipes());
    drop(pipes.lend().unwrap());
    assert_eq!((pipes.free.borrow().len(), pipes.made.get()), (1, 1));
    let mut pipe = pipes.lend().unwrap();
    assert_eq!((pipes.free.borrow().len(), pipes.memory.bytes()), (0, ROOM as u64));
    upstream.write_all(b"left over").await.unwrap();
    poll_fn(|cx| pipe.poll_fill(cx, &from, 100)).await.unwrap();
    drop(pipe);
    assert_eq!((pipes.free.borrow().len(), pipes.made.get(), pipes.memory.bytes()), (0, 0, 0));
    // What cannot go on as it is comes back.
    let mut pipe = pipes.lend().unwrap();
    upstream.write_all(b"comes back").await.unwrap();
    poll_fn(|cx| pipe.poll_fill(cx, &from, 100)).await.unwrap();
    assert_eq!((pipe.rest().unwrap().as_slice(), pipe.len()), (&b"comes back"[..], 0));
}

#[tokio::test]
async fn pipes_are_bounded_and_do_without_where_the_kernel_does() {
    let pipes = pipes();
    let lent: Vec<Pipe> = (0..MOST).map(|_| pipes.lend().unwrap()).collect();
    assert!(pipes.lend().is_none());
    drop(lent);
    assert_eq!((pipes.free.borrow().len(), pipes.made.get()), (KEPT, KEPT));
    pipes.pause.set(2);
    let waiting: Vec<Pipe> = (0..KEPT).map(|_| pipes.lend().unwrap()).collect();
    assert_eq!([(); 3].map(|()| pipes.lend().is_some()), [false, false, true]);
    drop(waiting);
    assert!(pipes.lend().is_some());
    // A pipe is no socket to take from: what is refused was not taken, and nobody tries again.
    let inability = io::Error::from(Errno::INVAL);
    assert!(is_inability(&inability) && !is_inability(&Errno::CONNRESET.into()) && !is_inability(&Errno::PIPE.into()));
    pipes.give_up();
    assert!(pipes.lend().is_none() && pipes.free.borrow().is_empty());
}
