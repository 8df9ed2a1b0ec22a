//! HTTP/2 with one client: streams side by side, until either side has had enough.

use std::cell::Cell;
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
use super::memory::{H2_CONNECTION, H2_STREAM};
use super::worker::{Entry, WorkerState};
use crate::domain::OwnedFields;
use crate::proxy::{Asked, ClientBody, ClientConnection, HeadBounds, LocalExecutor, ReplyBody, Step, Timers};
use crate::telemetry::{ConnectionGauge, ConnectionState};

/// Streams that a client may have opened and reset before we looked at them; one more ends the connection
/// (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that a client may make us reset by breaking a rule; one more ends the connection (CVE-2025-8671).
const LOCAL_ERRORS: usize = 1024;
/// Requests that a client may give up within [`PREMATURE_MS`]: so many, as long as more of them were answered.
const GIVEN_UP: u32 = 500;
/// Who gives up this soon has not waited.
const PREMATURE_MS: u64 = 1_000;

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
    let _held = worker.memory.own.hold(H2_CONNECTION);
    let entry = worker.register(Entry { leaving: listener.leaving(), ..Entry::default() });
    let bounds = HeadBounds {
        list_bytes: limits.h2_header_list_bytes as usize,
        fields: limits.head_fields,
        target_bytes: limits.target_bytes,
    };
    let in_flight = Rc::clone(&entry.in_flight);
    let client = Rc::new(listener.client(peer, is_tls, Some(bounds), in_flight, &worker.draining));
    let fates = Rc::new(Fates::default());
    let service = {
        let (client, worker, entry) = (Rc::clone(&client), Rc::clone(worker), Rc::clone(&entry));
        let fates = Rc::clone(&fates);
        service_fn(move |request| {
            let begun = Begun::new(Rc::clone(&fates), Rc::clone(&entry), Rc::clone(&worker.engine.timers));
            answer(Rc::clone(&worker), Rc::clone(&client), request, begun)
        })
    };
    let mut connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(limits.h2_max_streams)
        .initial_stream_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        // Lists up to this are read, so that the engine's refusal of what is larger than allowed has a body and an id.
        .max_header_list_size(limits.h2_header_list_bytes.saturating_mul(2))
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_ERRORS)
        .serve_connection(TokioIo::new(stream), service);
    let mut leaving = false;
    let ended = std::future::poll_fn(|cx| {
        if entry.cut.get() {
            return Poll::Ready(Ok(()));
        }
        if entry.leave.get() && !std::mem::replace(&mut leaving, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        *entry.waker.borrow_mut() = Some(cx.waker().clone());
        let polled = Pin::new(&mut connection).poll(cx);
        // Requests may have begun just now; the tasks of some may not have run yet.
        let is_idle = entry.in_flight.get() == 0 && Rc::strong_count(&fates) == FATES_AT_REST;
        gauge.set(if is_idle { ConnectionState::Idle } else { ConnectionState::Active });
        polled
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
    begun: Begun,
) -> Result<Response<ReplyBody>, std::convert::Infallible> {
    let engine = &worker.engine;
    let _held = worker.memory.own.hold(H2_STREAM);
    let limits = worker.limits.load();
    client.is_overloaded.set(worker.memory.is_nearly_full(&limits));
    let window = limits.h2_stream_window as usize;
    drop(limits);
    let step = {
        let (parts, incoming) = request.into_parts();
        let fields = OwnedFields::in_memory(&parts.headers, engine.buffers.out());
        let request = Request::from_parts(parts, ());
        let asked = Asked::h2(&request, fields.view(), ClientBody::h2(incoming, || worker.memory.own.hold(window)));
        let mut step = std::panic::catch_unwind(AssertUnwindSafe(|| engine.begin(&client, asked)));
        while let Ok(Step::Wait(mut waiting)) = step {
            Box::pin(waiting.over()).await;
            let asked = Asked::h2(&request, fields.view(), ClientBody::None);
            step = std::panic::catch_unwind(AssertUnwindSafe(|| waiting.resume(asked)));
        }
        engine.buffers.take_back_out(fields.into_memory());
        step
    };
    let mut answer = match step {
        Ok(Step::Answered(answer)) => answer,
        // Whoever waits has been waited for.
        Ok(Step::Wait(_)) => engine.internal_error(),
        Ok(Step::Forward(forward)) => {
            // Boxed, so that the task of a stream is a small piece of memory, and stays one while the answer streams.
            Box::pin(AssertUnwindSafe(forward.run()).catch_unwind()).await.unwrap_or_else(|_| engine.internal_error())
        }
        Err(_) => engine.internal_error(),
    };
    begun.answered();
    if let Some(exchange) = answer.exchange.take() {
        engine.afterwards.end(exchange);
    }
    Ok(answer.into_h2(&engine.buffers))
}

/// Who holds [`Fates`] while no request is under way: the connection's loop, and its service.
const FATES_AT_REST: usize = 2;

/// What became of the requests of one connection.
#[derive(Default)]
struct Fates {
    answered: Cell<u32>,
    /// Reset by the client before there was an answer, and as good as at once.
    given_up: Cell<u32>,
}

/// A request that has no answer yet. Dropped without one, the client has given it up.
///
/// Each costs us an upstream connection and the client a frame. So a client that does it all the time, slowly enough that
/// every stream is accepted before it is reset, is not served any more.
struct Begun {
    fates: Rc<Fates>,
    entry: Rc<Entry>,
    timers: Rc<Timers>,
    since_ms: u64,
    is_answered: bool,
}

impl Begun {
    fn new(fates: Rc<Fates>, entry: Rc<Entry>, timers: Rc<Timers>) -> Self {
        Self { fates, entry, since_ms: timers.now_ms(), timers, is_answered: false }
    }

    fn answered(mut self) {
        self.is_answered = true;
        self.fates.answered.set(self.fates.answered.get().saturating_add(1));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_answered {
            // Whether it is idle now, the connection has to see.
            self.entry.wake();
        }
        if self.is_answered || self.timers.now_ms().saturating_sub(self.since_ms) > PREMATURE_MS {
            return;
        }
        let given_up = self.fates.given_up.get().saturating_add(1);
        self.fates.given_up.set(given_up);
        if given_up > GIVEN_UP && given_up > self.fates.answered.get() {
            self.entry.cut_now();
        }
    }
}
