//! HTTP/1 with one client: request after request, until either side has had enough.
//!
//! One task does it all, from the first byte of a request to the last of its answer, the upstream's side included: no
//! queue and no other task stand between the two sockets.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;

use super::accept::Listener;
use super::worker::{Entry, WorkerState};
use crate::framing::{Fault, RequestHeads, RequestLimits, RequestRead, Version};
use crate::proxy::{
    Answer, Asked, ClientConnection, Engine, Forward, Length, ReplyBody, Step, TUNNEL_MEMORY, Waiting, failure_of,
    run_tunnel,
};
use crate::reply::Failure;
use crate::telemetry::{ConnectionGauge, ConnectionState};
use crate::wire::{Arrival, ClientWire, Outbox, Phase, Progress, Stream, push_chunk_end, push_chunk_head};

/// Serves one connection, of which `read` was read already, its first byte at this millisecond, to its end.
pub(super) async fn serve(
    stream: Stream,
    peer: Option<IpAddr>,
    (read, begun_ms): (Vec<u8>, u64),
    listener: &Arc<Listener>,
    worker: &Rc<WorkerState>,
    gauge: &ConnectionGauge,
) {
    let limits = worker.limits.load_full();
    let bounds = RequestLimits {
        head_bytes: limits.head_bytes,
        head_fields: limits.head_fields,
        target_bytes: limits.target_bytes,
    };
    let progress = Rc::new(Progress::new(worker.engine.timers.clock()));
    if !read.is_empty() {
        progress.head_began(begun_ms);
    }
    let is_tls = stream.is_tls();
    let entry = worker.register(Entry {
        progress: Some(Rc::clone(&progress)),
        leaving: listener.leaving(),
        ..Entry::default()
    });
    let client = Rc::new(listener.client(peer, is_tls, None, Rc::default(), &worker.draining));
    let buffers = Rc::clone(&worker.engine.buffers);
    let wire = ClientWire::new(stream, &read, Rc::clone(&progress), buffers);
    drop(read);
    let engine = Rc::clone(&worker.engine);
    let ended = {
        let connection = Connection { wire: &wire, client: &client, engine: &engine, gauge };
        let mut run = std::pin::pin!(connection.run(RequestHeads::new(bounds)));
        std::future::poll_fn(|cx| {
            progress.served_by(cx);
            run.as_mut().poll(cx)
        })
        .await
    };
    match ended {
        End::Close(refusal) => Box::pin(wire.close(refusal)).await,
        End::Tunnel(pending) => {
            gauge.set(ConnectionState::Tunnel);
            // Nobody else holds the wire: the answer is out, and a request that may become a tunnel has no body.
            if let Some((stream, read)) = wire.into_stream() {
                let _held = worker.memory.own.hold(TUNNEL_MEMORY);
                Box::pin(run_tunnel(stream, read, *pending, Rc::clone(&engine.timers))).await;
            }
        }
    }
    drop(entry);
}

/// How many requests of a client that sends them without waiting are answered until others of its worker have their turn.
const IN_A_ROW: u32 = 16;

/// How HTTP ends on a connection.
enum End {
    /// With a last answer to a message that could not be read, or without a word.
    Close(Option<Bytes>),
    /// With an upgrade.
    Tunnel(Box<crate::proxy::PendingTunnel>),
}

struct Connection<'a> {
    wire: &'a Rc<ClientWire>,
    client: &'a Rc<ClientConnection>,
    engine: &'a Rc<Engine>,
    gauge: &'a ConnectionGauge,
}

/// What the writing of an answer needs to know of its request.
struct Manner {
    is_head: bool,
    version: Version,
    /// Whether the client goes on using the connection.
    persists: bool,
    says_keep_alive: bool,
}

