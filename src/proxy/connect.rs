//! Opening one connection to one target: name resolution, TCP, TLS, and the HTTP handshake.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::body::RequestBody;
use super::exec::LocalExecutor;
use super::settings::Protocol;
use super::target::Endpoint;
use crate::framing::{AnswerGuard, AnswerLimits, Exchange};
use crate::telemetry::UpstreamConnectionGauge;

/// Bytes to and from a target, with or without TLS.
#[expect(clippy::large_enum_variant, reason = "one per connection; boxing TLS would cost every read an indirection")]
pub(crate) enum UpstreamStream {
    /// In the clear.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(tokio_rustls::client::TlsStream<TcpStream>),
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            UpstreamStream::Plain($stream) => $call,
            UpstreamStream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => std::pin::Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => std::pin::Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => std::pin::Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => std::pin::Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => std::pin::Pin::new(stream).poll_shutdown(cx))
    }
}

/// What an upgraded HTTP/1.1 connection leaves behind.
pub(crate) struct Tunnel {
    /// The stream; its guard passes everything through by then.
    pub(crate) stream: AnswerGuard<UpstreamStream>,
    /// Bytes of the new protocol that were read already.
    pub(crate) read: bytes::Bytes,
    /// The place under the target's cap, held for as long as the tunnel lives.
    pub(crate) _permit: tokio::sync::OwnedSemaphorePermit,
}

/// An open HTTP/1.1 connection, ready for one request at a time.
pub(crate) struct H1Connection {
    /// Hands requests to the connection's task.
    pub(crate) sender: http1::SendRequest<RequestBody>,
    /// What the guard under the connection is told about the request in flight, and tells about poison.
    pub(crate) exchange: Rc<Exchange>,
    /// Counts it among the connections to its upstream.
    pub(crate) gauge: UpstreamConnectionGauge,
    /// Yields the stream once an answer of 101 ended HTTP on it.
    pub(crate) tunnel: Option<oneshot::Receiver<Tunnel>>,
}

/// An open HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct H2Connection {
    /// Hands requests to the connection's task.
    pub(crate) sender: http2::SendRequest<RequestBody>,
    /// Requests in flight on it.
    pub(crate) streams: Rc<Cell<usize>>,
    /// How many the peer allows.
    pub(crate) allowed: Rc<Cell<usize>>,
    /// Whether the peer has ever answered on it: a connection in the clear opens to anyone, HTTP/2 or not.
    pub(crate) proven: Rc<Cell<bool>>,
    /// Whether it failed before it was proven, so that nobody should use it again.
    pub(crate) broken: Rc<Cell<bool>>,
    /// When it was opened, on the coarse clock.
    pub(crate) opened_ms: u64,
    /// When its last request ended, on the coarse clock.
    pub(crate) idle_since_ms: Rc<Cell<u64>>,
    /// Counts it among the connections to its upstream.
    pub(crate) gauge: Rc<UpstreamConnectionGauge>,
}

/// Either kind of connection.
pub(crate) enum Opened {
    /// HTTP/1.1.
    H1(H1Connection),
    /// HTTP/2.
    H2(H2Connection),
}

/// Opens a connection to `endpoint`. The caller bounds the time. Dropping the future closes what was open.
///
/// `permit` is held until the connection ends, so that the process-wide cap counts what the kernel counts.
///
/// # Errors
/// Any failure on the way; the target's name is not repeated in it.
pub(crate) async fn open(
    endpoint: &Endpoint,
    protocol: Protocol,
    permit: tokio::sync::OwnedSemaphorePermit,
    gauge: UpstreamConnectionGauge,
    now_ms: u64,
) -> io::Result<Opened> {
    let tcp = dial(endpoint).await?;
    tcp.set_nodelay(true)?;
    let (stream, alpn_h2) = match &endpoint.tls {
        None => (UpstreamStream::Plain(tcp), false),
        Some(tls) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let name: ServerName<'static> = tls.server_name.clone();
            let stream = connector.connect(name, tcp).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (UpstreamStream::Tls(stream), h2)
        }
    };
    match protocol {
        Protocol::H2c => h2(stream, permit, gauge, now_ms).await,
        Protocol::H2 if alpn_h2 => h2(stream, permit, gauge, now_ms).await,
        Protocol::H2 => Err(io::Error::other("the upstream does not speak HTTP/2 (ALPN)")),
        Protocol::Auto if alpn_h2 => h2(stream, permit, gauge, now_ms).await,
        Protocol::Auto | Protocol::H1 => h1(stream, permit, gauge).await,
    }
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn h1(
    stream: UpstreamStream,
    permit: tokio::sync::OwnedSemaphorePermit,
    gauge: UpstreamConnectionGauge,
) -> io::Result<Opened> {
    let guard = AnswerGuard::new(stream, AnswerLimits::default());
    let exchange = guard.exchange();
    let guarded = TokioIo::new(guard);
    let (sender, mut connection) = http1::Builder::new()
        .max_headers(AnswerLimits::default().head_fields)
        .handshake(guarded)
        .await
        .map_err(io::Error::other)?;
    let (hand_over, tunnel) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        if ended.is_ok() {
            let parts = connection.into_parts();
            // Nobody waits for it unless an upgrade was accepted; otherwise this closes the connection.
            let tunnel = Tunnel { stream: parts.io.into_inner(), read: parts.read_buf, _permit: permit };
            drop(hand_over.send(tunnel));
        }
    });
    Ok(Opened::H1(H1Connection { sender, exchange, gauge, tunnel: Some(tunnel) }))
}

async fn h2(
    stream: UpstreamStream,
    permit: tokio::sync::OwnedSemaphorePermit,
    gauge: UpstreamConnectionGauge,
    now_ms: u64,
) -> io::Result<Opened> {
    let (sender, mut connection) = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // The peer's settings are not read yet; RFC 9113 §6.5.2 recommends that nobody allows less than 100.
    let allowed = Rc::new(Cell::new(100));
    let seen_allowed = Rc::clone(&allowed);
    tokio::task::spawn_local(async move {
        // How it ended is seen by the requests on it.
        let _ended = std::future::poll_fn(|cx| {
            seen_allowed.set(connection.current_max_send_streams());
            std::pin::Pin::new(&mut connection).poll(cx)
        })
        .await;
        drop(permit);
    });
    Ok(Opened::H2(H2Connection {
        sender,
        streams: Rc::default(),
        allowed,
        proven: Rc::default(),
        broken: Rc::default(),
        opened_ms: now_ms,
        idle_since_ms: Rc::new(Cell::new(now_ms)),
        gauge: Rc::new(gauge),
    }))
}
