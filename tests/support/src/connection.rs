//! Connections to the gateway, and answers whose bodies are still coming.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::ca::TlsClient;
use crate::call::Call;
use crate::patience::patient;
use crate::response::Response;
use crate::stream::{AnyBody, is_pattern};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A connection that several calls can share: one after the other over HTTP/1.1, all at once over HTTP/2.
pub struct Connection {
    sender: Sender,
    tls: bool,
    driver: JoinHandle<()>,
}

enum Sender {
    H1(http1::SendRequest<AnyBody>),
    H2(http2::SendRequest<AnyBody>),
}

impl Connection {
    /// HTTP/1.1 in the clear.
    pub async fn h1(address: SocketAddr) -> Self {
        Self::open(address, false, None, None).await.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// HTTP/2 in the clear, with prior knowledge.
    pub async fn h2(address: SocketAddr) -> Self {
        Self::open(address, true, None, None).await.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Whatever ALPN says over TLS.
    pub async fn tls(address: SocketAddr, client: &TlsClient) -> std::io::Result<Self> {
        Self::open(address, client.offers_h2(), Some(client), None).await
    }

    pub(crate) async fn open(
        address: SocketAddr,
        h2: bool,
        tls: Option<&TlsClient>,
        from: Option<std::net::IpAddr>,
    ) -> std::io::Result<Self> {
        let stream = connect(address, from).await?;
        stream.set_nodelay(true)?;
        match tls {
            None => Self::speak(stream, h2, false).await,
            Some(client) => {
                let client = if h2 && !client.offers_h2() { client.clone().alpn(&["h2"]) } else { client.clone() };
                let stream = client.handshake(stream).await?;
                let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if h2 && !agreed {
                    return Err(std::io::Error::other("the server did not agree to h2"));
                }
                Self::speak(stream, agreed, true).await
            }
        }
    }

    async fn speak(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        h2: bool,
        tls: bool,
    ) -> std::io::Result<Self> {
        let io = TokioIo::new(stream);
        if h2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
            let driver = tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok(Self { sender: Sender::H2(sender), tls, driver })
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(std::io::Error::other)?;
            let driver = tokio::spawn(async move {
                let _ = connection.with_upgrades().await;
            });
            Ok(Self { sender: Sender::H1(sender), tls, driver })
        }
    }

    /// Sends a call over this connection and reads the whole answer.
    pub async fn send(&mut self, call: Call) -> Response {
        let what = format!("{} {}", call.method, call.target);
        self.attempt(call).await.unwrap_or_else(|why| panic!("{what}: {why}"))
    }

    /// The same, for calls that may fail.
    ///
    /// # Errors
    /// When the connection is gone, there is no answer in time, or the answer breaks off; the text says which.
    pub async fn attempt(&mut self, call: Call) -> Result<Response, String> {
        let (method, facts, vault) = (call.method.clone(), call.facts.clone(), call.vault.clone());
        let answer = tokio::time::timeout(patient(ANSWER_LIMIT), async {
            let response = self.dispatch(call).await.map_err(|error| format!("no answer: {error:?}"))?;
            let (parts, body) = response.into_parts();
            let collected = body.collect().await.map_err(|error| format!("the answer breaks off: {error:?}"))?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok(Response {
                status: parts.status.as_u16(),
                version: parts.version,
                headers: parts.headers,
                body: collected.to_bytes(),
                trailers,
            })
        })
        .await
        .map_err(|_| format!("no answer within {:?}", patient(ANSWER_LIMIT)))
        .flatten()?;
        facts.check(&answer, method.as_str(), vault.as_ref());
        Ok(answer)
    }

    /// Sends a call over this connection and returns as soon as the answer's head is there.
    pub async fn stream(&mut self, call: Call) -> Streaming {
        let (method, facts, vault) = (call.method.clone(), call.facts.clone(), call.vault.clone());
        let response = tokio::time::timeout(patient(ANSWER_LIMIT), self.dispatch(call))
            .await
            .expect("the answer's head comes in time")
            .unwrap_or_else(|error| panic!("no answer: {error:?}"));
        let (parts, body) = response.into_parts();
        let head = Response {
            status: parts.status.as_u16(),
            version: parts.version,
            headers: parts.headers,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
        };
        if head.status < 400 {
            facts.check(&head, method.as_str(), vault.as_ref());
        }
        Streaming { head, body, read: 0, connection: None }
    }

    async fn dispatch(&mut self, mut call: Call) -> hyper::Result<http::Response<Incoming>> {
        let h2 = matches!(self.sender, Sender::H2(_));
        let request = call.request(h2, self.tls);
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A second handle on the same HTTP/2 connection, for concurrent streams.
    ///
    /// # Panics
    /// Over HTTP/1.1.
    #[must_use]
    pub fn stream_handle(&self) -> Self {
        match &self.sender {
            Sender::H1(_) => panic!("HTTP/1.1 has no streams"),
            Sender::H2(sender) => {
                Self { sender: Sender::H2(sender.clone()), tls: self.tls, driver: tokio::spawn(std::future::ready(())) }
            }
        }
    }

    /// Whether the other side ended the connection or said that it takes no more.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }

    /// Whether the connection is entirely gone.
    pub fn is_gone(&self) -> bool {
        self.driver.is_finished()
    }
}

async fn connect(address: SocketAddr, from: Option<std::net::IpAddr>) -> std::io::Result<TcpStream> {
    match from {
        None => TcpStream::connect(address).await,
        Some(from) => {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(from, 0))?;
            socket.connect(address).await
        }
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    /// Its head; the body is empty.
    pub head: Response,
    body: Incoming,
    read: u64,
    pub(crate) connection: Option<Connection>,
}

impl Streaming {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.frame().await? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.read += data.len() as u64;
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, String> {
        self.body.frame().await.transpose().map_err(|error| format!("the answer breaks off: {error:?}"))
    }

    /// Reads to the end and counts; every byte must be the known pattern.
    pub async fn count_pattern(&mut self) -> u64 {
        while let Some(piece) = self.piece().await.unwrap_or_else(|why| panic!("{why}")) {
            let offset = self.read - piece.len() as u64;
            assert!(is_pattern(offset, &piece), "the body is not what was sent, near byte {offset}");
        }
        self.read
    }

    /// Reads to the end, as text.
    pub async fn text(&mut self) -> Result<String, String> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await? {
            text.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
