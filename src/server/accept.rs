//! The accept thread: takes connections from every listener and hands each to the least-loaded worker.
//!
//! One thread accepts for all workers because a long HTTP/2 connection weighs more than a short one: the kernel's
//! `SO_REUSEPORT` would spread sockets by hash and could put three of them on one worker.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::listen::Listening;
use super::memory::Memory;
use super::settings::{Limits, ListenerSettings};
use super::tls::EdgeTls;
use super::worker::{Command, Worker};
use crate::limit::Network;
use crate::proxy::{ClientConnection, HeadBounds};
use crate::telemetry::{ListenerLabel, Metrics, Shed};
use crate::wire::{SocketPlace, is_exhausted};

/// A listener as its connections see it. Replaced by reloads; connections keep the one they came through.
pub(crate) struct Listener {
    /// As configured.
    pub(crate) settings: ListenerSettings,
    /// Its certificates.
    pub(crate) tls: Option<Arc<EdgeTls>>,
    /// Its metric label.
    pub(crate) label: ListenerLabel,
    /// Its name, for logs.
    pub(crate) name: Arc<str>,
    connections: AtomicUsize,
    leaving: Arc<AtomicBool>,
}

impl Listener {
    /// A listener without connections.
    pub(crate) fn new(settings: ListenerSettings, tls: Option<Arc<EdgeTls>>, label: ListenerLabel) -> Self {
        Self {
            name: settings.name.as_str().into(),
            settings,
            tls,
            label,
            connections: AtomicUsize::new(0),
            leaving: Arc::default(),
        }
    }

    /// A reload removed it: its connections end after their next answer.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it was removed.
    pub(super) fn leaving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leaving)
    }

    /// A client that came through it, as the engine sees it; `h2_bounds` are those of heads over HTTP/2.
    pub(super) fn client(
        &self,
        peer: Option<IpAddr>,
        is_tls: bool,
        h2_bounds: Option<HeadBounds>,
        in_flight: Rc<Cell<usize>>,
        draining: &Rc<Cell<bool>>,
    ) -> ClientConnection {
        ClientConnection::new(
            peer,
            self.label,
            Arc::clone(&self.name),
            is_tls,
            self.settings.redirect_https,
            h2_bounds,
            in_flight,
            Rc::clone(draining),
            self.leaving(),
        )
    }

    /// Peers that begin with a PROXY header.
    pub(super) fn proxy_protocol_from(&self) -> &[IpNet] {
        &self.settings.proxy_protocol_from
    }
}

/// A connection on its way to a worker. Dropping it takes it out of every count.
pub(super) struct Accepted {
    pub(crate) socket: RawSocket,
    pub(crate) listener: Arc<Listener>,
    pub(crate) counted: Counted,
}

/// A socket that belongs to no runtime yet.
pub(super) enum RawSocket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// Connections by the network of their client: of IPv6 a host has a /64 to choose addresses from.
struct Clients {
    counts: Mutex<HashMap<Network, usize>>,
    metrics: Arc<Metrics>,
}

/// Holds a connection's place in all counts.
pub(super) struct Counted {
    _place: SocketPlace,
    listener: Arc<Listener>,
    worker: Arc<AtomicUsize>,
    clients: Arc<Clients>,
    /// Whose connection it counts as; none: nobody counts, or it is not known yet.
    client: Option<Network>,
}

impl Counted {
    /// Counts it as one of this client's; false when that has `most` already, and it is to end.
    pub(super) fn count_for(&mut self, client: IpAddr, most: usize) -> bool {
        if self.client.is_some() {
            return true;
        }
        let client = Network::of(Some(client));
        let mut counts = self.clients.counts.lock();
        let count = counts.get(&client).copied().unwrap_or_default();
        let has_room = count < most;
        if has_room {
            counts.insert(client, count + 1);
            self.client = Some(client);
        }
        has_room
    }

    /// Notes that it ends because its client has too many.
    pub(super) fn note_shed(&self) {
        self.clients.metrics.connection_shed(Shed::Address);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.listener.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = &self.client {
            let mut counts = self.clients.counts.lock();
            if let Some(count) = counts.get_mut(client) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(client);
                }
            }
        }
    }
}

/// Accepts for all listeners. Its tasks run on the runtime it is used on.
pub(crate) struct Acceptor {
    workers: Arc<Vec<Worker>>,
    limits: Arc<ArcSwap<Limits>>,
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    clients: Arc<Clients>,
}

/// A listener that accepts. Dropping it stops that and closes the socket.
pub(crate) struct Accepting {
    task: JoinHandle<()>,
    current: Arc<ArcSwap<Listener>>,
    /// Where it listens.
    pub(crate) address: String,
    unix_path: Option<std::path::PathBuf>,
}

impl Accepting {
    /// Lets connections from now on come in under a new configuration of the same bind.
    pub(crate) fn replace(&self, listener: Arc<Listener>) {
        self.current.store(listener);
    }

    /// The configuration connections come in under.
    pub(crate) fn listener(&self) -> Arc<Listener> {
        self.current.load_full()
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(path) = &self.unix_path {
            // A successor may have replaced it already, or the directory is gone: nothing is lost either way.
            let _removed = std::fs::remove_file(path);
        }
    }
}

