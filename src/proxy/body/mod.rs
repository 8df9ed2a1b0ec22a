//! Bodies on their way: request bodies up, answer bodies down. Nothing is buffered whole.

mod download;
mod lent;
mod rest;
mod sending;
mod upload;
mod watched;

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

pub(crate) use self::download::{Download, DownloadParts};
pub(crate) use self::lent::{Lender, RequestBody, spawn_sending};
pub(crate) use self::sending::{SendError, Sending};
pub(crate) use self::upload::{Upload, UploadProgress};
pub(crate) use self::watched::Watched;
use super::timer::Timers;
use super::watch::KeyWatch;
use crate::framing::Fault;
use crate::reply::Failure;
use crate::wire::Floor;

/// What is expected of a client while a body is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyPatience {
    /// Longest pause.
    pub(super) stall: Duration,
    /// What it must move meanwhile.
    pub(super) floor: Floor,
}

impl BodyPatience {
    /// Pauses up to `stall`, and no fewer bytes a second than this over each such time; 0: any.
    pub(crate) fn new(stall: Duration, bytes_per_second: u64) -> Self {
        Self { stall, floor: Floor { bytes_per_second, window_ms: as_ms(stall) } }
    }

    /// The same for messages whose sides agree between themselves on how fast they come.
    pub(super) fn at_any_pace(self) -> Self {
        Self { floor: Floor { bytes_per_second: 0, ..self.floor }, ..self }
    }
}

/// Why a body stopped before its end. The text is for logs.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client's side failed or fell silent.
    Client(Failure),
    /// The client went away.
    ClientGone,
    /// The upstream's side failed, fell silent, or sent what has no single reading.
    Upstream(Failure),
    /// The key that admitted the request no longer holds.
    KeyGone,
    /// A bug of ours, caught.
    Panicked,
}

impl BodyError {
    /// The word in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Client(failure) | Self::Upstream(failure) => failure.code(),
            Self::ClientGone => "client_gone",
            Self::KeyGone => "key_gone",
            Self::Panicked => "internal_error",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(failure) => write!(f, "the client's body: {}", failure.code()),
            Self::ClientGone => f.write_str("the client went away"),
            Self::Upstream(failure) => write!(f, "the upstream's body: {}", failure.code()),
            Self::KeyGone => f.write_str("the key no longer holds"),
            Self::Panicked => f.write_str("a panic was caught"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What a client is told whose message has no single reading, or did not come in time.
pub(crate) fn failure_of(fault: Fault) -> Failure {
    match fault.status() {
        408 => Failure::RequestTimeout,
        414 => Failure::TargetTooLong,
        417 => Failure::ExpectationFailed,
        431 => Failure::HeadersTooLarge,
        _ => Failure::BadRequest { detail: fault.detail() },
    }
}

/// When to ask next whether the key still holds, on the worker's clock.
fn next_recheck(key: Option<&KeyWatch>, timers: &Timers) -> u64 {
    key.map_or(u64::MAX, |key| timers.now_ms().saturating_add(as_ms(key.interval())))
}

fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// An answer body as it goes to the client.
pub(crate) enum ReplyBody {
    /// There is none.
    Empty,
    /// One of ours, whole.
    Whole(Vec<u8>),
    /// One that streams from the upstream.
    Download(Box<Download>),
    /// The same over HTTP/2, where a client that takes nothing is seen by nobody but the sweeper: see [`Watched`].
    Watched(Rc<RefCell<Download>>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into())))),
            Self::Download(download) => download.poll_frame(cx),
            Self::Watched(download) => download.borrow_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Download(download) => download.is_end_stream(),
            Self::Watched(download) => download.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = |len: Option<u64>| len.map_or_else(SizeHint::default, SizeHint::with_exact);
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Download(download) => hint(download.exact_len()),
            Self::Watched(download) => hint(download.borrow().exact_len()),
        }
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}
