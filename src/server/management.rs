//! The management listener: requests are read whole, within bounds, and handed to the API.
//!
//! Runs on the control runtime. Must not know endpoints.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::tls::EdgeTls;
use crate::admin::{Api, ApiAnswer, ApiRequest, Entrance, Foreseen, MAX_IMPORT_BODY, Sort};
use crate::domain::OwnedFields;

/// Most connections at one time.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Largest body, in bytes, save that of an import.
const MAX_BODY: usize = 1 << 20;
/// How long a request's head may take, idle time before it included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most requests at one time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;
/// When a connection is asked to end after its next answer.
const LIFE: Duration = Duration::from_secs(120);
/// What it gets after that: a change may wait a minute for the fleet.
const LAST_ANSWER: Duration = Duration::from_secs(75);
/// Most bodies of operators at one time that are larger than the others may be, and most others.
const OPERATORS_BODIES: (usize, usize) = (2, 64);
/// The same of keys with an owner, who may be slow for as long as they like without keeping an operator out.
const OWNERS_BODIES: (usize, usize) = (1, 32);
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body that nobody needs is taken.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Places for bodies: what all connections together hold of them is bounded.
struct Rooms {
    operators: Room,
    owners: Room,
}

struct Room {
    large: Semaphore,
    small: Semaphore,
}

impl Default for Rooms {
    fn default() -> Self {
        let room = |(large, small)| Room { large: Semaphore::new(large), small: Semaphore::new(small) };
        Self { operators: room(OPERATORS_BODIES), owners: room(OWNERS_BODIES) }
    }
}

impl Rooms {
    const fn of(&self, sort: Sort) -> &Room {
        match sort {
            Sort::Operator => &self.operators,
            Sort::Owner => &self.owners,
        }
    }
}

/// Answers until dropped. Runs on the runtime it is awaited on.
///
/// `tls` is looked at for every connection: none is plain HTTP.
pub(crate) async fn serve_management(listener: TcpListener, api: Arc<Api>, tls: Arc<ArcSwapOption<EdgeTls>>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let rooms = Arc::new(Rooms::default());
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (api, rooms, tls) = (Arc::clone(&api), Arc::clone(&rooms), tls.load_full());
                drop(tokio::spawn(async move {
                    // Small answers to waiting people: nothing is won by collecting them.
                    let _set = stream.set_nodelay(true);
                    let service =
                        service_fn(move |request| answer(Arc::clone(&api), Arc::clone(&rooms), peer, request));
                    match tls {
                        None => serve_h1(stream, service).await,
                        Some(tls) => serve_tls(stream, &tls, service).await,
                    }
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept on the management address");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_tls<S>(stream: TcpStream, tls: &EdgeTls, service: S)
where
    S: HttpService<Incoming, ResBody = Full<Bytes>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            for_a_while(connection, http2::Connection::graceful_shutdown).await;
        }
        Ok(Ok(stream)) => serve_h1(stream, service).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed on the management address"),
        Err(_) => tracing::debug!("a TLS handshake on the management address took too long"),
    }
}

async fn serve_h1<I, S>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    for_a_while(connection, http1::Connection::graceful_shutdown).await;
}

/// Nobody keeps a place for ever: neither by saying nothing nor by not taking answers.
async fn for_a_while<C: Future>(connection: C, end: impl FnOnce(Pin<&mut C>)) {
    let mut connection = std::pin::pin!(connection);
    // How a client leaves is of no interest.
    if tokio::time::timeout(LIFE, connection.as_mut()).await.is_err() {
        end(connection.as_mut());
        let _ended = tokio::time::timeout(LAST_ANSWER, connection).await;
    }
}

async fn answer(
    api: Arc<Api>,
    rooms: Arc<Rooms>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let request_id = uuid::Uuid::now_v7().simple().to_string();
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let mut fields = OwnedFields::default();
    for (name, value) in &head.headers {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    let host = head.uri.host().map(str::to_owned).or_else(|| {
        let value = head.headers.get(http::header::HOST)?.to_str().ok()?;
        value.parse::<http::uri::Authority>().ok().map(|authority| authority.host().to_owned())
    });
    let head = ApiRequest {
        entrance: Entrance::Management,
        method: &head.method,
        host: host.as_deref().unwrap_or_default(),
        path: head.uri.path(),
        query: head.uri.query(),
        fields: fields.view(),
        body: &[],
        client: Some(peer.ip().to_canonical()),
        request_id: &request_id,
    };
    let is_empty = body.size_hint().exact() == Some(0);
    let is_small = body.size_hint().exact().is_some_and(|bytes| bytes <= MAX_BODY as u64);
    let (most, places) = match api.foresee(head) {
        // Nothing is read for strangers: the answer is the same.
        Foreseen::NoBody => (0, None),
        Foreseen::Work(_) | Foreseen::Import(_) if is_empty => (0, None),
        Foreseen::Import(sort) if !is_small => (MAX_IMPORT_BODY, Some(&rooms.of(sort).large)),
        Foreseen::Work(sort) | Foreseen::Import(sort) => (MAX_BODY, Some(&rooms.of(sort).small)),
    };
    let collected = tokio::time::timeout(BODY_TIMEOUT, async {
        let Some(places) = places else {
            discard(body).await;
            return (Ok(Bytes::new()), None);
        };
        let place = places.acquire().await.ok();
        (Limited::new(body, most).collect().await.map(http_body_util::Collected::to_bytes), place)
    });
    let (body, _place) = match collected.await {
        Ok((Ok(body), place)) => (body, place),
        Ok((Err(_), _)) => return Ok(bare(StatusCode::PAYLOAD_TOO_LARGE, &request_id)),
        Err(_) => return Ok(bare(StatusCode::REQUEST_TIMEOUT, &request_id)),
    };
    let ApiAnswer { status, fields, body, .. } = api.answer(ApiRequest { body: &body, ..head }).await;
    let length = body.len();
    let mut answer = Response::new(Full::new(if is_head { Bytes::new() } else { Bytes::from(body) }));
    *answer.status_mut() = status;
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().append(name, value);
        }
    }
    if is_head {
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(stamped(answer, &request_id))
}

/// Takes a body away without keeping any of it, as far as is reasonable: a client that is cut off while it still sends may
/// never see its answer.
async fn discard(mut body: Incoming) {
    let all = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > MAX_IMPORT_BODY {
                return;
            }
        }
    };
    // What is left then is the client's to give up.
    let _over = tokio::time::timeout(DISCARD_TIMEOUT, all).await;
}

/// A refusal of what cannot be read.
fn bare(status: StatusCode, request_id: &str) -> Response<Full<Bytes>> {
    let (code, title) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The body is too large"),
        _ => ("request_timeout", "The request did not arrive in time"),
    };
    let body = serde_json::json!({
        "type": format!("urn:portcullis:error:{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": "Bodies have at most 1 MiB, those of an import 16 MiB, and arrive within 30 s.",
        "code": code,
        "request_id": request_id,
    });
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    stamped(answer, request_id)
}

fn stamped(mut answer: Response<Full<Bytes>>, request_id: &str) -> Response<Full<Bytes>> {
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", value);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(
        "content-security-policy",
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    answer
}
