//! What an origin writes down about each request, and how its body is written down as it is read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::origin::Shared;
use crate::stream::{BodyError, is_pattern};

/// How much of each request body is kept; the rest is only counted.
const KEPT_BODY: usize = 1 << 20;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came over, counted from 1.
    pub connection: u64,
    /// Its method.
    pub method: String,
    /// Its target: path and query, byte for byte.
    pub target: String,
    /// What it calls the server: `Host` or `:authority`.
    pub host: String,
    /// The version it was spoken in.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// The first MiB of its body.
    pub body: Bytes,
    /// How long the body was.
    pub body_bytes: u64,
    /// Whether every byte of it was the known pattern.
    pub body_is_pattern: bool,
    /// Its trailers.
    pub trailers: HeaderMap,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Recorded {
    /// What is known when the head is there.
    pub(crate) fn begun(connection: u64, parts: &http::request::Parts, target: String, host: String) -> Self {
        Self {
            connection,
            method: parts.method.to_string(),
            target,
            host,
            version: parts.version,
            headers: parts.headers.clone(),
            body: Bytes::new(),
            body_bytes: 0,
            body_is_pattern: true,
            trailers: HeaderMap::new(),
            complete: false,
        }
    }

    /// A field's only value as text.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.header_all(name);
        assert!(all.len() <= 1, "{name} came more than once: {all:?}");
        all.first().copied()
    }

    /// All values of a field.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("fields of tests are ASCII")).collect()
    }

    /// Whether any field has this name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request body that is written down as it is read.
pub(crate) struct Recording {
    inner: Incoming,
    shared: Arc<Shared>,
    index: usize,
    kept: BytesMut,
    bytes: u64,
}

impl Recording {
    pub(crate) fn of(inner: Incoming, shared: Arc<Shared>, index: usize) -> Self {
        Self { inner, shared, index, kept: BytesMut::new(), bytes: 0 }
    }

    fn data(&mut self, piece: &Bytes) {
        let fits = is_pattern(self.bytes, piece);
        self.bytes += piece.len() as u64;
        let room = KEPT_BODY.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece[..room]);
        self.shared.note(self.index, |recorded| {
            recorded.body_bytes = self.bytes;
            recorded.body_is_pattern &= fits;
        });
    }

    fn trailers(&self, trailers: &HeaderMap) {
        self.shared.check_trailers(trailers);
        self.shared.note(self.index, |recorded| recorded.trailers = trailers.clone());
    }

    fn end(&mut self) {
        let kept = self.kept.split().freeze();
        self.shared.note(self.index, |recorded| {
            if !recorded.complete {
                recorded.body = kept;
                recorded.complete = true;
            }
        });
    }
}

impl Body for Recording {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    self.data(piece);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers(trailers);
                }
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // Polled to the end on purpose, so that the end is written down.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
