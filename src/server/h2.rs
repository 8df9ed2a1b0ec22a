//! HTTP/2 with one client: streams side by side, until either side has had enough.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::Listener;
use super::worker::{Entry, WorkerState};
use crate::domain::OwnedFields;
use crate::proxy::{Asked, ClientConnection, HeadBounds, LocalExecutor, ReplyBody, Step};
use crate::telemetry::{ConnectionGauge, ConnectionState};

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    stream: S,
    peer: Option<std::net::IpAddr>,
    is_tls: bool,
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &ConnectionGauge,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = worker.limits.load_full();
    let entry = worker.register(Entry { leaving: listener.leaving(), ..Entry::default() });
    let bounds = HeadBounds {
        list_bytes: limits.h2_header_list_bytes as usize,
        fields: limits.head_fields,
        target_bytes: limits.target_bytes,
    };
    let in_flight = Rc::clone(&entry.in_flight);
    let client = Rc::new(listener.client(peer, is_tls, Some(bounds), in_flight, &worker.draining));
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
    let engine = &worker.engine;
    let begun = {
        let (parts, incoming) = request.into_parts();
        let fields = OwnedFields::from(&parts.headers);
        let request = Request::from_parts(parts, ());
        let asked = Asked::h2(&request, fields.view(), incoming);
        std::panic::catch_unwind(AssertUnwindSafe(|| engine.begin(&client, asked)))
    };
    let answer = match begun {
        Ok(Step::Answered(answer)) => answer,
        Ok(Step::Forward(forward)) => {
            // Boxed, so that the task of a stream is a small piece of memory, and stays one while the answer streams.
            Box::pin(AssertUnwindSafe(forward.run()).catch_unwind()).await.unwrap_or_else(|_| engine.internal_error())
        }
        Err(_) => engine.internal_error(),
    };
    Ok(answer.into_h2())
}
