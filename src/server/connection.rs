//! One client connection: PROXY header, TLS, protocol, and HTTP until it ends.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::accept::{Accepted, Listener, RawSocket};
use super::proxy_protocol::read_client_address;
use super::stream::{ClientStream, Socket};
use super::worker::{Entry, WorkerState};
use crate::framing::{Fault, RequestGuard, RequestLimits};
use crate::proxy::{ClientConnection, HeadBounds, LocalExecutor, ReplyBody, failure_of, run_tunnel};
use crate::telemetry::ConnectionState;

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(super) async fn serve(accepted: Accepted, worker: Rc<WorkerState>) {
    let Accepted { socket, listener, counted } = accepted;
    let gauge = worker.engine.observer.metrics.connection(listener.label, ConnectionState::Handshake);
    let timer = worker.engine.timers.timer();
    let deadline = worker.limits.load().handshake_timeout;
    let opened = timer.bound(deadline, open(socket, &listener)).await;
    let Ok(Some(opened)) = opened else { return };
    gauge.set(ConnectionState::Idle);
    let ends_with = match opened.protocol {
        Spoken::H2 => serve_h2(opened, &listener, &worker, &gauge).boxed_local(),
        Spoken::H1 => serve_h1(opened, &[], &listener, &worker, &gauge).boxed_local(),
        Spoken::Unknown => sniffed(opened, &listener, &worker, &gauge).boxed_local(),
    };
    ends_with.await;
    drop(counted);
}

struct Opened {
    stream: ClientStream,
    peer: Option<IpAddr>,
    protocol: Spoken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    H1,
    H2,
    /// In the clear the first bytes tell.
    Unknown,
}

/// PROXY header and TLS handshake. `None` when the peer broke either; there is nobody to tell.
async fn open(socket: RawSocket, listener: &Listener) -> Option<Opened> {
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
        None => Some(Opened { stream: ClientStream::Plain(socket), peer, protocol: Spoken::Unknown }),
        Some(tls) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
            match acceptor.accept(socket).await {
                Ok(stream) => {
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let protocol = if h2 { Spoken::H2 } else { Spoken::H1 };
                    Some(Opened { stream: ClientStream::Tls(stream), peer, protocol })
                }
                Err(error) => {
                    tracing::debug!(listener = %listener.name, %error, "TLS handshake failed");
                    None
                }
            }
        }
    }
}

/// Reads just enough to tell HTTP/2 with prior knowledge from HTTP/1.
async fn sniffed(
    mut opened: Opened,
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &crate::telemetry::ConnectionGauge,
) {
    let limits = worker.limits.load_full();
    let timer = worker.engine.timers.timer();
    let mut read = Vec::with_capacity(PREFACE.len());
    // Until it speaks, a connection is idle: it must not hold up a drain.
    let entry = worker.register(Entry { leaving: listener.leaving(), ..Entry::default() });
    let mut patience = limits.keepalive_idle;
    while PREFACE.starts_with(&read) && read.len() < PREFACE.len() {
        let mut chunk = [0u8; PREFACE.len()];
        let wanted = PREFACE.len() - read.len();
        let mut reading = std::pin::pin!(opened.stream.read(&mut chunk[..wanted]));
        let reading = std::future::poll_fn(|cx| {
            if entry.cut.get() {
                return Poll::Ready(Ok(0));
            }
            *entry.waker.borrow_mut() = Some(cx.waker().clone());
            reading.as_mut().poll(cx)
        });
        match timer.bound(patience, reading).await {
            Ok(Ok(count)) if count > 0 => read.extend_from_slice(&chunk[..count]),
            Ok(Ok(_) | Err(_)) => return,
            // Silence, or a preface that stops half-way: an HTTP/1 head that starts with P is waited for by its guard.
            Err(_) if read.is_empty() => return,
            Err(_) => break,
        }
        patience = limits.head_timeout;
    }
    drop(entry);
    if read == PREFACE {
        opened.protocol = Spoken::H2;
        let stream = Prefixed::new(opened.stream, read);
        serve_h2_on(stream, opened.peer, false, listener, worker, gauge).await;
    } else {
        serve_h1(opened, &read, listener, worker, gauge).await;
    }
}