impl Connection<'_> {
    async fn run(self, mut heads: RequestHeads) -> End {
        let mut in_a_row = 0;
        loop {
            in_a_row += 1;
            let arrival = std::future::poll_fn(|cx| {
                let arrival = self.wire.poll_request(cx, &mut heads);
                if arrival.is_pending() {
                    in_a_row = 0;
                }
                let is_idle = self.wire.progress().phase() == Phase::Idle;
                self.gauge.set(if is_idle { ConnectionState::Idle } else { ConnectionState::Active });
                arrival
            })
            .await;
            let read = match arrival {
                Arrival::Request(read) => read,
                Arrival::Refused(fault) => return End::Close(Some(self.refusal(fault))),
                Arrival::Ended => return End::Close(None),
            };
            if let Some(end) = self.exchange(read).await {
                return end;
            }
            if in_a_row >= IN_A_ROW {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// What a client is sent whose message has no single reading: a whole answer that ends the connection.
    fn refusal(&self, fault: Fault) -> Bytes {
        self.engine.refuse_unread(failure_of(fault))
    }

    /// Answers one request. None when the next may come.
    async fn exchange(&self, read: RequestRead) -> Option<End> {
        let mut step = self.step(&read, None);
        while let Ok((_, Ok(Step::Wait(mut waiting)))) = step {
            Box::pin(waiting.over()).await;
            step = self.step(&read, Some(waiting));
        }
        let RequestRead { len, body, expects_continue, version, persists, says_keep_alive, .. } = read;
        self.wire.enter_body(len, body, expects_continue);
        let (is_head, begun) = match step {
            Ok(step) => step,
            Err(failure) => return Some(End::Close(Some(self.engine.refuse_unread(failure)))),
        };
        let mut manner = Manner { is_head, version, persists, says_keep_alive };
        let answer = match begun {
            Ok(Step::Answered(answer)) => answer,
            Ok(Step::Forward(forward)) => match self.forward(forward).await {
                Forwarded::Answer(answer) => answer,
                Forwarded::Panicked => self.panicked(&mut manner),
                Forwarded::ClientGone => return Some(End::Close(None)),
            },
            // Whoever waits has been waited for.
            Ok(Step::Wait(_)) | Err(_) => self.panicked(&mut manner),
        };
        self.answer(answer, manner).await
    }

    /// What becomes of the request at hand without waiting, or after it has waited; and whether it is a HEAD.
    fn step(
        &self,
        read: &RequestRead,
        waiting: Option<Box<Waiting>>,
    ) -> Result<(bool, std::thread::Result<Step>), Failure> {
        self.wire.with_head(|head, fields| {
            let asked = Asked::h1(head, fields, read, self.wire)?;
            let is_head = asked.method == http::Method::HEAD;
            let begun = std::panic::catch_unwind(AssertUnwindSafe(|| match waiting {
                None => self.engine.begin(self.client, asked),
                Some(waiting) => waiting.resume(asked),
            }));
            Ok((is_head, begun))
        })
    }

    /// A panic costs this request alone, and the connection it came over.
    fn panicked(&self, manner: &mut Manner) -> Answer {
        manner.persists = false;
        self.engine.internal_error()
    }

    async fn forward(&self, forward: Box<Forward>) -> Forwarded {
        // Boxed, so that an idle connection does not hold the place.
        let mut running = Box::pin(AssertUnwindSafe(forward.run()).catch_unwind());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = running.as_mut().poll(cx) {
                return Poll::Ready(answer.map_or(Forwarded::Panicked, Forwarded::Answer));
            }
            self.wire.poll_gone(cx).map(|()| Forwarded::ClientGone)
        })
        .await
    }

    /// Writes an answer. None when the next request may come.
    async fn answer(&self, mut answer: Answer, manner: Manner) -> Option<End> {
        let ends_with_head = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let may_have_body = !manner.is_head && !ends_with_head && answer.tunnel.is_none();
        let is_chunked = may_have_body && answer.length == Length::Unknown && manner.version == Version::Http11;
        let ends_with_connection = may_have_body && answer.length == Length::Unknown && !is_chunked;
        // An answer to a request whose body is not read: nobody will, or not before the answer is over.
        let leaves_body = !self.wire.is_body_over();
        let persists = manner.persists && !ends_with_connection && !leaves_body && !self.client.is_leaving();
        let tunnel = answer.tunnel.take();
        let exchange = answer.exchange.take();
        let connection: &[u8] = match (persists, &tunnel, manner.version) {
            (_, Some(_), _) => b"",
            (false, None, _) => b"connection: close\r\n",
            (true, None, Version::Http10) if manner.says_keep_alive => b"connection: keep-alive\r\n",
            (true, None, _) => b"",
        };
        let head = self.head(&answer, is_chunked, connection);
        self.engine.buffers.take_back_out(answer.lines.into_memory());
        let (body, mut unsaid) =
            if may_have_body { (answer.body, ReplyBody::Empty) } else { (ReplyBody::Empty, answer.body) };
        let mut writing = Writing { out: Outbox::new(head), body, is_chunked, is_over: false, is_broken: false };
        let mut is_kept = false;
        let written = std::future::poll_fn(|cx| {
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| writing.poll(cx, self.wire)));
            if let (Ok(Poll::Pending), ReplyBody::Download(download)) = (&polled, &writing.body) {
                self.wire.progress().keep_from(download.held_up().map(Rc::clone));
                is_kept = true;
            }
            polled.unwrap_or_else(|_| {
                if let ReplyBody::Download(download) = &mut writing.body {
                    download.panicked();
                }
                Poll::Ready(Err(Cut))
            })
        })
        .await;
        if is_kept {
            self.wire.progress().keep_from(None);
        }
        if written.is_ok()
            && let ReplyBody::Download(download) = if may_have_body { &mut writing.body } else { &mut unsaid }
        {
            std::future::poll_fn(|cx| download.poll_rest(cx)).await;
        }
        if let Some(exchange) = exchange {
            self.engine.afterwards.end(exchange);
        }
        self.engine.buffers.take_back_out(writing.out.into_memory());
        if let ReplyBody::Whole(bytes) = writing.body {
            self.engine.buffers.take_back_out(bytes);
        }
        match (written, tunnel) {
            (Ok(()), Some(pending)) => Some(End::Tunnel(pending)),
            // What an upstream left of the body unread, nobody reads any more.
            (Ok(()), None) if persists && self.wire.is_body_over() => None,
            (Ok(()), None) => Some(End::Close(None)),
            (Err(Cut), _) => {
                self.wire.progress().drop_connection();
                Some(End::Close(None))
            }
        }
    }

    /// The head of an answer (RFC 9112 §4, RFC 9110 §6.6.1).
    fn head(&self, answer: &Answer, is_chunked: bool, connection: &[u8]) -> Vec<u8> {
        let mut head = self.engine.buffers.out();
        push_status_line(&mut head, answer.status, answer.reason.as_deref());
        head.extend_from_slice(answer.lines.as_bytes());
        let mut lines = crate::domain::FieldLines::continuing(head);
        if !answer.has_date {
            self.engine.timers.with_date_line(|line| lines.push_line(line));
        }
        match answer.length {
            Length::Exact(length) => lines.push_number(b"content-length", length),
            Length::Unknown if is_chunked => lines.push(b"transfer-encoding", b"chunked"),
            Length::Unknown | Length::Absent => {}
        }
        let mut head = lines.into_memory();
        head.extend_from_slice(connection);
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// RFC 9112 §4.
fn push_status_line(head: &mut Vec<u8>, status: StatusCode, reason: Option<&[u8]>) {
    match (status, reason) {
        (StatusCode::OK, None) => head.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        (StatusCode::UNAUTHORIZED, None) => head.extend_from_slice(b"HTTP/1.1 401 Unauthorized\r\n"),
        (status, reason) => {
            let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
            head.extend_from_slice(b"HTTP/1.1 ");
            head.extend_from_slice(status.as_str().as_bytes());
            head.push(b' ');
            head.extend_from_slice(reason.unwrap_or_else(usual));
            head.extend_from_slice(b"\r\n");
        }
    }
}

/// What became of a request that was sent on.
enum Forwarded {
    Answer(Answer),
    Panicked,
    ClientGone,
}

/// The answer broke off: only the end of the connection can say so.
struct Cut;

/// An answer that is being written.
struct Writing {
    out: Outbox,
    body: ReplyBody,
    is_chunked: bool,
    /// Whether the end of the body is among what is to be written.
    is_over: bool,
    /// Whether there will be no more of it: what came before still goes out.
    is_broken: bool,
}

/// Data up to this many bytes goes out together with what stands before it; copying it costs less than sending twice.
const COPIED: usize = 16 * 1024;

impl Writing {
    fn poll(&mut self, cx: &mut Context<'_>, wire: &ClientWire) -> Poll<Result<(), Cut>> {
        loop {
            self.gather(cx);
            if let ReplyBody::Download(download) = &mut self.body {
                // The client may have to be heard before it listens.
                let drained = wire.poll_write(cx, &mut self.out);
                if drained.is_pending() {
                    let _sent = download.poll_sending(cx);
                }
                ready!(drained).map_err(|_| Cut)?;
            } else {
                ready!(wire.poll_write(cx, &mut self.out)).map_err(|_| Cut)?;
            }
            if self.is_over {
                return wire.poll_flush(cx).map_err(|_| Cut);
            }
            if self.is_broken {
                ready!(wire.poll_flush(cx)).map_err(|_| Cut)?;
                return Poll::Ready(Err(Cut));
            }
            ready!(self.poll_more(cx, wire))?;
        }
    }

    /// Adds what there is of the body to what is to be written anyway.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while !self.is_over && !self.is_broken && !self.out.is_empty() && self.out.left().len() < COPIED {
            match &mut self.body {
                ReplyBody::Empty | ReplyBody::Watched(_) => self.is_over = true,
                ReplyBody::Whole(bytes) => {
                    self.out.tail().extend_from_slice(bytes);
                    self.is_over = true;
                }
                ReplyBody::Download(download) => match download.poll_data(cx) {
                    Poll::Ready(Ok(Some(len))) if len > COPIED => break,
                    Poll::Ready(Ok(Some(_))) => {
                        add_data(self.out.tail(), download, self.is_chunked);
                        self.is_over = download.is_done() && !self.is_chunked;
                    }
                    Poll::Ready(Ok(None)) => {
                        if self.is_chunked {
                            push_chunk_end(self.out.tail());
                        }
                        self.is_over = true;
                    }
                    Poll::Ready(Err(_)) => self.is_broken = true,
                    Poll::Pending => break,
                },
            }
        }
    }

    /// Waits for more of the body, once nothing is left to be written.
    fn poll_more(&mut self, cx: &mut Context<'_>, wire: &ClientWire) -> Poll<Result<(), Cut>> {
        let ReplyBody::Download(download) = &mut self.body else {
            self.is_over = true;
            return Poll::Ready(Ok(()));
        };
        let polled = if !self.is_chunked && wire.takes_pipes() {
            download.poll_data_to_pass(cx)
        } else {
            download.poll_data(cx)
        };
        let Poll::Ready(data) = polled else {
            // Whatever TLS holds back must go before the upstream is waited for.
            if wire.poll_flush(cx).map_err(|_| Cut)?.is_ready() {
                ready!(wire.poll_gone(cx));
                return Poll::Ready(Err(Cut));
            }
            return Poll::Pending;
        };
        match data.map_err(|_| Cut)? {
            Some(_) if self.is_chunked => add_data(self.out.tail(), download, true),
            Some(_) => {
                let written = download.poll_pass(cx, wire);
                if written.is_pending() {
                    let _sent = download.poll_sending(cx);
                }
                if ready!(written).map_err(|_| Cut)? == 0 {
                    return Poll::Ready(Err(Cut));
                }
                self.is_over = download.is_done();
            }
            None => {
                if self.is_chunked {
                    push_chunk_end(self.out.tail());
                }
                self.is_over = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves the data at hand to `out`, as a chunk of its own where the body goes out in chunks.
fn add_data(out: &mut Vec<u8>, download: &mut crate::proxy::Download, is_chunked: bool) {
    download.take(|data, taken| {
        *taken = data.len();
        if is_chunked {
            push_chunk_head(out, data.len());
        }
        out.extend_from_slice(data);
        if is_chunked {
            out.extend_from_slice(b"\r\n");
        }
    });
}
