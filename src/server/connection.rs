//! One client connection until HTTP is spoken on it: PROXY header, TLS, and which HTTP it is.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::accept::{Accepted, Listener, RawSocket};
use super::memory::TLS_CONNECTION;
use super::proxy_protocol::read_client_address;
use super::worker::{Entry, WorkerState};
use super::{h1, h2};
use crate::telemetry::ConnectionState;
use crate::wire::{Socket, Stream};

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes read at once before it is known what they are: a usual request fits.
const SNIFFED: usize = 1024;

/// Serves one connection to its end.
///
/// What comes before HTTP is boxed and gone by the time it is spoken: an idle connection holds only what serves it.
pub(super) async fn serve(accepted: Accepted, worker: Rc<WorkerState>) {
    let Accepted { socket, listener, mut counted } = accepted;
    let gauge = worker.engine.observer.metrics.connection(listener.label, ConnectionState::Handshake);
    let deadline = worker.limits.load().handshake_timeout;
    let opened = {
        let timer = worker.engine.timers.timer();
        timer.bound(deadline, Box::pin(open(socket, &listener, &worker))).await
    };
    let Ok(Some(mut opened)) = opened else { return };
    if let (Some(client), Some(most)) = (opened.peer, worker.limits.load().connections_per_address)
        && !counted.count_for(client, most)
    {
        return counted.note_shed();
    }
    gauge.set(ConnectionState::Idle);
    if opened.protocol == Spoken::Unknown {
        match Box::pin(sniff(opened, &listener, &worker)).await {
            Some(known) => opened = known,
            None => return,
        }
    }
    let Opened { stream, peer, protocol, read, begun_ms } = opened;
    let _held = stream.is_tls().then(|| worker.memory.own.hold(TLS_CONNECTION));
    match protocol {
        Spoken::H2 if read.is_empty() => Box::pin(h2::serve(stream, peer, true, &listener, &worker, &gauge)).await,
        Spoken::H2 => {
            let stream = Prefixed::new(stream, read);
            Box::pin(h2::serve(stream, peer, false, &listener, &worker, &gauge)).await;
        }
        Spoken::H1 | Spoken::Unknown => {
            Box::pin(h1::serve(stream, peer, (read, begun_ms), &listener, &worker, &gauge)).await;
        }
    }
    drop(counted);
}

/// A connection of which is known what is spoken on it.
struct Opened {
    stream: Stream,
    peer: Option<IpAddr>,
    protocol: Spoken,
    /// What was read to find that out.
    read: Vec<u8>,
    /// When its first byte came, in milliseconds of the worker's clock.
    begun_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    H1,
    H2,
    /// In the clear the first bytes tell.
    Unknown,
}

/// PROXY header and TLS handshake. `None` when the peer broke either; there is nobody to tell.
async fn open(socket: RawSocket, listener: &Listener, worker: &WorkerState) -> Option<Opened> {
    let (mut socket, peer) = match socket {
        RawSocket::Tcp(stream, peer) => {
            let stream = tokio::net::TcpStream::from_std(stream).ok()?;
            stream.set_nodelay(true).ok()?;
            (Socket::Tcp(stream), Some(peer))
        }
        RawSocket::Unix(stream) => (Socket::Unix(tokio::net::UnixStream::from_std(stream).ok()?), None),
    };
    let peer = match peer {
        None => None,
        Some(peer) => match read_client_address(&mut socket, peer, listener.proxy_protocol_from()).await {
            Ok(announced) => Some(announced.client.ip().to_canonical()),
            Err(error) => {
                tracing::info!(listener = %listener.name, %error, "connection without a usable PROXY header");
                return None;
            }
        },
    };
    match &listener.tls {
        None => Some(Opened {
            stream: Stream::Plain(socket),
            peer,
            protocol: Spoken::Unknown,
            read: Vec::new(),
            begun_ms: 0,
        }),
        Some(tls) => {
            let most = worker.limits.load().tls_handshakes;
            match worker.handshakes.accept(tls.config(), socket, most).await {
                Ok(stream) => {
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let protocol = if h2 { Spoken::H2 } else { Spoken::H1 };
                    Some(Opened {
                        stream: Stream::Served(Box::new(stream)),
                        peer,
                        protocol,
                        read: Vec::new(),
                        begun_ms: 0,
                    })
                }
                Err(error) => {
                    tracing::debug!(listener = %listener.name, %error, "TLS handshake failed");
                    None
                }
            }
        }
    }
}

/// Reads until it can tell HTTP/2 with prior knowledge from HTTP/1: once, nearly always. `None` when the client says
/// nothing in time.
async fn sniff(mut opened: Opened, listener: &Listener, worker: &WorkerState) -> Option<Opened> {
    let limits = worker.limits.load_full();
    let timer = worker.engine.timers.timer();
    let mut read = Vec::new();
    // Until it speaks, a connection is idle: it must not hold up a drain.
    let entry = worker.register(Entry { leaving: listener.leaving(), ..Entry::default() });
    let mut patience = limits.keepalive_idle;
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let mut chunk = [0u8; SNIFFED];
        let mut reading = std::pin::pin!(opened.stream.read(&mut chunk));
        let reading = std::future::poll_fn(|cx| {
            if entry.cut.get() {
                return Poll::Ready(Ok(0));
            }
            *entry.waker.borrow_mut() = Some(cx.waker().clone());
            reading.as_mut().poll(cx)
        });
        match timer.bound(patience, reading).await {
            Ok(Ok(count)) if count > 0 => {
                if read.is_empty() {
                    opened.begun_ms = worker.engine.timers.now_ms();
                }
                read.extend_from_slice(&chunk[..count]);
            }
            Ok(Ok(_) | Err(_)) => return None,
            // Silence, or a preface that stops half-way: to HTTP/1 it is a head that begins with P, and is late.
            Err(_) if read.is_empty() => return None,
            Err(_) => break,
        }
        // From the first byte on, however many come before it is clear what they are.
        let taken = Duration::from_millis(worker.engine.timers.now_ms().saturating_sub(opened.begun_ms));
        patience = limits.head_timeout.saturating_sub(taken);
    }
    opened.protocol = if read.starts_with(PREFACE) { Spoken::H2 } else { Spoken::H1 };
    opened.read = read;
    Some(opened)
}

/// A stream whose first bytes were read already.
struct Prefixed<S> {
    prefix: Vec<u8>,
    given: usize,
    inner: S,
}

impl<S> Prefixed<S> {
    fn new(inner: S, prefix: Vec<u8>) -> Self {
        Self { prefix, given: 0, inner }
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Prefixed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.prefix.len() {
            let count = buf.remaining().min(this.prefix.len() - this.given);
            buf.put_slice(&this.prefix[this.given..this.given + count]);
            this.given += count;
            if this.given == this.prefix.len() {
                this.prefix = Vec::new();
                this.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Prefixed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
