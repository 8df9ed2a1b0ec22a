//! A small listener for operators and their machines: metrics, health, documentation. Never the data listeners.
//!
//! Runs on the control runtime. Must not know what the pages say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What a path answers.
pub(crate) struct Page {
    /// The status.
    pub(crate) status: StatusCode,
    /// The media type of `body`.
    pub(crate) media_type: &'static str,
    /// The whole body.
    pub(crate) body: String,
}

impl Page {
    /// A text.
    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, media_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Answers GET for a path. May take some milliseconds: it is asked on a thread that may block.
pub(crate) trait Pages: Send + Sync {
    /// The page at `path`.
    fn page(&self, path: &str) -> Page;
}

/// Most connections at one time.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take, idle time before it included: silent peers must not keep probes out.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const MAX_LIFE: Duration = Duration::from_secs(60);

/// Answers until dropped. Runs on the runtime it is awaited on.
pub(crate) async fn serve_pages(listener: TcpListener, pages: Arc<dyn Pages>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                drop(tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&pages), request));
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    // How a probe leaves is of no interest.
                    let _ended = tokio::time::timeout(MAX_LIFE, connection).await;
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept on an operators' address");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer(pages: Arc<dyn Pages>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_read = *request.method() == Method::GET || *request.method() == Method::HEAD;
    let page = if is_read {
        let path = request.uri().path().to_owned();
        let made = tokio::task::spawn_blocking(move || pages.page(&path)).await;
        made.unwrap_or_else(|_| Page::text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n"))
    } else {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "")
    };
    let mut answer = Response::new(Full::new(Bytes::from(page.body)));
    *answer.status_mut() = page.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(answer)
}