enum Socket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    /// An acceptor for these workers; at least one.
    pub(crate) fn new(
        workers: Arc<Vec<Worker>>,
        limits: Arc<ArcSwap<Limits>>,
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
    ) -> Self {
        let clients = Arc::new(Clients { counts: Mutex::default(), metrics: Arc::clone(&metrics) });
        Self { workers, limits, metrics, memory, clients }
    }

    /// Begins to accept from `socket`. Must be called on the runtime that will accept.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn accept_from(&self, socket: Listening, listener: Arc<Listener>) -> io::Result<Accepting> {
        let address = socket.address();
        let (socket, unix_path) = match socket {
            Listening::Tcp(socket) => (Socket::Tcp(tokio::net::TcpListener::from_std(socket)?), None),
            Listening::Unix(socket, path) => (Socket::Unix(tokio::net::UnixListener::from_std(socket)?), path),
        };
        let current = Arc::new(ArcSwap::new(listener));
        let loop_ = AcceptLoop {
            socket,
            current: Arc::clone(&current),
            workers: Arc::clone(&self.workers),
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&self.metrics),
            memory: Arc::clone(&self.memory),
            clients: Arc::clone(&self.clients),
        };
        Ok(Accepting { task: tokio::spawn(loop_.run()), current, address, unix_path })
    }
}

struct AcceptLoop {
    socket: Socket,
    current: Arc<ArcSwap<Listener>>,
    workers: Arc<Vec<Worker>>,
    limits: Arc<ArcSwap<Limits>>,
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    clients: Arc<Clients>,
}

/// How long accepting pauses when the process has no descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Most clients that are turned away before the next pause.
const TURNED_AWAY: usize = 1024;

impl AcceptLoop {
    async fn run(self) {
        let mut complained = false;
        let mut spare = spare_descriptor();
        loop {
            match self.accept().await {
                Ok(socket) => {
                    complained = false;
                    self.hand_over(socket);
                }
                // The peer was gone before we looked: not our trouble.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "cannot accept connections; trying again");
                    }
                    if is_exhausted(&error) {
                        self.turn_away(&mut spare);
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// Answers those who wait, one after the other, by the descriptor that was kept for it: without one they would wait
    /// for as long as there is none.
    fn turn_away(&self, spare: &mut Option<File>) {
        for _ in 0..TURNED_AWAY {
            drop(spare.take());
            let waiting = self.accept().now_or_never();
            if let Some(Ok(socket)) = &waiting {
                self.shed(socket, &self.current.load(), Shed::Descriptors);
            }
            let is_over = !matches!(waiting, Some(Ok(_)));
            drop(waiting);
            *spare = spare_descriptor();
            if is_over {
                return;
            }
        }
    }

    async fn accept(&self) -> io::Result<RawSocket> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(RawSocket::Tcp(stream.into_std()?, peer))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(RawSocket::Unix(stream.into_std()?))
            }
        }
    }

    fn hand_over(&self, socket: RawSocket) {
        let listener = self.current.load_full();
        let limits = self.limits.load();
        let Some(place) = SocketPlace::for_client() else {
            return self.shed(&socket, &listener, Shed::Descriptors);
        };
        if self.memory.is_nearly_full(&limits) {
            return self.shed(&socket, &listener, Shed::Memory);
        }
        if listener.connections.load(Ordering::Relaxed) >= limits.connections_per_listener {
            return self.shed(&socket, &listener, Shed::Listener);
        }
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.connections()) else { return };
        listener.connections.fetch_add(1, Ordering::Relaxed);
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let mut counted = Counted {
            _place: place,
            listener: Arc::clone(&listener),
            worker: Arc::clone(&worker.connections),
            clients: Arc::clone(&self.clients),
            client: None,
        };
        if let (RawSocket::Tcp(_, peer), Some(most)) = (&socket, limits.connections_per_address) {
            let peer = peer.ip().to_canonical();
            // Of one that says for whom it comes it is counted when it has.
            let announces = listener.proxy_protocol_from().iter().any(|net| net.contains(&peer));
            if !announces && !counted.count_for(peer, most) {
                return self.shed(&socket, &listener, Shed::Address);
            }
        }
        worker.tell(Command::Serve(Accepted { socket, listener, counted }));
    }

    /// Tells a client in the clear that there is no room; a client that speaks TLS only sees the end.
    fn shed(&self, socket: &RawSocket, listener: &Listener, reason: Shed) {
        self.metrics.connection_shed(reason);
        if listener.tls.is_some() {
            return;
        }
        // It is only a courtesy: nothing is waited for.
        let _sent = match socket {
            RawSocket::Tcp(stream, _) => farewell(stream).and_then(|()| stream.shutdown(Shutdown::Write)),
            RawSocket::Unix(stream) => farewell(stream).and_then(|()| stream.shutdown(Shutdown::Write)),
        };
    }
}

/// What a client is told for which there is no room.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Writes it to a fresh socket, which has room for it.
fn farewell<S>(mut socket: &S) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    // What was asked already is taken out of the way: closing with something unread would take the answer back.
    let mut asked = [0; 4096];
    let _read = socket.read(&mut asked);
    socket.write_all(FULL)
}

/// A descriptor to give up when there is no other.
fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}
