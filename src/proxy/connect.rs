//! Opening one connection to one target: TCP, TLS, and the HTTP handshake.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;

use super::body::RequestBody;
use super::exec::UpstreamExecutor;
use super::placed::{Cut, Placed};
use super::settings::Protocol;
use super::target::Endpoint;
use crate::telemetry::UpstreamConnectionGauge;
use crate::wire::{Buffers, Socket, SocketPlace, Stream, UpstreamWire};

/// What an upgraded HTTP/1.1 connection leaves behind.
pub(crate) struct Tunnel {
    /// The stream.
    pub(crate) stream: Stream,
    /// Bytes of the new protocol that were read already.
    pub(crate) read: Vec<u8>,
    /// Its places, held for as long as the tunnel lives.
    pub(crate) _places: Places,
    /// Counts it among the connections to its upstream.
    pub(crate) _gauge: UpstreamConnectionGauge,
}

/// An open HTTP/1.1 connection, ready for one request at a time.
pub(crate) struct H1Connection {
    /// Where requests are written and answers read.
    pub(crate) wire: UpstreamWire,
    /// Counts it among the connections to its upstream.
    pub(crate) gauge: UpstreamConnectionGauge,
    /// Where it leads.
    pub(crate) address: SocketAddr,
    places: Places,
}

/// What a connection takes up, and gives back when it ends.
pub(crate) struct Places {
    /// Under the cap of its target.
    _permit: tokio::sync::OwnedSemaphorePermit,
    /// Among the descriptors of the process.
    _socket: SocketPlace,
}

impl H1Connection {
    /// What is left of it behind a 101.
    pub(crate) fn into_tunnel(self) -> Tunnel {
        let (stream, read) = self.wire.into_stream();
        Tunnel { stream, read, _places: self.places, _gauge: self.gauge }
    }
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
    /// Whether it failed before it was proven, or a request on it was never answered, so that no other should use it.
    pub(crate) broken: Rc<Cell<bool>>,
    /// Where it leads.
    pub(crate) address: SocketAddr,
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
    H1(Box<H1Connection>),
    /// HTTP/2.
    H2(H2Connection),
}

/// Opens a connection to `endpoint`. The caller bounds the time, which is shared by its addresses. Dropping the future closes what was open.
///
/// `permit` is held until the connection ends, so that the process-wide cap counts what the kernel counts.
///
/// # Errors
/// Any failure on the way; the target's name is not repeated in it. [`is_exhausted`](crate::wire::is_exhausted) tells
/// those that say nothing about the target.
pub(crate) async fn open(
    endpoint: &Endpoint,
    protocol: Protocol,
    permit: tokio::sync::OwnedSemaphorePermit,
    gauge: UpstreamConnectionGauge,
    now_ms: u64,
    time: Duration,
    buffers: Rc<Buffers>,
) -> io::Result<Opened> {
    let places = Places { _permit: permit, _socket: SocketPlace::for_upstream()? };
    let (tcp, address) = endpoint.addresses.connect(time).await?;
    tcp.set_nodelay(true)?;
    let (stream, alpn_h2) = match &endpoint.tls {
        None => (Stream::Plain(Socket::Tcp(tcp)), false),
        Some(tls) => {
            let config = if protocol == Protocol::H1 { &tls.h1_config } else { &tls.config };
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
            let name: ServerName<'static> = tls.server_name.clone();
            let stream = connector.connect(name, Socket::Tcp(tcp)).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::Asked(Box::new(stream)), h2)
        }
    };
    match protocol {
        Protocol::H2c => h2(stream, places, gauge, address, now_ms).await,
        Protocol::H2 if alpn_h2 => h2(stream, places, gauge, address, now_ms).await,
        Protocol::H2 => Err(io::Error::other("the upstream does not speak HTTP/2 (ALPN)")),
        Protocol::Auto if alpn_h2 => h2(stream, places, gauge, address, now_ms).await,
        Protocol::Auto | Protocol::H1 => {
            Ok(Opened::H1(Box::new(H1Connection { wire: UpstreamWire::new(stream, buffers), gauge, address, places })))
        }
    }
}

/// How long a connection that nobody uses any more may take to close.
const FAREWELL: Duration = Duration::from_secs(2);

async fn h2(
    stream: Stream,
    places: Places,
    gauge: UpstreamConnectionGauge,
    address: SocketAddr,
    now_ms: u64,
) -> io::Result<Opened> {
    let cut = Rc::new(Cut::default());
    let (sender, mut connection) = http2::Builder::new(UpstreamExecutor)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(64 * 1024)
        .handshake(TokioIo::new(Placed::new(stream, places, &cut)))
        .await
        .map_err(io::Error::other)?;
    // The peer's settings are not read yet; RFC 9113 §6.5.2 recommends that nobody allows less than 100.
    let allowed = Rc::new(Cell::new(100));
    let seen_allowed = Rc::clone(&allowed);
    let streams = Rc::<Cell<usize>>::default();
    let under_way = Rc::clone(&streams);
    tokio::task::spawn_local(async move {
        // How it ended is seen by the requests on it.
        let _ended = std::future::poll_fn(|cx| {
            seen_allowed.set(connection.current_max_send_streams());
            Pin::new(&mut connection).poll(cx)
        })
        .await;
        // What still waits for its turn goes back.
        drop(connection);
        // It gets no other request. A peer that takes nothing any more would not even let it say goodbye.
        while under_way.get() > 0 {
            tokio::time::sleep(FAREWELL).await;
        }
        tokio::time::sleep(FAREWELL).await;
        cut.make();
    });
    Ok(Opened::H2(H2Connection {
        sender,
        streams,
        allowed,
        proven: Rc::default(),
        broken: Rc::default(),
        address,
        opened_ms: now_ms,
        idle_since_ms: Rc::new(Cell::new(now_ms)),
        gauge: Rc::new(gauge),
    }))
}
