//! Asking the gateway: one request and its answer, over HTTP/1.1 or HTTP/2, in the clear or over TLS.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::answer::Feed;
use crate::ca::TlsClient;
use crate::connection::{Connection, Streaming};
use crate::facts::Facts;
use crate::response::Response;
use crate::site::Key;
use crate::stream::{AnyBody, ChannelBody, PatternBody, WithTrailers, empty, full};
use crate::vault::Vault;

/// A request in the making. `.await` sends it over a connection of its own and checks the answer's [`Facts`].
pub struct Call {
    address: SocketAddr,
    pub(crate) method: Method,
    pub(crate) target: String,
    host: Option<String>,
    headers: HeaderMap,
    body: AnyBody,
    trailers: Option<HeaderMap>,
    h2: bool,
    tls: Option<TlsClient>,
    from: Option<std::net::IpAddr>,
    pub(crate) facts: Facts,
    pub(crate) vault: Option<Vault>,
}

impl Call {
    /// A request to this address.
    pub fn to(address: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.parse().expect("tests use real methods"),
            target: target.to_owned(),
            host: None,
            headers: HeaderMap::new(),
            body: empty(),
            trailers: None,
            h2: false,
            tls: None,
            from: None,
            facts: Facts::default(),
            vault: None,
        }
    }

    /// The answer must not repeat these secrets.
    #[must_use]
    pub fn watching(mut self, vault: &Vault) -> Self {
        self.vault = Some(vault.clone());
        self
    }

    /// Presents a key as `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, key: &Key) -> Self {
        self.header("authorization", &format!("Bearer {}", key.text))
    }

    /// Presents a key as `X-API-Key`.
    #[must_use]
    pub fn api_key(self, key: &Key) -> Self {
        self.header("x-api-key", &key.text)
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            name.parse::<HeaderName>().expect("tests use real field names"),
            HeaderValue::from_bytes(value.as_bytes()).expect("tests use real field values"),
        );
        self
    }

    /// Names another host than the address.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Sends this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = full(body.into());
        self
    }

    /// Sends this many bytes of the known pattern.
    #[must_use]
    pub fn pattern(mut self, length: u64) -> Self {
        self.body = PatternBody { offset: 0, left: length, sized: true }.boxed_unsync();
        self
    }

    /// The same without announcing the length.
    #[must_use]
    pub fn unsized_pattern(mut self, length: u64) -> Self {
        self.body = PatternBody { offset: 0, left: length, sized: false }.boxed_unsync();
        self
    }

    /// The body comes out of the test's hands.
    #[must_use]
    pub fn fed(mut self) -> (Self, Feed) {
        let (feed, pieces) = Feed::new();
        self.body = ChannelBody { pieces }.boxed_unsync();
        (self, feed)
    }

    /// Adds a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers
            .get_or_insert_with(HeaderMap::new)
            .append(HeaderName::from_static(name), value.parse().expect("tests use real field values"));
        self
    }

    /// Speaks HTTP/2: with prior knowledge in the clear, by ALPN over TLS.
    #[must_use]
    pub fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(mut self, client: &TlsClient) -> Self {
        self.tls = Some(client.clone());
        self
    }

    /// Connects from this address of the loopback network.
    #[must_use]
    pub fn from(mut self, address: &str) -> Self {
        self.from = Some(address.parse().expect("tests use real addresses"));
        self
    }

    /// Checks other facts than the usual ones.
    #[must_use]
    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// Sends it over a connection of its own and reads the whole answer.
    ///
    /// # Errors
    /// When there is no connection, no answer in time, or the answer breaks off; the text says which.
    pub async fn attempt(self) -> Result<Response, String> {
        let mut connection = Connection::open(self.address, self.h2, self.tls.as_ref(), self.from)
            .await
            .map_err(|error| error.to_string())?;
        connection.attempt(self).await
    }

    /// Sends it over a connection of its own and returns as soon as the answer's head is there.
    pub async fn stream(self) -> Streaming {
        let mut connection = Connection::open(self.address, self.h2, self.tls.as_ref(), self.from)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.address));
        let mut streaming = connection.stream(self).await;
        streaming.connection = Some(connection);
        streaming
    }

    pub(crate) fn request(&mut self, h2: bool, tls: bool) -> Request<AnyBody> {
        let host = self.host.clone().unwrap_or_else(|| self.address.to_string());
        let uri = if h2 {
            let scheme = if tls { "https" } else { "http" };
            format!("{scheme}://{host}{}", self.target)
        } else {
            self.target.clone()
        };
        let mut body = std::mem::replace(&mut self.body, empty());
        if let Some(trailers) = self.trailers.take() {
            body = WithTrailers { inner: body, trailers: Some(trailers) }.boxed_unsync();
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.parse::<Uri>().unwrap_or_else(|error| panic!("{uri}: {error}; send it raw"));
        *request.version_mut() = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = std::mem::take(&mut self.headers);
        if !h2 && !request.headers().contains_key("host") {
            request.headers_mut().insert("host", host.parse().expect("tests use real hosts"));
        }
        request
    }
}

impl IntoFuture for Call {
    type Output = Response;
    type IntoFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let what = format!("{} {}", self.method, self.target);
            self.attempt().await.unwrap_or_else(|why| panic!("{what}: {why}"))
        })
    }
}

impl Feed {
    fn new() -> (Self, mpsc::Receiver<Result<Frame<Bytes>, crate::stream::BodyError>>) {
        let (sender, pieces) = mpsc::channel(4);
        (Self::from_sender(sender), pieces)
    }
}