async fn serve_h1(
    opened: Opened,
    prefix: &[u8],
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &crate::telemetry::ConnectionGauge,
) {
    let limits = worker.limits.load_full();
    let is_tls = matches!(opened.stream, ClientStream::Tls(_));
    let bounds = RequestLimits {
        head_bytes: limits.head_bytes,
        head_fields: limits.head_fields,
        target_bytes: limits.target_bytes,
    };
    let refusing = Rc::clone(worker);
    let refusal = Rc::new(move |fault: Fault| refuse_framing(&refusing, fault));
    let guard = RequestGuard::new(opened.stream, bounds, worker.engine.timers.clock(), refusal).with_prefix(prefix);
    let progress = guard.progress();
    let client = Rc::new(ClientConnection::new(
        opened.peer,
        listener.label,
        Arc::clone(&listener.name),
        is_tls,
        listener.settings.redirect_https,
        Some(Rc::clone(&progress)),
        None,
        Rc::default(),
        Rc::clone(&worker.draining),
        listener.leaving(),
    ));
    let entry = worker.register(Entry {
        progress: Some(Rc::clone(&progress)),
        leaving: listener.leaving(),
        ..Entry::default()
    });
    let service = {
        let (client, worker) = (Rc::clone(&client), Rc::clone(worker));
        service_fn(move |request| answer(Rc::clone(&worker), Rc::clone(&client), request))
    };
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(guard), service);
    let ended = std::future::poll_fn(|cx| {
        gauge.set(if progress.phase() == crate::framing::Phase::Idle {
            ConnectionState::Idle
        } else {
            ConnectionState::Active
        });
        Pin::new(&mut connection).poll(cx)
    })
    .await;
    if let Err(error) = &ended {
        tracing::debug!(%error, "client connection ended early");
    }
    let parts = connection.into_parts();
    let mut guard = parts.io.into_inner();
    let tunnel = client.tunnel.borrow_mut().take();
    match tunnel {
        Some(pending) if ended.is_ok() => {
            gauge.set(ConnectionState::Tunnel);
            Box::pin(run_tunnel(guard, parts.read_buf, pending, Rc::clone(&worker.engine.timers))).await;
        }
        Some(_) | None => {
            // A refusal of the guard is written here; the peer may be gone, which is no news.
            let _closed = guard.shutdown().await;
        }
    }
    drop(entry);
}

/// hyper's least buffer.
const MIN_BUFFER: usize = 16 * 1024;

async fn serve_h2(
    opened: Opened,
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &crate::telemetry::ConnectionGauge,
) {
    let is_tls = matches!(opened.stream, ClientStream::Tls(_));
    serve_h2_on(opened.stream, opened.peer, is_tls, listener, worker, gauge).await;
}

async fn serve_h2_on<S>(
    stream: S,
    peer: Option<IpAddr>,
    is_tls: bool,
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &crate::telemetry::ConnectionGauge,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let limits = worker.limits.load_full();
    let entry = worker.register(Entry { leaving: listener.leaving(), ..Entry::default() });
    let client = Rc::new(ClientConnection::new(
        peer,
        listener.label,
        Arc::clone(&listener.name),
        is_tls,
        listener.settings.redirect_https,
        None,
        Some(HeadBounds {
            list_bytes: limits.h2_header_list_bytes as usize,
            fields: limits.head_fields,
            target_bytes: limits.target_bytes,
        }),
        Rc::clone(&entry.in_flight),
        Rc::clone(&worker.draining),
        listener.leaving(),
    ));
    let service = {
        let (client, worker) = (Rc::clone(&client), Rc::clone(worker));
        service_fn(move |request| answer(Rc::clone(&worker), Rc::clone(&client), request))
    };
    let mut connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(limits.h2_max_streams)
        .initial_stream_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        // Lists up to this are read, so that the engine's refusal of what is larger than allowed has a body and an id.
        .max_header_list_size(limits.h2_header_list_bytes.saturating_mul(2))
        .max_send_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut leaving = false;
    let ended = std::future::poll_fn(|cx| {
        if entry.cut.get() {
            return Poll::Ready(Ok(()));
        }
        if entry.leave.get() && !std::mem::replace(&mut leaving, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        gauge.set(if entry.in_flight.get() == 0 { ConnectionState::Idle } else { ConnectionState::Active });
        *entry.waker.borrow_mut() = Some(cx.waker().clone());
        Pin::new(&mut connection).poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "client connection ended early");
    }
}

/// Answers one request. A panic costs this request alone.
async fn answer(
    worker: Rc<WorkerState>,
    client: Rc<ClientConnection>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, std::convert::Infallible> {
    let engine = Rc::clone(&worker.engine);
    let answered = AssertUnwindSafe(engine.handle(client, request)).catch_unwind().await;
    Ok(answered.unwrap_or_else(|_| {
        worker.engine.observer.metrics.panic_caught();
        worker.engine.internal_error()
    }))
}

/// What a client is sent whose message has no single reading: a whole answer that ends the connection.
fn refuse_framing(worker: &WorkerState, fault: Fault) -> bytes::Bytes {
    worker.engine.refuse_unread(failure_of(fault))
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
