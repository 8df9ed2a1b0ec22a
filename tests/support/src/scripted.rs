//! A server that says exactly the bytes a test wrote: for upstreams that break the rules.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::TestCa;

/// A server whose every connection runs the test's script.
pub struct ScriptedOrigin {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: tokio::task::JoinHandle<()>,
}

/// One accepted connection in the hands of a script.
pub struct RawPeer {
    link: Link,
    unread: Vec<u8>,
    heads: Arc<Mutex<Vec<String>>>,
    /// Which connection this is, counted from 1.
    pub number: usize,
}

/// What a script's bytes go over.
enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Either kind, where it makes no difference.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Link {
    fn stream(&mut self) -> &mut dyn Duplex {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl ScriptedOrigin {
    /// Runs `script` on every connection.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(RawPeer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serve(None, script).await
    }

    /// The same over TLS, with a certificate of `ca` for `localhost` and `127.0.0.1`, offering these protocols.
    pub async fn tls<S, F>(ca: &TestCa, alpn: &[&str], script: S) -> Self
    where
        S: Fn(RawPeer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let config = ca.server_config(&["localhost", "127.0.0.1"], alpn, false);
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))), script).await
    }

    async fn serve<S, F>(tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(RawPeer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heads);
        let accepting = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                number += 1;
                let link = match &tls {
                    None => Link::Plain(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Link::Tls(Box::new(stream)),
                        Err(_) => continue,
                    },
                };
                tokio::spawn(script(RawPeer { link, unread: Vec::new(), heads: Arc::clone(&shared), number }));
            }
        });
        Self { address, heads, accepting }
    }

    /// Answers every request on every connection with these bytes, and keeps the connection open.
    pub async fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut peer| {
            let bytes = Arc::clone(&bytes);
            async move {
                while peer.head().await.is_some() {
                    peer.send(&bytes).await;
                }
            }
        })
        .await
    }

    /// Answers the first request of every connection with these bytes, and then closes it.
    pub async fn saying_and_closing(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut peer| {
            let bytes = Arc::clone(&bytes);
            async move {
                if peer.head().await.is_some() {
                    peer.send(&bytes).await;
                }
            }
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as text, for configurations.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The request heads read so far, byte for byte.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ScriptedOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl RawPeer {
    /// Reads one request head, up to and including the empty line; `None` when the connection ended.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..at + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                self.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
                return Some(head);
            }
            self.fill().await?;
        }
    }

    /// Reads exactly this many bytes; `None` when the connection ended first.
    pub async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            self.fill().await?;
        }
        Some(self.unread.drain(..count).collect())
    }

    /// Says these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.link.stream();
        let _ = stream.write_all(bytes.as_ref()).await;
        let _ = stream.flush().await;
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) {
        let _ = self.link.stream().shutdown().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = self.link.socket().set_zero_linger();
    }

    /// Reads until the other side ends the connection.
    pub async fn until_end(&mut self) {
        while self.fill().await.is_some() {
            self.unread.clear();
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        match self.link.stream().read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Some(())
            }
        }
    }
}
