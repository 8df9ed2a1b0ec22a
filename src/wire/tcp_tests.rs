//! Claims about single reads and writes of TCP.

use std::future::poll_fn;

use tokio::net::TcpListener;

use super::*;

/// More than both sides of a connection hold for each other.
const LEN: usize = 16 * 1024 * 1024;

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(room);
        poll_recv(stream, cx, &mut buf).map_ok(|()| buf.filled().len())
    })
    .await
}

async fn send_all(stream: &TcpStream, data: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < data.len() {
        at += poll_fn(|cx| poll_send(stream, cx, &data[at..])).await?;
    }
    Ok(())
}

/// Whoever forgets that a socket is ready waits for ever; whoever believes that it is, turns in a circle.
async fn everything_arrives() {
    let (near, far) = pair().await;
    let sending = tokio::spawn(async move {
        let data: Vec<u8> = (0..LEN).map(byte).collect();
        // Small pieces while the other side waits, then more than there is room for.
        for piece in data[..4096].chunks(37) {
            send_all(&near, piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        send_all(&near, &data[4096..]).await.unwrap();
    });
    let (mut came, mut room) = (0, vec![0; 40_000]);
    for size in (1..).map(|turn: usize| (turn * 7919) % 40_000 + 1) {
        match receive(&far, &mut room[..size]).await.unwrap() {
            0 => break,
            len => {
                assert!(room[..len].iter().enumerate().all(|(at, got)| *got == byte(came + at)), "behind {came}");
                came += len;
            }
        }
    }
    assert_eq!(came, LEN);
    sending.await.unwrap();
}

#[tokio::test]
async fn everything_arrives_on_one_thread() {
    everything_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_where_another_thread_hears_of_events() {
    everything_arrives().await;
}

#[tokio::test]
async fn what_is_already_there_stays_as_it_is() {
    let (near, far) = pair().await;
    send_all(&near, b"def").await.unwrap();
    let mut room = *b"abc...";
    let mut buf = ReadBuf::new(&mut room);
    buf.advance(3);
    poll_fn(|cx| poll_recv(&far, cx, &mut buf)).await.unwrap();
    assert_eq!(buf.filled(), b"abcdef");
}

#[tokio::test]
async fn a_peer_that_is_gone_is_an_error() {
    let (near, far) = pair().await;
    drop(far);
    let told = loop {
        if let Err(error) = send_all(&near, &[0; 1024]).await {
            break error.kind();
        }
    };
    assert!(matches!(told, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{told}");
}
