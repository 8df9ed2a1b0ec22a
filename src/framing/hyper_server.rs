//! For tests: hyper's HTTP/1 server on top of a guard, driven as the gateway drives it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Fault, Progress, RequestGuard};

/// What the service saw of a request.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// The body and its trailers, or what broke it.
    pub(super) body: Result<(Bytes, Option<HeaderMap>), Option<Fault>>,
}

/// How the service treats a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Reads the body, then answers 200.
    Reads,
    /// Answers 403 and `Connection: close` without reading the body.
    Refuses,
    /// Answers 101 to a request that asks for an upgrade.
    Upgrades,
}

/// What is left when hyper is done.
pub(super) struct Served<T> {
    pub(super) seen: Vec<Seen>,
    pub(super) result: hyper::Result<()>,
    /// What hyper had read ahead.
    pub(super) read_ahead: Bytes,
    pub(super) guard: RequestGuard<T>,
}

/// An answer's body that tells the guard when it is over.
struct Ended(Full<Bytes>, Rc<Progress>);

impl Body for Ended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.1.answer_ended();
    }
}

/// Serves until hyper is done; every answer's body is the target. A stream that is no tunnel is shut down.
///
/// Yields `pause` times within every request, so that hyper reads ahead.
pub(super) async fn serve<T>(guard: RequestGuard<T>, service: Service, pause: usize) -> Served<T>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let progress = guard.progress();
    let seen = RefCell::new(Vec::new());
    let answer = service_fn(|request: Request<Incoming>| async {
        for _ in 0..pause {
            tokio::task::yield_now().await;
        }
        let (parts, body) = request.into_parts();
        let mut answer = Response::new(Ended(Full::new(Bytes::from(parts.uri.to_string())), Rc::clone(&progress)));
        let body = match service {
            Service::Reads => read(body).await,
            Service::Refuses => {
                *answer.status_mut() = StatusCode::FORBIDDEN;
                answer.headers_mut().insert("connection", HeaderValue::from_static("close"));
                Err(None)
            }
            Service::Upgrades => {
                if progress.step_aside() {
                    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    *answer.body_mut() = Ended(Full::default(), Rc::clone(&progress));
                }
                Err(None)
            }
        };
        seen.borrow_mut().push(Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body });
        Ok::<_, Infallible>(answer)
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(guard), answer);
    let result = (&mut connection).await;
    let parts = connection.into_parts();
    let mut guard = parts.io.into_inner();
    if result.is_ok() && service != Service::Upgrades {
        guard.shutdown().await.unwrap();
    }
    Served { seen: seen.take(), result, read_ahead: parts.read_buf, guard }
}

async fn read(body: Incoming) -> Result<(Bytes, Option<HeaderMap>), Option<Fault>> {
    let body = body.collect().await.map_err(|error| Fault::find_in(&error))?;
    let trailers = body.trailers().cloned();
    Ok((body.to_bytes(), trailers))
}

/// Runs `future` on a runtime of one thread; one that never ends is a failure and not a hang.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it never ends") })
}
